package imap

import (
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// alarmReason says why a session that waits for its client is woken.
type alarmReason uint8

const (
	alarmNews     alarmReason = 1 << iota // the selected mailbox changed
	alarmEnded                            // the account may no longer log in, or with another password
	alarmShutdown                         // the server stops
)

// alarm lets others wake a session that waits for its client to send something: by
// moving the deadline of its read into the past, or by taking it out of the lot where it is
// parked. So a waiting session needs no goroutine but its own, if that, and no channel.
type alarm struct {
	mu      sync.Mutex
	conn    net.Conn
	heeds   alarmReason // the reasons that end a wait
	rung    alarmReason // what rang and was not yet heard
	waiting bool
	parked  bool // it waits in the lot
}

var longAgo = time.Unix(1, 0)

// ring wakes the session if it waits and heeds the reason, or else does so as
// soon as it waits with a mind to it.
func (s *session) ring(why alarmReason) {
	a := &s.alarm
	a.mu.Lock()
	defer a.mu.Unlock()
	a.rung |= why
	switch {
	case !a.waiting || a.heeds&why == 0:
	case a.parked:
		s.server.lot.wake(s, os.ErrDeadlineExceeded)
	default:
		_ = a.conn.SetReadDeadline(longAgo) // fails on a closed connection only, whose read ends anyway
	}
}

// setConn changes the connection, after STARTTLS. It does not wait then.
func (a *alarm) setConn(conn net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conn = conn
}

// errTimeout says that the client sent nothing in time.
var errTimeout = errors.New("client sent nothing in time")

// wait runs read, which blocks until the client sends something, for at most
// timeout. It returns the reasons for which it was woken, if it was.
func (a *alarm) wait(heed alarmReason, timeout time.Duration, read func() error) (alarmReason, error) {
	if why, err := a.begin(heed, timeout); why != 0 || err != nil {
		return why, err
	}
	return a.end(read())
}

// begin begins a wait, unless there is a reason not to. What then reads has to end it.
func (a *alarm) begin(heed alarmReason, timeout time.Duration) (alarmReason, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rung&heed != 0 {
		return a.heard(heed), nil
	}
	if err := a.conn.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return 0, err
	}
	a.heeds, a.waiting = heed, true
	return 0, nil
}

// end ends a wait, in which reading came to err.
func (a *alarm) end(err error) (alarmReason, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.waiting, a.parked = false, false
	if err == nil {
		return 0, nil
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if a.rung&a.heeds != 0 {
			return a.heard(a.heeds), nil
		}
		return 0, errTimeout
	}
	return 0, err
}

// heard takes the reasons of heed that rang; mu is held. That the server stops
// or the login ended stays true.
func (a *alarm) heard(heed alarmReason) alarmReason {
	why := a.rung & heed
	a.rung &^= alarmNews & heed
	return why
}
