package metadata_test

import (
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// Messages that come alone and those that come with others are in the same threads, and of no
// thread more is kept than what does not follow from its messages' ids.
func TestThreadsKept(t *testing.T) {
	for name, with := range map[string]int{"alone": 0, "with others": 1} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, db *metadata.DB) { threadsKept(t, db, with) })
		})
	}
}

func threadsKept(t *testing.T, db *metadata.DB, with int) {
	t.Helper()
	n := inboxOf(t, db)
	kept := 0
	add := func(rootUnknown bool, remembers int, refs ...int64) int64 {
		t.Helper()
		c := n.appending(1 + with)
		m := &c.Changes[0].Insert[0]
		m.References, m.RootUnknown = refs, rootUnknown
		n = do(t, db, n, c)
		kept += remembers
		expectCount(t, db, "thread_ref", kept)
		return messages(t, db, n.box)[m.UID].ThreadID
	}
	same := func(got, want int64) {
		t.Helper()
		if got != want {
			t.Errorf("thread %d, want %d", got, want)
		}
	}
	// What follows from the ids needs no row but that of the reply, by which
	// one is known that refers to nothing else.
	root := add(false, 0, 10)
	same(add(false, 0, 10), root)
	same(add(false, 1, 11, 10), root)
	same(add(true, 1, 12, 11), root)
	same(add(false, 0, 0, 10), root)
	// A reply that comes before all others is in the thread of its root.
	early := add(false, 1, 22, 20)
	same(add(false, 0, 20), early)
	// One that names only what it answers keeps that in its own thread, whatever it refers to.
	answer := add(true, 2, 32, 31)
	same(add(false, 1, 31, 30), answer)
	same(add(false, 1, 33, 30, 31), answer)
	// What an earlier release remembered holds.
	_, err := db.Pool().Exec(t.Context(), `
insert into thread_ref (account_id, msgid_hash, thread_id, at)
values ($1::bigint, 40, 4040, now() - interval '1 day'), ($1::bigint, 41, 4040, now() - interval '1 day')`, n.box.Account)
	check(t, err)
	kept += 2
	same(add(false, 0, 40), 4040)
	same(add(false, 1, 42, 40), 4040)
	same(add(false, 2, 44, 43, 41), 4040) // another root: it is known by that from now on
	same(add(false, 0, 43), 4040)
	// Without any id a message has the thread that is given.
	c := n.appending(1 + with)
	own := c.Changes[0].Insert[0]
	n = do(t, db, n, c)
	same(messages(t, db, n.box)[own.UID].ThreadID, own.ThreadID)
}

// The forms of the statement for one message do what is asked, and nothing twice, whether it was
// known that the account has a limit or not.
func TestAppendForms(t *testing.T) {
	for name, refs := range map[string][]int64{"without ids": nil, "with an id": {7}, "a reply": {8, 7, 6}} {
		for hint, limited := range map[string]bool{"limit known": true, "limit not known": false} {
			t.Run(name+", "+hint, func(t *testing.T) {
				eachMode(t, func(t *testing.T, db *metadata.DB) { appendForms(t, db, limited, refs) })
			})
		}
	}
}

func appendForms(t *testing.T, db *metadata.DB, limited bool, refs []int64) {
	t.Helper()
	n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 3} })
	of := func(c *metadata.Commit) *metadata.Commit {
		c.Limited, c.Changes[0].Insert[0].References = limited, refs
		return c
	}
	n = do(t, db, n, of(n.appending(1))) // the chunk has a row from here on
	trips := int64(1)
	if !limited {
		trips = 2
	}
	n = doIn(t, db, n, of(deliveryOf("a")(n)), trips)
	wantErr(t, errOf(db.Commit(t.Context(), of(deliveryOf("a")(n)))), metadata.ErrDelivered)
	stale := of(n.appending(1))
	late := of(n.appending(1))
	late.Deadline = time.Unix(1, 0)
	wantErr(t, errOf(db.Commit(t.Context(), late)), metadata.ErrLate)
	renamed := of(n.appending(1))
	renamed.Changes[0].Name = "Elsewhere"
	wantErr(t, errOf(db.Commit(t.Context(), renamed)), metadata.ErrConflict)
	n = doIn(t, db, n, of(n.appending(1)), trips)
	wantErr(t, errOf(db.Commit(t.Context(), stale)), metadata.ErrConflict)
	wantErr(t, errOf(db.Commit(t.Context(), of(deliveryOf("b")(n)))), metadata.ErrOverQuota)
	wantErr(t, errOf(db.Commit(t.Context(), of(deliveryOf("a")(n)))), metadata.ErrDelivered)
	sound(t, db, n)
	expectCount(t, db, "delivery", 1)
	if used, err := db.Usage(t.Context(), n.box.Account); err != nil || used.Messages != 3 || n.box.Messages != 3 {
		t.Errorf("used are %+v, %v, in a mailbox of %d", used, err, n.box.Messages)
	}
}

// What is as expected takes one round trip, and what is not takes two and is right all the same: a limit
// that is not known, one that is gone, and a row of flags that is not there.
func TestAppendExpectations(t *testing.T) {
	for name, test := range map[string]struct {
		limits  metadata.Quota
		limited bool
		spoil   string
		trips   int64
	}{
		"no limit":            {trips: 1},
		"limit":               {limits: metadata.Quota{Messages: 100}, limited: true, trips: 1},
		"limit not known":     {limits: metadata.Quota{Messages: 100}, trips: 2},
		"limit gone":          {limited: true, trips: 2},
		"row of flags gone":   {spoil: "delete from flags", trips: 2},
		"limited, flags gone": {limits: metadata.Quota{Messages: 100}, limited: true, spoil: "delete from flags", trips: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := metadatatest.Open(t)
			n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = test.limits })
			n = do(t, db, n, n.appending(1))
			if test.spoil != "" {
				_, err := db.Pool().Exec(t.Context(), test.spoil)
				check(t, err)
			}
			c := n.appending(1)
			c.Limited = test.limited
			before := db.Stats().RoundTrips
			done, err := db.Commit(t.Context(), c)
			check(t, err)
			if trips := db.Stats().RoundTrips - before; trips != test.trips {
				t.Errorf("%d round trips, want %d", trips, test.trips)
			}
			l, err := db.Load(t.Context(), n.box.Account, n.box.ID, metadata.Version{})
			check(t, err)
			if l.Mailbox.Version != done.Version(c, 0) || l.Mailbox.Messages != 2 || len(l.Chunks) != 1 || l.Chunks[0].Live() != 2 {
				t.Errorf("there is %+v with %d chunks", l.Mailbox, len(l.Chunks))
			}
			used, err := db.Usage(t.Context(), n.box.Account)
			if check(t, err); used.Messages != 2 {
				t.Errorf("used are %+v", used)
			}
		})
	}
}
