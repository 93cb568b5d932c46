package cache

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics are the figures of a Store.
type metrics struct {
	memoryHits, diskHits           prometheus.Counter
	misses                         prometheus.Counter
	bypasses                       prometheus.Counter
	memoryEvictions, diskEvictions prometheus.Counter
	diskErrors                     prometheus.Counter
}

func newMetrics(reg prometheus.Registerer) *metrics {
	in := promauto.With(reg)
	hits := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_cache_hits_total",
		Help: "Reads answered without a request to the blob store: all from memory, or some from disk.",
	}, []string{"tier"})
	evictions := in.NewCounterVec(prometheus.CounterOpts{
		Name: "starling_cache_evictions_total",
		Help: "What was given up for want of room: objects in memory, blocks on disk.",
	}, []string{"tier"})
	return &metrics{
		memoryHits: hits.WithLabelValues("memory"), diskHits: hits.WithLabelValues("disk"),
		memoryEvictions: evictions.WithLabelValues("memory"), diskEvictions: evictions.WithLabelValues("disk"),
		misses: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_cache_misses_total",
			Help: "Reads for which the blob store was asked, or that waited for a read that asked it.",
		}),
		bypasses: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_cache_bypasses_total",
			Help: "Reads passed on without a look into the cache: large ranges, and objects that change.",
		}),
		diskErrors: in.NewCounter(prometheus.CounterOpts{
			Name: "starling_cache_disk_errors_total",
			Help: "Errors of the disk under the cache, blocks that do not match their checksums included.",
		}),
	}
}

// registerSizes registers how much the tiers hold.
func registerSizes(reg prometheus.Registerer, m *memory, d *disk) {
	for tier, bytes := range map[string]func() float64{"memory": m.bytes, "disk": d.bytes} {
		promauto.With(reg).NewGaugeFunc(prometheus.GaugeOpts{
			Name:        "starling_cache_bytes",
			Help:        "Bytes that are kept.",
			ConstLabels: prometheus.Labels{"tier": tier},
		}, bytes)
	}
}

// count counts a read that memory could not answer at once.
func (m *metrics) count(fetched, missed bool) {
	switch {
	case missed:
		m.misses.Inc()
	case fetched:
		m.diskHits.Inc()
	default:
		m.memoryHits.Inc()
	}
}
