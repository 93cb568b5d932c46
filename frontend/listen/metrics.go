package listen

import (
	"errors"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are the figures of all listeners of a node.
type metrics struct {
	connections *prometheus.GaugeVec
	limits      *prometheus.GaugeVec
	accepted    *prometheus.CounterVec
	refused     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{
		connections: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "starling_listener_connections", Help: "Connections that are open.",
		}, []string{"listener"})),
		limits: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "starling_listener_max_connections",
			Help: "Connections that there may be, on this listener and those of the same protocol together; 0: any number.",
		}, []string{"listener"})),
		accepted: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_listener_accepted_total", Help: "Connections that were given to the protocol's server.",
		}, []string{"listener"})),
		refused: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_listener_refused_total",
			Help: "Connections that were turned away: too many from an address or on the node, a PROXY protocol header that is missing or wrong, or one from an address that is not listed (unlisted).",
		}, []string{"listener", "reason"})),
	}
}

// figures are those of one listener.
type figures struct {
	connections prometheus.Gauge
	limit       prometheus.Gauge
	accepted    prometheus.Counter
	refused     [len(reasons)]prometheus.Counter
}

func (m *metrics) of(listener string) figures {
	f := figures{
		connections: m.connections.WithLabelValues(listener), limit: m.limits.WithLabelValues(listener),
		accepted: m.accepted.WithLabelValues(listener),
	}
	for why, name := range reasons {
		f.refused[why] = m.refused.WithLabelValues(listener, name)
	}
	return f
}

// tlsMetrics are the figures of certificates and handshakes.
type tlsMetrics struct {
	handshakes *prometheus.CounterVec
	waiting    prometheus.Gauge
	reloads    *prometheus.CounterVec
	expiry     *prometheus.GaugeVec
	broken     *prometheus.GaugeVec
}

// Labels of what went well, and of what did not.
const (
	resultOK     = "ok"
	resultFailed = "failed"
)

// resultRefused is that of handshakes for which there was no time.
const resultRefused = "refused"

func newTLSMetrics(reg prometheus.Registerer) *tlsMetrics {
	m := &tlsMetrics{
		handshakes: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_tls_handshakes_total", Help: "TLS handshakes of IMAP clients.",
		}, []string{"result"})),
		waiting: register(reg, prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "starling_tls_handshakes_waiting", Help: "TLS handshakes that clients have begun and that wait for their turn.",
		})),
		reloads: register(reg, prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "starling_tls_reloads_total", Help: "Certificates that had changed and were read again.",
		}, []string{"result"})),
		expiry: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "starling_tls_certificate_expiry_timestamp_seconds", Help: "When a certificate that is served expires.",
		}, []string{"certificate"})),
		broken: register(reg, prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "starling_tls_certificate_broken", Help: "1 where a certificate could not be read: what was there before is served.",
		}, []string{"certificate"})),
	}
	for _, result := range []string{resultOK, resultFailed} {
		m.handshakes.WithLabelValues(result)
		m.reloads.WithLabelValues(result)
	}
	m.handshakes.WithLabelValues(resultRefused)
	return m
}

// register registers c, or returns what is registered under its name: the
// listeners of a node share their figures.
func register[C prometheus.Collector](reg prometheus.Registerer, c C) C {
	if reg == nil {
		return c
	}
	err := reg.Register(c)
	var already prometheus.AlreadyRegisteredError
	if errors.As(err, &already) {
		if before, ok := already.ExistingCollector.(C); ok {
			return before
		}
	}
	if err != nil {
		panic(err) // a bug of ours: another figure has the name
	}
	return c
}
