package lmtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/emersion/go-smtp"
	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// session is a connection of a mail transfer agent.
type session struct {
	server *Server
	conn   *smtp.Conn
	log    *zap.Logger

	from       string
	size       int64 // that MAIL said; 0: none
	recipients []recipient
}

// recipient is an accepted RCPT.
type recipient struct {
	to      string // as the client wrote it
	account *mailstore.Account
	mailbox string
}

// Reset implements smtp.Session.
func (s *session) Reset() {
	for _, r := range s.recipients {
		r.account.Close()
	}
	s.from, s.size, s.recipients = "", 0, nil
}

// Logout implements smtp.Session.
func (s *session) Logout() error {
	s.Reset()
	return nil
}

// Mail implements smtp.Session.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.Reset()
	s.from = from
	if opts != nil {
		s.size = opts.Size
	}
	if s.size > s.server.cfg.Store.MaxMessage() {
		return errTooBig
	}
	return nil
}

// Rcpt implements smtp.Session: it accepts whom there is an account for, and has
// room for what MAIL announced.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	ctx := context.Background()
	account, detail, err := s.server.cfg.Store.Recipient(ctx, to)
	if err != nil {
		return s.reply("RCPT", to, err)
	}
	mailbox, err := account.DetailMailbox(ctx, detail)
	if err == nil {
		err = account.HasRoom(ctx, s.size)
	}
	if err != nil {
		account.Close()
		return s.reply("RCPT", to, err)
	}
	s.recipients = append(s.recipients, recipient{to: to, account: account, mailbox: mailbox})
	return nil
}

// Data implements smtp.Session. LMTP has an answer for each recipient instead.
func (s *session) Data(io.Reader) error {
	return &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "This is LMTP"}
}

// LMTPData implements smtp.LMTPSession.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	data, err := receive(r, len(s.recipients) > 1, s.server.cfg.TempDir)
	if err != nil {
		return s.reply("DATA", "", err)
	}
	defer data.discard(s.log)
	for _, to := range s.recipients {
		status.SetStatus(to.to, s.reply("DATA", to.to, s.deliver(to, data)))
	}
	return nil
}

// deliver stores the message for one recipient.
func (s *session) deliver(to recipient, data *data) error {
	ctx := context.Background()
	upload, err := to.account.Upload(ctx, mailstore.Incoming{Mailbox: to.mailbox, Fit: true}, s.size)
	if err != nil {
		return err
	}
	defer upload.Discard()
	if _, err := io.WriteString(upload, s.trace(to)); err != nil {
		return err
	}
	sum, err := data.copyTo(upload)
	if err != nil {
		return err
	}
	digest := deliveryDigest(to.to, s.from, sum)
	done, err := upload.Append(ctx, &digest)
	if err != nil {
		return err
	}
	s.log.Info("delivery", zap.String("account", to.account.Row().Name), zap.String("mailbox", to.mailbox),
		zap.Uint32("uid", done.UID), zap.Bool("again", done.Again))
	return nil
}

// deliveryDigest is by what a delivery is known when it is tried again: its
// envelope and the SHA-256 of the bytes as received.
func deliveryDigest(to, from string, sum [sha256.Size]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range []string{to, from} {
		_, _ = fmt.Fprintf(h, "%d:%s,", len(part), part) // a hash takes everything
	}
	_, _ = h.Write(sum[:])
	return [sha256.Size]byte(h.Sum(nil))
}

// trace is what final delivery puts before the message (RFC 5321 §4.4).
func (s *session) trace(to recipient) string {
	helo := clean(s.conn.Hostname())
	return fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\nReceived: from %s\r\n\tby %s with LMTP\r\n\tfor <%s>; %s\r\n",
		clean(s.from), clean(to.account.Row().Name), helo, clean(s.server.cfg.Hostname), clean(to.to),
		time.Now().Format("Mon, 2 Jan 2006 15:04:05 -0700"))
}

// clean keeps what a client said from ending the header line that it is put in.
func clean(text string) string {
	return strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

var errTooBig = &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 3, 4}, Message: "Message is too big"}

// replies is what errors of the store mean to a mail transfer agent (RFC 3463). The
// first that fits counts; what is not here is tried again later.
var replies = []struct {
	err   error
	reply *smtp.SMTPError
}{
	{metadata.ErrNotFound, &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such address here"}},
	{metadata.ErrOverQuota, &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "Mailbox is full"}},
	{mailstore.ErrTooBig, errTooBig},
	{smtp.ErrDataTooLarge, errTooBig},
	{mailstore.ErrUIDLimit, &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "Mailbox takes no more messages"}},
	{metadata.ErrUnavailable, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Mailboxes cannot be reached now"}},
	{blobstore.ErrUnavailable, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Storage cannot be reached now"}},
}

// reply is the answer to a command that ended with err, nil for a good one.
func (s *session) reply(command, to string, err error) error {
	if err == nil {
		return nil
	}
	for _, known := range replies {
		if errors.Is(err, known.err) {
			s.log.Info("refused", zap.String("command", command), zap.String("recipient", to), zap.Error(err))
			return known.reply
		}
	}
	s.log.Error("delivery failed", zap.String("command", command), zap.String("recipient", to), zap.Error(err))
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Internal error, try again later"}
}
