package mailstore

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"starling/metadata"
)

// Recipient finds the account that mail for address goes to, and the detail that
// a "+" behind the local part names (RFC 5233 §2), "" if none. The account is a
// session, to be closed. metadata.ErrNotFound says that there is none.
func (s *Store) Recipient(ctx context.Context, address string) (account *Account, detail string, err error) {
	at := strings.LastIndexByte(address, '@')
	if at < 0 || !canBeAsked(address) {
		return nil, "", metadata.ErrNotFound
	}
	row, err := s.db.Recipient(ctx, address)
	if errors.Is(err, metadata.ErrNotFound) {
		local, d, found := strings.Cut(address[:at], "+")
		if !found || local == "" {
			return nil, "", err
		}
		detail = d
		row, err = s.db.Recipient(ctx, local+address[at:])
	}
	if err != nil {
		return nil, "", err
	}
	if row.State == metadata.Deleting {
		return nil, "", metadata.ErrNotFound
	}
	return s.Account(row, func() {}), detail, nil
}

// canBeAsked says whether PostgreSQL takes text at all.
func canBeAsked(text string) bool { return utf8.ValidString(text) && strings.IndexByte(text, 0) < 0 }

// DetailMailbox is the mailbox that a delivery with detail goes to: that of this
// name, if there is one, else INBOX.
func (a *Account) DetailMailbox(ctx context.Context, detail string) (string, error) {
	name := CleanName(detail)
	err := CheckName(name)
	if err == nil {
		_, err = a.Mailbox(ctx, name)
	}
	if errors.Is(err, ErrName) || errors.Is(err, metadata.ErrNoMailbox) {
		return Inbox, nil
	}
	return name, err
}
