package mailstore

import (
	"context"
	"fmt"
	"time"

	"starling/events"
	"starling/metadata"
)

// Expunged is a message that was expunged and can be brought back with Undelete.
type Expunged struct {
	UID  uint32
	Day  time.Time // on which it was, by UTC; it is not known better
	Size int64
	Date time.Time // INTERNALDATE
}

// Expunged lists the messages of uids that were expunged and can be brought back, as of
// now, rising by UID. collected is how many of uids cannot any more, because the
// collector took them; it forgets that after some time.
func (m *Mailbox) Expunged(ctx context.Context, uids []metadata.UIDRange) (all []Expunged, collected int, err error) {
	view, err := m.Refresh(ctx)
	if err != nil {
		return nil, 0, err
	}
	days, err := m.box.store.db.ExpungedDays(ctx, m.box.ref)
	if err != nil {
		return nil, 0, err
	}
	expunged := func(s metadata.Slot) bool {
		return s.ModSeq != 0 && s.Flags&metadata.Expunged != 0 && s.Flags&metadata.Moved == 0
	}
	for _, r := range uids {
		for uid, slot := range view.slots(r.First, r.Last, expunged) {
			e := Expunged{UID: uid}
			for _, d := range days {
				if e.Day = d.Day; d.ModSeq >= slot.ModSeq {
					break
				}
			}
			all = append(all, e)
		}
	}
	found, err := m.withRows(ctx, all)
	return found, len(all) - len(found), err
}

// withRows are those of the messages whose rows are there.
func (m *Mailbox) withRows(ctx context.Context, all []Expunged) ([]Expunged, error) {
	var ranges []metadata.UIDRange
	for _, e := range all {
		if n := len(ranges); n > 0 && ranges[n-1].Last+1 == e.UID {
			ranges[n-1].Last = e.UID
			continue
		}
		ranges = append(ranges, metadata.UIDRange{First: e.UID, Last: e.UID})
	}
	var found []Expunged
	err := m.Messages(ctx, ranges, metadata.ColSize|metadata.ColDates, func(row *metadata.Message) error {
		for all[0].UID < row.UID {
			all = all[1:]
		}
		all[0].Size, all[0].Date = row.Size, row.InternalDate
		found = append(found, all[0])
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read expunged messages: %w", err)
	}
	return found, nil
}

// DeletedMailboxes lists the mailboxes that were deleted and can be brought back, the last
// deleted first.
func (a *Account) DeletedMailboxes(ctx context.Context) ([]metadata.DeletedMailbox, error) {
	return a.store.db.DeletedMailboxes(ctx, a.row.ID)
}

// RestoreMailbox brings a deleted mailbox back under a name, with its messages and their
// UIDs, but with a new UIDVALIDITY: clients were told that it is gone. lost is how
// many of its messages were collected already. The errors are those of
// metadata.DB.RestoreMailbox.
func (a *Account) RestoreMailbox(ctx context.Context, id metadata.MailboxID, name string) (m metadata.Mailbox, lost int, err error) {
	ref := metadata.BoxRef{Account: a.row.ID, Mailbox: id}
	done, lost, err := a.store.db.RestoreMailbox(ctx, ref, name)
	if err != nil {
		a.store.metrics.refuse(err)
		return metadata.Mailbox{}, 0, err
	}
	if b := a.store.lookup(ref); b != nil {
		b.setGone() // what sessions have of it is what was deleted
	}
	a.listChanged(ctx, done)
	a.store.publish(a.store.cause(ctx).stamp(events.Event{
		Account: int64(ref.Account), Mailbox: int64(id), Kind: events.Changed,
		ModSeq: done.Mailbox.ModSeq, Epoch: done.Mailbox.Epoch,
	}))
	return done.Mailbox, lost, nil
}

// forsake lets go of the box of a mailbox that was deleted, also while sessions have it:
// if the mailbox is there all the same, it was brought back, and who opens it has to
// get another box than those who are to hear that it is gone. validity is the UIDVALIDITY that it has: a
// greater one than the box has says so to a node that heard of nothing.
func (s *Store) forsake(ref metadata.BoxRef, validity uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.accounts[ref.Account]
	if r == nil || r.boxes[ref.Mailbox] == nil {
		return
	}
	b := r.boxes[ref.Mailbox]
	b.mu.Lock()
	defer b.mu.Unlock()
	if cur := b.current.Load(); cur != nil && cur.row.UIDValidity < validity && !b.gone {
		b.gone = true
		b.tell()
	}
	if !b.gone {
		return
	}
	delete(r.boxes, ref.Mailbox)
	s.boxes.Add(-1)
	if b.holders == 0 {
		s.idle.Add(-1)
	}
	b.dropped = true
	b.charge()
}
