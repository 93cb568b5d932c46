package chaos

import (
	"bytes"
	"cmp"
	"context"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"starling/blobstore"
)

// planted is a bug that a server could have, made by changing what goes over the network.
type planted struct {
	name  string
	rules []Rule // one of them is found broken
	plant func(ctx context.Context, t *testing.T, c *Cluster)
}

// inStatements changes the text of SQL statements on their way to PostgreSQL; both texts have one length, as the message
// around them says how long it is.
func inStatements(t *testing.T, c *Cluster, changes ...string) {
	t.Helper()
	for i := 0; i < len(changes); i += 2 {
		if len(changes[i]) != len(changes[i+1]) {
			t.Fatalf("%q and %q differ in length", changes[i], changes[i+1])
		}
	}
	for _, n := range c.Nodes {
		n.Links.Postgres.Rewrite(Up, func(piece []byte) []byte {
			for i := 0; i < len(changes); i += 2 {
				piece = bytes.ReplaceAll(piece, []byte(changes[i]), []byte(changes[i+1]))
			}
			return piece
		})
	}
}

var plants = []planted{
	{"none", nil, func(context.Context, *testing.T, *Cluster) {}},
	{"a VANISHED that is not told", []Rule{Sequence, SameForAll, ReadsOK}, func(_ context.Context, _ *testing.T, c *Cluster) {
		vanish := regexp.MustCompile(`(?m)^\* VANISHED [0-9:,]+\r\n`)
		c.Nodes[1].Links.Clients.Rewrite(Down, func(piece []byte) []byte { return vanish.ReplaceAll(piece, nil) })
	}},
	{"an EXISTS that is not told", []Rule{Sequence, SameForAll, ReadsOK}, func(_ context.Context, _ *testing.T, c *Cluster) {
		exists := regexp.MustCompile(`(?m)^\* [0-9]+ EXISTS\r\n`)
		c.Nodes[1].Links.Clients.Rewrite(Down, func(piece []byte) []byte {
			if bytes.Contains(piece, []byte("UIDVALIDITY")) { // SELECT is answered as it should be
				return piece
			}
			return exists.ReplaceAll(piece, nil)
		})
	}},
	{"a commit that does not look whether others were faster", []Rule{NothingLost, NothingBack, UIDOnce, ModSeqOnce, ReadsOK, Counters}, func(_ context.Context, t *testing.T, c *Cluster) {
		inStatements(t, c,
			"m.modseq = ($3::bigint[])[1]", "($3::bigint[])[1] >= 0      ",
			"m.stamp = ($4::bigint[])[1]", "($4::bigint[])is not null  ",
			"and modseq = $3::bigint and stamp = $4::bigint", "and $3::bigint >= 0 and $4::bigint is not null")
	}},
	{"a quota that is not given back", []Rule{Counters}, func(_ context.Context, t *testing.T, c *Cluster) {
		inStatements(t, c, "set bytes = q.bytes + $11::bigint", "set bytes = q.bytes - $11::bigint")
	}},
	{"objects that are deleted early", []Rule{Objects, Bytes}, func(ctx context.Context, t *testing.T, c *Cluster) {
		before := keys(ctx, t, c)
		var deleting sync.WaitGroup
		t.Cleanup(deleting.Wait)
		deleting.Go(func() {
			for pause(ctx, 100*time.Millisecond); ctx.Err() == nil; pause(ctx, 100*time.Millisecond) {
				fresh := slices.DeleteFunc(keys(ctx, t, c), func(k blobstore.Key) bool { return slices.Contains(before, k) })
				if len(fresh) == 0 {
					continue
				}
				if err := c.Blobs.Delete(ctx, fresh[rand.IntN(len(fresh))]); err != nil && ctx.Err() == nil { //nolint:gosec // any will do
					t.Error(err)
				}
			}
		})
	}},
	{"a client that comes back is not told what vanished", []Rule{Sequence, SameForAll, ReadsOK}, func(_ context.Context, _ *testing.T, c *Cluster) {
		earlier := regexp.MustCompile(`(?m)^\* VANISHED \(EARLIER\) [0-9:,]+\r\n`)
		for _, n := range c.Nodes {
			n.Links.Clients.Rewrite(Down, func(piece []byte) []byte { return earlier.ReplaceAll(piece, nil) })
		}
	}},
	{"a search that leaves the first message out", []Rule{Searches}, func(_ context.Context, _ *testing.T, c *Cluster) {
		first := regexp.MustCompile(`(?m)^(\* ESEARCH .* ALL )\d+,`)
		c.Nodes[2].Links.Clients.Rewrite(Down, func(piece []byte) []byte { return first.ReplaceAll(piece, []byte("$1")) })
	}},
	{"a rename that leaves the children behind", []Rule{Lists}, func(_ context.Context, t *testing.T, c *Cluster) {
		inStatements(t, c, "m.name < $2::text || '0'", "m.name < $2::text || '!'")
	}},
	{"a delivery that is not known again", []Rule{Once}, func(ctx context.Context, t *testing.T, c *Cluster) {
		if _, err := c.primary.Exec(ctx, `
create function forget() returns trigger language plpgsql as $$ begin
	new.digest := sha256(random()::text::bytea);
	return new;
end $$;
create trigger forget before insert on delivery for each row execute function forget()`); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := c.primary.Exec(context.Background(), "drop trigger forget on delivery"); err != nil {
				t.Error(err)
			}
		})
		for _, n := range c.Nodes { // its taking is answered as if it had failed, now and then
			var answers atomic.Int32
			n.Links.LMTP.Rewrite(Down, func(piece []byte) []byte {
				if bytes.Contains(piece, []byte("250 2.0.0 <")) && answers.Add(1)%2 == 0 {
					return bytes.Replace(piece, []byte("250 2.0.0 <"), []byte("451 4.0.0 <"), 1)
				}
				return piece
			})
		}
	}},
	{"a body with a wrong octet", []Rule{Bytes}, func(_ context.Context, _ *testing.T, c *Cluster) {
		c.Nodes[0].Links.Clients.Rewrite(Down, func(piece []byte) []byte {
			return bytes.ReplaceAll(piece, []byte("From: client@example.org"), []byte("From: Client@example.org"))
		})
	}},
}

// keys are the objects that are there.
func keys(ctx context.Context, t *testing.T, c *Cluster) []blobstore.Key {
	t.Helper()
	var keys []blobstore.Key
	for info, err := range c.Blobs.List(ctx, "", "") {
		if err != nil && ctx.Err() == nil {
			t.Error(err)
		}
		if err == nil {
			keys = append(keys, info.Key)
		}
	}
	return keys
}

// The checker finds each of these bugs within a minute, with nothing else broken, and nothing where there is none.
func TestPlantedBugs(t *testing.T) {
	t.Parallel()
	c := start(t, "STARLING_MAIL_SWEEP=10m") // which would mend in time what hints do not tell
	for i, p := range plants {
		t.Run(p.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			p.plant(ctx, t, c)
			begin, found := time.Now(), false
			for seed := uint64(100 + 100*i); !found && time.Since(begin) < time.Minute; seed++ { //nolint:gosec // small
				r, _, err := c.Run(ctx, Options{Seed: seed, Time: 1500 * time.Millisecond, Clients: 9, Faults: []Fault{}, Patience: 3 * time.Second})
				found = p.found(t, r, err)
				if p.rules == nil {
					found = true // that there is nothing
				}
			}
			cancel()
			for _, n := range c.Nodes {
				for _, proxy := range n.Links.all() {
					proxy.Rewrite(Up, nil)
					proxy.Rewrite(Down, nil)
					proxy.Cut(false) // statements prepared on a connection stay as they were
				}
			}
			if !found {
				t.Error("not found")
			}
			t.Logf("%.1f s", time.Since(begin).Seconds())
		})
	}
}

// found says whether a run shows the bug.
func (p *planted) found(t *testing.T, r *Run, err error) bool {
	t.Helper()
	if err != nil && slices.Contains(p.rules, UIDOnce) && strings.Contains(err.Error(), "after all is mended") {
		t.Logf("found: with all mended, what it left behind refuses new mail: %v", err)
		return true
	}
	if err != nil {
		t.Fatal(err)
	}
	violations := Check(r)
	if p.rules == nil && len(violations) > 0 {
		t.Fatalf("found %v", violations)
	}
	i := slices.IndexFunc(violations, func(v Violation) bool { return slices.Contains(p.rules, v.Rule) })
	if i >= 0 {
		t.Logf("found: %v", violations[i])
	}
	return i >= 0
}

// early is a program that publishes its hints before it commits: others look too early, and nobody has them look again.
var early = []Change{
	{
		File: "frontend/mailstore/commit.go",
		Old:  "\tdone, err := b.store.db.Commit(ctx, commit)\n",
		New:  "\tb.early(commit)\n\tdone, err := b.store.db.Commit(ctx, commit)\n",
	},
	{
		File: "frontend/mailstore/commit.go",
		Old:  "\t\t\tcommit, chunks = built.commit()\n",
		New:  "\t\t\tcommit, chunks = built.commit()\n\t\t\tb.early(commit)\n",
	},
	{
		File: "frontend/mailstore/commit.go",
		Old:  "\tb.store.publish(hint)\n\treturn after\n}\n",
		New: `	_ = hint
	return after
}

func (b *box) early(c *metadata.Commit) {
	b.store.publish(events.Event{
		Account: int64(b.ref.Account), Mailbox: int64(b.ref.Mailbox), Kind: events.Changed,
		ModSeq: c.Changes[0].ModSeq, Epoch: c.Changes[0].Seen.Epoch,
	})
}
`,
	},
}

// A program that publishes before it commits is found out within a minute.
func TestPublishBeforeCommit(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "starling")
	if err := Build(t.Context(), path, false, early...); err != nil {
		t.Fatal(err)
	}
	c := startOf(t, path, "STARLING_MAIL_SWEEP=10m")
	for _, n := range c.Nodes[:2] { // what they commit is there later than the third node looks
		n.Links.Postgres.Set(Up, Toxic{Delay: 5 * time.Millisecond})
	}
	for begin, seed := time.Now(), uint64(400); time.Since(begin) < time.Minute; seed++ {
		r, _, err := c.Run(t.Context(), Options{Seed: seed, Time: 1500 * time.Millisecond, Clients: 9, Faults: []Fault{}, Patience: 3 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if found := Check(r); slices.ContainsFunc(found, func(v Violation) bool { return v.Rule == SameForAll }) {
			t.Logf("found after %.1f s: %v", time.Since(begin).Seconds(), found[0])
			return
		}
	}
	t.Error("not found")
}

// Bugs that show only when PostgreSQL fails over are found.
func TestPlantedInFailover(t *testing.T) {
	t.Parallel()
	c := start(t)
	if err := c.AddStandby(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range []struct {
		name  string
		rules []Rule
		kind  Kind
		sql   string
		lag   time.Duration
		said  [2]string // by PostgreSQL, and what nodes hear of it
	}{
		{
			"commits that do not wait for the standby",
			[]Rule{NothingLost, NothingBack, UIDOnce, ModSeqOnce, LostFuture},
			FailOver,
			"alter system set synchronous_commit = local; select pg_reload_conf()", 400 * time.Millisecond,
			[2]string{},
		},
		{
			"a warning that is not heard, of a wait for the standby that was cancelled",
			[]Rule{NothingLost, NothingBack},
			FailOverCancelled,
			"", 0,
			[2]string{"C01000\x00", "C00000\x00"},
		},
		{
			"an epoch that does not rise",
			[]Rule{LostFuture, UIDOnce, ModSeqOnce},
			FailOverLagging,
			`do $$ begin
				execute format('create or replace function epoch() returns bigint language sql stable as %L', 'select ' || epoch() || '::bigint');
			end $$;
			create or replace view current_epoch as select epoch() as epoch`, 0,
			[2]string{},
		},
	} {
		t.Run(p.name, func(t *testing.T) {
			if _, err := c.primary.Exec(t.Context(), p.sql); err != nil {
				t.Fatal(err)
			}
			for _, n := range c.Nodes {
				if p.said[0] != "" {
					n.Links.Postgres.Rewrite(Down, func(piece []byte) []byte { return bytes.ReplaceAll(piece, []byte(p.said[0]), []byte(p.said[1])) })
					defer n.Links.Postgres.Rewrite(Down, nil)
				}
			}
			if p.lag > 0 {
				c.Replication.Set(Down, Toxic{Delay: p.lag})
			}
			begin := time.Now()
			r, figures, err := c.Run(t.Context(), Options{
				Seed: uint64(500 + i), Time: 4 * time.Second, Clients: 9, Patience: 3 * time.Second, //nolint:gosec // small
				Faults: []Fault{{At: 1500 * time.Millisecond, Kind: p.kind, Amount: 700}},
			})
			switch found := Check(cmp.Or(r, new(Run))); {
			case err != nil && strings.Contains(err.Error(), "after all is mended"):
				t.Logf("found after %.1f s: with all mended, what it left behind cannot be read: %v", time.Since(begin).Seconds(), err)
			case err != nil:
				t.Fatal(err)
			case !slices.ContainsFunc(found, func(v Violation) bool { return slices.Contains(p.rules, v.Rule) }):
				t.Fatalf("not found; found %v in\n%v", found, figures)
			default:
				t.Logf("found after %.1f s: %v", time.Since(begin).Seconds(), found[0])
			}
			if _, err := c.primary.Exec(t.Context(), "alter system reset synchronous_commit; select pg_reload_conf()"); err != nil {
				t.Fatal(err)
			}
		})
	}
}
