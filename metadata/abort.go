package metadata

import (
	"context"
	"errors"
	"net"
	"sync"
)

// errAborted is what calls end with once the database was given up.
var errAborted = errors.New("the process ends")

// abort is how connections are ended that wait for an answer, all at once.
type abort struct {
	done context.Context //nolint:containedctx // it ends when the database is given up
	end  context.CancelFunc

	mu    sync.Mutex
	conns map[*heldConn]struct{}
}

func newAbort() *abort {
	a := &abort{conns: make(map[*heldConn]struct{})}
	a.done, a.end = context.WithCancel(context.Background())
	return a
}

// heldConn is a connection that can be ended by others.
type heldConn struct {
	net.Conn
	abort *abort
}

// Close implements net.Conn.
func (c *heldConn) Close() error {
	c.abort.mu.Lock()
	delete(c.abort.conns, c)
	c.abort.mu.Unlock()
	return c.Conn.Close()
}

// hold has a new connection end with the others.
func (a *abort) hold(conn net.Conn) (net.Conn, error) {
	c := &heldConn{conn, a}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.done.Err() != nil {
		_ = conn.Close() // it was never used
		return nil, errAborted
	}
	a.conns[c] = struct{}{}
	return c, nil
}

// Abort ends what waits for PostgreSQL, without waiting for an answer, and whatever comes after it. A commit that
// was sent and not answered stays in doubt: nobody is told that it happened, as if the process had been
// killed. It is for a process that has no more time, and may be called at any time, more than once.
func (db *DB) Abort() {
	a := db.abort
	a.mu.Lock()
	defer a.mu.Unlock()
	a.end()
	for c := range a.conns {
		_ = c.Conn.Close() // who waits on it finds out
	}
	clear(a.conns)
}
