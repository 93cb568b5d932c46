package imap

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"starling/blobstore"
	"starling/frontend/auth"
	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
	"starling/metadata"
)

// StatusError is an error that is said to the client as it is.
type StatusError struct {
	Status imapwire.Status
	Code   imapwire.Code
	Text   string
}

func (e *StatusError) Error() string { return string(e.Status) + " " + e.Text }

func nof(code imapwire.Code, format string, args ...any) *StatusError {
	return &StatusError{Status: imapwire.NO, Code: code, Text: fmt.Sprintf(format, args...)}
}

func badf(format string, args ...any) *StatusError {
	return &StatusError{Status: imapwire.BAD, Text: fmt.Sprintf(format, args...)}
}

// sentinels is what errors of the stores mean to a client (RFC 5530). The
// first that fits counts.
var sentinels = []struct {
	err  error
	code imapwire.Code
	text string
}{
	{metadata.ErrNoMailbox, imapwire.CodeNonExistent, "There is no such mailbox"},
	{metadata.ErrExists, imapwire.CodeAlreadyExists, "There is a mailbox of that name already"},
	{metadata.ErrListLimit, imapwire.CodeLimit, "The account cannot have more mailboxes or subscriptions"},
	{metadata.ErrHasChildren, imapwire.CodeHasChildren, "That name only stands above others"},
	{metadata.ErrInbox, imapwire.CodeCannot, "That cannot be done with INBOX"},
	{metadata.ErrOverQuota, imapwire.CodeOverQuota, "The account has no room for that"},
	{metadata.ErrSourceGone, imapwire.CodeExpungeIssued, "Some of the messages are expunged"},
	{mailstore.ErrExpunged, imapwire.CodeExpungeIssued, "Some of the messages are expunged"},
	{mailstore.ErrKeywordLimit, imapwire.CodeLimit, "The mailbox cannot hold more keywords"},
	{mailstore.ErrUIDLimit, imapwire.CodeLimit, "The mailbox has no UIDs left"},
	{mailstore.ErrTooMany, imapwire.CodeLimit, "Too many messages to copy at once, copy some of them first"},
	{mailstore.ErrTooBig, imapwire.CodeTooBig, "The message is too big"},
	{auth.ErrInvalid, imapwire.CodeAuthenticationFailed, "Name or password is wrong"},
	{auth.ErrSuspended, imapwire.CodeContactAdmin, "The account is suspended"},
	{auth.ErrThrottled, imapwire.CodeUnavailable, "Too many failed logins, try again later"},
	{blobstore.ErrUnavailable, imapwire.CodeUnavailable, "Message bodies cannot be reached now, try again"},
	{metadata.ErrUnavailable, imapwire.CodeUnavailable, "Mailboxes cannot be reached now, try again"},
	{blobstore.ErrCorrupt, imapwire.CodeCorruption, "The stored message is damaged"},
	{blobstore.ErrNotFound, imapwire.CodeCorruption, "The stored message is missing"},
	{context.DeadlineExceeded, imapwire.CodeUnavailable, "That took too long, try again"},
	{context.Canceled, imapwire.CodeUnavailable, "The server stops here, please connect again"},
}

// statusOf decides what a client is told of err. What it does not know is a
// bug, and logged as one.
func (s *session) statusOf(err error) *StatusError {
	var status *StatusError
	if errors.As(err, &status) {
		return status
	}
	var syntax *imapwire.SyntaxError
	if errors.As(err, &syntax) {
		code := imapwire.Code("")
		if syntax.TooBig {
			code = imapwire.CodeTooBig
		}
		return &StatusError{Status: imapwire.BAD, Code: code, Text: syntax.Error()}
	}
	if errors.Is(err, mailstore.ErrName) {
		return nof(imapwire.CodeCannot, "%v", err)
	}
	for _, known := range sentinels {
		if errors.Is(err, known.err) {
			if known.code == imapwire.CodeUnavailable || known.code == imapwire.CodeCorruption {
				s.logTo(s.server.refusals).Warn("command refused", zap.String("command", s.command), zap.Error(err))
			}
			return nof(known.code, "%s", known.text)
		}
	}
	s.log().Error("command failed", zap.String("command", s.command), zap.Error(err))
	return nof(imapwire.CodeServerBug, "Internal error, noted in the server's log")
}
