package metadata

import (
	"context"
	"fmt"
)

// repair is the commit that mends what was found, or a part of it; nil if there is nothing to mend.
func (r *recount) repair(ctx context.Context, found *MailboxCheck) (*Commit, error) {
	m := mending{r: r, edits: make(map[int32]*Edit), counted: found.Counted, change: Change{
		Mailbox: r.ref.Mailbox, Seen: r.box.Version, ModSeq: r.box.ModSeq + 1, UIDNext: r.box.UIDNext,
	}}
	if n := found.lastModSeq; n >= m.change.ModSeq {
		m.change.ModSeq, m.mends = n+1, true
	}
	if n := int64(found.lastUID); n >= r.box.UIDNext {
		m.change.UIDNext, m.mends = n+1, true
	}
	if r.lost {
		m.expunge(found.Lost)
	}
	if err := m.bringBack(ctx, found.Stray); err != nil {
		return nil, err
	}
	m.change.Delta = m.counted.sub(r.box.Counters)
	if !m.mends && m.change.Delta == (Counters{}) {
		return nil, nil
	}
	for _, e := range m.edits {
		m.change.Chunks = append(m.change.Chunks, e.Chunk())
	}
	return &Commit{Account: r.ref.Account, repairing: true, Changes: []Change{m.change}, Copies: m.copies}, nil
}

// mending is a repair in the making.
type mending struct {
	r       *recount
	change  Change
	copies  []Copy
	edits   map[int32]*Edit
	counted Counters // as it will be
	mends   bool     // something but the counters
}

func (m *mending) edit(uid uint32) *Edit {
	no := ChunkOf(uid)
	e := m.edits[no]
	if e == nil {
		if e = NewEdit(no); m.r.chunks[no] != nil {
			e = m.r.chunks[no].Edit()
		}
		m.edits[no] = e
	}
	return e
}

func (m *mending) set(uid uint32, flags Flags) {
	m.edit(uid).Set(int(uid%ChunkSlots), Slot{Flags: flags, ModSeq: m.change.ModSeq})
	m.mends = true
	if flags&Expunged != 0 {
		m.change.Expunged = m.change.ModSeq
	}
}

// expunge expunges lost messages.
func (m *mending) expunge(lost []uint32) {
	for _, uid := range lost {
		old := m.edit(uid).Slot(int(uid % ChunkSlots)).Flags
		m.counted.Messages--
		if old&Seen == 0 {
			m.counted.Unseen--
		}
		if old&Deleted != 0 {
			m.counted.Deleted--
		}
		m.set(uid, old|Expunged)
	}
}

// bringBack gives the messages of stray rows new UIDs, as many as there are left. The old ones
// become those of moved messages, whose rows go with the collector.
func (m *mending) bringBack(ctx context.Context, stray []uint32) error {
	const last = 1<<32 - 2 // UIDNEXT must still fit 32 bits
	for n, uid := range stray {
		if int64(uid) >= m.change.UIDNext { // as far ahead as no UID is
			stray = stray[:n]
			break
		}
	}
	stray = stray[:max(0, min(int64(len(stray)), last-m.change.UIDNext))]
	if len(stray) == 0 {
		return nil
	}
	sizes := make(map[uint32]int64, len(stray))
	err := m.r.db.Messages(ctx, m.r.ref.Account, m.r.ref.Mailbox, Ranges(stray, 0), ColSize, func(row *Message) error {
		sizes[row.UID] = row.Size
		return nil
	})
	if err != nil {
		return fmt.Errorf("read stray messages: %w", err)
	}
	for _, uid := range stray {
		size, there := sizes[uid]
		if !there {
			continue // the commit finds that the mailbox has changed
		}
		to := uint32(m.change.UIDNext) //nolint:gosec // fits, as above
		m.change.UIDNext++
		m.set(uid, Expunged|Moved)
		m.set(to, 0)
		m.counted = m.counted.Add(Counters{Messages: 1, Unseen: 1, Bytes: size})
		m.copies = append(m.copies, Copy{From: m.r.ref.Mailbox, UID: uid, To: m.r.ref.Mailbox, NewUID: to})
	}
	return nil
}
