package imap

import (
	"context"

	"starling/frontend/imapwire"
	"starling/metadata"
)

// expungeCmd is EXPUNGE (RFC 9051 §6.4.3) and UID EXPUNGE (§6.4.9).
type expungeCmd struct {
	some bool // only uids
	uids imapwire.NumSet
}

func parseUIDExpunge(d *imapwire.Decoder) (command, error) {
	c := expungeCmd{some: true}
	d.SP()
	c.uids = d.NumSet()
	return c, d.End()
}

func (c expungeCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	v := s.view
	if v.readOnly {
		return "", errReadOnly
	}
	var uids []metadata.UIDRange
	if c.some {
		var err error
		if uids, err = v.ranges(c.uids, byUID); err != nil {
			return "", err
		}
		if uids == nil {
			uids = []metadata.UIDRange{}
		}
	}
	after, err := v.mailbox.Expunge(ctx, v.snap, uids)
	if err != nil {
		return "", err
	}
	s.update(after, true, nil)
	return s.highestAfter(), nil
}

// highestAfter is the code of a command that expunged and has brought the client
// wholly up to date (RFC 7162 §3.2.7).
func (s *session) highestAfter() imapwire.Code {
	if !s.has(qResync) {
		return ""
	}
	s.told = false
	return imapwire.CodeHighestModSeq(uint64(s.view.snap.Mailbox().ModSeq)) //nolint:gosec // positive
}
