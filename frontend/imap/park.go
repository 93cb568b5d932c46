package imap

import (
	"errors"
	"net"
	"syscall"
	"time"
)

// lingering is how long a session waits for its client's next command on the
// goroutine that ran the last one. A client that is busy stays there; one that is not
// is parked.
const lingering = 250 * time.Millisecond

// park has the session wait in the server's lot, while the goroutine that calls it ends: not
// even the smallest stack is then held. It may be called when reading has just timed out, or
// when nothing was read since the session was parked before, so that nothing is left in any
// buffer between the socket and the decoder. It reports whether the session is parked, and no
// longer the caller's; if not, the reasons to wake it are there already.
func (s *session) park(heed alarmReason, timeout time.Duration) (parked bool, why alarmReason, err error) {
	a := &s.alarm
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.rung&heed != 0 {
		return false, a.heard(heed), nil
	}
	s.end.finish()
	s.ctx = nil
	a.heeds, a.waiting, a.parked = heed, true, true
	s.server.served.Add(1) // until it is woken
	if err := s.server.lot.add(s, timeout); err != nil {
		s.server.served.Done()
		a.waiting, a.parked = false, false
		s.ctx = s.end.begin()
		return false, 0, err
	}
	return true, 0, nil
}

// wake goes on with a session that was parked: something can be read, or err says why it is woken.
func (s *session) wake(err error) {
	defer s.server.served.Done()
	s.work(func() bool {
		why, err := s.alarm.end(err)
		s.roused, s.still = err == nil && why == 0, err != nil || why != 0
		if s.roused {
			return true
		}
		return s.woken(why, err)
	})
}

// readable reports whether a read from the socket would not block.
func readable(fd uintptr) bool {
	var one [1]byte
	_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK)
	return !errors.Is(err, syscall.EAGAIN)
}

// sendsNoMore reports whether the client has ended the connection, or at least its
// side of it.
func (s *session) sendsNoMore() bool {
	if s.raw == nil {
		return false
	}
	ended := false
	err := s.raw.Control(func(fd uintptr) { ended = sendsNoMore(fd) })
	return ended || err != nil
}

// rawConn is the socket under conn, whatever is around it; nil if there is none that
// can be waited for.
func rawConn(conn net.Conn) syscall.RawConn {
	for {
		switch c := conn.(type) {
		case syscall.Conn:
			raw, err := c.SyscallConn()
			if err != nil {
				return nil
			}
			return raw
		case interface{ NetConn() net.Conn }:
			conn = c.NetConn()
		case interface{ Raw() net.Conn }: // a connection with a PROXY header
			conn = c.Raw()
		default:
			return nil
		}
	}
}
