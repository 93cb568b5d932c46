package mailstore

import (
	"context"
	"errors"
	"fmt"

	"starling/events"
	"starling/metadata"
)

// Undelete brings expunged messages back that the collector has not taken yet,
// as new messages of this mailbox: with the same email id, flags and internal
// date, but without \Deleted, and with new UIDs, because clients were told that
// the old ones are gone. Messages that are live, were moved away, brought back
// before or collected are passed over. What comes back is charged to the quota;
// metadata.ErrOverQuota says that nothing did.
func (m *Mailbox) Undelete(ctx context.Context, uids []metadata.UIDRange) (Copied, error) {
	b := m.box
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	for range maxAttempts {
		done, err := b.undelete(ctx, uids)
		// The collector may take a row between our look and the commit.
		if !errors.Is(err, metadata.ErrSourceGone) && !errors.Is(err, metadata.ErrConflict) {
			b.store.metrics.refuse(err)
			return done, err
		}
	}
	return Copied{}, fmt.Errorf("undelete in mailbox %d: %w", b.ref.Mailbox, metadata.ErrUnavailable)
}

// undelete tries once, under the mailbox's lock: it is rare, and cannot starve so.
func (b *box) undelete(ctx context.Context, uids []metadata.UIDRange) (Copied, error) {
	var rows []metadata.Message
	err := b.store.db.Messages(ctx, b.ref.Account, b.ref.Mailbox, uids, metadata.ColSize, func(row *metadata.Message) error {
		rows = append(rows, metadata.Message{UID: row.UID, Size: row.Size})
		return nil
	})
	if err != nil {
		return Copied{}, fmt.Errorf("read expunged messages: %w", err)
	}
	var result Copied
	var built *build
	var chunks []*metadata.Chunk
	base := b.current.Load()
	done, err := b.store.db.CommitLocked(ctx, b.ref.Account, []metadata.MailboxID{b.ref.Mailbox},
		[]metadata.Version{base.row.Version}, func(loads []metadata.Load) (*metadata.Commit, error) {
			base = base.after(loads[0])
			b.install(base)
			built = newBuild(b, base)
			built.begin()
			var copies []metadata.Copy
			if result, copies, err = built.undelete(rows); err != nil || len(copies) == 0 {
				return nil, err
			}
			var commit *metadata.Commit
			commit, chunks = built.commit()
			commit.Copies = copies
			return commit, nil
		})
	if err != nil {
		return Copied{}, err
	}
	result.After = base
	if built.changed() {
		b.store.metrics.commit(kindUndelete, 1)
		var hint events.Event
		result.After, hint = b.committed(b.store.cause(ctx), built, chunks, done, 0)
		b.store.publish(hint)
	}
	return result, nil
}

// undelete adds the messages of rows again that are expunged. The object goes
// over to the new message, as with MOVE: the old slot is marked so, and keeps its
// modseq, because nothing changed for anybody who knows that it is gone.
func (b *build) undelete(rows []metadata.Message) (result Copied, copies []metadata.Copy, err error) {
	result = Copied{UIDValidity: b.row.UIDValidity, First: uint32(b.row.UIDNext)} //nolint:gosec // UIDNEXT fits 32 bits
	for _, row := range rows {
		old := b.base.Slot(row.UID)
		if old.Flags&metadata.Expunged == 0 || old.Flags&metadata.Moved != 0 {
			continue
		}
		if err := b.room(1); err != nil {
			return Copied{}, nil, err
		}
		uid := b.add(old.Flags&^(metadata.Expunged|metadata.Deleted), row.Size)
		old.Flags |= metadata.Moved
		b.edit(metadata.ChunkOf(row.UID)).Set(int(row.UID%metadata.ChunkSlots), old)
		copies = append(copies, metadata.Copy{
			From: b.box.ref.Mailbox, UID: row.UID,
			To: b.box.ref.Mailbox, NewUID: uid,
		})
		result.Source = append(result.Source, row.UID)
	}
	return result, copies, nil
}
