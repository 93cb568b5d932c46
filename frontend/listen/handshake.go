package listen

import (
	"context"
	"crypto/tls"
	"errors"
	"time"
)

// handshakeWait is how long a handshake waits for its turn. A client that is told nothing for
// longer gives up by itself.
const handshakeWait = 10 * time.Second

// errHandshakes ends a handshake whose turn has not come in time.
var errHandshakes = errors.New("too many handshakes at the same time")

// Handshake runs the handshake of a server's connection, and counts it. Of those that
// clients have begun as many are answered at the same time as there are processors: a
// flood of them waits, or is turned away, and leaves the node to those that are served.
func (c *Certificates) Handshake(ctx context.Context, server *tls.Conn) error {
	err := server.HandshakeContext(ctx)
	if under, ok := server.NetConn().(*conn); ok {
		under.answered()
	}
	switch {
	case err == nil:
		c.ok.Inc()
	case errors.Is(err, errHandshakes):
		c.refused.Inc()
	default:
		c.fail.Inc()
	}
	return err // as it is: the protocol's server says for what it was
}

// turn is tls.Config.GetConfigForClient: it waits for the turn of a client that has said what
// it wants. The turn ends with the first octet of the answer, so that nobody has it while
// it waits for its client. What is not of a Listener of ours takes none.
func (c *Certificates) turn(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	under, ok := hello.Conn.(*conn)
	if !ok {
		return nil, nil //nolint:nilnil // the configuration as it is
	}
	c.metrics.waiting.Inc()
	defer c.metrics.waiting.Dec()
	timer := time.NewTimer(c.wait)
	defer timer.Stop()
	select {
	case c.turns <- struct{}{}:
		under.turns = c.turns
		return nil, nil //nolint:nilnil // the configuration as it is
	case <-timer.C:
		return nil, errHandshakes
	case <-hello.Context().Done():
		return nil, hello.Context().Err()
	}
}

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.answered()
	return c.Conn.Write(p)
}

// answered ends the turn that the connection's handshake has, if it has one.
func (c *conn) answered() {
	if c.turns != nil {
		<-c.turns
		c.turns = nil
	}
}
