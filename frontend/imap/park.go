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

// park has the session wait on a goroutine of its own that does nothing else, while
// the one that calls it ends: stacks that handshakes and commands have made large do
// not become small again, and nothing but its stack makes a waiting session large. It
// may be called when reading has just timed out, so that nothing is left in any
// buffer between the socket and the decoder. It reports whether the session is
// parked; if not, the reasons to wake it are there already.
func (s *session) park(heed alarmReason, timeout time.Duration) (parked bool, why alarmReason, err error) {
	if why, err := s.alarm.begin(heed, timeout); why != 0 || err != nil {
		return false, why, err
	}
	s.end.finish()
	s.ctx = nil
	s.server.served.Go(s.sleep)
	return true, 0, nil
}

// sleep waits until something can be read, or an alarm rings. It must need little stack.
func (s *session) sleep() {
	err := s.raw.Read(readable)
	s.server.served.Go(func() { s.wake(err) })
}

// wake goes on with a session that was parked.
func (s *session) wake(err error) {
	s.work(func() bool {
		why, err := s.alarm.end(err)
		if why == 0 && err == nil {
			s.roused = true
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
