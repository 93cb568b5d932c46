package memory_test

import (
	"testing"
	"testing/synctest"

	"starling/events"
	"starling/events/eventtest"
	"starling/events/memory"
)

func TestBus(t *testing.T) {
	t.Parallel()
	eventtest.Run(t, func(*testing.T) eventtest.Cluster {
		hub := new(memory.Hub)
		return func(t *testing.T, o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
			node, err := events.Start(o, func(in *events.Inlet) (events.Transport, error) {
				transport, err := hub.Dial(in)
				return wrap(transport), err
			})
			if err != nil {
				t.Fatal(err)
			}
			return node
		}
	}, synctest.Test)
}
