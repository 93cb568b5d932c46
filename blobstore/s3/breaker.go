package s3

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/sony/gobreaker/v2"
	"go.uber.org/zap"

	"starling/blobstore"
)

// While the server is away, requests fail at once instead of each waiting out its timeouts with what it holds in memory: a
// circuit breaker opens, and after Config.ProbeDelay lets single requests through until one succeeds.
const (
	breakerInARow = 5  // failures without a success between them that open it
	breakerLeast  = 20 // requests in breakerWindow, more than half of them failures, that open it too
	breakerWindow = 10 * time.Second
	breakerBucket = time.Second // by which the window moves on
)

// breaker counts what says that the server is away. A request that the server answered, with whatever refusal, does not,
// nor does one that the caller gave up. Nor does one object that always fails: a failure counts only if the one
// before it was another object's.
type breaker struct {
	*gobreaker.TwoStepCircuitBreaker[any]

	mu   sync.Mutex
	last string // the object of the last failure
}

func newBreaker(conf Config, m *metrics) *breaker {
	return &breaker{TwoStepCircuitBreaker: gobreaker.NewTwoStepCircuitBreaker[any](gobreaker.Settings{
		MaxRequests:  1,
		Interval:     breakerWindow,
		BucketPeriod: breakerBucket,
		Timeout:      conf.ProbeDelay,
		ReadyToTrip: func(c gobreaker.Counts) bool {
			return c.ConsecutiveFailures >= breakerInARow ||
				c.TotalSuccesses+c.TotalFailures >= breakerLeast && c.TotalFailures > c.TotalSuccesses
		},
		IsExcluded: func(err error) bool { return errors.Is(err, errNoVerdict) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			m.breakerState[from].Set(0)
			m.breakerState[to].Set(1)
			switch to {
			case gobreaker.StateOpen:
				conf.Log.Warn("S3 does not answer; requests fail at once", zap.Duration("until", conf.ProbeDelay))
			case gobreaker.StateHalfOpen:
				conf.Log.Info("S3 is tried with one request")
			case gobreaker.StateClosed:
				conf.Log.Info("S3 answers again")
			}
		},
	})}
}

// errNoVerdict stands for what says nothing of the server.
var errNoVerdict = errors.New("no verdict")

// verdict is what the end of a request says of the server: nil that it is there, errNoVerdict nothing.
func (b *breaker) verdict(object string, err error) error {
	var answer minio.ErrorResponse
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled), errors.Is(err, blobstore.ErrBody), errors.Is(err, errNoVerdict), throttled(err):
		return errNoVerdict
	case errors.As(err, &answer) && !temporary(err):
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	again := b.last == object
	b.last = object
	if again && b.State() == gobreaker.StateClosed {
		return errNoVerdict
	}
	return err
}

// allow asks whether a request may be sent, and done tells how it ended.
func (s *Store) allow(object string) (done func(error), err error) {
	tell, err := s.breaker.Allow()
	if err != nil {
		s.metrics.breakerRefused.Inc()
		return nil, &failure{blobstore.ErrUnavailable, err, false}
	}
	return func(err error) { tell(s.breaker.verdict(object, err)) }, nil
}

// broke notes that an answer broke off after it had begun.
func (s *Store) broke(object string, err error) {
	if tell, closed := s.breaker.Allow(); closed == nil {
		tell(s.breaker.verdict(object, err))
	}
}

// retryShare is how many requests each call adds to those that may be repeated. Of these there are at most as many as
// connections, so that all that breaks at one moment is repeated once, and in an outage requests do not become many more.
const retryShare = 0.2

// retries is what may be repeated.
type retries struct {
	most float64

	mu   sync.Mutex
	left float64
}

func (r *retries) earn() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.left = min(r.left+retryShare, r.most)
}

func (r *retries) take() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.left < 1 {
		return false
	}
	r.left--
	return true
}

// repeat says whether a request that failed is to be sent once more, after the pause that is due. n is how many of the
// call have failed. The error is the context's.
func (s *Store) repeat(ctx context.Context, n int, err error) (bool, error) {
	if !temporary(err) || n >= s.conf.Attempts {
		return false, nil
	}
	if !s.retries.take() {
		s.metrics.retriesRefused.Inc()
		return false, nil
	}
	d := s.conf.RetryDelay << min(n-1, 5)
	if throttled(err) {
		d *= throttledDelay
	}
	return true, pause(ctx, d)
}
