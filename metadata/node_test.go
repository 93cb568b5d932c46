package metadata_test

import (
	"crypto/sha256"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"starling/metadata"
)

// node is what a frontend does in small: it holds a mailbox and computes
// changes of it.
type node struct {
	box    metadata.Mailbox
	chunks map[int32]*metadata.Chunk
}

func apply(old *node, l metadata.Load) *node {
	n := &node{box: l.Mailbox, chunks: map[int32]*metadata.Chunk{}}
	if old != nil && !l.Whole {
		maps.Copy(n.chunks, old.chunks)
	}
	for _, c := range l.Chunks {
		n.chunks[c.No()] = c
	}
	return n
}

func load(t *testing.T, db *metadata.DB, box metadata.Mailbox) *node {
	t.Helper()
	l, err := db.Load(t.Context(), box.Account, box.ID, metadata.Version{})
	check(t, err)
	return apply(nil, l)
}

// slots are all slots that hold or held a message, by UID.
func (n *node) slots() map[uint32]metadata.Slot {
	all := map[uint32]metadata.Slot{}
	for _, c := range n.chunks {
		for i := range c.Len() {
			if s := c.Slot(i); s.ModSeq != 0 {
				all[c.First()+uint32(i)] = s
			}
		}
	}
	return all
}

// live are the UIDs of the messages, rising.
func (n *node) live() []uint32 {
	var uids []uint32
	for uid, s := range n.slots() {
		if s.Live() {
			uids = append(uids, uid)
		}
	}
	slices.Sort(uids)
	return uids
}

func (n *node) slot(uid uint32) metadata.Slot {
	if c := n.chunks[metadata.ChunkOf(uid)]; c != nil {
		return c.Slot(int(uid % metadata.ChunkSlots))
	}
	return metadata.Slot{}
}

const size = 100 // of every message in these tests

// editing is a change in the making.
type editing struct {
	n     *node
	ch    metadata.Change
	edits map[int32]*metadata.Edit
}

func (n *node) begin() *editing {
	return &editing{n: n, edits: map[int32]*metadata.Edit{}, ch: metadata.Change{
		Mailbox: n.box.ID, Seen: n.box.Version, ModSeq: n.box.ModSeq + 1, UIDNext: n.box.UIDNext,
	}}
}

func (e *editing) set(uid uint32, flags metadata.Flags) {
	no := metadata.ChunkOf(uid)
	edit := e.edits[no]
	if edit == nil {
		if c := e.n.chunks[no]; c != nil {
			edit = c.Edit()
		} else {
			edit = metadata.NewEdit(no)
		}
		e.edits[no] = edit
	}
	i := int(uid % metadata.ChunkSlots)
	e.count(edit.Slot(i), -1)
	s := metadata.Slot{Flags: flags, ModSeq: e.ch.ModSeq}
	edit.Set(i, s)
	e.count(s, 1)
	if flags&metadata.Expunged != 0 {
		e.ch.Expunged = e.ch.ModSeq
	}
}

func (e *editing) count(s metadata.Slot, by int64) {
	if !s.Live() {
		return
	}
	d := metadata.Counters{Messages: by, Bytes: by * size}
	if s.Flags&metadata.Seen == 0 {
		d.Unseen = by
	}
	if s.Flags&metadata.Deleted != 0 {
		d.Deleted, d.DeletedBytes = by, by*size
	}
	e.ch.Delta = e.ch.Delta.Add(d)
}

// next takes a UID.
func (e *editing) next(flags metadata.Flags) uint32 {
	uid := uint32(e.ch.UIDNext)
	e.ch.UIDNext++
	e.set(uid, flags)
	return uid
}

func (e *editing) change() metadata.Change {
	for _, edit := range e.edits {
		e.ch.Chunks = append(e.ch.Chunks, edit.Chunk())
	}
	e.edits = nil
	return e.ch
}

func newMessage(uid uint32) metadata.Message {
	m := metadata.Message{
		UID: uid, InternalDate: time.Unix(1_700_000_000+int64(uid), 0), Size: size, EmailID: rand.Int64(), ThreadID: rand.Int64(),
		Extent: []byte{1, 2}, Summary: []byte("summary"),
	}
	for i := range m.Object {
		m.Object[i] = byte(rand.Uint32())
	}
	return m
}

func (n *node) commit(changes ...metadata.Change) *metadata.Commit {
	c := &metadata.Commit{Account: n.box.Account, Changes: changes}
	for _, ch := range changes {
		c.Charge.Bytes += ch.Delta.Bytes
		c.Charge.Messages += ch.Delta.Messages
	}
	return c
}

func (n *node) appending(count int) *metadata.Commit {
	e := n.begin()
	for range count {
		e.ch.Insert = append(e.ch.Insert, newMessage(e.next(0)))
	}
	return n.commit(e.change())
}

func (n *node) storing(flags metadata.Flags, uids ...uint32) *metadata.Commit {
	e := n.begin()
	for _, uid := range uids {
		e.set(uid, flags)
	}
	return n.commit(e.change())
}

func (n *node) expunging(uids ...uint32) *metadata.Commit {
	e := n.begin()
	for _, uid := range uids {
		e.set(uid, n.slot(uid).Flags|metadata.Expunged)
	}
	return n.commit(e.change())
}

// transferring copies or moves messages from n to another mailbox.
func (n *node) transferring(to *node, move bool, uids ...uint32) *metadata.Commit {
	source, target := n.begin(), to.begin()
	if !move {
		source.ch.ModSeq = source.ch.Seen.ModSeq // it must only be as it was
	}
	var copies []metadata.Copy
	for _, uid := range uids {
		flags := n.slot(uid).Flags
		copies = append(copies, metadata.Copy{From: n.box.ID, UID: uid, To: to.box.ID, NewUID: target.next(flags)})
		if move {
			source.set(uid, flags|metadata.Expunged|metadata.Moved)
		}
	}
	c := n.commit(source.change(), target.change())
	c.Copies, c.Share = copies, !move
	return c
}

// within copies inside one mailbox.
func (n *node) within(move bool, uids ...uint32) *metadata.Commit {
	e := n.begin()
	var copies []metadata.Copy
	for _, uid := range uids {
		flags := n.slot(uid).Flags
		copies = append(copies, metadata.Copy{From: n.box.ID, UID: uid, To: n.box.ID, NewUID: e.next(flags)})
		if move {
			e.set(uid, flags|metadata.Expunged|metadata.Moved)
		}
	}
	c := n.commit(e.change())
	c.Copies, c.Share = copies, !move
	return c
}

func digest(s string) [32]byte { return sha256.Sum256([]byte(s)) }

// messages reads all rows of a mailbox.
func messages(t *testing.T, db *metadata.DB, box metadata.Mailbox) map[uint32]metadata.Message {
	t.Helper()
	all := map[uint32]metadata.Message{}
	var last uint32
	err := db.Messages(t.Context(), box.Account, box.ID, []metadata.UIDRange{{First: 1, Last: 1<<32 - 1}},
		metadata.ColDates|metadata.ColSize|metadata.ColIDs|metadata.ColBlob|metadata.ColSummary, func(m *metadata.Message) error {
			if m.UID <= last {
				t.Errorf("UID %d after %d", m.UID, last)
			}
			last = m.UID
			c := *m
			c.Extent, c.Summary = slices.Clone(m.Extent), slices.Clone(m.Summary)
			all[m.UID] = c
			return nil
		})
	check(t, err)
	return all
}

// sound says whether the row of a mailbox agrees with its slots and messages.
func sound(t *testing.T, db *metadata.DB, n *node) {
	t.Helper()
	var want metadata.Counters
	rows := messages(t, db, n.box)
	for uid, s := range n.slots() {
		e := editing{}
		e.count(s, 1)
		want = want.Add(e.ch.Delta)
		if s.ModSeq > n.box.ModSeq || int64(uid) >= n.box.UIDNext {
			t.Errorf("UID %d has modseq %d in a mailbox at %d with UIDNEXT %d", uid, s.ModSeq, n.box.ModSeq, n.box.UIDNext)
		}
		if _, ok := rows[uid]; !ok {
			t.Errorf("UID %d has no row", uid)
		}
		delete(rows, uid)
	}
	if len(rows) != 0 {
		t.Errorf("%d rows without a slot", len(rows))
	}
	if n.box.Counters != want {
		t.Errorf("counters are %+v, the slots give %+v", n.box.Counters, want)
	}
}
