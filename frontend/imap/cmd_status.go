package imap

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// statusCmd is STATUS (RFC 9051 §6.3.11).
type statusCmd struct {
	name  string
	items []string
}

func parseStatus(d *imapwire.Decoder) (command, error) {
	var c statusCmd
	d.SP()
	c.name = d.Mailbox()
	d.SP()
	c.items = d.StatusItems()
	return c, d.End()
}

func (c statusCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	s.mindStatus(c.items)
	name := mailstore.CleanName(c.name)
	if s.view != nil && s.view.snap.Mailbox().Name == name {
		if err := s.proveView(ctx); err != nil {
			return "", err
		}
		if row := s.view.snap.Mailbox(); row.Name == name && !s.view.mailbox.Gone() {
			return "", s.tellStatus(ctx, c.name, row, c.items)
		}
	}
	row, err := s.account.Mailbox(ctx, name)
	if err != nil {
		return "", fmt.Errorf("status of %q: %w", name, err)
	}
	if s.view != nil && s.view.mailbox.ID() == row.ID { // it was given that name elsewhere
		if err := s.proveView(ctx); err != nil {
			return "", err
		}
	}
	return "", s.tellStatus(ctx, c.name, &row, c.items)
}

// mindStatus notes that asking for the highest modseq shows that the client knows
// CONDSTORE (RFC 7162 §3.1).
func (s *session) mindStatus(items []string) {
	if slices.Contains(items, imapwire.StatusHighestModSeq) {
		s.enable(condStore)
	}
}

// proveView brings the client wholly up to date with the selected mailbox, if there is
// one, before STATUS speaks of it: so both say the same.
func (s *session) proveView(ctx context.Context) error {
	if s.view == nil {
		return nil
	}
	if err := s.refresh(ctx); err != nil {
		return fmt.Errorf("status of the selected mailbox: %w", err)
	}
	if !s.view.mailbox.Gone() && !s.update(s.view.mailbox.Snapshot(), true, nil) {
		return errRestored // after which the connection ends
	}
	return nil
}

// tellStatus writes STATUS of a mailbox, under the name that the client uses. Of the selected mailbox it
// says what the client was told.
func (s *session) tellStatus(ctx context.Context, name string, row *metadata.Mailbox, items []string) error {
	if s.view != nil && s.view.mailbox.ID() == row.ID {
		row = s.view.snap.Mailbox()
	}
	recent := uint64(0)
	if slices.Contains(items, imapwire.StatusRecent) {
		var err error
		if recent, err = s.recentIn(ctx, row); err != nil {
			return fmt.Errorf("count recent messages of %q: %w", name, err)
		}
	}
	e := s.enc.StatusBegin(name)
	for _, item := range items {
		switch item {
		case imapwire.StatusMailboxID:
			e.StatusID(item, mailboxID(row.Account, row.ID))
		case imapwire.StatusRecent:
			e.StatusNumber(item, recent)
		case imapwire.StatusAppendLimit: // RFC 7889 §4
			e.StatusNumber(item, uint64(s.server.cfg.Store.MaxMessage())) //nolint:gosec // not negative
		default:
			e.StatusNumber(item, uint64(statusNumber(row, item))) //nolint:gosec // not negative
		}
	}
	e.StatusEnd()
	return nil
}

// statusNumber is an item that stands in the mailbox's row.
func statusNumber(row *metadata.Mailbox, item string) int64 {
	switch item {
	case imapwire.StatusMessages:
		return row.Messages
	case imapwire.StatusUIDNext:
		return row.UIDNext
	case imapwire.StatusUIDValidity:
		return int64(row.UIDValidity)
	case imapwire.StatusUnseen:
		return row.Unseen
	case imapwire.StatusDeleted:
		return row.Deleted
	case imapwire.StatusSize: // RFC 8438
		return row.Bytes
	case imapwire.StatusHighestModSeq:
		return row.ModSeq
	case imapwire.StatusDeletedStorage: // RFC 9208 §5.1
		return row.DeletedBytes
	}
	panic("imap: the decoder let an unknown STATUS item pass: " + item)
}

// recentIn counts the messages that are recent (RFC 3501 §6.3.10): of the selected
// mailbox those of this session, of another those that no session has been told of.
func (s *session) recentIn(ctx context.Context, row *metadata.Mailbox) (uint64, error) {
	if s.view != nil && s.view.mailbox.ID() == row.ID {
		return uint64(s.view.recent.count(s.view)), nil
	}
	if row.Messages == 0 || row.UIDNext <= row.Recent {
		return 0, nil
	}
	box, err := s.account.Open(ctx, row.Name, func() {})
	if errors.Is(err, metadata.ErrNoMailbox) {
		return 0, nil // deleted since its row was read
	}
	if err != nil {
		return 0, err
	}
	defer box.Close()
	snap := box.Snapshot()
	return uint64(snap.Len() - snap.Rank(uint32(row.Recent))), nil //nolint:gosec // a UID; a count
}
