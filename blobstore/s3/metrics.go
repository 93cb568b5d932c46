package s3

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/sony/gobreaker/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"starling/blobstore"
)

// operation is what a request does.
type operation int

const (
	opPut operation = iota
	opGet
	opDelete
	opList
	opUpload // begins, completes or ends a multipart upload
	opPart   // sends a part of one
	operations
)

func (o operation) String() string {
	return [...]string{"put", "get", "delete", "list", "upload", "part"}[o]
}

// result is how a request ended.
type result int

const (
	resultOK result = iota
	resultNotFound
	resultUnavailable
	resultThrottled
	resultCancelled // the caller gave up, or had an answer from elsewhere
	resultOther     // the caller asked for what cannot be
	results
)

func (r result) String() string {
	return [...]string{"ok", "not_found", "unavailable", "throttled", "cancelled", "other"}[r]
}

func resultOf(err error) result {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, blobstore.ErrNotFound):
		return resultNotFound
	case throttled(err):
		return resultThrottled
	case errors.Is(err, context.Canceled):
		return resultCancelled // before the next: what it broke off looks like a broken connection
	case errors.Is(err, blobstore.ErrUnavailable):
		return resultUnavailable
	}
	return resultOther
}

// metrics are the figures of a Store.
type metrics struct {
	requests [operations][results]prometheus.Counter
	duration [operations]prometheus.Observer
	retries  [operations]prometheus.Counter
	sent     prometheus.Counter
	received prometheus.Counter
	inFlight prometheus.Gauge

	hedgesWon, hedgesLost prometheus.Counter
	wholeAgain            prometheus.Counter
	retriesRefused        prometheus.Counter

	breakerState   map[gobreaker.State]prometheus.Gauge
	breakerRefused prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	in := promauto.With(reg)
	requests := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_s3_requests_total",
		Help: "Requests sent to the S3 server, those that repeat a failed one included.",
	}, []string{"operation", "result"})
	duration := in.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "starling_s3_request_duration_seconds",
		Help:    "Time from the start of a request until the head of its answer; of a put, with the time to send the body.",
		Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30},
	}, []string{"operation"})
	retries := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_s3_retries_total",
		Help: "Requests that repeat one that failed, or go on where an answer broke off.",
	}, []string{"operation"})
	bytes := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_s3_bytes_total",
		Help: "Bytes of the bodies of requests (sent) and of answers (received).",
	}, []string{"direction"})
	hedges := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_s3_hedges_total",
		Help: "Gets sent a second time because the answer was late, by whether the second answer came first.",
	}, []string{"result"})
	states := in.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_s3_breaker_state",
		Help: "1 for the state of the circuit breaker: closed lets requests through, open none, half_open one at a time.",
	}, []string{"state"})
	m := &metrics{
		breakerState: map[gobreaker.State]prometheus.Gauge{
			gobreaker.StateClosed:   states.WithLabelValues("closed"),
			gobreaker.StateHalfOpen: states.WithLabelValues("half_open"),
			gobreaker.StateOpen:     states.WithLabelValues("open"),
		},
		breakerRefused: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_s3_breaker_refused_total",
			Help: "Requests that were not sent because the server is away.",
		}),
		retriesRefused: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_s3_retries_refused_total",
			Help: "Requests that were not repeated because too many others were.",
		}),
		hedgesWon: hedges.WithLabelValues("won"), hedgesLost: hedges.WithLabelValues("lost"),
		sent: bytes.WithLabelValues("sent"), received: bytes.WithLabelValues("received"),
		wholeAgain: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_s3_uploads_put_whole_total",
			Help: "Objects of which something could not be sent while they came in, and which were put whole at their end.",
		}),
		inFlight: in.NewGauge(prometheus.GaugeOpts{
			Name: "starling_s3_requests_in_flight",
			Help: "Requests whose answers have not been read to their end; those that wait for a connection included.",
		}),
	}
	m.breakerState[gobreaker.StateClosed].Set(1)
	for op := range operations {
		for r := range results {
			m.requests[op][r] = requests.WithLabelValues(op.String(), r.String())
		}
		m.duration[op] = duration.WithLabelValues(op.String())
		m.retries[op] = retries.WithLabelValues(op.String())
	}
	return m
}

// request sends one request, unless the server is away, counts it, and traces it. object is the name of what it is about, and before how many
// requests of the same call have failed.
func (s *Store) request(ctx context.Context, op operation, object string, before int, send func(context.Context) error) error {
	done, err := s.allow(object)
	if err != nil {
		return err
	}
	ctx, span := s.startSpan(ctx, op, object, before)
	start := time.Now()
	verdict := errNoVerdict // if it panics
	defer func() { done(verdict) }()
	err = send(ctx)
	verdict = err
	s.metrics.duration[op].Observe(time.Since(start).Seconds())
	s.metrics.requests[op][resultOf(err)].Inc()
	if before > 0 {
		s.metrics.retries[op].Inc()
	}
	if span != nil {
		if err != nil {
			span.SetStatus(codes.Error, resultOf(err).String())
			span.RecordError(err)
		}
		span.End()
	}
	return err
}

// startSpan returns nil, and the context as it is, without traces.
func (s *Store) startSpan(ctx context.Context, op operation, object string, before int) (context.Context, trace.Span) {
	if s.tracer == nil || !trace.SpanContextFromContext(ctx).IsValid() { // what nobody asked for is no trace of its own
		return ctx, nil
	}
	ctx, span := s.tracer.Start(ctx, "s3 "+op.String(), trace.WithSpanKind(trace.SpanKindClient))
	if span.IsRecording() {
		span.SetAttributes(
			attribute.String("rpc.system", "aws-api"),
			attribute.String("rpc.service", "S3"),
			attribute.String("server.address", s.core.EndpointURL().Host),
			attribute.String("aws.s3.bucket", s.conf.Bucket),
			attribute.String("aws.s3.key", object),
		)
		if before > 0 {
			span.SetAttributes(attribute.Int("http.request.resend_count", before))
		}
	}
	return ctx, span
}
