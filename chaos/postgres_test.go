package chaos

import (
	"testing"
	"time"
)

// After a failover to a synchronous standby everything that was acknowledged is there, several times in a row, and
// nodes go on by themselves, also if waits for the standby were cancelled. A standby that lagged has lost what it has not had, and nothing else: no number
// that was given out for it is ever given out, or shown, again.
func TestFailover(t *testing.T) {
	t.Parallel()
	c := start(t)
	if err := c.AddStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	const ms = time.Millisecond
	for _, o := range []Options{
		{Seed: 301, Time: 6 * time.Second, Faults: []Fault{
			{At: 500 * ms, Kind: FailOver},
			{At: 3500 * ms, For: 300 * ms, Kind: RestartStandby},
			{At: 4500 * ms, Kind: FailOver},
		}},
		{Seed: 302, Time: 6 * time.Second, Faults: []Fault{
			{At: 500 * ms, Kind: FailOverLagging, Amount: 700},
			{At: 4 * time.Second, Kind: FailOverLagging, Amount: 300},
		}},
		{Seed: 303, Time: 6 * time.Second, Faults: []Fault{
			{At: 500 * ms, Kind: FailOverCancelled, Amount: 700},
			{At: 4 * time.Second, Kind: FailOverCancelled, Amount: 300},
		}},
	} {
		o.Clients = *chaosClients
		figures := round(t, c, o)
		t.Log(figures)
	}
}
