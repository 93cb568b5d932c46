package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"sync"
	"time"
)

// Mischief is what a gateway does to requests to S3.
type Mischief int

// The kinds of mischief.
const (
	Honest   Mischief = iota
	Fails             // 500 InternalError
	Refuses           // 503 SlowDown
	Hangs             // no answer comes
	Forgets           // the request is carried out; its answer is lost
	Dribbles          // the answer's body comes slowly
	Shortens          // the answer's body ends before its length
	Garbles           // a wrong octet in the answer's body
	mischiefs
)

// Gateway passes requests to an S3 server, and can be told to do it as a bad one would. It understands HTTP, so that what
// it spoils is one request, not a connection.
type Gateway struct {
	listener net.Listener
	server   *http.Server
	pass     *httputil.ReverseProxy
	done     chan struct{} // when it no longer serves

	mu     sync.Mutex
	now    Mischief
	share  int // of 100 requests
	mended chan struct{}
	counts [mischiefs]int
}

// NewGateway serves on a free port of 127.0.0.1 what the server at an URL answers.
func NewGateway(endpoint string) (*Gateway, error) {
	target, err := url.Parse(endpoint)
	if err != nil {
		return nil, fmt.Errorf("gateway to %s: %w", endpoint, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for a gateway: %w", err)
	}
	g := &Gateway{listener: l, mended: make(chan struct{}), done: make(chan struct{})}
	g.pass = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // it is signed
		},
		Transport:    &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64},
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
		ErrorLog:     nil,
	}
	g.server = &http.Server{Handler: g, ReadHeaderTimeout: startTime}
	go func() {
		defer close(g.done)
		_ = g.server.Serve(l) // until Close
	}()
	return g, nil
}

// Addr is where the gateway listens.
func (g *Gateway) Addr() string { return g.listener.Addr().String() }

// Close ends all requests.
func (g *Gateway) Close() error {
	g.Set(Honest, 0)
	err := g.server.Close()
	<-g.done
	return err
}

// Set says what is done to so many of 100 requests from now on.
func (g *Gateway) Set(m Mischief, share int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.now, g.share = m, share
	close(g.mended)
	g.mended = make(chan struct{})
}

// Count is how often that was done.
func (g *Gateway) Count(m Mischief) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.counts[m]
}

func (g *Gateway) draw(r *http.Request) (Mischief, <-chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := g.now
	reading := r.Method == http.MethodGet
	if rand.IntN(100) >= g.share || m >= Dribbles && !reading || m == Forgets && reading { //nolint:gosec // any will do
		m = Honest
	}
	g.counts[m]++
	return m, g.mended
}

// ServeHTTP passes a request on, or does worse.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m, mended := g.draw(r)
	switch m {
	case Fails:
		refuse(w, r, http.StatusInternalServerError, "InternalError")
		return
	case Refuses:
		refuse(w, r, http.StatusServiceUnavailable, "SlowDown")
		return
	case Hangs:
		_, _ = io.Copy(io.Discard, r.Body) // the request is taken, whatever becomes of it
		select {
		case <-mended:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	case Forgets:
		// It is carried out to its end, whether the client waits or not.
		g.pass.ServeHTTP(&lost{header: make(http.Header)}, r.WithContext(context.WithoutCancel(r.Context())))
		panic(http.ErrAbortHandler)
	case Dribbles, Shortens, Garbles:
		w = &spoiled{ResponseWriter: w, how: m, mended: mended, after: 1 + rand.IntN(4000)} //nolint:gosec // any will do
	}
	g.pass.ServeHTTP(w, r)
}

func refuse(w http.ResponseWriter, r *http.Request, status int, code string) {
	_, _ = io.Copy(io.Discard, r.Body) // what the client sends it may send to its end
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>%s</Code><Message>so it was to be</Message></Error>", code) // or it is gone
}

// lost is an answer that nobody gets.
type lost struct{ header http.Header }

func (l *lost) Header() http.Header         { return l.header }
func (l *lost) Write(b []byte) (int, error) { return len(b), nil }
func (l *lost) WriteHeader(int)             {}

// spoiled is an answer whose body is spoiled.
type spoiled struct {
	http.ResponseWriter
	how    Mischief
	mended <-chan struct{}
	after  int // octets
}

var errShort = errors.New("the answer ends here")

// Write writes a piece of the body.
func (s *spoiled) Write(b []byte) (int, error) {
	switch s.how {
	case Dribbles:
		return s.dribble(b)
	case Shortens:
		if len(b) >= s.after {
			n, _ := s.ResponseWriter.Write(b[:s.after]) // it ends either way
			if f, ok := s.ResponseWriter.(http.Flusher); ok {
				f.Flush()
			}
			return n, errShort
		}
		s.after -= len(b)
	case Garbles:
		if s.after >= 0 && len(b) > 0 {
			b = bytes.Clone(b)
			b[min(s.after, len(b)-1)] ^= 0x20
			s.after = -1
		}
	}
	return s.ResponseWriter.Write(b)
}

func (s *spoiled) dribble(b []byte) (int, error) {
	sum := 0
	for len(b) > 0 {
		n, err := s.ResponseWriter.Write(b[:min(len(b), 1000)])
		sum += n
		if err != nil {
			return sum, err
		}
		b = b[n:]
		if f, ok := s.ResponseWriter.(http.Flusher); ok {
			f.Flush()
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-s.mended:
		}
	}
	return sum, nil
}
