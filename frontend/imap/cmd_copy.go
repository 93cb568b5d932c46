package imap

import (
	"context"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// copyCmd is COPY and MOVE, by number and by UID (RFC 9051 §6.4.7, §6.4.8).
type copyCmd struct {
	by   numbering
	move bool
	nums imapwire.NumSet
	dest string
}

func parseCopy(by numbering, move bool) func(*imapwire.Decoder) (command, error) {
	return func(d *imapwire.Decoder) (command, error) {
		c := copyCmd{by: by, move: move}
		d.SP()
		c.nums = d.NumSet()
		d.SP()
		c.dest = d.Mailbox()
		return c, d.End()
	}
}

func (c copyCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	v := s.view
	if c.move && v.readOnly {
		return "", errReadOnly
	}
	uids, err := v.ranges(c.nums, c.by)
	if err != nil {
		return "", err
	}
	if c.by == bySeq && v.hasGhost(uids) {
		return "", mailstore.ErrExpunged
	}
	args := mailstore.CopyArgs{View: v.snap, UIDs: uids, Dest: c.dest, All: c.by == bySeq}
	var done mailstore.Copied
	if c.move {
		done, err = v.mailbox.Move(ctx, args)
	} else {
		done, err = v.mailbox.Copy(ctx, args)
	}
	if err != nil {
		return "", tryCreate(err)
	}
	var code imapwire.Code
	if len(done.Source) > 0 {
		code = copyUID(&done)
	}
	if !c.move {
		return code, nil
	}
	if code != "" { // RFC 6851 §4.3: before the expunges
		s.enc.Status("", imapwire.OK, code, "Moved")
	}
	s.update(done.After, true, nil)
	return s.highestAfter(), nil
}

// copyUID is COPYUID: the sources in rising order became a run of UIDs (RFC 4315 §3).
func copyUID(done *mailstore.Copied) imapwire.Code {
	source := imapwire.NumSetOf(done.Source...)
	var target imapwire.NumSet
	target.AddRange(done.First, done.First+uint32(len(done.Source))-1) //nolint:gosec // UIDs fit 32 bits
	return imapwire.CodeCopyUID(done.UIDValidity, source, target)
}
