package auth

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"starling/metadata"
)

// result is how a login ended.
type result int

// The results of logins. A client that hung up has none.
const (
	resultOK          result = iota
	resultInvalid            // ErrInvalid
	resultThrottled          // ErrThrottled
	resultRefused            // ErrSuspended
	resultUnavailable        // the directory could not be asked
	resultNone
)

// results are their names in metrics and in the log.
var results = [resultNone]string{"ok", "invalid", "throttled", "refused", "unavailable"}

func resultOf(ctx context.Context, err error) result {
	switch {
	case err == nil:
		return resultOK
	case errors.Is(err, ErrInvalid):
		return resultInvalid
	case errors.Is(err, ErrThrottled):
		return resultThrottled
	case errors.Is(err, ErrSuspended):
		return resultRefused
	case ctx.Err() != nil && !errors.Is(err, metadata.ErrUnavailable):
		return resultNone
	}
	return resultUnavailable
}

// metrics are the figures of an Authenticator.
type metrics struct {
	logins   [resultNone]atomic.Int64
	hashes   atomic.Int64
	hashWait prometheus.Histogram
}

func newMetrics(reg prometheus.Registerer) *metrics {
	in := promauto.With(reg)
	m := &metrics{hashWait: in.NewHistogram(prometheus.HistogramOpts{
		Name:    "starling_auth_hash_wait_seconds",
		Help:    "How long passwords waited for their turn to be hashed, those that waited in vain included.",
		Buckets: []float64{.001, .005, .02, .1, .5, 2, 10},
	})}
	of := func(n *atomic.Int64) func() float64 { return func() float64 { return float64(n.Load()) } }
	for r, name := range results {
		in.NewCounterFunc(prometheus.CounterOpts{
			Name: "starling_auth_logins_total", Help: "Logins, by how they ended.", ConstLabels: prometheus.Labels{"result": name},
		}, of(&m.logins[r]))
	}
	in.NewCounterFunc(prometheus.CounterOpts{
		Name: "starling_auth_hashes_total", Help: "Passwords that were hashed; the others were remembered.",
	}, of(&m.hashes))
	return m
}

// maxLines is how many refused logins of a kind are told in the log each second: who
// guesses must not fill the disk. The metrics count all.
const maxLines = 20

func bounded(logger *zap.Logger) *zap.Logger {
	return logger.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, time.Second, maxLines, 0)
	}))
}

// tell says who is being guessed at, or cannot get in, from where, and why. Each kind has a
// message of its own, by which lines are bounded, so that one does not drown another.
func (a *Authenticator) tell(t Attempt, r result, err error) {
	fields := []zap.Field{
		zap.String("name", t.Address[:min(len(t.Address), MaxAddress)]),
		zap.Stringer("remote", t.Remote), zap.String("reason", results[r]),
	}
	switch r {
	case resultInvalid:
		a.refusals.Info("login refused", fields...)
	case resultThrottled:
		a.refusals.Info("login not examined", fields...)
	case resultRefused:
		a.refusals.Info("login to an account that may not be used", fields...)
	case resultUnavailable:
		a.refusals.Warn("login failed", append(fields, zap.Error(err))...)
	case resultOK, resultNone:
	}
}
