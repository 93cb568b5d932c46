package s3

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// errStalled ends a request on which no byte has moved for Config.StallTimeout.
var errStalled = errors.New("no byte moved for too long")

// transport is an http.RoundTripper that watches each request until its answer's body is closed.
type transport struct {
	http    *http.Transport
	stall   time.Duration
	answers *answers
	metrics *metrics
}

func newTransport(c Config, conf *tls.Config, m *metrics) *transport {
	dialer := &net.Dialer{Timeout: min(5*time.Second, c.StallTimeout), KeepAlive: 15 * time.Second}
	return &transport{
		stall:   c.StallTimeout,
		answers: newAnswers(c.MaxConns),
		metrics: m,
		http: &http.Transport{
			Proxy:               http.ProxyFromEnvironment,
			DialContext:         dialer.DialContext,
			TLSClientConfig:     conf,
			TLSHandshakeTimeout: c.StallTimeout,
			MaxConnsPerHost:     c.MaxConns,
			// The default of two would close most connections after each burst of requests.
			MaxIdleConnsPerHost: c.MaxConns,
			IdleConnTimeout:     55 * time.Second, // below the minute after which many servers close
			WriteBufferSize:     32 << 10,
			ReadBufferSize:      32 << 10,
			// Objects are bytes: what the server sends is what was put, whatever it may be compressed with.
			DisableCompression: true,
		},
	}
}

// dateKey is the context key under which Put leaves a *time.Time for the Date of the answer. The client library hands out
// no headers of a PUT's answer, and the context is the only thing of the caller's that it carries down to here.
type dateKey struct{}

// RoundTrip implements http.RoundTripper.
func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	t.answers.relieve()
	ctx, cancel := context.WithCancelCause(req.Context())
	w := &watch{ctx: ctx, cancel: cancel, d: t.stall}
	w.timer = time.AfterFunc(t.stall, func() { cancel(errStalled) })
	req = req.WithContext(ctx)
	if req.Body != nil && req.Body != http.NoBody {
		req.Body = &watchedBody{ReadCloser: req.Body, w: w, sent: t.metrics.sent}
	}
	t.metrics.inFlight.Inc()
	resp, err := t.http.RoundTrip(req)
	w.timer.Stop()
	if err != nil {
		err = w.explain(err)
		cancel(nil)
		t.metrics.inFlight.Dec()
		return nil, err
	}
	if date, ok := ctx.Value(dateKey{}).(*time.Time); ok {
		*date, _ = http.ParseTime(resp.Header.Get("Date")) // Put refuses the zero time
	}
	resp.Body = &answerBody{ReadCloser: resp.Body, w: w, metrics: t.metrics}
	return resp, nil
}

// watch cancels a request when its timer is not moved on.
type watch struct {
	ctx    context.Context // the request's, whose cause says why it ended
	cancel context.CancelCauseFunc
	timer  *time.Timer
	d      time.Duration
}

func (w *watch) explain(err error) error {
	if cause := context.Cause(w.ctx); errors.Is(cause, errStalled) {
		return cause
	}
	return err
}

// watchedBody is a request's body.
type watchedBody struct {
	io.ReadCloser
	w    *watch
	sent prometheus.Counter
}

func (b *watchedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.sent.Add(float64(n))
	b.w.timer.Reset(b.w.d)
	return n, err
}

// answerBody is an answer's body. It is watched only while somebody reads: a slow reader is not the server's fault.
type answerBody struct {
	io.ReadCloser
	w       *watch
	metrics *metrics
	closed  atomic.Bool
}

func (b *answerBody) Read(p []byte) (int, error) {
	b.w.timer.Reset(b.w.d)
	n, err := b.ReadCloser.Read(p)
	b.metrics.received.Add(float64(n))
	b.w.timer.Stop()
	if err != nil && err != io.EOF {
		err = b.w.explain(err)
	}
	return n, err
}

func (b *answerBody) Close() error {
	err := b.ReadCloser.Close()
	b.w.timer.Stop()
	b.w.cancel(nil)
	if !b.closed.Swap(true) {
		b.metrics.inFlight.Dec()
	}
	return err
}
