package lmtp

import (
	"errors"

	"github.com/emersion/go-smtp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"starling/blobstore"
	"starling/frontend/mailstore"
)

// result is what became of a message for one recipient, as figures and logs call it.
type result uint8

const (
	delivered result = iota
	duplicate        // it had been delivered before
	noSuchUser
	overQuota
	deferred // to be tried again
	refused  // for another reason for good
	notMeant // nothing was to be delivered: the message did not come to its end
)

// results are the labels of those that are counted.
var results = [notMeant]string{"delivered", "duplicate", "no_such_user", "over_quota", "deferred", "refused"}

// Reasons for which a message is taken for no recipient.
const (
	reasonTooBig      = "too_big"
	reasonIncomplete  = "incomplete"
	reasonUnavailable = "unavailable"
)

type metrics struct {
	deliveries  [len(results)]prometheus.Counter
	duration    prometheus.Histogram
	sessions    prometheus.Gauge
	received    prometheus.Counter
	tooBig      prometheus.Counter
	incomplete  prometheus.Counter
	unavailable prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	m := &metrics{
		duration: auto.NewHistogram(prometheus.HistogramOpts{
			Name:    "starling_lmtp_delivery_duration_seconds",
			Help:    "From DATA to the answer for a recipient, while the message comes in included.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300},
		}),
		sessions: auto.NewGauge(prometheus.GaugeOpts{
			Name: "starling_lmtp_sessions", Help: "Connections of mail transfer agents that are open.",
		}),
		received: auto.NewCounter(prometheus.CounterOpts{
			Name: "starling_lmtp_received_bytes_total", Help: "Octets that were read from connections.",
		}),
	}
	byResult := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_lmtp_deliveries_total", Help: "Recipients of messages, by what they or the message for them got as an answer.",
	}, []string{"result"})
	for r, name := range results {
		m.deliveries[r] = byResult.WithLabelValues(name)
	}
	byReason := auto.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_lmtp_refused_total", Help: "Messages that were taken for no recipient, since they were too big, did not come to their end, or could not be kept meanwhile.",
	}, []string{"reason"})
	m.tooBig, m.incomplete, m.unavailable = byReason.WithLabelValues(reasonTooBig), byReason.WithLabelValues(reasonIncomplete), byReason.WithLabelValues(reasonUnavailable)
	return m
}

// count counts what n recipients got.
func (m *metrics) count(r result, n int) {
	if r != notMeant {
		m.deliveries[r].Add(float64(n))
	}
}

// refuse counts a message that nobody gets because of err.
func (m *metrics) refuse(err error) {
	switch {
	case errors.Is(err, errCut):
		m.incomplete.Inc()
	case errors.Is(err, mailstore.ErrTooBig), errors.Is(err, smtp.ErrDataTooLarge):
		m.tooBig.Inc()
	case errors.Is(err, blobstore.ErrUnavailable):
		m.unavailable.Inc()
	}
}
