package listen

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/pires/go-proxyproto"
)

// conn is a connection of a client, wherever it comes through.
type conn struct {
	net.Conn
	remote  net.Addr
	local   bool   // the load balancer's own, or it does not know whose
	early   []byte // came with the header and was not read yet
	release func() // gives back its place in the limits
	once    sync.Once

	// unlisted, if not nil, is told when the first bytes are a header of the PROXY
	// protocol: who connects from here may send none.
	unlisted func()

	turns <-chan struct{} // from which its handshake has a turn; nil: it has none
}

// RemoteAddr implements net.Conn: it is the client's.
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// NetConn is the connection underneath, on which a server may wait for something to
// read once a Read has timed out: nothing is left here then.
func (c *conn) NetConn() net.Conn { return c.Conn }

// errUnlisted says that a header of the PROXY protocol came from an address that is in
// none of the networks for it.
var errUnlisted = errors.New("header of the PROXY protocol from an address that is not listed")

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	if c.early == nil {
		n, err := c.Conn.Read(p)
		if n > 0 && c.unlisted != nil {
			tell := c.unlisted
			c.unlisted = nil
			if isHeader(p[:n]) {
				tell()
				return 0, errUnlisted
			}
		}
		return n, err
	}
	n := copy(p, c.early)
	if c.early = c.early[n:]; len(c.early) == 0 {
		c.early = nil
	}
	return n, nil
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.once.Do(c.release)
	return c.Conn.Close()
}

// isHeader says that a client's first bytes are a header of the PROXY protocol, of either
// version. No protocol that is served here begins so.
func isHeader(first []byte) bool {
	return bytes.HasPrefix(first, proxyproto.SIGV2) || bytes.HasPrefix(first, []byte("PROXY "))
}

// header awaits the header of the PROXY protocol on a connection, which it does
// not close.
func (l *Listener) header(accepted net.Conn) (*conn, error) {
	stop := context.AfterFunc(l.open, func() { _ = accepted.Close() })
	defer stop()
	if err := accepted.SetReadDeadline(time.Now().Add(l.cfg.HeaderTimeout)); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	source, early, err := readHeader(accepted)
	if err != nil {
		return nil, err
	}
	if err := accepted.SetReadDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("read header: %w", err)
	}
	c := &conn{Conn: accepted, remote: source, early: early}
	if source == nil {
		c.remote, c.local = accepted.RemoteAddr(), true
	}
	return c, nil
}

// errNothing says that a connection was closed before anything was sent on it, as
// load balancers do to see whether somebody listens.
var errNothing = errors.New("nothing was sent")

// readHeader reads a header of the PROXY protocol, version 1 of at most 107 octets
// or version 2 of at most 4 KiB, and returns the client's address, nil for a
// connection of the load balancer's own (LOCAL, UNKNOWN), and what came behind.
func readHeader(r io.Reader) (source net.Addr, early []byte, err error) {
	in := bufio.NewReaderSize(r, 512)
	if _, err := in.Peek(1); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		return nil, nil, errNothing
	}
	header, err := proxyproto.Read(in)
	if err != nil {
		return nil, nil, fmt.Errorf("read header: %w", err)
	}
	if in.Buffered() > 0 {
		early, err = in.Peek(in.Buffered())
		if err != nil {
			return nil, nil, fmt.Errorf("read header: %w", err)
		}
	}
	if tcp, ok := header.SourceAddr.(*net.TCPAddr); ok && header.Command.IsProxy() {
		source = tcp
	}
	return source, slices.Clone(early), nil
}
