package metadata_test

import (
	"testing"

	"starling/metadata"
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

// The forms of the statement for one message do what is asked, and nothing twice.
func TestAppendForms(t *testing.T) {
	for name, refs := range map[string][]int64{"without ids": nil, "with an id": {7}, "a reply": {8, 7, 6}} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, db *metadata.DB) {
				n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Messages: 2} })
				deliver := func(text string) *metadata.Commit {
					c := deliveryOf(text)(n)
					c.Changes[0].Insert[0].References = refs
					return c
				}
				n = do(t, db, n, deliver("a"))
				wantErr(t, errOf(db.Commit(t.Context(), deliver("a"))), metadata.ErrDelivered)
				plain := n.appending(1)
				plain.Changes[0].Insert[0].References = refs
				n = do(t, db, n, plain)
				wantErr(t, errOf(db.Commit(t.Context(), deliver("b"))), metadata.ErrOverQuota)
				wantErr(t, errOf(db.Commit(t.Context(), deliver("a"))), metadata.ErrDelivered)
				sound(t, db, n)
				expectCount(t, db, "delivery", 1)
				if used, err := db.Usage(t.Context(), n.box.Account); err != nil || used.Messages != 2 || n.box.Messages != 2 {
					t.Errorf("used are %+v, %v, in a mailbox of %d", used, err, n.box.Messages)
				}
			})
		})
	}
}
