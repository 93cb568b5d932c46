package events

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestMetrics(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	var inlet *Inlet
	n, err := Start(Options{Metrics: registry}, func(in *Inlet) (Transport, error) {
		inlet = in
		in.Connected(true)
		return nowhere{}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	inlet.Receive(appendHints(nil, n.incarnation+1, 1, someHints))
	inlet.Receive(nil)
	want := `
# HELP starling_nats_connected 1 while hints of other nodes arrive as far as is known: the network is reached and no node fell silent.
# TYPE starling_nats_connected gauge
starling_nats_connected 1
# HELP starling_nats_malformed_total Messages that could not be read, ignored.
# TYPE starling_nats_malformed_total counter
starling_nats_malformed_total 1
# HELP starling_nats_peers Other nodes that are heard.
# TYPE starling_nats_peers gauge
starling_nats_peers 1
# HELP starling_nats_received_total Messages of hints from other nodes.
# TYPE starling_nats_received_total counter
starling_nats_received_total 1
`
	names := []string{"starling_nats_connected", "starling_nats_peers", "starling_nats_received_total", "starling_nats_malformed_total"}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.GatherAndLint(registry); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	if got, err := testutil.GatherAndCount(registry); err != nil || got != 16 {
		t.Errorf("%d series, %v; want one for each field of Counters", got, err)
	}

	// A second node would hide the figures of the first: it does not start.
	if _, err := Start(Options{Metrics: registry}, func(*Inlet) (Transport, error) { return nowhere{}, nil }); err == nil {
		t.Error("a second node was registered")
	}
	if err := n.Close(); err != nil {
		t.Error(err)
	}
}
