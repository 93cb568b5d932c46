package imap

import (
	"context"
	"errors"
	"time"

	"starling/frontend/imapwire"
)

// idleCmd is IDLE (RFC 2177, RFC 9051 §6.3.13).
type idleCmd struct{}

func (idleCmd) run(_ context.Context, s *session) (imapwire.Code, error) {
	if err := s.refresh(); err != nil {
		return "", err
	}
	s.enc.Continue("Idling")
	ends := time.Now().Add(s.server.cfg.IdleTimeout)
	for {
		s.tellNews(newsWhole)
		if s.over {
			return "", nil
		}
		if err := s.enc.Release(); err != nil {
			return "", err
		}
		wait := min(s.server.cfg.KeepAlive, time.Until(ends))
		why, err := s.alarm.wait(alarmNews|alarmEnded|alarmShutdown, wait, s.dec.Wait)
		switch {
		case why&^alarmNews != 0:
			s.farewell(why)
			return "", nil
		case why != 0:
		case errors.Is(err, errTimeout) && time.Now().Before(ends):
			s.enc.Status("", imapwire.OK, "", "Still here") // keeps address translators from forgetting us
		case errors.Is(err, errTimeout):
			s.bye(imapwire.CodeUnavailable, "Nothing was heard for too long")
			return "", nil
		case err != nil:
			s.lost(err)
			return "", nil
		default:
			return "", s.dec.Done()
		}
	}
}
