package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.uber.org/zap"

	"starling/frontend/mailstore"
)

// Bounds on what clients may send, and how long they may take.
const (
	maxHeader    = 16 << 10
	maxBody      = 64 << 10
	readTimeout  = 10 * time.Second
	writeTimeout = 2 * time.Minute // of profiles, too
	idleTimeout  = 2 * time.Minute
	maxScrapes   = 4 // at the same time
)

// Config is what a Server is made of. All but PProf must be given.
type Config struct {
	Hostname, Version string
	Health            *Health
	// Metrics are the node's figures; the Server adds those of the process and its own.
	Metrics *prometheus.Registry
	Log     *zap.Logger
	PProf   bool // serve Go's profiles
}

// Parts are those of a node that the Server shows. A node has them once it is
// ready to serve.
type Parts struct {
	Store      Store
	Sessions   func() map[string]int // of IMAP, by state
	Deliveries func() int            // sessions of LMTP
	Bus        func() Bus
}

// Store is what the Server needs of a mailstore.Store.
type Store interface {
	// Status is what the store does now.
	Status() mailstore.Status
	// SetTrace has the protocol of an account's sessions logged until then.
	SetTrace(ctx context.Context, account string, until time.Time) error
}

// Bus is how the node hears of others.
type Bus struct {
	Connected bool `json:"connected"`
	Peers     int  `json:"peers"` // other nodes that are heard
}

// Server answers on the admin listener. It is safe for use by several goroutines.
type Server struct {
	cfg     Config
	started time.Time
	mux     *http.ServeMux
	http    http.Server
	parts   atomic.Pointer[Parts] // nil while the node starts
}

// New returns a server.
func New(cfg Config) *Server {
	s := &Server{cfg: cfg, started: time.Now(), mux: http.NewServeMux()}
	register(cfg)
	s.mux.HandleFunc("GET /livez", func(w http.ResponseWriter, _ *http.Request) { text(w, http.StatusOK, "ok\n") })
	s.mux.HandleFunc("GET /readyz", s.readyz)
	s.mux.Handle("GET /metrics", promhttp.HandlerFor(cfg.Metrics, promhttp.HandlerOpts{
		MaxRequestsInFlight: maxScrapes, ErrorLog: errorLog{cfg.Log}, ErrorHandling: promhttp.ContinueOnError,
	}))
	s.mux.HandleFunc("GET /node", s.node)
	s.mux.HandleFunc("PUT /accounts/{name}/trace", s.trace)
	s.mux.HandleFunc("DELETE /accounts/{name}/trace", s.untrace)
	if cfg.PProf {
		s.mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		s.mux.HandleFunc("GET /debug/pprof/cmdline", pprof.Cmdline)
		s.mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		s.mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("POST /debug/pprof/symbol", pprof.Symbol)
		s.mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	s.http = http.Server{
		Handler:     http.MaxBytesHandler(http.HandlerFunc(s.route), maxBody),
		ReadTimeout: readTimeout, ReadHeaderTimeout: readTimeout, WriteTimeout: writeTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeader,
		ErrorLog:       zap.NewStdLog(cfg.Log.Named("admin")),
	}
	return s
}

// Attach gives the server the parts of a node that now has them.
func (s *Server) Attach(p Parts) { s.parts.Store(&p) }

// Serve answers the connections of l until Close.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP on %s: %w", l.Addr(), err)
	}
	return nil
}

// Close closes the listeners, and waits for answers that are under way until ctx
// is done.
func (s *Server) Close(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err == nil {
		return nil
	}
	if err := s.http.Close(); err != nil {
		return fmt.Errorf("close the admin listener: %w", err)
	}
	return nil
}

// route answers what no handler is there for as other problems are answered.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	handler, pattern := s.mux.Handler(r)
	if pattern != "" {
		s.mux.ServeHTTP(w, r)
		return
	}
	no := &refusal{header: make(http.Header)}
	handler.ServeHTTP(no, r)
	if allow := no.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
	}
	problem(w, no.status, r.Method+" "+r.URL.Path)
}

func text(w http.ResponseWriter, status int, s string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = w.Write([]byte(s)) // a client that has gone needs no answer
}

// readyz answers 200 or 503, with a line for each reason, or in JSON to who asks
// for it.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	ready := s.cfg.Health.Readiness()
	status := http.StatusOK
	if !ready.Ready {
		status = http.StatusServiceUnavailable
	}
	if strings.Contains(r.Header.Get("Accept"), "application/json") {
		answer(w, status, ready)
		return
	}
	var lines []string
	if ready.Ready {
		lines = append(lines, "ok")
	}
	lines = append(lines, ready.Missing...)
	for _, d := range ready.Degraded {
		lines = append(lines, "degraded: "+d)
	}
	for i := range lines {
		lines[i] = strings.Join(strings.Fields(lines[i]), " ") // errors may go over several
	}
	text(w, status, strings.Join(lines, "\n")+"\n")
}

// errorLog passes on what promhttp has to say.
type errorLog struct{ *zap.Logger }

// Println implements promhttp.Logger.
func (l errorLog) Println(v ...any) {
	l.Warn("figures not collected", zap.String("error", strings.TrimSpace(fmt.Sprintln(v...))))
}
