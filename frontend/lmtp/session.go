package lmtp

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
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

	mu sync.Mutex   // go-smtp ends a session also while its data is being delivered
	tx *transaction // nil before MAIL, and once the data has come

	pieces sync.Mutex // held while a message comes in by BDAT
}

// transaction is a message's envelope.
type transaction struct {
	from       string
	size       int64 // that MAIL said; 0: none
	recipients []recipient
}

// recipient is an accepted RCPT.
type recipient struct {
	to      string // as the client wrote it
	account *mailstore.Account
	detail  string
	mailbox string
}

func (t *transaction) close() {
	for _, r := range t.recipients {
		r.account.Close()
	}
}

// set makes tx the session's transaction and returns the one before.
func (s *session) set(tx *transaction) *transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.tx
	s.tx = tx
	return before
}

// Reset implements smtp.Session. It waits for a message that came in pieces and comes no further:
// go-smtp would take how that ended for the outcome of the next one, of which nothing is kept yet.
func (s *session) Reset() {
	s.pieces.Lock()
	defer s.pieces.Unlock()
	if t := s.set(nil); t != nil {
		t.close()
	}
	under(s.conn.Conn()).setBusy(false)
}

// Logout implements smtp.Session.
func (s *session) Logout() error {
	s.Reset()
	return nil
}

// Mail implements smtp.Session. A second MAIL is refused (RFC 5321 §4.1.4): go-smtp
// would go on to answer for the recipients of the first.
func (s *session) Mail(from string, opts *smtp.MailOptions) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.tx != nil {
		return &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "A transaction has begun already"}
	}
	under(s.conn.Conn()).setBusy(true)
	s.tx = &transaction{from: from}
	if opts != nil {
		s.tx.size = opts.Size
	}
	return nil
}

// Rcpt implements smtp.Session: it accepts whom there is an account for, and has
// room for what MAIL announced.
func (s *session) Rcpt(to string, _ *smtp.RcptOptions) error {
	ctx := s.server.stop
	account, detail, err := s.server.cfg.Store.Recipient(ctx, to)
	if err != nil {
		return s.refuse("RCPT", to, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mailbox, err := account.DetailMailbox(ctx, detail)
	if err == nil && s.tx == nil {
		err = errCut
	}
	if err == nil {
		err = account.HasRoom(ctx, s.tx.size)
	}
	if err != nil {
		account.Close()
		return s.refuse("RCPT", to, err)
	}
	s.tx.recipients = append(s.tx.recipients, recipient{to: to, account: account, detail: detail, mailbox: mailbox})
	return nil
}

// Data implements smtp.Session. LMTP has an answer for each recipient instead.
func (s *session) Data(io.Reader) error {
	return &smtp.SMTPError{Code: 503, EnhancedCode: smtp.EnhancedCode{5, 5, 1}, Message: "This is LMTP"}
}

// kept is said of a delivery in place of go-smtp's words, which call it queued.
var kept = &smtp.SMTPError{Code: 250, EnhancedCode: smtp.EnhancedCode{2, 0, 0}, Message: "OK: delivered"}

// LMTPData implements smtp.LMTPSession. What is not read of the message because
// it is refused is passed over before it returns: go-smtp would answer a BDAT
// that nobody reads with a lasting error of its own.
func (s *session) LMTPData(r io.Reader, status smtp.StatusCollector) error {
	s.server.work.Add(1)
	defer s.server.work.Done()
	conn := under(s.conn.Conn())
	_, pieces := r.(*io.PipeReader) // which is how go-smtp hands over those of BDAT
	r = source{r, conn}
	if pieces {
		s.pieces.Lock()
		defer s.pieces.Unlock()
	}
	t := s.set(nil)
	if t == nil {
		return s.refuse("DATA", "", errCut)
	}
	defer t.close()
	conn.begin(!pieces)
	defer func() { _, _ = io.Copy(io.Discard, r) }() // an error was told already, or does not matter
	began := time.Now()
	ctx, span := s.server.span(s.server.stop, len(t.recipients))
	data, err := receive(r, len(t.recipients) > 1, s.server.cfg.TempDir)
	if err != nil {
		span.end(err)
		s.server.metrics.count(resultOf(err), len(t.recipients))
		s.server.metrics.refuse(err)
		return s.answer("DATA", "", err)
	}
	defer data.discard(s.log)
	type place struct {
		account metadata.AccountID
		mailbox string
	}
	told := make(map[place]error) // who is named twice gets it once
	for _, to := range t.recipients {
		at := place{to.account.Row().ID, to.mailbox}
		err, again := told[at]
		if !again {
			err = s.deliver(ctx, t, to, data, began)
			told[at] = err
			span.note(err)
		}
		if err == nil {
			status.SetStatus(to.to, kept)
			continue
		}
		status.SetStatus(to.to, s.answer("DATA", to.to, err))
	}
	span.end(nil)
	return nil
}

// deliver stores the message for one recipient, and counts how that went.
func (s *session) deliver(ctx context.Context, t *transaction, to recipient, data *data, began time.Time) error {
	var done mailstore.Appended
	upload, err := to.account.Upload(ctx, mailstore.Incoming{Mailbox: to.mailbox, Fit: true}, t.size)
	if err == nil {
		defer upload.Discard()
		done, err = s.store(ctx, t, to, data, upload)
	}
	result := resultOf(err)
	if done.Again {
		result = duplicate
	}
	s.server.metrics.count(result, 1)
	s.server.metrics.duration.Observe(time.Since(began).Seconds())
	if err != nil {
		if data.stream != nil {
			s.server.metrics.refuse(err)
		}
		return err
	}
	s.log.Info("delivery", zap.String("account", to.account.Row().Name), zap.String("mailbox", to.mailbox), zap.Uint32("uid", done.UID),
		zap.Int64("size", data.size), zap.String("message_id", data.head.messageID()), zap.String("result", results[result]),
		zap.Duration("took", time.Since(began)))
	return nil
}

func (s *session) store(ctx context.Context, t *transaction, to recipient, data *data, upload *mailstore.Upload) (mailstore.Appended, error) {
	if _, err := io.WriteString(upload, s.trace(t, to)); err != nil {
		return mailstore.Appended{}, err
	}
	sum, err := data.copyTo(upload)
	if err != nil {
		return mailstore.Appended{}, err
	}
	digest := deliveryDigest(to.account.Row().Name, to.detail, t.from, sum)
	return upload.Append(ctx, &digest)
}

// deliveryDigest is by what a delivery is known when it is tried again: for whom
// it is, whatever address of theirs was used, from whom, and the SHA-256 of the
// bytes as received.
func deliveryDigest(account, detail, from string, sum [sha256.Size]byte) [sha256.Size]byte {
	h := sha256.New()
	for _, part := range []string{account, detail, from} {
		_, _ = fmt.Fprintf(h, "%d:%s,", len(part), part) // a hash takes everything
	}
	_, _ = h.Write(sum[:])
	return [sha256.Size]byte(h.Sum(nil))
}

// trace is what final delivery puts before the message (RFC 5321 §4.4).
func (s *session) trace(t *transaction, to recipient) string {
	helo := clean(s.conn.Hostname())
	return fmt.Sprintf("Return-Path: <%s>\r\nDelivered-To: %s\r\nReceived: from %s\r\n\tby %s with LMTP\r\n\tfor <%s>; %s\r\n",
		clean(t.from), clean(to.account.Row().Name), helo, clean(s.server.cfg.Hostname), clean(to.to),
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
	err    error
	result result
	reply  *smtp.SMTPError
}{
	{metadata.ErrNotFound, noSuchUser, &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "No such address here"}},
	{metadata.ErrOverQuota, overQuota, &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "Mailbox is full"}},
	{mailstore.ErrTooBig, refused, errTooBig},
	{smtp.ErrDataTooLarge, refused, errTooBig},
	{mailstore.ErrUIDLimit, refused, &smtp.SMTPError{Code: 552, EnhancedCode: smtp.EnhancedCode{5, 2, 2}, Message: "Mailbox takes no more messages"}},
	{metadata.ErrNoMailbox, deferred, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 2, 0}, Message: "Mailbox was deleted just now, try again"}},
	{errCut, notMeant, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 4, 2}, Message: "Message did not arrive"}},
	{metadata.ErrUnavailable, deferred, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Mailboxes cannot be reached now"}},
	{blobstore.ErrUnavailable, deferred, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Storage cannot be reached now"}},
	{context.Canceled, deferred, &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 2}, Message: "Shutting down, try again later"}},
}

// resultOf is what an error, nil for none, means for a recipient.
func resultOf(err error) result {
	if err == nil {
		return delivered
	}
	for _, known := range replies {
		if errors.Is(err, known.err) {
			return known.result
		}
	}
	return deferred
}

// refuse is the answer to a command that ended with err, counted for one recipient.
func (s *session) refuse(command, to string, err error) error {
	s.server.metrics.count(resultOf(err), 1)
	return s.answer(command, to, err)
}

// answer is that to a command that ended with err, nil for a good one.
func (s *session) answer(command, to string, err error) error {
	if err == nil {
		return nil
	}
	for _, known := range replies {
		if errors.Is(err, known.err) {
			if known.result == deferred {
				s.server.deferrals.Info("deferred", zap.Stringer("remote", s.conn.Conn().RemoteAddr()),
					zap.String("command", command), zap.String("recipient", to), zap.Error(err))
				return known.reply
			}
			s.log.Info("refused", zap.String("command", command), zap.String("recipient", to), zap.Error(err))
			return known.reply
		}
	}
	s.log.Error("delivery failed", zap.String("command", command), zap.String("recipient", to), zap.Error(err))
	return &smtp.SMTPError{Code: 451, EnhancedCode: smtp.EnhancedCode{4, 3, 0}, Message: "Internal error, try again later"}
}
