package metadata_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// again loads a mailbox from what was held, and checks that it is what is there.
func again(t *testing.T, db *metadata.DB, n *node) *node {
	t.Helper()
	l, err := db.Load(t.Context(), n.box.Account, n.box.ID, n.box.Version)
	check(t, err)
	return apply(n, l)
}

func ref(n *node) metadata.BoxRef {
	return metadata.BoxRef{Account: n.box.Account, Mailbox: n.box.ID}
}

func doomed(t *testing.T, db *metadata.DB, n *node) []metadata.ObjectID {
	t.Helper()
	all, err := db.Doomed(t.Context(), n.box.Account, 0, metadata.ObjectID{}, 10_000)
	check(t, err)
	return all
}

// expect compares the rows of a mailbox and what is doomed with what should be.
func expect(t *testing.T, db *metadata.DB, n *node, uids []uint32, gone ...metadata.ObjectID) {
	t.Helper()
	var got []uint32
	for uid := range messages(t, db, n.box) {
		got = append(got, uid)
	}
	slices.Sort(got)
	if !slices.Equal(got, uids) {
		t.Errorf("rows are %d, want %d", got, uids)
	}
	all := doomed(t, db, n)
	for _, o := range gone {
		if !slices.Contains(all, o) {
			t.Errorf("object %x is not doomed", o)
		}
	}
	if len(all) != len(gone) {
		t.Errorf("%d objects are doomed, want %d", len(all), len(gone))
	}
}

func span(first, last uint32) (uids []uint32) {
	for uid := first; uid <= last; uid++ {
		uids = append(uids, uid)
	}
	return uids
}

func TestCollect(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(10))
		rows := messages(t, db, n.box)
		n = do(t, db, n, n.expunging(2, 3, 7))
		through := n.box.ModSeq
		n = do(t, db, n, n.expunging(9))

		due, err := db.DueExpunged(ctx, 0, time.Hour, nil, 10)
		check(t, err)
		if len(due) != 0 {
			t.Errorf("due before its time: %+v", due)
		}
		due, err = db.DueExpunged(ctx, n.box.Account, 0, nil, 10)
		check(t, err)
		if len(due) != 1 || due[0].BoxRef != ref(n) || due[0].Through != n.box.ModSeq {
			t.Fatalf("due are %+v", due)
		}
		behind, err := db.DueExpunged(ctx, 0, 0, &due[0], 10)
		check(t, err)
		if len(behind) != 0 {
			t.Errorf("behind the last come %+v", behind)
		}

		done, err := db.Collect(ctx, ref(n), through)
		check(t, err)
		after := again(t, db, n)
		if done.Messages != 3 || done.Chunks != 0 || done.Version != after.box.Version || after.box.ModSeq != n.box.ModSeq+1 {
			t.Errorf("collected %+v, the mailbox is at %+v", done, after.box)
		}
		if after.box.Counters != n.box.Counters || after.box.Horizon != 0 {
			t.Errorf("from %+v to %+v", n.box, after.box)
		}
		if s := after.slot(3); s != n.slot(3) {
			t.Errorf("the slot became %+v", s)
		}
		expect(t, db, after, []uint32{1, 4, 5, 6, 8, 9, 10}, rows[2].Object, rows[3].Object, rows[7].Object)
		if got := work(t, db, n.box.Account)[n.box.ID]; got != through+1 {
			t.Errorf("the rest of the work is up to %d, want %d", got, through+1)
		}

		// What a node held from before is no longer current.
		wantErr(t, errOf(db.Commit(ctx, n.storing(metadata.Seen, 1))), metadata.ErrConflict)

		done, err = db.Collect(ctx, ref(n), due[0].Through)
		check(t, err)
		if done.Messages != 1 || len(work(t, db, n.box.Account)) != 0 {
			t.Errorf("collected %+v", done)
		}
		// Nothing is left to do: nothing changes.
		done, err = db.Collect(ctx, ref(n), 1<<40)
		check(t, err)
		if done != (metadata.Collected{}) {
			t.Errorf("collected %+v of nothing", done)
		}
	})
}

// Objects that several messages own go with the last of them; what was moved
// belongs to where it went.
func TestCollectShared(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(6))
		to := create(t, db, n, "Archive")
		rows := messages(t, db, n.box)
		do(t, db, n, n.transferring(to, false, 1, 2))
		n, to = load(t, db, n.box), load(t, db, to.box)
		do(t, db, n, n.transferring(to, true, 3, 4))
		n, to = load(t, db, n.box), load(t, db, to.box)
		n = do(t, db, n, n.within(false, 1))
		n = do(t, db, n, n.expunging(1, 5, 7))

		// 1 has three owners, of which two go; 3 and 4 were moved: their rows go, not their objects.
		done, err := db.Collect(ctx, ref(n), n.box.ModSeq)
		check(t, err)
		if done.Messages != 5 {
			t.Errorf("collected %+v", done)
		}
		n = again(t, db, n)
		expect(t, db, n, []uint32{2, 6}, rows[5].Object)
		if got := refs(t, db, n.box.Account); got[rows[1].Object] != 1 || got[rows[2].Object] != 2 || got[rows[5].Object] != 0 {
			t.Errorf("shares are %v", got)
		}
		// COPY to the other one again, then all of it goes.
		do(t, db, to, to.within(false, 1))
		to = load(t, db, to.box)
		to = do(t, db, to, to.expunging(1, 2, 3, 4, 5))
		check(t, errOf(db.Collect(ctx, ref(to), to.box.ModSeq)))
		to = again(t, db, to)
		expect(t, db, to, nil, rows[5].Object, rows[1].Object, rows[3].Object, rows[4].Object)
		if got := refs(t, db, n.box.Account); got[rows[2].Object] != 1 || got[rows[1].Object] != 0 {
			t.Errorf("shares are %v", got)
		}

		named, err := db.Named(ctx, n.box.Account, []metadata.ObjectID{rows[1].Object, rows[2].Object, rows[6].Object, {1}})
		check(t, err)
		if len(named) != 2 {
			t.Errorf("named are %x", named)
		}
		check(t, db.Postpone(ctx, n.box.Account, []metadata.ObjectID{rows[1].Object}))
		check(t, db.Forget(ctx, n.box.Account, []metadata.ObjectID{rows[3].Object, rows[4].Object, rows[5].Object}))
		expect(t, db, to, nil, rows[1].Object)
		if got := refs(t, db, n.box.Account); len(got) != 2 {
			t.Errorf("shares are %v", got)
		}
	})
}

// An undelete is a move within the mailbox, from an expunged slot.
func TestCollectUndeleted(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3))
	rows := messages(t, db, n.box)
	n = do(t, db, n, n.expunging(1, 2))
	n = do(t, db, n, n.undeleting(1))
	if s := n.slot(1); s.Flags&metadata.Moved == 0 || s.ModSeq != 3 {
		t.Errorf("the old slot is %+v", s)
	}
	check(t, errOf(db.Collect(t.Context(), ref(n), n.box.ModSeq)))
	n = again(t, db, n)
	expect(t, db, n, []uint32{3, 4}, rows[2].Object)
	wantErr(t, errOf(db.Commit(t.Context(), n.undeleting(2))), metadata.ErrSourceGone)
	if got := messages(t, db, n.box)[4]; got.Object != rows[1].Object || got.EmailID != rows[1].EmailID || !got.InternalDate.Equal(rows[1].InternalDate) {
		t.Errorf("undeleted %+v, want %+v", got, rows[1])
	}
}

// undeleting brings expunged messages back.
func (n *node) undeleting(uids ...uint32) *metadata.Commit {
	e := n.begin()
	var copies []metadata.Copy
	for _, uid := range uids {
		old := n.slot(uid)
		copies = append(copies, metadata.Copy{From: n.box.ID, UID: uid, To: n.box.ID, NewUID: e.next(old.Flags &^ metadata.Expunged)})
		no := metadata.ChunkOf(uid)
		if e.edits[no] == nil {
			e.edits[no] = n.chunks[no].Edit()
		}
		e.edits[no].Set(int(uid%metadata.ChunkSlots), metadata.Slot{Flags: old.Flags | metadata.Moved, ModSeq: old.ModSeq})
	}
	c := n.commit(e.change())
	c.Copies = copies
	return c
}

// Chunks of which nothing is left are dropped, but not the one that grows.
func TestCollectChunks(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(2600))
		c := n.storing(metadata.Keyword(0)|metadata.Keyword(2), 5)
		c.Changes[0].Keywords = []string{"a", "b", "c", ""}
		n = do(t, db, n, c)
		n = do(t, db, n, n.storing(metadata.Keyword(1), 300))
		n = do(t, db, n, n.expunging(span(1, 255)...))
		horizon := n.box.ModSeq
		n = do(t, db, n, n.expunging(span(400, 2600)...))
		last := n.box.ModSeq
		n = do(t, db, n, n.expunging(260))

		before := db.Stats().RoundTrips
		done, err := db.Collect(ctx, ref(n), horizon)
		check(t, err)
		if trips := db.Stats().RoundTrips - before; trips != 3 {
			t.Errorf("%d round trips", trips)
		}
		got := again(t, db, n)
		if got.box.Horizon != horizon || done.Messages != 255 || done.Chunks != 2 || done.Keywords != 2 {
			t.Errorf("collected %+v, the mailbox is %+v", done, got.box)
		}
		if want := []string{"", "b", "", ""}; !slices.Equal(got.box.Keywords, want) {
			t.Errorf("keywords are %q, want %q", got.box.Keywords, want)
		}
		fresh := load(t, db, n.box)
		if fresh.chunks[0] != nil || fresh.chunks[1] != nil || fresh.chunks[2] == nil {
			t.Error("the wrong chunks were dropped")
		}
		// Who knows less than the horizon gets the whole, others what changed.
		l, err := db.Load(ctx, n.box.Account, n.box.ID, metadata.Version{ModSeq: horizon - 1, Stamp: 1, Epoch: n.box.Epoch})
		check(t, err)
		if !l.Whole {
			t.Error("below the horizon only changes were loaded")
		}

		// In several commits; the chunk of UIDNEXT, 20, stays though all of it is gone.
		done, err = db.Collect(ctx, ref(n), last)
		check(t, err)
		if done.Messages != 2201 || done.Chunks != 16 {
			t.Errorf("collected %+v", done)
		}
		fresh = load(t, db, n.box)
		if fresh.chunks[20] == nil || fresh.chunks[19] != nil || fresh.box.ModSeq != n.box.ModSeq+4 || fresh.box.Horizon != last {
			t.Errorf("the mailbox is %+v", fresh.box)
		}
		check(t, errOf(db.Commit(ctx, fresh.appending(1))))
		fresh = again(t, db, fresh)
		if live := fresh.live(); live[len(live)-1] != 2601 {
			t.Errorf("live are %d", live)
		}
	})
}

// A mailbox that is busy: the batch is computed under the lock.
func TestCollectContested(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3000))
	n = do(t, db, n, n.expunging(span(1, 2900)...))
	stop := make(chan struct{})
	var stores int
	var writing sync.WaitGroup
	writing.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			_, err := db.CommitLocked(context.WithoutCancel(t.Context()), n.box.Account, []metadata.MailboxID{n.box.ID}, []metadata.Version{n.box.Version},
				func(loads []metadata.Load) (*metadata.Commit, error) {
					m := apply(n, loads[0])
					return m.storing(m.slot(2950).Flags^metadata.Seen, 2950), nil
				})
			if err != nil {
				t.Error(err)
				return
			}
			stores++
		}
	})
	done, err := db.Collect(t.Context(), ref(n), n.box.ModSeq)
	close(stop)
	writing.Wait()
	check(t, err)
	if done.Messages != 2900 || done.Chunks != 22 {
		t.Errorf("collected %+v", done)
	}
	after := load(t, db, n.box)
	if after.box.Messages != 100 || after.box.ModSeq != n.box.ModSeq+int64(stores)+3 {
		t.Errorf("after %d stores and 3 commits of the collector: %+v", stores, after.box)
	}
	expectCount(t, db, "message", 100)
	expectCount(t, db, "doomed", 2900)
}

func expectCount(t *testing.T, db *metadata.DB, table string, want int) {
	t.Helper()
	var got int
	check(t, db.Pool().QueryRow(t.Context(), "select count(*) from "+table).Scan(&got))
	if got != want {
		t.Errorf("%d rows in %s, want %d", got, table, want)
	}
}

func TestCollectDropped(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		old := create(t, db, n, "Old")
		old = do(t, db, old, old.appending(1500))
		rows := messages(t, db, old.box)
		n = load(t, db, n.box)
		do(t, db, old, old.transferring(n, true, 7))
		n, old = load(t, db, n.box), load(t, db, old.box)
		do(t, db, old, old.transferring(n, false, 8))
		n, old = load(t, db, n.box), load(t, db, old.box)
		old = do(t, db, old, old.expunging(9))
		_, err := db.CollectDropped(ctx, ref(old))
		if err == nil {
			t.Error("a mailbox that is there was collected")
		}
		check(t, errOf(db.DeleteMailbox(ctx, n.box.Account, "Old")))
		_, err = db.Collect(ctx, ref(old), old.box.ModSeq)
		wantErr(t, err, metadata.ErrNoMailbox)
		for _, test := range []struct {
			retention time.Duration
			want      int
		}{{time.Hour, 0}, {0, 1}} {
			due, err := db.DueDropped(ctx, 0, test.retention, nil, 10)
			check(t, err)
			if len(due) != test.want {
				t.Fatalf("with a retention of %v due are %+v", test.retention, due)
			}
		}
		check(t, db.SetHold(ctx, "alice@example.org", "a lawsuit"))
		_, err = db.CollectDropped(ctx, ref(old))
		wantErr(t, err, metadata.ErrHeld)
		check(t, db.SetHold(ctx, "alice@example.org", ""))

		done, err := db.CollectDropped(ctx, ref(old))
		check(t, err)
		if done.Messages != 1500 || done.Chunks != 12 {
			t.Errorf("collected %+v", done)
		}
		expectCount(t, db, "message", 2)
		expectCount(t, db, "mailbox", 1)
		expectCount(t, db, "expunged", 0)
		expectCount(t, db, "flags", 1)
		all := doomed(t, db, n)
		if len(all) != 1498 || slices.Contains(all, rows[7].Object) || slices.Contains(all, rows[8].Object) || !slices.Contains(all, rows[9].Object) {
			t.Errorf("%d objects are doomed", len(all))
		}
		check(t, errOf(db.CollectDropped(ctx, ref(old)))) // gone already
		sound(t, db, n)
	})
}

func TestCollectHeld(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(2))
	n = do(t, db, n, n.expunging(1))
	check(t, db.SetHold(ctx, "alice@example.org", "a lawsuit"))
	due, err := db.DueExpunged(ctx, n.box.Account, 0, nil, 10)
	check(t, err)
	if len(due) != 0 {
		t.Errorf("due on hold: %+v", due)
	}
	wantErr(t, errOf(db.Collect(ctx, ref(n), n.box.ModSeq)), metadata.ErrHeld)
	expect(t, db, n, []uint32{1, 2})
	check(t, db.SetHold(ctx, "alice@example.org", ""))
	check(t, errOf(db.Collect(ctx, ref(n), n.box.ModSeq)))
	all := doomed(t, db, n)
	check(t, db.SetHold(ctx, "alice@example.org", "a lawsuit"))
	if got := doomed(t, db, n); len(all) != 1 || len(got) != 0 {
		t.Errorf("%d doomed, on hold %d", len(all), len(got))
	}
	accounts, err := db.AccountsWithDoomed(ctx, 0, 0, 0, 10)
	check(t, err)
	if len(accounts) != 0 {
		t.Errorf("accounts with doomed objects: %v", accounts)
	}
}

func TestLeases(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	ctx := t.Context()
	box := metadata.BoxRef{Account: 7, Mailbox: 3}
	claim := func(owner int64, d time.Duration, want bool) {
		t.Helper()
		got, err := db.Claim(ctx, box, owner, d)
		check(t, err)
		if got != want {
			t.Errorf("claim by %d: %v", owner, got)
		}
	}
	claim(1, time.Hour, true)
	claim(2, time.Hour, false)
	claim(1, time.Hour, true)
	check(t, db.Release(ctx, box, 2))
	claim(2, time.Hour, false)
	check(t, db.Release(ctx, box, 1))
	claim(2, -time.Second, true) // over before it begins
	claim(3, time.Hour, true)
	check(t, db.Release(ctx, box, 3))
	expectCount(t, db, "lease", 0)
}

// The collector reads and deletes a mailbox of any size by keys and by where
// the rows stand.
func TestCollectPlan(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3))
	fill(t, db, n)
	sql, err := metadata.CollectSQL()
	check(t, err)
	scans := map[string]bool{}
	explain(t, db, sql).walk(func(p *planNode) {
		switch p.Relation {
		case "message", "flags":
			if p.Type == "ModifyTable" {
				return
			}
			scans[p.Relation+" by "+p.Type] = true
			if p.Type != "Tid Scan" && p.Type != "Index Scan" && p.Type != "Index Only Scan" {
				t.Errorf("%s reads %s by %q", p.Type, p.Relation, p.Cond)
			}
			if key := byKey[p.Relation]; p.Type != "Tid Scan" && !strings.Contains(p.Cond, key) {
				t.Errorf("%s reads %s by %q, want an index with %s", p.Type, p.Relation, p.Cond, key)
			}
		}
	})
	for _, want := range []string{"message by Tid Scan", "message by Index Scan", "flags by Tid Scan", "flags by Index Scan"} {
		if !scans[want] {
			t.Errorf("the plan has no %s: %v", want, scans)
		}
	}
}

// A commit of the collector whose answer is lost is resolved like any other; if
// others came after it the collector has to look again.
func TestCollectInDoubt(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		question, other bool
		want            error
		left            int
	}{
		"question lost":                 {question: true, left: 4},
		"answer lost":                   {left: 4},
		"question lost, then overtaken": {question: true, other: true, want: metadata.ErrInDoubt, left: 5},
		"answer lost, then followed":    {other: true, want: metadata.ErrInDoubt, left: 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDoubting(t)
			n := do(t, d.through, d.n, d.n.expunging(2))
			commit := metadata.CollectOf(&n.box, map[uint32]metadata.ObjectID{2: messages(t, d.direct, n.box)[2].Object})
			then := func() {
				if test.other {
					d.other(storeOf(metadata.Seen, 1))
				}
			}
			if test.question {
				d.loseQuestion(then)
			} else {
				d.loseAnswer(then)
			}
			_, err := d.through.Commit(t.Context(), commit)
			if !errors.Is(err, test.want) || test.want == nil && err != nil {
				t.Errorf("got %v, want %v", err, test.want)
			}
			expectCount(t, d.direct, "message", test.left)
			expectCount(t, d.direct, "doomed", 5-test.left)
			// The next run does what is left to do.
			check(t, errOf(d.direct.Collect(t.Context(), ref(n), n.box.ModSeq)))
			expectCount(t, d.direct, "message", 4)
			expectCount(t, d.direct, "doomed", 1)
			expectCount(t, d.direct, "expunged", 0)
		})
	}
}

// What the count of owners does not allow is not committed.
func TestCollectMiscounted(t *testing.T) {
	t.Parallel()
	db := metadatatest.Open(t)
	n := inboxOf(t, db)
	n = do(t, db, n, n.appending(3))
	object := messages(t, db, n.box)[1].Object
	n = do(t, db, n, n.expunging(1, 2))
	_, err := db.Commit(t.Context(), metadata.CollectOf(&n.box, map[uint32]metadata.ObjectID{1: object, 2: object}))
	if err == nil || errors.Is(err, metadata.ErrUnavailable) {
		t.Errorf("one owner, two messages: %v", err)
	}
	wantErr(t, errOf(db.Commit(t.Context(), metadata.CollectOf(&n.box, map[uint32]metadata.ObjectID{9: object}))), metadata.ErrSourceGone)
	sound(t, db, load(t, db, n.box))
	expect(t, db, n, []uint32{1, 2, 3})
}
