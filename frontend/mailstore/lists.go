package mailstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/metadata"
)

// Every account's prefix in the object store has, beside the mails, an object that lists
// its mailboxes: with it mail can be put back where it was from the objects alone. The node
// that changed a list, or put the first message into a mailbox, writes it some time later, once
// for all that changed meanwhile; the collector writes it with each scan, for the nodes that died
// before they did. It is written only if it is not there as it is.

// listName is the name of that object below the account's prefix.
const listName = "mailboxes"

const (
	listVersion = 1
	// maxLists is how many lists may wait to be written; further ones are left to the collector.
	maxLists = 100_000
	// listTimeout bounds writing one.
	listTimeout = 30 * time.Second
	// lastLists bounds writing all that wait when the node stops.
	lastLists = 5 * time.Second
)

// storedList is the object's content, in JSON. What was written before its fields were
// known has them empty.
type storedList struct {
	Version       int             `json:"version"`
	Account       string          `json:"account,omitempty"` // its name
	ListSeq       int64           `json:"listseq"`
	Mailboxes     []storedMailbox `json:"mailboxes"` // by name
	Subscriptions []string        `json:"subscriptions,omitempty"`
}

type storedMailbox struct {
	ID          int64    `json:"id"` // as in the headers of mails
	Name        string   `json:"name"`
	UIDValidity uint32   `json:"uidvalidity"`
	SpecialUse  []string `json:"special_use,omitempty"`
}

// lists are the accounts whose list was changed by this node and is not yet written.
type lists struct {
	mu  sync.Mutex
	due map[metadata.AccountID]time.Time
}

// note has the account's list written at a time, if it is not to be written before.
func (l *lists) note(id metadata.AccountID, at time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, waits := l.due[id]; !waits && len(l.due) < maxLists {
		l.due[id] = at
	}
}

// noteList has the account's list written after the usual delay.
func (s *Store) noteList(id metadata.AccountID) { s.lists.note(id, time.Now().Add(s.cfg.ListDelay)) }

// take are the accounts whose list is due by now; they are forgotten.
func (l *lists) take(now time.Time) []metadata.AccountID {
	l.mu.Lock()
	defer l.mu.Unlock()
	var ids []metadata.AccountID
	for id, at := range l.due {
		if !at.After(now) {
			ids = append(ids, id)
			delete(l.due, id)
		}
	}
	return ids
}

// listsLoop writes lists when they are due, and what is left when ctx is done.
func (s *Store) listsLoop(ctx context.Context) {
	db := s.db.Background()
	every(ctx, func() time.Duration { return s.cfg.ListDelay / 4 }, func() { s.writeLists(ctx, db, time.Now()) })
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLists)
	defer cancel()
	s.writeLists(last, db, time.Now().Add(s.cfg.ListDelay))
}

// writeLists writes those that are due. What fails is tried again later.
func (s *Store) writeLists(ctx context.Context, db *metadata.DB, now time.Time) {
	for _, id := range s.lists.take(now) {
		err := s.writeList(ctx, db, id)
		if err != nil {
			s.lists.note(id, now.Add(s.cfg.ListDelay))
			if ctx.Err() == nil {
				s.log.Warn("list of mailboxes not written", accountField(id), zap.Error(err))
			}
		}
	}
}

// writeList writes the account's list, unless the account is gone, or the list is there as it is:
// a versioned bucket would keep each copy of it.
func (s *Store) writeList(ctx context.Context, db *metadata.DB, id metadata.AccountID) error {
	ctx, cancel := context.WithTimeout(ctx, listTimeout)
	defer cancel()
	list, err := db.List(ctx, id)
	if errors.Is(err, metadata.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	account, err := db.AccountByID(ctx, id)
	if errors.Is(err, metadata.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	stored := storedList{Version: listVersion, Account: account.Name, ListSeq: list.ListSeq, Subscriptions: list.Subscriptions}
	for i := range list.Mailboxes {
		m := &list.Mailboxes[i]
		stored.Mailboxes = append(stored.Mailboxes, storedMailbox{
			ID: int64(m.ID), Name: m.Name, UIDValidity: m.UIDValidity, SpecialUse: m.SpecialUse,
		})
	}
	body, err := json.Marshal(&stored)
	if err != nil {
		return fmt.Errorf("encode the list of mailboxes: %w", err)
	}
	key, err := blobstore.NameKey(int64(id), listName)
	if err != nil {
		return err
	}
	there, err := s.readObject(ctx, key, int64(len(body)))
	if err != nil && !errors.Is(err, blobstore.ErrNotFound) {
		return fmt.Errorf("read the list of mailboxes: %w", err)
	}
	if err == nil && bytes.Equal(there, body) {
		return nil
	}
	if _, err := s.blobs.Put(ctx, key, bytes.NewReader(body), int64(len(body))); err != nil {
		return fmt.Errorf("put the list of mailboxes: %w", err)
	}
	return nil
}

// readObject reads an object, of a larger one than most a part that is longer than that.
func (s *Store) readObject(ctx context.Context, key blobstore.Key, most int64) ([]byte, error) {
	r, err := s.blobs.Get(ctx, key, 0, -1)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(r, most+1))
	return b, errors.Join(err, r.Close())
}
