package imap

import (
	"context"
	"errors"
	"fmt"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// selectCmd is SELECT and EXAMINE (RFC 9051 §6.3.2, §6.3.3).
type selectCmd struct {
	name    string // as it was sent
	params  imapwire.SelectParams
	examine bool
}

func parseSelect(examine bool) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) {
		c := selectCmd{examine: examine}
		d.SP()
		c.name = d.SentMailbox()
		c.params = d.SelectParams()
		return c, d.End()
	}
}

func (c selectCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if c.params.QResync != nil && !s.has(qResync) {
		return "", badf("QRESYNC was not enabled") // RFC 7162 §3.2.5
	}
	if s.view != nil {
		s.deselect()
		if s.has(rev2 | qResync) { // RFC 9051 §7.1, RFC 7162 §3.2.11
			s.enc.Status("", imapwire.OK, imapwire.CodeClosed, "The mailbox selected before is closed")
		}
	}
	if c.params.CondStore {
		s.enable(condStore)
	}
	name := mailstore.CleanName(c.name)
	box, err := s.account.Open(ctx, name, s.hearNews)
	if err != nil {
		return "", err
	}
	s.view = &view{mailbox: box, name: name, readOnly: c.examine, snap: box.Snapshot()}
	s.state = selected
	if err := s.claimRecent(ctx); err != nil {
		s.deselect()
		return "", err
	}
	s.describe(c.name)
	if q := c.params.QResync; q != nil {
		s.resync(q)
	}
	if c.examine {
		return imapwire.CodeReadOnly, nil
	}
	return imapwire.CodeReadWrite, nil
}

// hearNews is called by the mailstore after the selected mailbox changed.
func (s *session) hearNews() { s.ring(alarmNews) }

// describe writes what SELECT tells of a mailbox, that the client called asked.
func (s *session) describe(asked string) {
	v, e := s.view, s.enc
	row := v.snap.Mailbox()
	s.tellMailboxFlags()
	e.Exists(v.exists())
	if !s.has(rev2) {
		e.Recent(v.recent.count(v))
		if first := v.snap.FirstUnseen(); first >= 0 { // RFC 3501 §7.1; gone in RFC 9051
			e.Status("", imapwire.OK, imapwire.CodeUnseen(uint32(first)+1), "First unseen message") //nolint:gosec // a position
		}
	}
	e.Status("", imapwire.OK, imapwire.CodeUIDValidity(row.UIDValidity), "UIDs valid")
	e.Status("", imapwire.OK, imapwire.CodeUIDNext(uint32(row.UIDNext)), "Next UID")                      //nolint:gosec // fits 32 bits
	e.Status("", imapwire.OK, imapwire.CodeHighestModSeq(uint64(row.ModSeq)), "Highest")                  //nolint:gosec // positive
	e.Status("", imapwire.OK, imapwire.CodeMailboxID(mailboxID(row.Account, row.ID)), "Mailbox's own id") // RFC 8474 §4.2
	if s.has(rev2) {
		e.List(&imapwire.Listing{Delimiter: mailstore.Delimiter, Name: v.name, OldName: otherName(v.name, asked)}) // RFC 9051 §6.3.2
	}
}

// claimRecent takes what has arrived since the last SELECT as recent for this
// session. EXAMINE takes nothing, and IMAP4rev2 does not know it.
func (s *session) claimRecent(ctx context.Context) error {
	v := s.view
	row := v.snap.Mailbox()
	if s.has(rev2) || row.UIDNext <= row.Recent {
		return nil
	}
	if v.readOnly {
		v.recent.add(uint32(row.Recent), uint32(row.UIDNext-1)) //nolint:gosec // UIDs
		return nil
	}
	from, won, err := v.mailbox.ClaimRecent(ctx, v.snap)
	if err != nil {
		return fmt.Errorf("claim recent messages: %w", err)
	}
	if won {
		v.recent.add(from, uint32(row.UIDNext-1)) //nolint:gosec // a UID
	}
	return nil
}

// closeCmd is CLOSE (RFC 9051 §6.4.1) and UNSELECT (§6.4.2).
type closeCmd struct{ expunge bool }

func (c closeCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	v := s.view
	if c.expunge && !v.readOnly && !v.mailbox.Gone() {
		_, err := v.mailbox.Expunge(ctx, v.snap, nil)
		if err != nil && !errors.Is(err, metadata.ErrNoMailbox) { // another node may have deleted it
			return "", err
		}
	}
	s.deselect()
	return "", nil
}
