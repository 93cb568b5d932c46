package nats

import (
	"context"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"starling/events"
	"starling/events/nats/natsserver"
)

// A process that does not read what arrives hears that it missed something, though the library says so only once.
func TestSlowConsumer(t *testing.T) {
	t.Parallel()
	server, err := natsserver.Start(natsserver.Config{Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Shutdown)
	core, logged := observer.New(zap.WarnLevel)
	options := events.Options{Heartbeat: 20 * time.Millisecond, Gap: 100 * time.Millisecond, Silence: time.Minute, Log: zap.New(core)}
	c := Config{URLs: []string{server.URL()}, Pending: 16, Options: options}.withDefaults()

	gate := make(chan struct{})
	slow, err := events.Start(options, func(in *events.Inlet) (events.Transport, error) {
		return dial(c, in, func(frame []byte) {
			<-gate
			in.Receive(frame)
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	fast, err := Open(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, node := range []*events.Node{slow, fast} {
			if err := node.Close(); err != nil {
				t.Error(err)
			}
		}
	})

	const flooded, calm = 0x11, 0x22
	s, err := slow.Subscribe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	s.Follow(flooded)
	s.Follow(calm)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	awaitSuspect(t, ctx, s, flooded, calm) // joined

	for i := range int64(1000) {
		if err := fast.Publish(events.Event{Account: flooded, Mailbox: i, Kind: events.Changed, ModSeq: 1}); err != nil {
			t.Fatal(err)
		}
	}
	awaitSuspect(t, ctx, s, flooded) // while nothing is read
	if got := slow.Counters(); got.Dropped == 0 || got.Received != 0 {
		t.Errorf("counters %+v", got)
	}
	close(gate)
	if err := fast.Publish(events.Event{Account: calm, Mailbox: 1, Kind: events.Changed, ModSeq: 1}); err != nil {
		t.Fatal(err)
	}
	awaitSuspect(t, ctx, s, flooded) // by the numbers: what was dropped after the one report
	if logged.FilterMessageSnippet("too slowly").Len() == 0 {
		t.Error("nothing was logged")
	}
}

func awaitSuspect(t *testing.T, ctx context.Context, s events.Subscription, accounts ...int64) {
	t.Helper()
	missing := make(map[events.Shard]bool)
	for _, a := range accounts {
		missing[events.ShardOf(a)] = true
	}
	for len(missing) > 0 {
		news, err := s.Next(ctx)
		if err != nil {
			t.Fatalf("%v, waiting for %v", err, missing)
		}
		for _, shard := range news.Suspect {
			delete(missing, shard)
		}
	}
}

func TestSubjects(t *testing.T) {
	t.Parallel()
	l := &link{config: Config{Prefix: "a.b"}}
	if got, want := l.subject(0x0123456789abcdef), "a.b.ef.0123456789abcdef"; got != want {
		t.Errorf("subject %q, want %q", got, want)
	}
	if got, want := l.shardSubject(0x0f), "a.b.0f.*"; got != want {
		t.Errorf("shard's subject %q, want %q", got, want)
	}
	for subject, want := range map[string]int{"a.b.0f.*": 0x0f, "a.b.ff.*": 0xff, "a.b.beat": -1, "x": -1, "": -1, "a.b.": -1, "a.b.0": -1, "c.0f.*": -1} {
		shard, ok := l.shardOf(subject)
		if got := int(shard); ok != (want >= 0) || ok && got != want {
			t.Errorf("%q is of shard %d, %t; want %d", subject, got, ok, want)
		}
	}
}

func BenchmarkSubject(b *testing.B) {
	l := &link{config: Config{Prefix: "starling"}}
	b.ReportAllocs()
	for b.Loop() {
		l.subject(0x0123456789abcdef)
	}
}
