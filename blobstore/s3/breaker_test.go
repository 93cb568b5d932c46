package s3_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"starling/blobstore"
	"starling/blobstore/blobtest"
)

func (n *network) count() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.seen)
}

func wantBreaker(t *testing.T, reg *prometheus.Registry, closed, halfOpen, open string) {
	t.Helper()
	wantFigures(t, reg, `
		# HELP starling_s3_breaker_state 1 for the state of the circuit breaker: closed lets requests through, open none, half_open one at a time.
		# TYPE starling_s3_breaker_state gauge
		starling_s3_breaker_state{state="closed"} `+closed+`
		starling_s3_breaker_state{state="half_open"} `+halfOpen+`
		starling_s3_breaker_state{state="open"} `+open+`
	`, "starling_s3_breaker_state")
}

func TestBreakerOpensAndClosesAgain(t *testing.T) {
	t.Parallel()
	n, reg := newNetwork(t, httptest.NewServer), prometheus.NewPedanticRegistry()
	core, logs := observer.New(zap.InfoLevel)
	n.conf.Metrics, n.conf.Log, n.conf.Attempts, n.conf.ProbeDelay = reg, zap.New(core), 1, 100*time.Millisecond
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(1000)
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	wantBreaker(t, reg, "1", "0", "0")

	n.set(times(1<<30, halfRequest))
	for range 5 {
		wantUnavailable(t, putBytes(t, s, blobstore.NewKey(1), data))
	}
	wantBreaker(t, reg, "0", "0", "1")
	sent := n.count()
	_, err := getBytes(t.Context(), s, key, 0, -1)
	wantUnavailable(t, err)
	wantUnavailable(t, putBytes(t, s, key, data))
	wantUnavailable(t, s.Delete(t.Context(), key))
	if got := n.count(); got != sent {
		t.Errorf("%d requests were sent while the breaker was open", got-sent)
	}
	// One at a time tries, and as long as that fails no other follows.
	for deadline := time.Now().Add(10 * time.Second); n.count() < sent+2 && time.Now().Before(deadline); {
		wantUnavailable(t, putBytes(t, s, key, data))
	}
	if changes := logs.FilterMessage("S3 does not answer; requests fail at once").Len(); changes < 2 {
		t.Errorf("%d times it was said that S3 is away", changes)
	}

	n.set(nil)
	for deadline := time.Now().Add(10 * time.Second); ; {
		if err = putBytes(t, s, key, data); err == nil || time.Now().After(deadline) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	wantBreaker(t, reg, "1", "0", "0")
	n.want(t, "PUT")
	if logs.FilterMessage("S3 answers again").Len() != 1 {
		t.Errorf("log: %v", logs.All())
	}
}

// What is wrong with an object, or with what is asked of it, says nothing of the server.
func TestBreakerStaysClosed(t *testing.T) {
	t.Parallel()
	same := blobstore.NewKey(1)
	for name, c := range map[string]struct {
		strike func(http.ResponseWriter, *http.Request, http.Handler)
		key    func() blobstore.Key
	}{
		"one object that always fails":   {status(500, "InternalError"), func() blobstore.Key { return same }},
		"one object that always breaks":  {halfRequest, func() blobstore.Key { return same }},
		"objects that are not there":     {status(404, "NoSuchKey"), func() blobstore.Key { return blobstore.NewKey(1) }},
		"objects that may not be read":   {status(403, "AccessDenied"), func() blobstore.Key { return blobstore.NewKey(1) }},
		"a server that wants fewer":      {status(503, "SlowDown"), func() blobstore.Key { return blobstore.NewKey(1) }},
		"answers that always break off":  {cutAt(0, broken), func() blobstore.Key { return same }},
		"requests that the caller ended": {nil, func() blobstore.Key { return blobstore.NewKey(1) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n, reg := newNetwork(t, httptest.NewServer), prometheus.NewPedanticRegistry()
			n.conf.Metrics, n.conf.Attempts, n.conf.StallTimeout = reg, 2, time.Minute
			s, other := open(t, n.conf), blobstore.NewKey(1)
			if err := errors.Join(putBytes(t, s, other, []byte("x")), putBytes(t, s, same, blobtest.Bytes(1000))); err != nil {
				t.Fatal(err)
			}
			for range 30 {
				ctx, cancel := context.WithCancel(t.Context())
				n.set(func(_ int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
					if c.strike == nil {
						cancel()
						hangs(r)
					} else {
						c.strike(w, r, server)
					}
					return true
				})
				_, err := getBytes(ctx, s, c.key(), 0, -1)
				cancel()
				if err == nil {
					t.Fatal("it did not fail")
				}
			}
			wantBreaker(t, reg, "1", "0", "0")
			n.set(nil)
			if _, err := getBytes(t.Context(), s, other, 0, -1); err != nil {
				t.Error(err)
			}
		})
	}
}

// In an outage requests are not repeated without end: that would be the next outage.
func TestRetriesHaveABudget(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	n.conf.MaxConns, n.conf.Attempts = 4, 4
	s := open(t, n.conf)
	n.set(times(1<<30, status(429, "TooManyRequests")))
	const calls = 20
	for range calls {
		wantUnavailable(t, s.Delete(t.Context(), blobstore.NewKey(1)))
	}
	if got, most := n.count(), calls+4+calls/5; got > most || got < calls+4 {
		t.Errorf("%d requests for %d calls, want %d to %d", got, calls, calls+4, most)
	}
	n.set(times(1, status(500, "InternalError")))
	for range 5 {
		err := s.Delete(t.Context(), blobstore.NewKey(1))
		if err != nil && n.count() > 1 {
			t.Errorf("it did not recover: %v", err)
		}
	}
}
