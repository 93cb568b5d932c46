package lmtp

import (
	"crypto/tls"
	"errors"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/emersion/go-smtp"
)

// commandRoom is how many octets may come while a command is waited for. Lines of messages are of any
// length, so that go-smtp's limit for lines, which is one for both, is not used.
const commandRoom = 256 << 10

// leastRate is how many octets of a message must come in a second, on the average
// and after the time that every read has.
const leastRate = 4 << 10

// drainLull is how long a client may say nothing inside of a transaction while the server stops: one
// that is at work says something much sooner, and who is silent for long must not hold up the end.
const drainLull = 5 * time.Second

// conns are the connections of a server.
type conns struct {
	timeout time.Duration
	lull    time.Duration
	metrics *metrics

	mu     sync.Mutex
	open   map[*conn]struct{}
	ending bool // idle ones are to end
}

// end ends the connections without a transaction now, and the others after it, or when they
// are silent.
func (cs *conns) end() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.ending = true
	for c := range cs.open {
		c.wake()
	}
}

// cut closes all that are left.
func (cs *conns) cut() {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for c := range cs.open {
		_ = c.Conn.Close() // who reads it finds out, and closes it too
	}
}

// listener gives out connections that are known to the server.
type listener struct {
	net.Listener
	conns *conns
}

func (l listener) Accept() (net.Conn, error) {
	accepted, err := l.Listener.Accept()
	if err != nil {
		return nil, err // as it is: go-smtp looks at it
	}
	c := &conn{Conn: accepted, conns: l.conns}
	l.conns.mu.Lock()
	defer l.conns.mu.Unlock()
	l.conns.open[c] = struct{}{}
	l.conns.metrics.sessions.Inc()
	return c, nil
}

// conn is a connection that can be ended between two transactions.
type conn struct {
	net.Conn
	conns *conns
	busy  bool // a transaction has begun; guarded by conns.mu

	began  atomic.Pointer[time.Time] // when the message that comes in did; nil: none does
	got    atomic.Int64              // octets since then
	broken atomic.Bool               // it did not come to its end
	whole  atomic.Bool               // it comes as one piece, with no commands in between
	beside atomic.Int64              // octets that came since a command was waited for, and were not of a message
}

// Read implements net.Conn. While a message comes in each read has its own time:
// go-smtp gives one to all of it, in which a large message need not come over a
// slow line. One that drips in ends all the same. After that nothing is read any more: what
// follows is of the message, and no command.
func (c *conn) Read(p []byte) (int, error) {
	if c.broken.Load() {
		return 0, os.ErrDeadlineExceeded // go-smtp says 421
	}
	began := c.began.Load()
	if began != nil {
		now := time.Now()
		end := began.Add(c.conns.timeout + time.Duration(c.got.Load())*time.Second/leastRate)
		if next := now.Add(c.conns.timeout); next.Before(end) {
			end = next
		}
		if err := c.wait(end); err != nil {
			return 0, err
		}
	}
	if c.beside.Load() > commandRoom && !c.whole.Load() {
		return 0, smtp.ErrTooLongLine
	}
	n, err := c.Conn.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.broken.Store(began != nil)
		c.giveUp()
	}
	c.got.Add(int64(n))
	c.beside.Add(int64(n))
	c.conns.metrics.received.Add(float64(n))
	return n, err
}

// SetReadDeadline implements net.Conn. Each wait for a command begins with it.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.beside.Store(0)
	return c.wait(t)
}

// wait sets when a wait for a command, or for a part of a message, ends: on a connection that is to
// end there is little time, and none outside of a transaction.
func (c *conn) wait(t time.Time) error {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	if c.conns.ending {
		if last := c.last(); last.Before(t) || t.IsZero() {
			t = last
		}
	}
	return c.Conn.SetReadDeadline(t)
}

// last is when a wait ends at the latest on a connection that is to end; conns.mu is held.
func (c *conn) last() time.Time {
	if c.busy {
		return time.Now().Add(c.conns.lull)
	}
	return time.Unix(1, 0)
}

// giveUp has the rest of a transaction have no time any more, if the client was silent for too
// long while the server stops.
func (c *conn) giveUp() {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	c.busy = c.busy && !c.conns.ending
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	if _, ok := c.conns.open[c]; ok {
		delete(c.conns.open, c)
		c.conns.metrics.sessions.Dec()
	}
	return c.Conn.Close()
}

// wake ends a wait, or shortens it; conns.mu is held.
func (c *conn) wake() {
	_ = c.Conn.SetReadDeadline(c.last()) // one that is closed needs no end
}

// under is the server's own connection below a session's.
func under(nc net.Conn) *conn {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	c, _ := nc.(*conn)
	return c
}

// setBusy notes whether a transaction has begun.
func (c *conn) setBusy(busy bool) {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	c.busy = busy
	c.began.Store(nil)
	c.whole.Store(false)
}

// begin notes that a message comes in from now on, whole or in pieces.
func (c *conn) begin(whole bool) {
	c.whole.Store(whole)
	c.got.Store(0)
	now := time.Now()
	c.began.Store(&now)
}
