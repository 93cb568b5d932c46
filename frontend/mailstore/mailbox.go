package mailstore

import (
	"context"

	"starling/blobstore/codec"
	"starling/metadata"
)

// Mailbox is a mailbox that a session has open.
type Mailbox struct {
	account *Account
	box     *box
	changed func()
}

func newMailbox(a *Account, b *box, changed func()) *Mailbox {
	m := &Mailbox{account: a, box: b, changed: changed}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sessions[m] = struct{}{}
	return m
}

// Close lets go of the mailbox. Snapshots of it stay good.
func (m *Mailbox) Close() {
	m.box.mu.Lock()
	delete(m.box.sessions, m)
	m.box.mu.Unlock()
	m.box.release()
}

// ID is the mailbox's number in its account.
func (m *Mailbox) ID() metadata.MailboxID { return m.box.ref.Mailbox }

// Snapshot is the mailbox as the node knows it. It asks nobody.
func (m *Mailbox) Snapshot() *Snapshot { return m.box.current.Load() }

// Refresh is the mailbox as it is in PostgreSQL now, read after the call began.
// metadata.ErrNoMailbox says that it was deleted.
func (m *Mailbox) Refresh(ctx context.Context) (*Snapshot, error) {
	if err := m.box.refresh(ctx); err != nil {
		return nil, err
	}
	return m.Snapshot(), nil
}

// Gone says that the mailbox was deleted.
func (m *Mailbox) Gone() bool { return m.box.isGone() }

// Messages reads the rows of the messages with the given UIDs, those that are
// expunged but not yet collected included, in the order of the UIDs. What fn is
// given is valid until it returns.
func (m *Mailbox) Messages(ctx context.Context, uids []metadata.UIDRange, columns metadata.Columns, fn func(*metadata.Message) error) error {
	return m.box.store.db.Messages(ctx, m.box.ref.Account, m.box.ref.Mailbox, uids, columns, fn)
}

// ClaimRecent takes for this session the messages from a UID on, below the view's
// UIDNEXT, as recent. What another session was first to take is not in it.
// RFC 3501 §2.3.2.
func (m *Mailbox) ClaimRecent(ctx context.Context, view *Snapshot) (from uint32, won bool, err error) {
	first, won, err := m.box.store.db.ClaimRecent(ctx, m.box.ref.Account, m.box.ref.Mailbox, view.row.UIDNext)
	if err == nil { // then all of it is taken, whoever has it
		m.box.mu.Lock()
		m.box.taken(view.row.Epoch, view.row.UIDNext)
		m.box.mu.Unlock()
	}
	return uint32(first), won, err //nolint:gosec // a UID
}

// Forget has the node read the row of a message anew the next time: what could not be read by what it
// remembers may have been mended.
func (m *Mailbox) Forget(uid uint32) { m.box.forgetRow(uid) }

// FirstToClaim reports whether no other session of this node was told so for the view's UIDNEXT, or a
// later one: of many that learn of the same messages one has to claim them.
func (m *Mailbox) FirstToClaim(view *Snapshot) bool {
	for {
		claimed := m.box.claimed.Load()
		if view.row.UIDNext <= claimed {
			return false
		}
		if m.box.claimed.CompareAndSwap(claimed, view.row.UIDNext) {
			return true
		}
	}
}

// taken notes that the messages below uidnext are taken as recent, so that the node need not read that; mu is held. No session
// is told: to those that have the mailbox open it makes no difference.
func (b *box) taken(epoch, uidnext int64) {
	s := b.current.Load()
	if s.row.Epoch != epoch || s.row.Recent >= uidnext {
		return
	}
	known := *s
	known.row.Recent = uidnext
	b.current.Store(&known)
}

// Body opens the bytes of a message that was read with metadata.ColBlob.
func (m *Mailbox) Body(row *metadata.Message) (*codec.Body, error) {
	return m.box.store.body(m.box.ref.Account, row)
}
