package admin

import (
	"runtime"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
)

// register registers the figures of the process, and those of the node as a whole.
func register(cfg Config) {
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "starling_build_info", Help: "Always 1; the labels say what runs.",
	}, []string{"version", "go_version"})
	build.WithLabelValues(cfg.Version, runtime.Version()).Set(1)
	cfg.Metrics.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), build,
		&health{
			health:     cfg.Health,
			ready:      prometheus.NewDesc("starling_ready", "1 while the node should get new connections.", nil, nil),
			draining:   prometheus.NewDesc("starling_draining", "1 while the node is being stopped.", nil, nil),
			dependency: prometheus.NewDesc("starling_dependency_up", "1 while a server that the node needs is there, or what it needs of one.", []string{"dependency"}, nil),
		},
	)
}

// health shows Health to Prometheus.
type health struct {
	health                      *Health
	ready, draining, dependency *prometheus.Desc
}

// Describe implements prometheus.Collector.
func (c *health) Describe(descs chan<- *prometheus.Desc) {
	descs <- c.ready
	descs <- c.draining
	descs <- c.dependency
}

// Collect implements prometheus.Collector.
func (c *health) Collect(metrics chan<- prometheus.Metric) {
	number := func(b bool) float64 {
		if b {
			return 1
		}
		return 0
	}
	r := c.health.Readiness()
	metrics <- prometheus.MustNewConstMetric(c.ready, prometheus.GaugeValue, number(r.Ready))
	metrics <- prometheus.MustNewConstMetric(c.draining, prometheus.GaugeValue, number(r.Draining))
	for _, d := range r.Dependencies {
		metrics <- prometheus.MustNewConstMetric(c.dependency, prometheus.GaugeValue, number(d.Up), d.Name)
	}
}
