package imap

import (
	"context"
	"errors"
	"time"

	"starling/frontend/imapwire"
)

// idleCmd is IDLE (RFC 2177 §3, RFC 9051 §6.3.13).
type idleCmd struct{}

// idle is an IDLE under way. The session waits in it as it does between commands, so
// that it holds as little; DONE ends it.
type idle struct {
	running

	ends time.Time // when the client has sent nothing for too long
}

func (idleCmd) run(ctx context.Context, s *session) (imapwire.Code, error) {
	if err := s.refresh(ctx); err != nil {
		return "", err
	}
	s.enc.Continue("Idling")
	s.idle = &idle{ends: time.Now().Add(s.server.cfg.IdleTimeout)}
	s.recount()
	s.tellNews(newsWhole)
	return "", nil
}

// wokenInIdle goes on after a wait in IDLE.
func (s *session) wokenInIdle(why alarmReason, err error) bool {
	switch {
	case why&^alarmNews != 0:
		s.farewell(why)
	case why != 0:
		s.notify()
	case errors.Is(err, errTimeout) && time.Now().Before(s.idle.ends):
		s.enc.Status("", imapwire.OK, "", "Still here") // keeps address translators from forgetting us
	case errors.Is(err, errTimeout):
		s.bye(endTimeout, imapwire.CodeUnavailable, "Nothing was heard for too long")
	case err != nil:
		s.lost(err)
	default:
		return s.endIdle(s.dec.Done())
	}
	if s.over {
		return s.endIdle(nil)
	}
	return true
}

// endIdle answers IDLE, if the connection goes on.
func (s *session) endIdle(err error) bool {
	r := s.idle.running
	s.idle = nil
	s.recount()
	return s.complete(&r, newsWhole, "", err)
}

// notify tells the client in IDLE what is new, at once.
func (s *session) notify() {
	if s.view == nil {
		return
	}
	cause := s.view.mailbox.Snapshot().Cause()
	span := s.server.tracer.notification(s.ctx, cause.Trace)
	s.tellNews(newsWhole)
	if s.enc.Buffered() > 0 && s.enc.Flush() == nil { // else it is nothing that this client is told of
		s.server.metrics.notified(cause.At)
	}
	if span != nil {
		span.End()
	}
}
