package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// Every kind of fault happens in one run, and breaks what it is to break. Those of PostgreSQL's servers keep each other off, and
// have TestFailover, those of disks TestFullDisks.
func TestEachFault(t *testing.T) {
	t.Parallel()
	c := start(t)
	servers := []Kind{RestartPostgres, CrashPostgres, FailOver, FailOverLagging, FailOverCancelled, LeadBack, CutReplication, SlowReplication, RestartStandby, FullS3Disk, FullPostgresDisk}
	var faults []Fault
	for i, kind := range chances {
		if slices.Contains(servers, kind.kind) {
			continue
		}
		// The amount makes a clock go wrong by minutes, and spoils each request to S3.
		faults = append(faults, Fault{At: time.Duration(len(faults)) * 300 * ms, For: 850 * ms, Kind: kind.kind, Node: i % Nodes, Amount: 799})
	}
	figures := round(t, c, Options{Seed: 501, Time: time.Duration(len(faults)+2) * 300 * ms, Clients: *chaosClients, Faults: faults})
	for _, f := range faults {
		if figures.Faults[f.Kind] == 0 {
			t.Errorf("it was to be that %s", f.Kind)
		}
	}
	t.Log(figures)
	spoiled := 0 // how each is, TestGateway shows
	for _, n := range c.Nodes {
		for m := Fails; m < mischiefs; m++ {
			spoiled += n.Gateway.Count(m)
		}
	}
	if spoiled == 0 {
		t.Error("no request to S3 was spoiled")
	}
}

// A newer schema comes while nodes of the release before work, and they go on with it; then they are replaced one after
// the other. Clients notice no more than that connections end.
func TestRollingUpgrade(t *testing.T) {
	t.Parallel()
	changes, err := NextRelease(1, false)
	if err != nil {
		t.Fatal(err)
	}
	next := filepath.Join(t.TempDir(), "starling")
	if err := Build(t.Context(), next, *chaosRace, append(Clocked(), changes...)...); err != nil {
		t.Fatal(err)
	}
	c := start(t)
	now := c.Nodes[0].path
	figures := round(t, c, Options{Seed: 601, Time: 8 * time.Second, Clients: *chaosClients, Faults: []Fault{}, Meanwhile: func(ctx context.Context) error {
		ctx = context.WithoutCancel(ctx) // what began is done to its end
		const breath = 700 * ms
		pause(ctx, breath)
		if said, err := c.Nodes[0].Command(ctx, next, "migrate"); err != nil {
			return fmt.Errorf("migrate: %w\n%s", err, said)
		}
		pause(ctx, breath)
		for _, n := range c.Nodes {
			if err := n.ready(ctx); err != nil {
				return fmt.Errorf("with a newer schema: %w", err)
			}
		}
		for _, n := range c.Nodes {
			if err := n.Upgrade(ctx, next); err != nil {
				return err
			}
			pause(ctx, breath)
		}
		return c.Nodes[1].Upgrade(ctx, now) // and one goes back
	}})
	if figures.Commands[command("APPEND", OK)] == 0 || figures.Commands[command("LMTP", OK)] == 0 {
		t.Errorf("nothing was done meanwhile: %v", figures)
	}
}
