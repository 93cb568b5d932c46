package eventtest

import (
	"runtime"
	"testing"

	"starling/events"
)

// Bench measures a bus between two nodes.
func Bench(b *testing.B, cluster func(testing.TB) Cluster) {
	b.Run("PublishToNext", func(b *testing.B) { benchLatency(b, cluster(b)) })
	b.Run("Throughput", func(b *testing.B) { benchThroughput(b, cluster(b)) })
	b.Run("Follow100000", func(b *testing.B) { benchFollow(b, cluster(b)) })
}

func benchNode(b *testing.B, start Cluster) *events.Node {
	b.Helper()
	node := start(b, events.Options{Pending: 1 << 20, Outgoing: 1 << 20}, func(t events.Transport) events.Transport { return t })
	b.Cleanup(func() {
		if err := node.Close(); err != nil {
			b.Error(err)
		}
	})
	return node
}

// benchFollowing returns a node's subscription to the account, joined.
func benchFollowing(b *testing.B, node *events.Node, account int64) events.Subscription {
	b.Helper()
	s, err := node.Subscribe(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	s.Follow(account)
	for {
		news, err := s.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		if len(news.Suspect) > 0 {
			return s
		}
	}
}

// benchLatency is one hint at a time, from Publish on one node to Next on the other.
func benchLatency(b *testing.B, start Cluster) {
	from, to := benchNode(b, start), benchNode(b, start)
	s := benchFollowing(b, to, a1)
	b.ReportAllocs()
	var modseq int64
	for b.Loop() {
		modseq++
		if err := from.Publish(changed(a1, 1, modseq)); err != nil {
			b.Fatal(err)
		}
		benchAwait(b, s, modseq)
	}
}

// benchAwait takes news until a modseq came.
func benchAwait(b *testing.B, s events.Subscription, modseq int64) {
	b.Helper()
	for {
		news, err := s.Next(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range news.Events {
			if e.ModSeq == modseq {
				return
			}
		}
	}
}

// benchThroughput is as many hints as go through, a message each, 1,000 under way at most.
func benchThroughput(b *testing.B, start Cluster) {
	from, to := benchNode(b, start), benchNode(b, start)
	s := benchFollowing(b, to, a1)
	b.ReportAllocs()
	var modseq int64
	for b.Loop() {
		modseq++
		if err := from.Publish(changed(a1, modseq%1000+1, modseq)); err != nil {
			b.Fatal(err)
		}
		if modseq%1000 == 0 {
			benchAwait(b, s, modseq)
		}
	}
	if lost := to.Counters().Lost; lost > 0 {
		b.Errorf("%d losses", lost)
	}
}

// benchFollow is 100,000 accounts, joined, and the memory that they take.
func benchFollow(b *testing.B, start Cluster) {
	node := benchNode(b, start)
	const accounts = 100_000
	for b.Loop() {
		before := heap()
		s, err := node.Subscribe(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for i := range int64(accounts) {
			s.Follow(i * 0x9e3779b97f4a7 & (1<<62 - 1))
		}
		b.ReportMetric(float64(heap()-before)/accounts, "B/account")
		if err := s.Close(); err != nil {
			b.Fatal(err)
		}
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
