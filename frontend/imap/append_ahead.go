package imap

import (
	"slices"

	"starling/frontend/imapwire"
	"starling/frontend/mailstore"
)

// maxAhead is how many messages of one client may be on their way to the stores while the
// next one is received.
const maxAhead = 8

// ahead is an APPEND that has its message and is not answered yet, because the client had
// sent more already: what the stores need for one message, the next one need not
// wait for. Answers, and messages in their mailbox, keep the order of the commands
// (RFC 9051 §5.5), and no other command runs meanwhile.
type ahead struct {
	running
	upload *mailstore.Upload
	rest   func() (imapwire.Code, error)
	done   chan struct{}
	code   imapwire.Code
	err    error
}

// goAhead begins the rest of an APPEND, and leaves its answer to settle. It reports
// whether the connection can go on.
func (s *session) goAhead(r *running, a *ahead) bool {
	s.logReceived()
	a.running, a.done = *r, make(chan struct{})
	a.row.reads = false // all was read
	if len(s.ahead) > 0 {
		a.upload.After(s.ahead[len(s.ahead)-1].upload)
	}
	s.ahead = append(s.ahead, a)
	s.server.served.Go(func() {
		defer close(a.done)
		a.err = s.guard(a.name, func() (err error) {
			a.code, err = a.rest()
			return err
		})
	})
	return s.settle(maxAhead - 1)
}

// hasMore says whether the client is known to have sent more than was read.
func (s *session) hasMore() (more bool) {
	if len(s.dec.Buffered()) > 0 || s.raw == nil {
		return len(s.dec.Buffered()) > 0
	}
	err := s.raw.Read(func(fd uintptr) bool {
		more = readable(fd)
		return true
	})
	return more && err == nil
}

// settle answers all but the last so many of the APPENDs that are not answered. It
// reports whether the connection can go on.
func (s *session) settle(left int) bool {
	for len(s.ahead) > left {
		a := s.ahead[0]
		<-a.done
		s.ahead = slices.Delete(s.ahead, 0, 1)
		if !s.complete(&a.running, a.row.news, a.code, a.err) {
			return false
		}
	}
	return true
}

// abandon waits for the APPENDs that nobody can be told of.
func (s *session) abandon() {
	for _, a := range s.ahead {
		<-a.done
		s.unanswered(&a.running)
	}
	s.ahead = nil
}
