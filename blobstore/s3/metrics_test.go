package s3_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"starling/blobstore"
	"starling/blobstore/blobtest"
)

func TestMetricsCountEveryRequest(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	reg := prometheus.NewPedanticRegistry()
	n.conf.Metrics = reg
	s, key, data := open(t, n.conf), blobstore.NewKey(1), blobtest.Bytes(100_000)

	n.set(times(2, status(503, "SlowDown")))
	if err := putBytes(t, s, key, data); err != nil {
		t.Fatal(err)
	}
	n.set(times(1, cutAt(40_000, broken)))
	if _, err := getBytes(t.Context(), s, key, 0, -1); err != nil {
		t.Fatal(err)
	}
	n.set(nil)
	if _, err := s.Get(t.Context(), blobstore.NewKey(1), 0, -1); !errors.Is(err, blobstore.ErrNotFound) {
		t.Fatal(err)
	}
	n.set(times(1, status(500, "InternalError")))
	if err := s.Delete(t.Context(), key); err != nil {
		t.Fatal(err)
	}
	n.set(nil)
	if err := s.CheckBucket(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFigures(t, reg, `
		# HELP starling_s3_requests_in_flight Requests whose answers have not been read to their end; those that wait for a connection included.
		# TYPE starling_s3_requests_in_flight gauge
		starling_s3_requests_in_flight 0
		# HELP starling_s3_requests_total Requests sent to the S3 server, those that repeat a failed one included.
		# TYPE starling_s3_requests_total counter
		starling_s3_requests_total{operation="delete",result="cancelled"} 0
		starling_s3_requests_total{operation="delete",result="not_found"} 0
		starling_s3_requests_total{operation="delete",result="ok"} 1
		starling_s3_requests_total{operation="delete",result="other"} 0
		starling_s3_requests_total{operation="delete",result="throttled"} 0
		starling_s3_requests_total{operation="delete",result="unavailable"} 1
		starling_s3_requests_total{operation="get",result="cancelled"} 0
		starling_s3_requests_total{operation="get",result="not_found"} 1
		starling_s3_requests_total{operation="get",result="ok"} 2
		starling_s3_requests_total{operation="get",result="other"} 0
		starling_s3_requests_total{operation="get",result="throttled"} 0
		starling_s3_requests_total{operation="get",result="unavailable"} 0
		starling_s3_requests_total{operation="list",result="cancelled"} 0
		starling_s3_requests_total{operation="list",result="not_found"} 0
		starling_s3_requests_total{operation="list",result="ok"} 1
		starling_s3_requests_total{operation="list",result="other"} 0
		starling_s3_requests_total{operation="list",result="throttled"} 0
		starling_s3_requests_total{operation="list",result="unavailable"} 0
		starling_s3_requests_total{operation="part",result="cancelled"} 0
		starling_s3_requests_total{operation="part",result="not_found"} 0
		starling_s3_requests_total{operation="part",result="ok"} 0
		starling_s3_requests_total{operation="part",result="other"} 0
		starling_s3_requests_total{operation="part",result="throttled"} 0
		starling_s3_requests_total{operation="part",result="unavailable"} 0
		starling_s3_requests_total{operation="put",result="cancelled"} 0
		starling_s3_requests_total{operation="put",result="not_found"} 0
		starling_s3_requests_total{operation="put",result="ok"} 1
		starling_s3_requests_total{operation="put",result="other"} 0
		starling_s3_requests_total{operation="put",result="throttled"} 2
		starling_s3_requests_total{operation="put",result="unavailable"} 0
		starling_s3_requests_total{operation="upload",result="cancelled"} 0
		starling_s3_requests_total{operation="upload",result="not_found"} 0
		starling_s3_requests_total{operation="upload",result="ok"} 0
		starling_s3_requests_total{operation="upload",result="other"} 0
		starling_s3_requests_total{operation="upload",result="throttled"} 0
		starling_s3_requests_total{operation="upload",result="unavailable"} 0
		# HELP starling_s3_retries_total Requests that repeat one that failed, or go on where an answer broke off.
		# TYPE starling_s3_retries_total counter
		starling_s3_retries_total{operation="delete"} 1
		starling_s3_retries_total{operation="get"} 1
		starling_s3_retries_total{operation="list"} 0
		starling_s3_retries_total{operation="part"} 0
		starling_s3_retries_total{operation="put"} 2
		starling_s3_retries_total{operation="upload"} 0
	`, "starling_s3_requests_total", "starling_s3_retries_total", "starling_s3_requests_in_flight")
	if problems, err := testutil.GatherAndLint(reg); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if n := testutil.CollectAndCount(reg, "starling_s3_request_duration_seconds"); n != 6 {
		t.Errorf("%d histograms of the duration, want 6", n)
	}
}

func wantFigures(t *testing.T, reg *prometheus.Registry, want string, names ...string) {
	t.Helper()
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
}

func TestMetricsCountBytesAndOpenAnswers(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	reg := prometheus.NewPedanticRegistry()
	n.conf.Metrics = reg
	s, key := open(t, n.conf), blobstore.NewKey(1)
	if err := putBytes(t, s, key, blobtest.Bytes(100_000)); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(t.Context(), key, 100, 70_000)
	if err != nil {
		t.Fatal(err)
	}
	const inFlight = `
		# HELP starling_s3_requests_in_flight Requests whose answers have not been read to their end; those that wait for a connection included.
		# TYPE starling_s3_requests_in_flight gauge
		starling_s3_requests_in_flight `
	wantFigures(t, reg, inFlight+"1\n", "starling_s3_requests_in_flight")
	if _, err := io.Copy(io.Discard, r); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantFigures(t, reg, inFlight+"0\n", "starling_s3_requests_in_flight")
	wantFigures(t, reg, `
		# HELP starling_s3_bytes_total Bytes of the bodies of requests (sent) and of answers (received).
		# TYPE starling_s3_bytes_total counter
		starling_s3_bytes_total{direction="received"} 70000
		starling_s3_bytes_total{direction="sent"} 100000
	`, "starling_s3_bytes_total")
}

func TestTracesShowEveryRequest(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	spans := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	n.conf.Traces = provider
	s, key := open(t, n.conf), blobstore.NewKey(1)
	ctx, parent := provider.Tracer("test").Start(t.Context(), "parent")
	n.set(times(1, status(503, "SlowDown")))
	if _, err := s.Put(ctx, key, strings.NewReader("x"), 1); err != nil {
		t.Fatal(err)
	}
	if _, err := getBytes(ctx, s, key, 0, -1); err != nil {
		t.Fatal(err)
	}
	type seen struct {
		name   string
		status codes.Code
		detail string
	}
	want := []seen{{"s3 put", codes.Error, "throttled"}, {"s3 put", codes.Unset, ""}, {"s3 get", codes.Unset, ""}}
	ended := spans.Ended()
	if len(ended) != len(want) {
		t.Fatalf("%d spans, want %d", len(ended), len(want))
	}
	for i, span := range ended {
		if got := (seen{span.Name(), span.Status().Code, span.Status().Description}); got != want[i] {
			t.Errorf("span %d: %+v, want %+v", i, got, want[i])
		}
		if span.SpanKind() != trace.SpanKindClient || span.Parent().SpanID() != parent.SpanContext().SpanID() {
			t.Errorf("span %d is not the client's, below its caller's", i)
		}
	}
}

// A call that its caller gives up is not counted as the server's fault.
func TestMetricsOfACallGivenUp(t *testing.T) {
	t.Parallel()
	n := newNetwork(t, httptest.NewServer)
	reg := prometheus.NewPedanticRegistry()
	n.conf.Metrics, n.conf.StallTimeout = reg, time.Minute
	s := open(t, n.conf)
	ctx, cancel := context.WithCancel(t.Context())
	n.set(times(1, func(_ http.ResponseWriter, r *http.Request, _ http.Handler) {
		cancel()
		hangs(r)
	}))
	if _, err := s.Get(ctx, blobstore.NewKey(1), 0, -1); !errors.Is(err, ctx.Err()) || ctx.Err() == nil {
		t.Fatalf("error %v", err)
	}
	wantFigures(t, reg, `
		# HELP starling_s3_retries_total Requests that repeat one that failed, or go on where an answer broke off.
		# TYPE starling_s3_retries_total counter
		starling_s3_retries_total{operation="delete"} 0
		starling_s3_retries_total{operation="get"} 0
		starling_s3_retries_total{operation="list"} 0
		starling_s3_retries_total{operation="part"} 0
		starling_s3_retries_total{operation="put"} 0
		starling_s3_retries_total{operation="upload"} 0
	`, "starling_s3_retries_total")
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == "starling_s3_requests_total" && m.GetCounter().GetValue() != 0 && m.GetLabel()[1].GetValue() != "cancelled" {
				t.Errorf("counted as %v", m.GetLabel())
			}
		}
	}
}
