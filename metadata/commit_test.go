package metadata_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"time"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// inboxOf makes an account and loads its INBOX.
func inboxOf(t *testing.T, db *metadata.DB, options ...func(*metadata.NewAccount)) *node {
	t.Helper()
	a := metadatatest.Account(t, db, "alice@example.org", options...)
	box, err := db.MailboxByName(t.Context(), a.ID, "INBOX")
	check(t, err)
	return load(t, db, box)
}

func create(t *testing.T, db *metadata.DB, n *node, name string) *node {
	t.Helper()
	c, err := db.CreateMailbox(t.Context(), n.box.Account, name, nil)
	check(t, err)
	return load(t, db, c.Mailbox)
}

// do commits and loads again, once from what was held and once anew.
func do(t *testing.T, db *metadata.DB, n *node, c *metadata.Commit) *node {
	t.Helper()
	return doIn(t, db, n, c, 1)
}

// doIn is do for a commit that takes so many round trips.
func doIn(t *testing.T, db *metadata.DB, n *node, c *metadata.Commit, trips int64) *node {
	t.Helper()
	before := db.Stats().RoundTrips
	done, err := db.Commit(t.Context(), c)
	check(t, err)
	if got := db.Stats().RoundTrips - before; got != trips {
		t.Errorf("a commit took %d round trips, want %d", got, trips)
	}
	l, err := db.Load(t.Context(), n.box.Account, n.box.ID, n.box.Version)
	check(t, err)
	for i, ch := range c.Changes {
		if ch.Mailbox == n.box.ID && l.Mailbox.Version != done.Version(c, i) {
			t.Errorf("the mailbox is at %+v, the commit said %+v", l.Mailbox.Version, done.Version(c, i))
		}
	}
	if l.Whole {
		t.Error("what had changed was loaded whole")
	}
	n = apply(n, l)
	fresh := load(t, db, n.box)
	if a, b := n.slots(), fresh.slots(); len(a) != len(b) {
		t.Errorf("%d slots brought up to date, %d loaded anew", len(a), len(b))
	} else {
		for uid, s := range a {
			if b[uid] != s {
				t.Errorf("UID %d is %+v brought up to date, %+v loaded anew", uid, s, b[uid])
			}
		}
	}
	sound(t, db, n)
	return n
}

func TestAppendStoreExpunge(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(1))
		c := n.appending(200)
		c.Changes[0].Keywords = []string{"$Forwarded", ""}
		want := c.Changes[0].Insert[7]
		n = do(t, db, n, c)
		if n.box.Messages != 201 || n.box.UIDNext != 202 || n.box.ModSeq != 3 || n.box.Unseen != 201 {
			t.Errorf("after two appends: %+v", n.box)
		}
		if !slices.Equal(n.box.Keywords, []string{"$Forwarded", ""}) {
			t.Errorf("keywords are %q", n.box.Keywords)
		}
		got := messages(t, db, n.box)[want.UID]
		if got.Size != want.Size || got.EmailID != want.EmailID || got.ThreadID != want.ThreadID || got.Object != want.Object ||
			!got.InternalDate.Equal(want.InternalDate) || !bytes.Equal(got.Extent, want.Extent) || !bytes.Equal(got.Summary, want.Summary) ||
			time.Since(got.SaveDate) > time.Minute {
			t.Errorf("read back %+v, want %+v", got, want)
		}
		n = do(t, db, n, n.storing(metadata.Seen|metadata.Deleted|metadata.Keyword(0), 1, 130, 201))
		if n.box.Unseen != 198 || n.box.Deleted != 3 || n.box.DeletedBytes != 3*size || n.box.Keywords == nil {
			t.Errorf("after a store: %+v", n.box)
		}
		n = do(t, db, n, n.expunging(1, 201))
		if n.box.Messages != 199 || n.box.Deleted != 1 || n.box.Bytes != 199*size {
			t.Errorf("after an expunge: %+v", n.box)
		}
		if s := n.slot(201); s.Live() || s.ModSeq != n.box.ModSeq {
			t.Errorf("the expunged slot is %+v", s)
		}
	})
}

func TestCopyAndMove(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(10))
		to := create(t, db, n, "Archive")
		rows := messages(t, db, n.box)

		c := n.transferring(to, false, 2, 3, 5)
		do(t, db, n, c)
		if got := load(t, db, n.box); got.box.Version != n.box.Version {
			t.Errorf("a COPY took its source from %+v to %+v", n.box.Version, got.box.Version)
		}
		n, to = load(t, db, n.box), load(t, db, to.box)
		sound(t, db, to)
		if to.box.Messages != 3 || n.box.Messages != 10 {
			t.Errorf("after COPY %d and %d messages", n.box.Messages, to.box.Messages)
		}
		copied := messages(t, db, to.box)[3]
		if want := rows[5]; copied.EmailID != want.EmailID || copied.ThreadID != want.ThreadID || copied.Object != want.Object ||
			!copied.InternalDate.Equal(want.InternalDate) || copied.SaveDate.Before(want.SaveDate.Truncate(time.Second)) || !bytes.Equal(copied.Summary, want.Summary) {
			t.Errorf("copied is %+v, from %+v", copied, want)
		}
		if got := refs(t, db, n.box.Account); len(got) != 3 || got[rows[5].Object] != 2 {
			t.Errorf("shares after COPY: %v", got)
		}
		do(t, db, n, n.transferring(to, false, 5))
		n, to = load(t, db, n.box), load(t, db, to.box)
		if got := refs(t, db, n.box.Account)[rows[5].Object]; got != 3 {
			t.Errorf("%d refs after the second COPY", got)
		}
		do(t, db, n, n.transferring(to, true, 5, 6))
		n, to = load(t, db, n.box), load(t, db, to.box)
		sound(t, db, n)
		sound(t, db, to)
		if n.box.Messages != 8 || to.box.Messages != 6 {
			t.Errorf("after MOVE %d and %d messages", n.box.Messages, to.box.Messages)
		}
		if got := refs(t, db, n.box.Account); got[rows[5].Object] != 3 || got[rows[6].Object] != 0 {
			t.Errorf("shares after MOVE: %v", got)
		}
		n = do(t, db, n, n.within(false, 7, 7))
		if got := refs(t, db, n.box.Account)[rows[7].Object]; got != 3 {
			t.Errorf("%d refs after two copies at once", got)
		}
		n = do(t, db, n, n.within(true, 8))
		if n.box.Messages != 10 || n.box.UIDNext != 14 {
			t.Errorf("after COPY and MOVE within: %+v", n.box)
		}
		do(t, db, to, to.transferring(n, true, to.live()...))
		n, to = load(t, db, n.box), load(t, db, to.box)
		sound(t, db, n)
		sound(t, db, to)
		if days := work(t, db, n.box.Account); days[n.box.ID] == 0 || days[to.box.ID] != to.box.ModSeq {
			t.Errorf("the collector's work is %v", days)
		}
	})
}

func TestLostRace(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(3))
		to := create(t, db, n, "Archive")
		stale := n
		n = do(t, db, n, n.storing(metadata.Seen, 1))
		other := *n
		other.box.Stamp++
		for name, c := range map[string]*metadata.Commit{
			"store": stale.storing(metadata.Flagged, 2), "append": stale.appending(2), "expunge": stale.expunging(3),
			"copy": stale.transferring(to, false, 1), "move": stale.transferring(to, true, 1), "within": stale.within(false, 1),
			"stamp": other.storing(metadata.Flagged, 2), "stamps": other.transferring(to, true, 1),
		} {
			if _, err := db.Commit(t.Context(), c); err == nil {
				t.Errorf("%s on an old version succeeded", name)
			} else {
				wantErr(t, err, metadata.ErrConflict)
			}
		}
		after := load(t, db, n.box)
		if after.box.Version != n.box.Version || after.slot(2) != n.slot(2) || len(messages(t, db, n.box)) != 3 {
			t.Errorf("a lost commit changed something: %+v", after.box)
		}
		if got := load(t, db, to.box); got.box.Version != to.box.Version || len(got.chunks) != 0 {
			t.Errorf("a lost commit changed the target: %+v", got.box)
		}
		_, err := db.DeleteMailbox(t.Context(), n.box.Account, "Archive")
		check(t, err)
		gone := *n
		gone.box.ID = 99
		for name, c := range map[string]*metadata.Commit{
			"store": to.storing(metadata.Seen), "append": to.appending(1), "expunge": to.within(false), "copy": n.transferring(to, false, 1),
			"missing": gone.storing(metadata.Seen), "missing append": gone.appending(1), "missing target": n.transferring(&gone, true, 1),
		} {
			if _, err := db.Commit(t.Context(), c); err == nil {
				t.Errorf("%s into a deleted mailbox succeeded", name)
			} else {
				wantErr(t, err, metadata.ErrNoMailbox)
			}
		}
	})
}

func TestQuota(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db, func(a *metadata.NewAccount) { a.Limits = metadata.Quota{Bytes: 5 * size, Messages: 8} })
		used := func(want int64) {
			t.Helper()
			u, err := db.Usage(ctx, n.box.Account)
			check(t, err)
			if u != (metadata.Quota{Bytes: want * size, Messages: want}) {
				t.Errorf("used are %+v, want %d messages", u, want)
			}
		}
		refused := func(c *metadata.Commit) {
			t.Helper()
			_, err := db.Commit(ctx, c)
			wantErr(t, err, metadata.ErrOverQuota)
			if got := load(t, db, n.box); got.box.Version != n.box.Version {
				t.Errorf("what was over quota changed the mailbox: %+v", got.box)
			}
		}
		limited := func(c *metadata.Commit) *metadata.Commit {
			c.Limited = true
			return c
		}
		n = do(t, db, n, n.appending(4))
		refused(n.appending(2))
		refused(n.within(false, 1, 2))
		to := create(t, db, n, "Archive")
		refused(n.transferring(to, false, 1, 2))
		n = do(t, db, n, limited(n.appending(1))) // to the brim
		used(5)
		do(t, db, n, n.transferring(to, true, 1, 2))
		n = load(t, db, n.box)
		used(5)
		n = do(t, db, n, n.expunging(3))
		used(4)
		check(t, db.SetLimits(ctx, "alice@example.org", metadata.Quota{Bytes: 2 * size}))
		n = do(t, db, n, n.expunging(4)) // above the limit, but less than before
		used(3)
		refused(n.appending(1))
		_, err := db.DeleteMailbox(ctx, n.box.Account, "Archive")
		check(t, err)
		used(1)
		check(t, db.SetLimits(ctx, "alice@example.org", metadata.Quota{}))
		n = do(t, db, n, n.appending(3))
		used(4)

		c := n.appending(1) // under way when the first limit comes
		check(t, db.SetLimits(ctx, "alice@example.org", metadata.Quota{Messages: 5}))
		wantErr(t, errOf(db.Commit(ctx, c)), metadata.ErrConflict)
		used(4)
		n = load(t, db, n.box)
		refused(n.appending(2))
		n = do(t, db, n, limited(n.appending(1)))
		used(5)
	})
}

func TestDeliveries(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		ctx := t.Context()
		n := inboxOf(t, db)
		c := n.appending(2)
		c.Deliveries = []metadata.Delivery{
			{Digest: digest("a"), Mailbox: n.box.ID, UID: 1}, {Digest: digest("b"), Mailbox: n.box.ID, UID: 2},
		}
		n = do(t, db, n, c)
		c = n.appending(2)
		c.Deliveries = []metadata.Delivery{
			{Digest: digest("c"), Mailbox: n.box.ID, UID: 3}, {Digest: digest("b"), Mailbox: n.box.ID, UID: 4},
		}
		wantErr(t, errOf(db.Commit(ctx, c)), metadata.ErrDelivered)
		c.Deliveries = []metadata.Delivery{ // the same twice is seen only when it is inserted
			{Digest: digest("c"), Mailbox: n.box.ID, UID: 3}, {Digest: digest("c"), Mailbox: n.box.ID, UID: 4},
		}
		wantErr(t, errOf(db.Commit(ctx, c)), metadata.ErrDelivered)
		if got := load(t, db, n.box); got.box.Version != n.box.Version {
			t.Errorf("a repeated delivery changed the mailbox: %+v", got.box)
		}
		c.Deliveries = c.Deliveries[:1]
		n = do(t, db, n, c)
		if n.box.Messages != 4 {
			t.Errorf("%d messages", n.box.Messages)
		}
	})
}

func TestDeadline(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		c := n.appending(1)
		c.Deadline = time.Now().Add(-time.Second)
		wantErr(t, errOf(db.Commit(t.Context(), c)), metadata.ErrLate)
		c.Deadline = time.Now().Add(time.Hour)
		do(t, db, n, c)
	})
}

func TestSourceGone(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(2))
		to := create(t, db, n, "Archive")
		for _, c := range []*metadata.Commit{n.transferring(to, true, 1, 7), n.transferring(to, false, 7), n.within(false, 1, 7)} {
			wantErr(t, errOf(db.Commit(t.Context(), c)), metadata.ErrSourceGone)
		}
		if got := load(t, db, n.box); got.box.Version != n.box.Version {
			t.Errorf("a copy that came up short changed the mailbox: %+v", got.box)
		}
	})
}

// REPLACE into another mailbox: an insert there and an expunge here.
func TestReplace(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(2))
		to := create(t, db, n, "Drafts")
		here, there := n.begin(), to.begin()
		here.set(1, metadata.Expunged)
		there.ch.Insert = []metadata.Message{newMessage(there.next(metadata.Draft))}
		do(t, db, n, n.commit(there.change(), here.change()))
		n, to = load(t, db, n.box), load(t, db, to.box)
		sound(t, db, n)
		sound(t, db, to)
		if n.box.Messages != 1 || to.box.Messages != 1 {
			t.Errorf("%d and %d messages", n.box.Messages, to.box.Messages)
		}
		same := n.begin()
		same.set(2, metadata.Expunged)
		same.ch.Insert = []metadata.Message{newMessage(same.next(0))}
		n = do(t, db, n, n.commit(same.change()))
		if !slices.Equal(n.live(), []uint32{3}) {
			t.Errorf("live are %d", n.live())
		}
	})
}

func TestThreads(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		add := func(refs ...[]int64) []int64 {
			t.Helper()
			c := n.appending(len(refs))
			for i, r := range refs {
				c.Changes[0].Insert[i].References = r
			}
			n = do(t, db, n, c)
			rows := messages(t, db, n.box)
			var got []int64
			for _, m := range c.Changes[0].Insert {
				got = append(got, rows[m.UID].ThreadID)
			}
			return got
		}
		root := add([]int64{10})[0]
		for _, refs := range [][]int64{
			{11, 10},     // a reply
			{13, 10, 12}, // a reply to one that is not here
			{10},         // the same again
			{0, 10},      // a reply without an id
			{14, 99, 11}, // one whose root is not here, to a reply
		} {
			if got := add(refs)[0]; got != root {
				t.Errorf("references %d: thread %d, want %d", refs, got, root)
			}
		}
		if got := add([]int64{20})[0]; got == root {
			t.Error("a stranger came into the thread")
		}
		if got := add(nil)[0]; got == root {
			t.Error("a message without an id came into the thread")
		}
		// A reply comes before what it replies to, and several come at once.
		early := add([]int64{31, 30})[0]
		got := add([]int64{30}, []int64{40}, []int64{32, 30, 31}, []int64{41, 40}, []int64{0})
		if got[0] != early || got[2] != early || got[1] != got[3] || got[1] == early || got[4] == early {
			t.Errorf("threads %d, the early reply has %d", got, early)
		}
	})
}

func TestMessageRanges(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(20))
		var ranges []metadata.UIDRange
		for i := range uint32(3000) {
			ranges = append(ranges, metadata.UIDRange{First: 2*i + 2, Last: 2*i + 2})
		}
		for _, test := range []struct {
			ranges []metadata.UIDRange
			want   []uint32
		}{
			{nil, nil},
			{[]metadata.UIDRange{{First: 3, Last: 5}, {First: 19, Last: 400}}, []uint32{3, 4, 5, 19, 20}},
			{ranges, []uint32{2, 4, 6, 8, 10, 12, 14, 16, 18, 20}},
		} {
			var got []uint32
			before := db.Stats().RoundTrips
			check(t, db.Messages(t.Context(), n.box.Account, n.box.ID, test.ranges, metadata.ColSize, func(m *metadata.Message) error {
				if m.Size != size || m.Summary != nil || m.EmailID != 0 || !m.InternalDate.IsZero() {
					t.Errorf("asked for the size, got %+v", m)
				}
				got = append(got, m.UID)
				return nil
			}))
			if !slices.Equal(got, test.want) {
				t.Errorf("UIDs %d, want %d", got, test.want)
			}
			if trips := db.Stats().RoundTrips - before; trips > 1 {
				t.Errorf("%d round trips", trips)
			}
		}
		stop := metadata.ErrNotFound
		wantErr(t, db.Messages(t.Context(), n.box.Account, n.box.ID, ranges, 0, func(*metadata.Message) error { return stop }), stop)
	})
}

// A commit that names its mailbox does nothing when another node has renamed it.
func TestRenamedMeanwhile(t *testing.T) {
	eachMode(t, func(t *testing.T, db *metadata.DB) {
		n := inboxOf(t, db)
		n = do(t, db, n, n.appending(2))
		to := create(t, db, n, "Archive")
		commits := func(name string) []*metadata.Commit {
			all := []*metadata.Commit{to.appending(1), to.storing(0, 1), n.transferring(to, true, 1), n.transferring(to, false, 1)}
			replace := to.appending(1)
			replace.Changes[0].Expunged = 1
			all = append(all, replace)
			for _, c := range all {
				c.Changes[len(c.Changes)-1].Name = name
			}
			return all
		}
		_, err := db.RenameMailbox(t.Context(), n.box.Account, "Archive", "Old")
		check(t, err)
		for i, c := range commits("Archive") {
			if _, err := db.Commit(t.Context(), c); !errors.Is(err, metadata.ErrConflict) {
				t.Errorf("commit %d: %v, want a conflict", i, err)
			}
		}
		if got := load(t, db, to.box); got.box.Version != to.box.Version || len(got.chunks) != 0 {
			t.Errorf("changed to %+v", got.box)
		}
		check(t, errOf(db.Commit(t.Context(), commits("Old")[2])))
		sound(t, db, load(t, db, to.box))
		for _, ch := range [][]metadata.Change{nil, {{Mailbox: 1, Seen: n.box.Version, ModSeq: n.box.ModSeq}}, {{}, {}, {}}} {
			if _, err := db.Commit(t.Context(), n.commit(ch...)); err == nil {
				t.Errorf("a commit of %d changes of nothing succeeded", len(ch))
			}
		}
	})
}
