package lmtp

import (
	"crypto/tls"
	"net"
	"sync"
	"time"
)

// conns are the connections of a server.
type conns struct {
	mu     sync.Mutex
	open   map[*conn]struct{}
	ending bool // idle ones are to end
}

// end ends the connections without a transaction now, and the others after it.
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
	return c, nil
}

// conn is a connection that can be ended between two transactions.
type conn struct {
	net.Conn
	conns *conns
	busy  bool // a transaction has begun; guarded by conns.mu
}

// SetReadDeadline implements net.Conn. Each wait for a command begins with it: on
// a connection that is to end, the command has no time left.
func (c *conn) SetReadDeadline(t time.Time) error {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	if c.conns.ending && !c.busy {
		t = time.Unix(1, 0)
	}
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	delete(c.conns.open, c)
	return c.Conn.Close()
}

// wake ends a wait for a command; conns.mu is held.
func (c *conn) wake() {
	if !c.busy {
		_ = c.Conn.SetReadDeadline(time.Unix(1, 0)) // one that is closed needs no end
	}
}

// setBusy notes whether a transaction has begun on a session's connection.
func setBusy(nc net.Conn, busy bool) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		c.conns.mu.Lock()
		defer c.conns.mu.Unlock()
		c.busy = busy
	}
}
