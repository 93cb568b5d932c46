package chaos

import (
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"starling/metadata/postgres"
)

var (
	chaosSeed    = flag.Uint64("chaos.seed", 0, "seed of TestChaos; 0: a few that are fixed")
	chaosTime    = flag.Duration("chaos.time", 0, "how long TestChaos goes on with seeds that follow from -chaos.seed")
	chaosRound   = flag.Duration("chaos.round", 20*time.Second, "how long things break before all is compared, with -chaos.time")
	chaosProgram = flag.String("chaos.program", "", "the program under test; empty: it is built")
	chaosRace    = flag.Bool("chaos.race", false, "build it with the race detector")
	chaosClients = flag.Int("chaos.clients", 9, "clients of TestChaos")
)

// start builds the program and starts a cluster of it; see Start for env.
func start(t *testing.T, env ...string) *Cluster {
	t.Helper()
	return startOf(t, program(t), env...)
}

// program is the program under test, which is built if it was not named.
func program(t *testing.T) string {
	t.Helper()
	if *chaosProgram != "" {
		return *chaosProgram
	}
	path := filepath.Join(t.TempDir(), "starling")
	build(t, path)
	return path
}

// startOf starts a cluster of a program.
func startOf(t *testing.T, path string, env ...string) *Cluster {
	t.Helper()
	return startIn(t, newDir(t), path, false, env...)
}

// newDir makes a folder for a cluster.
func newDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "starling-chaos-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // PostgreSQL's user passes through
		t.Fatal(err)
	}
	return dir
}

// startIn starts a cluster of a program with its data in a folder.
func startIn(t *testing.T, dir, path string, small bool, env ...string) *Cluster {
	t.Helper()
	if _, err := postgres.Find(t.Context(), ""); errors.Is(err, postgres.ErrNotInstalled) {
		t.Skip(err)
	}
	c, err := Start(t.Context(), path, dir, small, env...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func build(t *testing.T, path string) {
	t.Helper()
	if err := Build(t.Context(), path, *chaosRace, Clocked()...); err != nil {
		t.Fatal(err)
	}
}

// round makes one run and checks it.
func round(t *testing.T, c *Cluster, o Options) Figures {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), o.Time+3*time.Minute)
	defer cancel()
	begin := time.Now()
	r, figures, err := c.Run(ctx, o)
	unwell := err != nil
	if err != nil {
		t.Errorf("seed %d: %v", o.Seed, err)
	} else {
		t.Logf("seed %d: %d operations in %.1f s", o.Seed, len(r.Ops), time.Since(begin).Seconds())
		for i, v := range Check(r) {
			if i == 5 {
				t.Error("and more")
				break
			}
			t.Errorf("seed %d: %v\n%s", o.Seed, v, r.Excerpt(v))
		}
	}
	for _, n := range c.Nodes {
		said := n.Said()
		for _, bad := range []string{"DATA RACE", "panic"} {
			if strings.Contains(said, bad) {
				unwell = true
				t.Errorf("seed %d: node %d had to say %s", o.Seed, n.No, bad)
			}
		}
		if unwell {
			t.Logf("the last that node %d said:\n%s", n.No, said[max(0, len(said)-5000):])
		}
	}
	if t.Failed() {
		var faults []string
		if o.Faults == nil {
			o.Faults = Schedule(o.Seed, o.Time)
		}
		for _, f := range o.Faults {
			faults = append(faults, f.String())
		}
		t.Fatalf("with -chaos.seed %d, whose faults were to be:\n%s", o.Seed, strings.Join(faults, "\n"))
	}
	return figures
}

// Clients on three nodes change the same mailboxes while nodes, PostgreSQL, NATS, S3 and the links between them break.
// Nothing acknowledged is lost, nothing is done by half, and no client is told an untruth.
func TestChaos(t *testing.T) {
	t.Parallel()
	dir, small := newDir(t), *chaosTime > 0 // in a short run no disk is filled, that is TestFullDisks' part
	if small {
		if err := CanFill(dir); err != nil {
			t.Logf("no disk is filled, as that takes root, and a container in which it may mount: %v", err)
			small = false
		}
	}
	c := startIn(t, dir, program(t), small)
	if err := c.AddStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	var sum Figures
	if *chaosTime == 0 {
		seeds := []uint64{1, 2}
		if *chaosSeed != 0 {
			seeds = []uint64{*chaosSeed}
		}
		for _, seed := range seeds {
			sum.Add(round(t, c, Options{Seed: seed, Time: 5 * time.Second, Clients: *chaosClients}))
		}
	}
	for begin, seed := time.Now(), max(*chaosSeed, 1); time.Since(begin) < *chaosTime; seed++ {
		sum.Add(round(t, c, Options{Seed: seed, Time: *chaosRound, Clients: *chaosClients}))
	}
	t.Log(sum)
}

// A schedule is the same for the same seed, differs from others, and has all kinds of faults if it is long.
func TestSchedule(t *testing.T) {
	t.Parallel()
	one, again, other := Schedule(1, time.Hour), Schedule(1, time.Hour), Schedule(2, time.Hour)
	if !reflect.DeepEqual(one, again) || reflect.DeepEqual(one, other) {
		t.Error("the seed does not decide")
	}
	kinds := make(map[Kind]int)
	for _, f := range one {
		kinds[f.Kind]++
	}
	for _, c := range chances {
		if kinds[c.kind] == 0 {
			t.Errorf("never %s", c.kind)
		}
	}
	if len(kinds) != len(chances) {
		t.Errorf("%d kinds", len(kinds))
	}
}
