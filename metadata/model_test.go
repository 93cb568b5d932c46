package metadata_test

import (
	"errors"
	"flag"
	"fmt"
	"maps"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"starling/metadata"
	"starling/metadata/metadatatest"
)

// modelBox is what a mailbox should be, said as simply as possible.
type modelBox struct {
	version metadata.Version
	uidnext int64
	horizon int64
	slots   map[uint32]metadata.Slot // of all messages that were ever there, but for dropped chunks
	rows    map[uint32]metadata.ObjectID
}

// model is an account with two mailboxes, and connections that work on it.
type model struct {
	t      *testing.T
	db     *metadata.DB
	boxes  [2]*modelBox
	conns  [3][2]*node // what each connection holds, current or not
	doomed map[metadata.ObjectID]bool
	did    *tally
}

// TestModel draws random changes from several connections, of which each acts
// on what it last saw, and compares the mailboxes with the model after each.
func TestModel(t *testing.T) {
	for name, value := range map[string]string{"rapid.seed": "20260101", "rapid.checks": "40", "rapid.steps": "60", "rapid.nofailfile": "true"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			check(t, f.Value.Set(value))
		}
	}
	t.Parallel()
	db := metadatatest.Open(t)
	accounts := 0
	var did tally
	rapid.Check(t, func(rt *rapid.T) {
		accounts++
		m := newModel(t, db, fmt.Sprintf("a%d@example.org", accounts), &did)
		rt.Repeat(map[string]func(*rapid.T){
			"append":   m.append,
			"store":    m.store,
			"expunge":  m.expunge,
			"copy":     func(rt *rapid.T) { m.transfer(rt, false) },
			"move":     func(rt *rapid.T) { m.transfer(rt, true) },
			"undelete": m.undelete,
			"collect":  m.collect,
			"refresh":  m.refreshOne,
			"":         m.compare,
		})
	})
	t.Logf("%+v", did)
	if !t.Failed() && (did.won < 200 || did.lost < 50 || did.collected < 100 || did.undeleted < 10 || did.dropped < 3) {
		t.Error("that is too little to say much")
	}
}

// tally is how much was done.
type tally struct{ won, lost, undeleted, collected, dropped int }

func newModel(t *testing.T, db *metadata.DB, name string, did *tally) *model {
	a := metadatatest.Account(t, db, name, func(a *metadata.NewAccount) {
		a.Limits = metadata.Quota{Messages: 1 << 40}
		a.Mailboxes = []metadata.NewMailbox{{Name: "Archive"}}
	})
	m := &model{t: t, db: db, did: did, doomed: map[metadata.ObjectID]bool{}}
	for i, name := range []string{"INBOX", "Archive"} {
		box, err := db.MailboxByName(t.Context(), a.ID, name)
		check(t, err)
		m.boxes[i] = &modelBox{
			version: box.Version, uidnext: 1,
			slots: map[uint32]metadata.Slot{}, rows: map[uint32]metadata.ObjectID{},
		}
		for c := range m.conns {
			m.conns[c][i] = load(t, db, box)
		}
	}
	return m
}

// add gives the model a message.
func (b *modelBox) add(s metadata.Slot, object metadata.ObjectID) {
	uid := uint32(b.uidnext)
	b.uidnext++
	b.slots[uid], b.rows[uid] = s, object
}

// next is the modseq of the change under way.
func (b *modelBox) next() int64 { return b.version.ModSeq + 1 }

// pick draws a connection and a mailbox, which it holds as node.
func (m *model) pick(rt *rapid.T) (conn, box int, n *node) {
	conn = rapid.IntRange(0, len(m.conns)-1).Draw(rt, "connection")
	box = rapid.IntRange(0, 1).Draw(rt, "mailbox")
	return conn, box, m.conns[conn][box]
}

// some draws a few of the UIDs.
func some(rt *rapid.T, uids []uint32) []uint32 {
	if len(uids) == 0 {
		rt.Skip("no messages")
	}
	first := rapid.IntRange(0, len(uids)-1).Draw(rt, "first")
	count := rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(1, len(uids))).Draw(rt, "count")
	return uids[first:min(first+count, len(uids))]
}

// commit sends a change that a connection computed. It must win if the
// connection held the mailboxes as they are, and lose if not; it reports which.
// Then the connection reads what it holds anew.
func (m *model) commit(rt *rapid.T, conn int, c *metadata.Commit, boxes ...int) bool {
	current := true
	for _, box := range boxes {
		current = current && m.conns[conn][box].box.Version == m.boxes[box].version
	}
	done, err := m.db.Commit(m.t.Context(), c)
	switch {
	case current && err != nil:
		rt.Fatalf("a commit on the current version: %v", err)
	case !current && !errors.Is(err, metadata.ErrConflict):
		rt.Fatalf("a commit on an old version: %v", err)
	case !current:
		m.did.lost++
	default:
		m.did.won++
		for i, box := range boxes {
			m.boxes[box].version = done.Version(c, i)
		}
	}
	return current
}

func (m *model) refresh(conn int) {
	for i, n := range m.conns[conn] {
		m.conns[conn][i] = again(m.t, m.db, n)
	}
}

func (m *model) refreshOne(rt *rapid.T) {
	conn, box, n := m.pick(rt)
	m.conns[conn][box] = again(m.t, m.db, n)
	m.known(rt, m.conns[conn][box], m.boxes[box])
}

func (m *model) append(rt *rapid.T) {
	conn, box, n := m.pick(rt)
	count := rapid.OneOf(rapid.IntRange(1, 3), rapid.IntRange(60, 150)).Draw(rt, "count")
	c := n.appending(count)
	b := m.boxes[box]
	next := b.next()
	if m.commit(rt, conn, c, box) {
		for _, msg := range c.Changes[0].Insert {
			b.add(metadata.Slot{ModSeq: next}, msg.Object)
		}
	}
	m.refresh(conn)
}

func (m *model) store(rt *rapid.T) {
	conn, box, n := m.pick(rt)
	uids := some(rt, n.live())
	flags := metadata.Flags(rapid.Uint64Range(0, 1<<9-1).Draw(rt, "flags")) &^ (metadata.Expunged | metadata.Moved)
	c := n.storing(flags, uids...)
	b := m.boxes[box]
	next := b.next()
	if m.commit(rt, conn, c, box) {
		for _, uid := range uids {
			b.slots[uid] = metadata.Slot{Flags: flags, ModSeq: next}
		}
	}
	m.refresh(conn)
}

func (m *model) expunge(rt *rapid.T) {
	conn, box, n := m.pick(rt)
	uids := some(rt, n.live())
	c := n.expunging(uids...)
	b := m.boxes[box]
	next := b.next()
	if m.commit(rt, conn, c, box) {
		for _, uid := range uids {
			b.slots[uid] = metadata.Slot{Flags: b.slots[uid].Flags | metadata.Expunged, ModSeq: next}
		}
	}
	m.refresh(conn)
}

// transfer copies or moves, into the other mailbox or the same one.
func (m *model) transfer(rt *rapid.T, move bool) {
	conn, box, n := m.pick(rt)
	target := rapid.IntRange(0, 1).Draw(rt, "target")
	uids := some(rt, n.live())
	from, to := m.boxes[box], m.boxes[target]
	fromNext, toNext := from.next(), to.next()
	boxes := []int{box}
	c := n.within(move, uids...)
	if target != box {
		boxes = append(boxes, target)
		c = n.transferring(m.conns[conn][target], move, uids...)
	}
	if m.commit(rt, conn, c, boxes...) {
		for _, uid := range uids {
			old := from.slots[uid]
			to.add(metadata.Slot{Flags: old.Flags, ModSeq: toNext}, from.rows[uid])
			if move {
				from.slots[uid] = metadata.Slot{Flags: old.Flags | metadata.Expunged | metadata.Moved, ModSeq: fromNext}
			}
		}
	}
	m.refresh(conn)
}

// undelete brings expunged messages back, if they were not collected.
func (m *model) undelete(rt *rapid.T) {
	conn, box, n := m.pick(rt)
	b := m.boxes[box]
	var gone []uint32
	for uid, s := range n.slots() {
		if _, there := b.rows[uid]; there && !s.Live() && s.Flags&metadata.Moved == 0 {
			gone = append(gone, uid)
		}
	}
	slices.Sort(gone)
	uids := some(rt, gone)
	c := n.undeleting(uids...)
	next := b.next()
	if m.commit(rt, conn, c, box) {
		m.did.undeleted += len(uids)
		for _, uid := range uids {
			old := b.slots[uid]
			b.add(metadata.Slot{Flags: old.Flags &^ metadata.Expunged, ModSeq: next}, b.rows[uid])
			b.slots[uid] = metadata.Slot{Flags: old.Flags | metadata.Moved, ModSeq: old.ModSeq}
		}
	}
	m.refresh(conn)
}

// collect takes what was expunged up to a modseq.
func (m *model) collect(rt *rapid.T) {
	box := rapid.IntRange(0, 1).Draw(rt, "mailbox")
	b := m.boxes[box]
	through := rapid.Int64Range(0, b.version.ModSeq).Draw(rt, "through")
	done, err := m.db.Collect(m.t.Context(), ref(m.conns[0][box]), through)
	if err != nil {
		rt.Fatalf("collect: %v", err)
	}
	due := func(s metadata.Slot) bool { return s.Flags&metadata.Expunged != 0 && s.ModSeq <= through }
	rows := 0
	for uid, object := range b.rows {
		if s := b.slots[uid]; due(s) {
			delete(b.rows, uid)
			rows++
			if s.Flags&metadata.Moved == 0 && m.owners()[object] == 0 {
				m.doomed[object] = true
			}
		}
	}
	chunks := b.drop(due)
	m.did.collected += rows
	m.did.dropped += chunks
	if done.Messages != rows || done.Chunks != chunks {
		rt.Fatalf("collected %+v, want %d messages and %d chunks", done, rows, chunks)
	}
	if rows > 0 || chunks > 0 {
		b.version = done.Version
	}
}

// drop forgets the chunks before that of UIDNEXT that hold nothing but what is due.
func (b *modelBox) drop(due func(metadata.Slot) bool) (dropped int) {
	for no := range int32(b.uidnext >> 7) {
		here := map[uint32]metadata.Slot{}
		all := true
		for uid, s := range b.slots {
			if metadata.ChunkOf(uid) == no {
				here[uid] = s
				all = all && due(s)
			}
		}
		if !all || len(here) == 0 {
			continue
		}
		dropped++
		for uid, s := range here {
			delete(b.slots, uid)
			b.horizon = max(b.horizon, s.ModSeq)
		}
	}
	return dropped
}

// owners counts the messages that own each object.
func (m *model) owners() map[metadata.ObjectID]int {
	count := map[metadata.ObjectID]int{}
	for _, b := range m.boxes {
		for uid, object := range b.rows {
			if b.slots[uid].Flags&metadata.Moved == 0 {
				count[object]++
			}
		}
	}
	return count
}

// compare holds the database against the model.
func (m *model) compare(rt *rapid.T) {
	var used metadata.Quota
	for i, b := range m.boxes {
		n := load(m.t, m.db, m.conns[0][i].box)
		m.known(rt, n, b)
		if got := n.slots(); len(got) != len(b.slots) {
			rt.Fatalf("mailbox %d has %d slots, want %d", i, len(got), len(b.slots))
		}
		used.Messages += n.box.Messages
		used.Bytes += n.box.Bytes
		rows := map[uint32]metadata.ObjectID{}
		for uid, msg := range messages(m.t, m.db, n.box) {
			rows[uid] = msg.Object
		}
		if !maps.Equal(rows, b.rows) {
			rt.Fatalf("mailbox %d has rows %v, want %v", i, rows, b.rows)
		}
	}
	account := m.conns[0][0].box.Account
	if got, err := m.db.Usage(m.t.Context(), account); err != nil || got != used {
		rt.Fatalf("usage is %+v, want %+v: %v", got, used, err)
	}
	shares := refs(m.t, m.db, account)
	for object, owners := range m.owners() {
		if got, shared := shares[object]; shared && got != owners || !shared && owners != 1 {
			rt.Fatalf("object %x has %d owners, the count says %d", object, owners, got)
		}
	}
	given := map[metadata.ObjectID]bool{}
	for _, object := range doomed(m.t, m.db, m.conns[0][0]) {
		given[object] = true
	}
	if !maps.Equal(given, m.doomed) {
		rt.Fatalf("doomed are %v, want %v", given, m.doomed)
	}
}

// known compares what a connection holds with the model. It may still know of
// expunged messages whose chunks were dropped.
func (m *model) known(rt *rapid.T, n *node, b *modelBox) {
	var want metadata.Counters
	got := n.slots()
	for uid, s := range b.slots {
		e := editing{}
		e.count(s, 1)
		want = want.Add(e.ch.Delta)
		if got[uid] != s {
			rt.Fatalf("UID %d is %+v, want %+v", uid, got[uid], s)
		}
	}
	for uid, s := range got {
		if _, there := b.slots[uid]; !there && s.Live() {
			rt.Fatalf("UID %d is %+v, want nothing", uid, s)
		}
	}
	if n.box.Version != b.version || n.box.UIDNext != b.uidnext || n.box.Horizon != b.horizon || n.box.Counters != want {
		rt.Fatalf("the mailbox is %+v, want %+v, UIDNEXT %d, horizon %d, %+v", n.box, b.version, b.uidnext, b.horizon, want)
	}
}
