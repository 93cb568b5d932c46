package chaos

import (
	"errors"
	"path/filepath"
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

// A node that has seen the new primary is led back to the old one, which lives on: it takes nothing from there and tells it nothing, and no
// client hears an untruth. A program without that is found out.
func TestPast(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	c := start(t)
	if err := c.AddStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	figures := round(t, c, Options{Seed: 801, Time: 12 * time.Second, Clients: *chaosClients, Faults: []Fault{
		{At: 300 * ms, For: 6 * time.Second, Kind: LeadBack, Node: 0, Amount: 1}, // a node asks for PostgreSQL every 5 s, whatever clients do
		{At: 10 * time.Second, For: 1200 * ms, Kind: LeadBack, Node: 1},
	}})
	t.Log(figures)
	if figures.Faults[LeadBack] == 0 {
		t.Error("no node was led back")
	}
	refused := 0.0
	for _, n := range c.Nodes {
		more, err := n.Figure(t.Context(), "starling_postgres_past_refused_total")
		if err != nil {
			t.Fatal(err)
		}
		refused += more
	}
	if refused == 0 {
		t.Error("nobody met the old primary")
	}

	path := filepath.Join(t.TempDir(), "believing")
	if err := Build(t.Context(), path, false, append(Clocked(),
		Change{File: "metadata/epoch.go", Old: "	if epoch == seen {\n", New: "	if epoch <= seen {\n"},
		Change{File: "metadata/epoch.go", Old: "return known && epoch < e.seen.Load()", New: "return false && known && epoch < 0"},
		Change{File: "metadata/commit.go", Old: "Seen.Epoch < db.SeenEpoch()", New: "Seen.Epoch < 0"},
	)...); err != nil {
		t.Fatal(err)
	}
	c = startOf(t, path)
	if err := c.AddStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	for begin, seed := time.Now(), uint64(802); time.Since(begin) < time.Minute; seed++ {
		r, _, err := c.Run(t.Context(), Options{
			Seed: seed, Time: 5 * time.Second, Clients: 9, Patience: 3 * time.Second,
			Faults: []Fault{{At: 300 * ms, For: 2500 * ms, Kind: LeadBack}},
		})
		switch {
		case errors.Is(err, errPast):
			t.Logf("found after %.1f s: %v", time.Since(begin).Seconds(), err)
			return
		case err != nil:
			t.Fatal(err)
		}
		if found := Check(r); len(found) > 0 {
			t.Logf("found after %.1f s: %v", time.Since(begin).Seconds(), found[0])
			return
		}
	}
	t.Error("a program that believes the old primary is not found out")
}
