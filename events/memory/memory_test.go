package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"starling/events"
	"starling/events/eventtest"
	"starling/events/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestBus(t *testing.T) {
	t.Parallel()
	eventtest.Run(t, cluster, synctest.Test)
}

func BenchmarkBus(b *testing.B) { eventtest.Bench(b, cluster) }

func cluster(testing.TB) eventtest.Cluster {
	hub := new(memory.Hub)
	return func(t testing.TB, o events.Options, wrap func(events.Transport) events.Transport) *events.Node {
		node, err := events.Start(o, func(in *events.Inlet) (events.Transport, error) {
			transport, err := hub.Dial(in)
			return wrap(transport), err
		})
		if err != nil {
			t.Fatal(err)
		}
		return node
	}
}

// A node that is never heard again stops counting as cut off after a minute.
func TestSilentNodeIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		start := cluster(t)
		muted := new(eventtest.Faults)
		dead := start(t, events.Options{}, muted.Wrap)
		live := start(t, events.Options{}, func(tr events.Transport) events.Transport { return tr })
		s, err := live.Subscribe(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		await := func(connected bool, within time.Duration) {
			t.Helper()
			ctx, cancel := context.WithTimeout(t.Context(), within)
			defer cancel()
			if news, err := s.Next(ctx); err != nil || news.Connected != connected {
				t.Fatalf("Next returned %+v, %v; want connected %t", news, err, connected)
			}
		}
		time.AfterFunc(10*time.Second, func() { muted.Mute(true) })
		await(false, 20*time.Second)
		if got := live.Counters(); got.Peers != 0 || got.Connected || got.Silences != 1 {
			t.Errorf("counters %+v", got)
		}
		await(true, 2*time.Minute)
		if err := errors.Join(dead.Close(), live.Close()); err != nil {
			t.Error(err)
		}
	})
}
