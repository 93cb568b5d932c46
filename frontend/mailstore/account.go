package mailstore

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"starling/events"
	"starling/metadata"
)

// Account is an account as one session uses it.
type Account struct {
	store  *Store
	row    metadata.Account
	ended  func()
	traced atomic.Int64 // Unix nanoseconds of TraceUntil; 0: none
}

// Account begins a session of the account. Close ends it. ended is called, at
// least once, when the account was suspended or deleted or its password was
// changed, so that the session has to end; it must not wait for anything.
func (s *Store) Account(row metadata.Account, ended func()) *Account {
	a := &Account{store: s, row: row, ended: ended}
	a.setTraced(row.TraceUntil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.residentOf(row.ID).sessions[a] = struct{}{}
	return a
}

// Close ends the session. Mailboxes that it has open are closed on their own.
func (a *Account) Close() {
	s := a.store
	s.mu.Lock()
	defer s.mu.Unlock()
	if r := s.accounts[a.row.ID]; r != nil {
		delete(r.sessions, a)
		s.leave(a.row.ID)
	}
}

// Row is the account's row as of the login.
func (a *Account) Row() metadata.Account { return a.row }

// List reads the account's mailboxes and subscriptions, in one round trip.
func (a *Account) List(ctx context.Context) (metadata.List, error) {
	return a.store.db.List(ctx, a.row.ID)
}

// Usage is what the account's mail amounts to.
func (a *Account) Usage(ctx context.Context) (metadata.Quota, error) {
	return a.store.db.Usage(ctx, a.row.ID)
}

// Mailbox reads the row of the mailbox name; metadata.ErrNoMailbox if there is none.
func (a *Account) Mailbox(ctx context.Context, name string) (metadata.Mailbox, error) {
	return a.store.mailbox(ctx, a.row.ID, name)
}

// Create makes the mailbox name (RFC 9051 §6.3.4). specialUse are attributes of
// RFC 6154 §3, with their backslash.
func (a *Account) Create(ctx context.Context, name string, specialUse []string) (metadata.Mailbox, error) {
	done, err := a.store.db.CreateMailbox(ctx, a.row.ID, name, specialUse)
	if err != nil {
		return metadata.Mailbox{}, err
	}
	a.listChanged(ctx, done)
	return done.Mailbox, nil
}

// Delete deletes the mailbox name, and returns what it was. Sessions that have
// it open find their Mailbox gone.
func (a *Account) Delete(ctx context.Context, name string) (metadata.Mailbox, error) {
	done, err := a.store.db.DeleteMailbox(ctx, a.row.ID, name)
	if err != nil {
		return metadata.Mailbox{}, err
	}
	ref := metadata.BoxRef{Account: a.row.ID, Mailbox: done.Mailbox.ID}
	if b := a.store.lookup(ref); b != nil {
		b.setGone()
	}
	a.listChanged(ctx, done)
	a.store.publish(a.store.cause(ctx).stamp(events.Event{
		Account: int64(ref.Account), Mailbox: int64(ref.Mailbox), Kind: events.Changed,
		ModSeq: done.Mailbox.ModSeq, Epoch: done.Mailbox.Epoch,
	}))
	return done.Mailbox, nil
}

// Rename renames a mailbox and its children. Renaming INBOX makes the mailbox
// to and moves INBOX's messages there; INBOX and its children stay (RFC 9051
// §6.3.6). ErrName says that a child would have too long a name.
func (a *Account) Rename(ctx context.Context, from, to string) error {
	if from == Inbox {
		return a.renameInbox(ctx, to)
	}
	done, err := a.store.db.RenameMailbox(ctx, a.row.ID, from, to)
	if errors.Is(err, metadata.ErrName) {
		return fmt.Errorf("%w: that of a mailbox below it is too long", ErrName)
	}
	if err != nil {
		return err
	}
	a.listChanged(ctx, done)
	return nil
}

// renameBatch is how many messages one commit moves out of INBOX.
const renameBatch = 1000

func (a *Account) renameInbox(ctx context.Context, to string) error {
	if _, err := a.Create(ctx, to, nil); err != nil {
		return err
	}
	inbox, err := a.Open(ctx, Inbox, func() {})
	if err != nil {
		return err
	}
	defer inbox.Close()
	view := inbox.Snapshot()
	for view.Len() > 0 {
		last := view.UID(min(renameBatch, view.Len()) - 1)
		done, err := inbox.Move(ctx, CopyArgs{View: view, UIDs: []metadata.UIDRange{{First: 1, Last: last}}, Dest: to})
		if err != nil {
			return err
		}
		view = done.After
	}
	return nil
}

// Subscribe adds name, which need not exist, to the subscriptions.
func (a *Account) Subscribe(ctx context.Context, name string) error {
	done, err := a.store.db.Subscribe(ctx, a.row.ID, name)
	if err != nil {
		return err
	}
	a.listChanged(ctx, done)
	return nil
}

// Unsubscribe takes name from the subscriptions; it need not be among them.
func (a *Account) Unsubscribe(ctx context.Context, name string) error {
	done, err := a.store.db.Unsubscribe(ctx, a.row.ID, name)
	if err != nil {
		return err
	}
	a.listChanged(ctx, done)
	return nil
}

func (a *Account) listChanged(ctx context.Context, done metadata.ListChange) {
	a.store.noteList(a.row.ID)
	a.store.publish(a.store.cause(ctx).stamp(events.Event{Account: int64(a.row.ID), Kind: events.List, ModSeq: done.ListSeq}))
}

// hold is the box of the mailbox name. The name may have been given to another
// mailbox meanwhile, elsewhere: who writes has it checked by the commit, who
// opens it looks again after a refresh.
func (a *Account) hold(ctx context.Context, name string) (*box, error) {
	if b := a.store.named(a.row.ID, name); b != nil {
		return b, nil
	}
	b, _, err := a.holdAnew(ctx, name)
	return b, err
}

// holdAnew is hold by what PostgreSQL says now.
func (a *Account) holdAnew(ctx context.Context, name string) (b *box, fresh bool, err error) {
	row, err := a.store.mailbox(ctx, a.row.ID, name)
	if err != nil {
		return nil, false, err
	}
	ref := metadata.BoxRef{Account: a.row.ID, Mailbox: row.ID}
	a.store.forsake(ref, row.UIDValidity)
	b, fresh, err = a.store.hold(ctx, ref, &row)
	if err != nil || fresh || b.current.Load().row.Name == name {
		return b, fresh, err
	}
	if err := b.refresh(ctx); err != nil { // the node knows it by another name
		b.release()
		return nil, false, err
	}
	return b, true, nil
}

// Open opens the mailbox name as it is now. changed is called after the
// mailbox's Snapshot or Gone may say something new; it must not wait for
// anything, nor call back.
func (a *Account) Open(ctx context.Context, name string, changed func()) (*Mailbox, error) {
	b, err := a.openKnown(ctx, name)
	if err != nil {
		return nil, err
	}
	if b == nil {
		var fresh bool
		if b, fresh, err = a.holdAnew(ctx, name); err != nil {
			return nil, err
		}
		if !fresh {
			err = b.refresh(ctx)
		}
	}
	if err != nil {
		b.release()
		return nil, err
	}
	return newMailbox(a, b, changed), nil
}

// openKnown is the box that the node holds under name, brought up to date; nil
// if it holds none, or if that one was renamed or deleted by another node.
func (a *Account) openKnown(ctx context.Context, name string) (*box, error) {
	b := a.store.named(a.row.ID, name)
	if b == nil {
		return nil, nil
	}
	err := b.refresh(ctx)
	if err == nil && b.current.Load().row.Name == name {
		return b, nil
	}
	b.release()
	if errors.Is(err, metadata.ErrNoMailbox) {
		err = nil
	}
	return nil, err
}
