package s3_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"starling/blobstore"
	"starling/blobstore/blobtest"
	"starling/blobstore/s3"
)

// practised is a store behind a network that has seen enough GETs to know how long they take, and an object in it.
func practised(t *testing.T) (n *network, s *s3.Store, reg *prometheus.Registry, key blobstore.Key, data []byte) {
	t.Helper()
	n, reg = newNetwork(t, httptest.NewServer), prometheus.NewPedanticRegistry()
	n.conf.Metrics, n.conf.StallTimeout = reg, time.Minute
	s, key, data = open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(10_000)
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	for range 64 {
		if _, err := getBytes(t.Context(), s, key, 0, -1); err != nil {
			t.Fatal(err)
		}
	}
	return n, s, reg, key, data
}

func wantHedges(t *testing.T, reg *prometheus.Registry, lost, won string) {
	t.Helper()
	wantFigures(t, reg, `
		# HELP starling_s3_hedges_total Gets sent a second time because the answer was late, by whether the second answer came first.
		# TYPE starling_s3_hedges_total counter
		starling_s3_hedges_total{result="lost"} `+lost+`
		starling_s3_hedges_total{result="won"} `+won+`
	`, "starling_s3_hedges_total")
}

func TestGetWhoseAnswerIsLateIsSentOnceMore(t *testing.T) {
	t.Parallel()
	n, s, reg, key, data := practised(t)
	n.set(times(1, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) { hangs(r) }))
	if got, err := getBytes(t.Context(), s, key, 100, 5000); err != nil || !bytes.Equal(got, data[100:5100]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	n.want(t, "GET bytes=100-5099", "GET bytes=100-5099")
	wantHedges(t, reg, "0", "1")
	wantNothingInFlight(t, s, reg)
}

func TestFirstAnswerIsTaken(t *testing.T) {
	t.Parallel()
	n, s, reg, key, data := practised(t)
	second := make(chan struct{})
	n.set(func(count int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		if count == 0 {
			<-second
			return false
		}
		close(second)
		hangs(r)
		return true
	})
	if got, err := getBytes(t.Context(), s, key, 100, 5000); err != nil || !bytes.Equal(got, data[100:5100]) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	wantNothingInFlight(t, s, reg)
	wantHedges(t, reg, "1", "0")
}

func TestBothMayFail(t *testing.T) {
	t.Parallel()
	n, s, reg, key, data := practised(t)
	second := make(chan struct{})
	n.set(func(count int, w http.ResponseWriter, r *http.Request, server http.Handler) bool {
		switch count {
		case 0:
			<-second
			status(503, "SlowDown")(w, r, server)
		case 1:
			close(second)
			status(500, "InternalError")(w, r, server)
		default:
			return false
		}
		return true
	})
	if got, err := getBytes(t.Context(), s, key, 0, -1); err != nil || !bytes.Equal(got, data) {
		t.Errorf("%d bytes, %v: the third was not sent", len(got), err)
	}
	wantHedges(t, reg, "1", "0")
	wantNothingInFlight(t, s, reg)
}

// wantNothingInFlight closes the store, and with it waits for the request that nobody waits for.
func wantNothingInFlight(t *testing.T, s *s3.Store, reg *prometheus.Registry) {
	t.Helper()
	s.Close()
	wantFigures(t, reg, `
		# HELP starling_s3_requests_in_flight Requests whose answers have not been read to their end; those that wait for a connection included.
		# TYPE starling_s3_requests_in_flight gauge
		starling_s3_requests_in_flight 0
	`, "starling_s3_requests_in_flight")
}
