// Package lmtp takes mail in from a mail transfer agent, by LMTP (RFC 2033), and
// gives an answer for each recipient.
//
// A recipient is an account's name or an alias; a "+detail" behind the local part
// names the mailbox, if there is one of that name. A 250 means that the mail is
// kept for good. A delivery that is tried again because its 250 was lost is
// recognised, and does not show twice.
package lmtp

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"starling/frontend/mailstore"
)

// Config is what a Server is made of. Store, Log and Hostname must be given; what
// else is zero has the default named beside it.
type Config struct {
	Store    *mailstore.Store
	Log      *zap.Logger
	Hostname string // by which the server calls itself

	TLS           *tls.Config   // for STARTTLS; nil: not offered
	MaxRecipients int           // of one message; 100
	Timeout       time.Duration // for a command, each read of a message and each write; 5 min (RFC 5321 §4.5.3.2)
	TempDir       string        // where messages for several recipients wait; "": the system's

	Metrics prometheus.Registerer // where the figures are registered; nil: nowhere
	Traces  trace.TracerProvider  // where spans come from; nil: there are none
}

// traceRoom is how much smaller than the largest message that the store takes
// a message may be: the rest is for what delivery puts before it.
const traceRoom = 8 << 10

// Server serves LMTP.
type Server struct {
	cfg     Config
	metrics *metrics
	tracer  trace.Tracer // nil without traces
	smtp    *smtp.Server
	conns   conns
	work    sync.WaitGroup     // messages that are being delivered
	stop    context.Context    // of all deliveries: it ends when the time of Shutdown is up
	abort   context.CancelFunc // of stop

	// deferrals is the log for what is to be tried again, ten lines in ten seconds: all
	// deliveries are, while something is away.
	deferrals *zap.Logger
}

// NewServer returns a server.
func NewServer(cfg Config) *Server {
	if cfg.MaxRecipients == 0 {
		cfg.MaxRecipients = 100
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 5 * time.Minute
	}
	srv := &Server{cfg: cfg, metrics: newMetrics(cfg.Metrics)}
	srv.deferrals = cfg.Log.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 10, 0)
	}))
	srv.conns = conns{timeout: cfg.Timeout, lull: drainLull, metrics: srv.metrics, open: make(map[*conn]struct{})}
	if cfg.Traces != nil {
		srv.tracer = cfg.Traces.Tracer("starling/frontend/lmtp")
	}
	srv.stop, srv.abort = context.WithCancel(context.Background())
	s := smtp.NewServer(smtp.BackendFunc(func(c *smtp.Conn) (smtp.Session, error) {
		return &session{server: srv, conn: c, log: cfg.Log.With(zap.Stringer("remote", c.Conn().RemoteAddr()))}, nil
	}))
	s.LMTP = true
	s.Domain = cfg.Hostname
	s.TLSConfig = cfg.TLS
	s.MaxRecipients = cfg.MaxRecipients
	s.MaxMessageBytes = max(cfg.Store.MaxMessage()-traceRoom, cfg.Store.MaxMessage()/2)
	s.MaxLineLength = 0 // see commandRoom
	s.ReadTimeout, s.WriteTimeout = cfg.Timeout, cfg.Timeout
	s.EnableSMTPUTF8 = true
	s.ErrorLog = logger{cfg.Log}
	srv.smtp = s
	return srv
}

// Serve answers the connections of l until Shutdown is called or l is closed.
func (srv *Server) Serve(l net.Listener) error {
	err := srv.smtp.Serve(listener{l, &srv.conns})
	if err != nil && !errors.Is(err, smtp.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("serve LMTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown takes no more connections, ends those that are idle, and waits for
// the transactions that have begun, unless a client is silent for long. When ctx is done, what is left is cut off.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.conns.end()
	err := srv.smtp.Shutdown(ctx)
	srv.abort()
	srv.conns.cut()
	srv.work.Wait()
	if err != nil && !errors.Is(err, net.ErrClosed) { // of a listener: whoever made it may have closed it
		return fmt.Errorf("shut down LMTP: %w", err)
	}
	return nil
}

// logger passes on what go-smtp has to say.
type logger struct{ *zap.Logger }

func (l logger) Printf(format string, v ...any) {
	l.Warn("LMTP", zap.String("error", fmt.Sprintf(format, v...)))
}
func (l logger) Println(v ...any) { l.Warn("LMTP", zap.String("error", fmt.Sprint(v...))) }
