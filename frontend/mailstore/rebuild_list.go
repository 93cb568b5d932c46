package mailstore

import (
	"context"
	"encoding/json"
	"errors"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/blobstore/codec"
	"starling/metadata"
)

// maxStoredList bounds a list of mailboxes that is read.
const maxStoredList = 64 << 20

// readList reads the list of mailboxes that writeList wrote; nil if there is none, or none
// that can be understood.
func (s *Store) readList(ctx context.Context, id metadata.AccountID) (*storedList, error) {
	key, err := blobstore.NameKey(int64(id), listName)
	if err != nil {
		return nil, err
	}
	body, err := s.readObject(ctx, key, maxStoredList)
	if errors.Is(err, blobstore.ErrNotFound) {
		return nil, nil //nolint:nilnil // none is no error
	}
	if err != nil {
		return nil, err
	}
	list := new(storedList)
	if err := json.Unmarshal(body, list); err != nil || list.Version != listVersion {
		s.log.Warn("list of mailboxes not understood", zap.Stringer("object", stringer(key)), zap.Error(err))
		return nil, nil //nolint:nilnil // as if there were none
	}
	return list, nil
}

type stringer blobstore.Key

func (k stringer) String() string { return string(k) }

// MakeAccount makes the account that has objects in the store, under its id, when
// PostgreSQL has forgotten it: with the mailboxes and subscriptions of its stored list, or the
// usual ones if there is none; without a password and without limits. Rebuild then brings its mail
// back. The error is metadata.ErrNotFound if there is no such domain, metadata.ErrExists if
// the name or the id is taken.
func (s *Store) MakeAccount(ctx context.Context, id metadata.AccountID, name string) (metadata.Account, error) {
	list, err := s.readList(ctx, id)
	if err != nil {
		return metadata.Account{}, err
	}
	n := metadata.NewAccount{ID: id, Name: name, Mailboxes: metadata.DefaultMailboxes()}
	subscribed := make(map[string]bool)
	if list != nil {
		n.Mailboxes = nil
		for _, name := range list.Subscriptions {
			subscribed[name] = true
		}
		for _, m := range list.Mailboxes {
			if m.Name != Inbox && CheckName(m.Name) == nil {
				n.Mailboxes = append(n.Mailboxes, metadata.NewMailbox{Name: m.Name, SpecialUse: m.SpecialUse, Subscribed: subscribed[m.Name]})
			}
		}
	}
	return s.db.CreateAccount(ctx, n)
}

// StoredName is the name that an account had last by its stored list; "" if there is none.
func (s *Store) StoredName(ctx context.Context, id metadata.AccountID) (string, error) {
	list, err := s.readList(ctx, id)
	if err != nil || list == nil {
		return "", err
	}
	return list.Account, nil
}

// StoredAccount is an account as the object store has it.
type StoredAccount struct {
	ID        metadata.AccountID `json:"-"`
	Name      string             `json:"name"`      // that it had last; "": not known
	Account   string             `json:"account"`   // that PostgreSQL has under this id; "": none
	Mailboxes []string           `json:"mailboxes"` // by its stored list, or those of one message
	Objects   int64              `json:"objects"`
	Octets    int64              `json:"octets"` // of the objects
}

// StoredAccounts calls each with all accounts that have objects in the store, by id. It lists
// the whole store.
func (s *Store) StoredAccounts(ctx context.Context, each func(StoredAccount) error) error {
	var a StoredAccount
	var last blobstore.Key
	end := func() error {
		if a.ID == 0 {
			return nil
		}
		if err := s.describe(ctx, &a, last); err != nil {
			return err
		}
		return each(a)
	}
	for info, err := range s.blobs.List(ctx, "", "") {
		if err != nil {
			return err
		}
		id, ok := info.Key.Account()
		if !ok {
			continue
		}
		if metadata.AccountID(id) != a.ID {
			if err := end(); err != nil {
				return err
			}
			a, last = StoredAccount{ID: metadata.AccountID(id)}, ""
		}
		if _, ok := info.Key.Object(); ok {
			last = info.Key
			a.Objects++
			a.Octets += info.Size
		}
	}
	return end()
}

// describe finds out whose account it is. last is the key of a message.
func (s *Store) describe(ctx context.Context, a *StoredAccount, last blobstore.Key) error {
	account, err := s.db.AccountByID(ctx, a.ID)
	if err != nil && !errors.Is(err, metadata.ErrNotFound) {
		return err
	}
	a.Account = account.Name
	list, err := s.readList(ctx, a.ID)
	if err != nil {
		return err
	}
	if list != nil {
		a.Name = list.Account
		for _, m := range list.Mailboxes {
			a.Mailboxes = append(a.Mailboxes, m.Name)
		}
		return nil
	}
	if last == "" {
		return nil
	}
	h, err := codec.ReadHeader(ctx, s.blobs, last)
	if err != nil {
		if damageOf(err) == "" {
			return err
		}
		return nil
	}
	a.Mailboxes = []string{h.MailboxName}
	return nil
}
