package imap

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"starling/frontend/auth"
	"starling/frontend/mailstore"
)

// Config is what a Server is made of. Store, Auth and Log must be given; what
// else is zero has the default named beside it.
type Config struct {
	Store *mailstore.Store
	Auth  *auth.Authenticator
	Log   *zap.Logger

	// Metrics is where the figures are registered; nil: nowhere.
	Metrics prometheus.Registerer
	// Traces makes the spans of commands and notifications; nil: there are none.
	Traces trace.TracerProvider

	// TLS is what STARTTLS and implicit TLS use; nil: neither is offered.
	TLS *tls.Config
	// Handshake runs the TLS handshake of a connection, and may count it; nil: it just runs.
	Handshake func(context.Context, *tls.Conn) error
	// PlaintextLogin allows passwords without TLS (RFC 9051 §11.1 forbids it on a network).
	PlaintextLogin bool
	// Name and Version are told to clients in the greeting and by ID.
	Name, Version string

	MaxPerAccount int           // sessions of one account that are logged in here at the same time; 0: no limit
	MaxPerTenant  int           // sessions of one tenant's accounts likewise; 0: no limit
	LoginTimeout  time.Duration // for a connection to log in, whatever it sends meanwhile; 1 min
	IdleTimeout   time.Duration // between commands; 30 min, the least that RFC 9051 §5.4 allows
	ReadTimeout   time.Duration // for the next 64 KiB inside of a command, or the rest of it; 2 min
	WriteTimeout  time.Duration // for a client to take as much; 2 min
	KeepAlive     time.Duration // between signs of life in IDLE; 2 min
}

func (c *Config) setDefaults() {
	def := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	def(&c.LoginTimeout, time.Minute)
	def(&c.IdleTimeout, 30*time.Minute)
	def(&c.ReadTimeout, 2*time.Minute)
	def(&c.WriteTimeout, 2*time.Minute)
	def(&c.KeepAlive, 2*time.Minute)
	if c.Handshake == nil {
		c.Handshake = func(ctx context.Context, conn *tls.Conn) error { return conn.HandshakeContext(ctx) }
	}
	if c.Name == "" {
		c.Name = "Starling"
	}
}

// Server serves IMAP. It is safe for use by several goroutines.
type Server struct {
	cfg     Config
	metrics *metrics
	tracer  *tracer // nil: no traces
	logins  *logins
	linger  time.Duration             // how long a session waits before it is parked
	stall   time.Duration             // how long a client may hold up a command while others wait for memory
	looked  atomic.Pointer[time.Time] // when it was last looked who of all does; nil: never
	signs   time.Duration             // how often a client hears that its search goes on
	shelf   shelf                     // messages that are kept between slices
	count   atomic.Uint64             // of sessions, ever

	refusals *zap.Logger // for commands that are refused for now: overload must not fill the log

	mu        sync.Mutex
	lot       *lot // where sessions are parked, from the first Serve on; nil: none is
	closing   bool
	listeners []net.Listener
	sessions  map[*session]struct{}
	served    sync.WaitGroup
}

// NewServer returns a server.
func NewServer(cfg Config) *Server {
	cfg.setDefaults()
	srv := &Server{
		cfg: cfg, metrics: newMetrics(cfg.Metrics), tracer: newTracer(cfg.Traces),
		logins: newLogins(cfg.MaxPerAccount, cfg.MaxPerTenant), linger: lingering, stall: stallPatience, signs: searchSigns,
		refusals: sampled(cfg.Log), sessions: make(map[*session]struct{}),
	}
	if cfg.Store != nil {
		cfg.Store.OnShortage(srv.giveWay)
	}
	return srv
}

// sampled is a log that takes ten lines of a kind in ten seconds.
func sampled(log *zap.Logger) *zap.Logger {
	return log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 10, 0)
	}))
}

// Serve answers the connections of l until Shutdown closes it, or it fails. How many
// there may be, and what is waited for when one cannot be accepted, is the listener's
// business (frontend/listen). implicitTLS says that they begin with a TLS handshake
// (RFC 8314 §3).
func (srv *Server) Serve(l net.Listener, implicitTLS bool) error {
	srv.mu.Lock()
	srv.listeners = append(srv.listeners, l)
	closing := srv.closing
	if !closing && len(srv.listeners) == 1 {
		srv.openLot()
	}
	srv.mu.Unlock()
	if closing {
		return closeListener(l)
	}
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			srv.begin(conn, implicitTLS)
		case errors.Is(err, net.ErrClosed) || srv.isClosing():
			return nil
		default:
			return fmt.Errorf("accept connections on %s: %w", l.Addr(), err)
		}
	}
}

// openLot makes the lot; mu is held.
func (srv *Server) openLot() {
	lot, err := newLot(srv.cfg.Log)
	if err != nil {
		srv.cfg.Log.Info("sessions are not parked, and take more memory", zap.Error(err))
		return
	}
	srv.lot = lot
}

// begin starts a session.
func (srv *Server) begin(conn net.Conn, implicitTLS bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.closing { // Shutdown waits already, for what had begun
		_ = conn.Close() // it was never used
		return
	}
	s := newSession(srv, conn, implicitTLS)
	srv.sessions[s] = struct{}{}
	srv.served.Go(s.serve)
}

// forget takes a session that has ended from the list.
func (srv *Server) forget(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.sessions, s)
}

func (srv *Server) isClosing() bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.closing
}

// Sessions is how many connections are served now.
func (srv *Server) Sessions() int {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return len(srv.sessions)
}

// Shutdown takes no more connections, ends those that wait with BYE, and waits
// for running commands to finish, unless their clients stall. When ctx is done, what is left is cut off. If ctx
// has a deadline, those that wait are ended one after the other over the first part
// of that time (drain.go), so that not all clients come back at once.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.mu.Lock()
	srv.closing = true
	var errs []error
	for _, l := range srv.listeners {
		errs = append(errs, closeListener(l))
	}
	sessions := slices.Collect(maps.Keys(srv.sessions))
	srv.mu.Unlock()
	done := make(chan struct{})
	go func() {
		srv.served.Wait()
		close(done)
	}()
	drain(ctx, sessions, done)
	defer srv.lot.close()
	if srv.await(ctx, done) {
		return errors.Join(errs...)
	}
	srv.mu.Lock()
	errs = append(errs, fmt.Errorf("shut down: %d connections were cut off: %w", len(srv.sessions), ctx.Err()))
	for s := range srv.sessions {
		s.cut()
	}
	srv.mu.Unlock()
	<-done
	return errors.Join(errs...)
}

// await waits until done, which it reports, or the end of ctx. Clients that hold up a command of
// theirs do not hold up the end.
func (srv *Server) await(ctx context.Context, done <-chan struct{}) bool {
	look := time.NewTicker(stallLooks)
	defer look.Stop()
	for {
		select {
		case <-done:
			return true
		case <-ctx.Done():
			return false
		case <-look.C:
			srv.cutStalled(0)
		}
	}
}

// closeListener closes l, which somebody else may have closed before.
func closeListener(l net.Listener) error {
	if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close listener on %s: %w", l.Addr(), err)
	}
	return nil
}

// claimLater takes the new messages of a view as recent for this server's
// sessions, so that no other tells of them; nobody waits for it. The first of the sessions
// that are told of them does so for all.
func (srv *Server) claimLater(s *session) {
	mailbox, snap := s.view.mailbox, s.view.snap
	if !mailbox.FirstToClaim(snap) {
		return
	}
	srv.served.Go(func() {
		err := s.guard("claim recent messages", func() error {
			_, _, err := mailbox.ClaimRecent(context.Background(), snap)
			return err
		})
		if err != nil {
			s.log().Debug("recent messages not claimed", zap.Error(err))
		}
	})
}
