package events

import "github.com/prometheus/client_golang/prometheus"

// metrics are a node's counters and state as Prometheus reads them.
type metrics struct {
	node             *Node
	connected, peers *prometheus.Desc
	counters         []counterMetric
}

type counterMetric struct {
	desc *prometheus.Desc
	of   func(*Counters) uint64
}

func newMetrics(n *Node) *metrics {
	desc := func(name, help string) *prometheus.Desc {
		return prometheus.NewDesc("starling_nats_"+name, help, nil, nil)
	}
	m := &metrics{
		node:      n,
		connected: desc("connected", "1 while hints of other nodes arrive as far as is known: the network is reached and no node fell silent."),
		peers:     desc("peers", "Other nodes that are heard."),
	}
	for _, c := range []struct {
		name, help string
		of         func(*Counters) uint64
	}{
		{"published", "Messages handed to the network.", func(c *Counters) uint64 { return c.Published }},
		{"unpublished", "Messages dropped before the network, or refused by it.", func(c *Counters) uint64 { return c.Unpublished }},
		{"received", "Messages of hints from other nodes.", func(c *Counters) uint64 { return c.Received }},
		{"late", "Messages received out of order.", func(c *Counters) uint64 { return c.Late }},
		{"doubled", "Messages received that were seen before or given up.", func(c *Counters) uint64 { return c.Doubled }},
		{"own", "Messages of one's own that came back and were ignored.", func(c *Counters) uint64 { return c.Own }},
		{"unknown", "Messages of another version or type, ignored.", func(c *Counters) uint64 { return c.Unknown }},
		{"malformed", "Messages that could not be read, ignored.", func(c *Counters) uint64 { return c.Malformed }},
		{"lost", "Times that numbers of another node stayed missing: hints were lost.", func(c *Counters) uint64 { return c.Lost }},
		{"dropped", "Times that the client library dropped messages on the way in.", func(c *Counters) uint64 { return c.Dropped }},
		{"overflows", "Hints that found a subscription full.", func(c *Counters) uint64 { return c.Overflows }},
		{"suspects", "Shards that were compared with PostgreSQL because a hint may have been missed.", func(c *Counters) uint64 { return c.Suspects }},
		{"silences", "Other nodes that fell silent without a goodbye.", func(c *Counters) uint64 { return c.Silences }},
		{"reconnects", "Times that the network was reached after the first.", func(c *Counters) uint64 { return c.Reconnects }},
	} {
		m.counters = append(m.counters, counterMetric{desc(c.name+"_total", c.help), c.of})
	}
	return m
}

// Describe implements [prometheus.Collector].
func (m *metrics) Describe(out chan<- *prometheus.Desc) {
	out <- m.connected
	out <- m.peers
	for _, c := range m.counters {
		out <- c.desc
	}
}

// Collect implements [prometheus.Collector].
func (m *metrics) Collect(out chan<- prometheus.Metric) {
	now := m.node.Counters()
	connected := 0.0
	if now.Connected {
		connected = 1
	}
	out <- prometheus.MustNewConstMetric(m.connected, prometheus.GaugeValue, connected)
	out <- prometheus.MustNewConstMetric(m.peers, prometheus.GaugeValue, float64(now.Peers))
	for _, c := range m.counters {
		out <- prometheus.MustNewConstMetric(c.desc, prometheus.CounterValue, float64(c.of(&now)))
	}
}
