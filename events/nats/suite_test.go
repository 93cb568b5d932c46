package nats_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"starling/events"
	"starling/events/eventtest"
	"starling/events/nats"
	"starling/events/nats/natsserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func startServer(t testing.TB, c natsserver.Config) *natsserver.Server {
	t.Helper()
	if c.Addr == "" {
		c.Addr = "127.0.0.1:0"
	}
	s, err := natsserver.Start(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Shutdown)
	return s
}

func TestBus(t *testing.T) {
	t.Parallel()
	server := startServer(t, natsserver.Config{})
	eventtest.Run(t, clusterOn(server), func(t *testing.T, f func(*testing.T)) { f(t) })
}

func BenchmarkBus(b *testing.B) {
	server := startServer(b, natsserver.Config{})
	eventtest.Bench(b, clusterOn(server))
}

// clusterOn returns clusters that share a server and have a prefix each.
func clusterOn(server *natsserver.Server) func(testing.TB) eventtest.Cluster {
	var clusters atomic.Int64
	return func(testing.TB) eventtest.Cluster {
		prefix := fmt.Sprintf("test.%d", clusters.Add(1))
		return func(t testing.TB, o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
			c := nats.Config{URLs: []string{server.URL()}, Prefix: prefix, Options: o}
			node, err := events.Start(o, func(in *events.Inlet) (events.Transport, error) {
				transport, err := c.Dial(in)
				return wrap(transport), err
			})
			if err != nil {
				t.Fatal(err)
			}
			return node
		}
	}
}
