// Package listen is what stands before a protocol's server on a public address.
//
// A Listener gives out connections that are within the limits (Limits) and whose
// RemoteAddr is the client's, also behind load balancers that speak the PROXY
// protocol. Certificates are what TLS is served with: chosen by the name that the
// client asks for, and read again when they change.
//
// The package knows no protocol; what a client that is turned away is told comes
// from the settings of the listener.
package listen

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Config is what a Listener is made of. Name and Log must be given; what else is
// zero has the default named beside it.
type Config struct {
	Name    string  // imap, imaps or lmtp: what figures and logs call it
	Limits  *Limits // listeners of one protocol share one; nil: none
	Refusal string  // said to a client that is over a limit, with its line end; "": nothing, as where TLS begins at once

	// ProxyNetworks are where load balancers are. Who connects from there must begin
	// with a header of the PROXY protocol, version 1 or 2, and nobody else may: a
	// connection on which one comes from elsewhere ends.
	ProxyNetworks []netip.Prefix
	HeaderTimeout time.Duration // for the whole of that header; 5 s

	Metrics prometheus.Registerer // where the figures are registered; nil: nowhere
	Log     *zap.Logger
}

// maxHeaders is how many headers of the PROXY protocol are awaited at the same
// time. When there are more, the next connections wait in the kernel, for
// HeaderTimeout at most.
const maxHeaders = 1024

// Listener is a net.Listener whose connections have been looked at. Connections
// are taken from the socket from the first Accept on.
type Listener struct {
	cfg     Config
	inner   net.Listener
	log     *zap.Logger // a line of each kind every ten seconds, at most
	figures figures

	open    context.Context // ends when the listener does, with the reason
	end     context.CancelCauseFunc
	ready   chan net.Conn
	headers chan struct{} // has an element for each header that is awaited
	start   sync.Once
	work    sync.WaitGroup
}

// New returns a listener that takes its connections from inner, and closes it.
func New(inner net.Listener, cfg Config) *Listener {
	if cfg.HeaderTimeout == 0 {
		cfg.HeaderTimeout = 5 * time.Second
	}
	l := &Listener{
		cfg: cfg, inner: inner, ready: make(chan net.Conn), headers: make(chan struct{}, maxHeaders),
		figures: newMetrics(cfg.Metrics).of(cfg.Name),
	}
	l.figures.limit.Set(float64(cfg.Limits.most()))
	l.log = cfg.Log.With(zap.String("listener", cfg.Name)).WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 1, 0)
	}))
	l.open, l.end = context.WithCancelCause(context.Background())
	return l
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.inner.Addr() }

// Accept implements net.Listener. It fails only when the listener is closed, or
// can never accept again: what passes is waited for here.
func (l *Listener) Accept() (net.Conn, error) {
	l.start.Do(func() { l.work.Go(l.accept) })
	select {
	case conn := <-l.ready:
		return conn, nil
	case <-l.open.Done():
		return nil, context.Cause(l.open)
	}
}

// Close implements net.Listener. Connections that Accept has not given out are
// closed; those that it has are not touched.
func (l *Listener) Close() error {
	l.start.Do(func() {}) // it does not start any more
	l.end(fmt.Errorf("accept connections on %s: %w", l.Addr(), net.ErrClosed))
	err := l.inner.Close()
	l.work.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close listener on %s: %w", l.Addr(), err)
	}
	return nil
}

// What is waited before a connection is accepted again when one could not be.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

func (l *Listener) accept() {
	pause := time.Duration(0)
	for {
		accepted, err := l.inner.Accept()
		switch {
		case err == nil:
			pause = 0
			l.begin(accepted)
		case l.open.Err() != nil:
			return
		case passes(err):
			pause = min(max(2*pause, minPause), maxPause)
			l.log.Warn("connection not accepted", zap.Duration("pause", pause), zap.Error(err))
			select {
			case <-time.After(pause):
			case <-l.open.Done():
			}
		default:
			l.end(fmt.Errorf("accept connections on %s: %w", l.Addr(), err))
			return
		}
	}
}

// passes says that accepting failed because something has run out for now, or
// because the client was gone already: no reason to end what is served.
func passes(err error) bool {
	for _, passing := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM,
		syscall.ECONNABORTED, syscall.ECONNRESET, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return false
}

// begin looks at an accepted connection. A load balancer's header is awaited by a
// goroutine of its own, so that one that sends none holds up nobody.
func (l *Listener) begin(accepted net.Conn) {
	if !within(l.cfg.ProxyNetworks, address(accepted.RemoteAddr())) {
		l.admit(&conn{Conn: accepted, remote: accepted.RemoteAddr(), unlisted: func() { l.refuseUnlisted(accepted.RemoteAddr()) }})
		return
	}
	select {
	case l.headers <- struct{}{}:
	case <-l.open.Done():
		_ = accepted.Close() // it was never used
		return
	}
	l.work.Go(func() {
		c, err := l.header(accepted)
		<-l.headers
		if err == nil {
			l.admit(c)
			return
		}
		_ = accepted.Close() // it was never used
		switch remote := zap.Stringer("remote", accepted.RemoteAddr()); {
		case l.open.Err() != nil:
		case errors.Is(err, errNothing):
			l.log.Debug("connection without a word", remote)
		default:
			l.figures.refused[refusedProxy].Inc()
			l.log.Warn("no header of the PROXY protocol", remote, zap.Error(err))
		}
	})
}

// refuseUnlisted tells of a header that came from an address that is in no network for it:
// a load balancer that is not listed, or a client that wants to seem another.
func (l *Listener) refuseUnlisted(remote net.Addr) {
	l.figures.refused[refusedUnlisted].Inc()
	l.log.Warn("header of the PROXY protocol from an address that is not listed", zap.Stringer("remote", remote))
}

// admit gives c to whom Accept is called by, or turns it away.
func (l *Listener) admit(c *conn) {
	place := address(c.remote)
	if c.local {
		place = netip.Addr{}
	}
	release, why := l.cfg.Limits.take(place)
	if why != admitted {
		l.figures.refused[why].Inc()
		l.log.Warn("too many connections", zap.String("reason", reasons[why]), zap.Stringer("remote", c.remote))
		_ = c.Conn.SetWriteDeadline(time.Now().Add(time.Second)) // the connection is given up either way
		_, _ = c.Conn.Write([]byte(l.cfg.Refusal))
		_ = c.Conn.Close()
		return
	}
	l.figures.connections.Inc()
	c.release = func() {
		release()
		l.figures.connections.Dec()
	}
	select {
	case l.ready <- c:
		l.figures.accepted.Inc()
	case <-l.open.Done():
		_ = c.Close() // it was never used
	}
}

// address is where a peer is, IPv4 as such; the zero Addr if it has no such address.
func address(a net.Addr) netip.Addr {
	if tcp, ok := a.(*net.TCPAddr); ok {
		return tcp.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	for _, network := range networks {
		if network.Contains(addr) {
			return true
		}
	}
	return false
}
