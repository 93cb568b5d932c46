package mailstore

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"starling/metadata"
)

// together queues operations at a mailbox while a commit is under way, so that
// they make one group, in the order given, and waits for them.
func (cl *client) together(operations ...func()) {
	cl.t.Helper()
	cl.box.turn <- struct{}{}
	var running sync.WaitGroup
	for i, op := range operations {
		running.Go(op)
		for queued := 0; queued <= i; { // only the turn is missing now
			cl.box.mu.Lock()
			queued = len(cl.box.queue)
			cl.box.mu.Unlock()
		}
	}
	<-cl.box.turn
	running.Wait()
}

// What queues while a commit is under way is one commit, and each operation has
// a modseq of its own, on the result of the one before (RFC 7162 §3.1).
func TestGroupIsOneCommit(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := c.enter(x, Inbox)
	for i := range 10 {
		c.append(x, Inbox, mail(fmt.Sprint(i)))
	}
	base := mine.Snapshot()
	var stores []func()
	done := make([]Stored, 10)
	for i := range 10 {
		stores = append(stores, func() { done[i] = mine.store(one(uint32(i+1)), AddFlags, "seen") })
	}
	if n := x.trips(func() { mine.together(stores...) }); n != 1 {
		t.Errorf("%d round trips", n)
	}
	after := c.check(Inbox)
	same(t, mine.Snapshot(), after)
	if after.row.ModSeq != base.row.ModSeq+10 {
		t.Errorf("modseq went from %d to %d", base.row.ModSeq, after.row.ModSeq)
	}
	for i := range 10 {
		if got, want := after.Slot(uint32(i+1)).ModSeq, base.row.ModSeq+int64(i)+1; got != want {
			t.Errorf("message %d has modseq %d, want %d", i+1, got, want)
		}
		if !slices.Equal(done[i].Changed, []uint32{uint32(i + 1)}) {
			t.Errorf("store %d changed %v", i, done[i].Changed)
		}
	}
}

// UNCHANGEDSINCE is judged by what the operations before it in the group leave.
func TestUnchangedSinceInGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	view := mine.Snapshot()
	since := view.row.ModSeq
	conditional := func(into *Stored, flag string, mode FlagMode) func() {
		return func() {
			var err error
			*into, err = mine.Store(t.Context(), StoreFlags{
				View: view, UIDs: one(1), Mode: mode, Flags: flagSet(flag), UnchangedSince: &since,
			})
			if err != nil {
				t.Error(err)
			}
		}
	}
	var first, other, again, replaced Stored
	mine.together(
		conditional(&first, "seen", AddFlags),
		conditional(&other, "flagged", AddFlags), // the named flag is the same as in the view: it passes
		conditional(&again, "seen", RemoveFlags), // this one was changed since
		conditional(&replaced, "deleted", SetFlags))
	if len(first.Changed) != 1 || len(other.Changed) != 1 {
		t.Errorf("changed %v and %v", first.Changed, other.Changed)
	}
	if !slices.Equal(again.Modified, []uint32{1}) || !slices.Equal(replaced.Modified, []uint32{1}) {
		t.Errorf("modified %v and %v", again.Modified, replaced.Modified)
	}
	if got := flagsOf(c.check(Inbox), 1); got != `\Seen \Flagged` {
		t.Errorf("flags %q", got)
	}
}

// What cannot be done is answered alone; the others of its group succeed.
func TestGroupWithMembersThatFail(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{Messages: 4})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	var digest [32]byte
	errs := make([]error, 6)
	appending := func(i int, in Incoming, delivery *[32]byte) func() {
		in.Mailbox = Inbox
		return func() { _, errs[i] = upload(t.Context(), x.Account, in, mail(fmt.Sprint("m", i)), delivery) }
	}
	var many []string
	for i := range metadata.MaxKeywords + 1 {
		many = append(many, fmt.Sprint("k", i))
	}
	var again Appended
	mine.together(
		appending(0, Incoming{}, nil),
		appending(1, Incoming{Flags: flagSet(many...)}, nil), // too many keywords
		func() { mine.store(one(1), AddFlags, "seen") },      // nothing wrong with it
		appending(2, Incoming{}, &digest),                    // a delivery
		func() { // the same at the same time
			var err error
			if again, err = upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail("m2"), &digest); err != nil {
				t.Error(err)
			}
		},
		appending(3, Incoming{Flags: FlagSet{Keywords: []string{"no\x00text"}}}, nil), // PostgreSQL refuses it
		appending(4, Incoming{}, nil),
		appending(5, Incoming{}, nil)) // the fifth message: over quota
	for i, want := range []error{nil, ErrKeywordLimit, nil, nil, nil, metadata.ErrOverQuota} {
		switch {
		case i == 3:
			if errs[i] == nil {
				t.Error("NUL was stored")
			}
		case want == nil && errs[i] != nil:
			t.Errorf("%d: %v", i, errs[i])
		case want != nil:
			wantError(t, errs[i], want)
		}
	}
	if !again.Again {
		t.Error("the same delivery was made twice")
	}
	after := c.check(Inbox)
	same(t, mine.Snapshot(), after)
	if got := liveUIDs(after); !slices.Equal(got, []uint32{1, 2, 3, 4}) || flagsOf(after, 1) != `\Seen` {
		t.Errorf("live are %v; flags of the first %q", got, flagsOf(after, 1))
	}
	if used, err := x.Usage(t.Context()); err != nil || used.Messages != 4 || used.Bytes != after.row.Bytes {
		t.Errorf("usage %+v, %v", used, err)
	}
}

// Appends that come together are one commit, with UIDs in the order of the queue.
func TestAppendsInGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	mine := c.enter(x, Inbox)
	var appends []func()
	done := make([]Appended, 20)
	for i := range done {
		appends = append(appends, func() {
			var err error
			if done[i], err = upload(t.Context(), x.Account, Incoming{Mailbox: Inbox}, mail(fmt.Sprint(i)), nil); err != nil {
				t.Error(err)
			}
		})
	}
	if n := x.trips(func() { mine.together(appends...) }); n != 1 {
		t.Errorf("%d round trips", n)
	}
	for i := range done {
		if done[i].UID != uint32(i+1) || done[i].UIDValidity != mine.Snapshot().row.UIDValidity {
			t.Errorf("append %d became %+v", i, done[i])
		}
		if got := body(t, mine, done[i].UID); !strings.HasPrefix(got, "From: a@example.org\r\nSubject: "+fmt.Sprint(i)+"\r\n") {
			t.Errorf("message %d is %q", done[i].UID, got)
		}
	}
	c.check(Inbox)
}

// With no waiting in between, many at once share commits: how many do depends on the machine.
func TestConcurrentStoresShareCommits(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x := c.still()
	for i := range 8 {
		c.append(x, Inbox, mail(fmt.Sprint(i)))
	}
	const rounds = 50
	before := c.check(Inbox).row.ModSeq
	n := x.trips(func() {
		var running sync.WaitGroup
		for i := range 8 {
			mine := c.enter(x, Inbox)
			running.Go(func() {
				for j := range rounds {
					mine.store(one(uint32(i+1)), []FlagMode{AddFlags, RemoveFlags}[j%2], "seen")
				}
			})
		}
		running.Wait()
	})
	if n >= 8*rounds {
		t.Errorf("%d round trips for %d operations", n, 8*rounds)
	}
	if got := c.check(Inbox).row.ModSeq - before; got != 8*rounds {
		t.Errorf("%d modseqs for %d operations", got, 8*rounds)
	}
	t.Logf("%d operations, %d round trips", 8*rounds, n)
}

// broken is an operation with a bug.
type broken struct{ err error }

func (*broken) kind() kind { return kindStore }

func (*broken) apply(b *build) error {
	b.row.ModSeq++ // half done
	panic("bug")
}

func (op *broken) settle(_ *Snapshot, err error) { op.err = err }

// A bug that one operation meets is its own answer, without the lock and under it.
func TestPanicInGroup(t *testing.T) {
	t.Parallel()
	for _, contested := range []bool{false, true} {
		c := newCluster(t, metadata.Quota{})
		x := c.still()
		c.append(x, Inbox, mail("1"))
		mine := c.enter(x, Inbox)
		if contested {
			mine.box.contested()
		}
		var before, after Stored
		var tooMany error
		var bug broken
		mine.together(
			func() { before = mine.store(one(1), AddFlags, "seen") },
			func() {
				var names []string
				for i := range metadata.MaxKeywords + 1 {
					names = append(names, fmt.Sprint("k", i))
				}
				_, tooMany = mine.Store(t.Context(), StoreFlags{
					View: mine.Snapshot(), UIDs: one(1), Mode: AddFlags, Flags: flagSet(names...),
				})
			},
			func() { mine.box.do(t.Context(), &bug) },
			func() { after = mine.store(one(1), AddFlags, "flagged") })
		wantError(t, bug.err, errPanic)
		wantError(t, tooMany, ErrKeywordLimit)
		if len(before.Changed) != 1 || len(after.Changed) != 1 {
			t.Errorf("changed %v and %v", before.Changed, after.Changed)
		}
		s := c.check(Inbox)
		same(t, mine.Snapshot(), s)
		if got := flagsOf(s, 1); got != `\Seen \Flagged` {
			t.Errorf("flags %q", got)
		}
	}
}
