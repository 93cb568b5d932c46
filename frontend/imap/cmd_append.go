package imap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// appendCmd is APPEND (RFC 9051 §6.3.12), as far as the header of its literal.
type appendCmd struct {
	mailbox string
	message imapwire.AppendMessage
}

func parseAppend(d *imapwire.Decoder) (command, error) {
	var c appendCmd
	d.SP()
	c.mailbox = d.Mailbox()
	c.message = d.AppendMessage()
	return c, d.Err()
}

func (c appendCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	flags, err := flagSet(c.message.Flags)
	if err != nil {
		return "", err
	}
	// All that can be refused is refused before the client sends the message.
	upload, err := s.account.Upload(ctx, mailstore.Incoming{
		Mailbox: c.mailbox, Flags: flags, Date: c.message.Date,
	}, c.message.Literal.Size)
	if err != nil {
		return "", tryCreate(err)
	}
	received := false
	defer func() {
		if !received {
			upload.Discard()
		}
	}()
	if err := c.receive(s, upload); err != nil {
		return "", err
	}
	received = true
	rest := func() (imapwire.Code, error) {
		defer upload.Discard()
		done, err := upload.Append(ctx, nil)
		if err != nil {
			return "", tryCreate(err)
		}
		return imapwire.CodeAppendUID(done.UIDValidity, imapwire.NumSetOf(done.UID)), nil
	}
	if len(s.ahead) > 0 || s.hasMore() { // it must not overtake those before it
		s.begun = &ahead{upload: upload, rest: rest}
		return "", nil
	}
	return rest()
}

// tryCreate tells a client that the target of a command is not there, and that
// it may make it (RFC 9051 §7.1).
func tryCreate(err error) error {
	if errors.Is(err, metadata.ErrNoMailbox) {
		return nof(imapwire.CodeTryCreate, "There is no such mailbox")
	}
	return err
}

// copyBuffers are for literals on their way from the connection.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// receive takes the literal, and what follows it to the end of the command.
func (c appendCmd) receive(s *session, upload io.Writer) error {
	literal, err := s.dec.OpenLiteral()
	if err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[32 << 10]byte) //nolint:forcetypeassert // the pool holds nothing else
	defer copyBuffers.Put(buf)
	if _, err := io.CopyBuffer(struct{ io.Writer }{upload}, literal, buf[:]); err != nil {
		return fmt.Errorf("receive message: %w", err)
	}
	s.dec.AppendMessageEnd(c.message)
	return s.dec.End()
}
