package mailstore

import (
	"fmt"
	"runtime"
	"sync"
	"testing"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"starling/metadata"
)

// large is a snapshot of n messages of which the UIDs have gaps: every fifth is expunged.
func large(n int) *Snapshot {
	row := metadata.Mailbox{Version: metadata.Version{ModSeq: 1}}
	var chunks []*metadata.Chunk
	live := 0
	for no := int32(0); live < n; no++ {
		e := metadata.NewEdit(no)
		for i := range metadata.ChunkSlots {
			slot := metadata.Slot{Flags: metadata.Seen, ModSeq: 1}
			switch {
			case no == 0 && i == 0 || live == n:
				continue
			case i%5 == 4:
				slot.Flags |= metadata.Expunged
			default:
				live++
			}
			e.Set(i, slot)
		}
		chunks = append(chunks, e.Chunk())
		row.UIDNext = int64(no+1) * metadata.ChunkSlots
	}
	return newSnapshot(row, chunks)
}

func BenchmarkDiff(b *testing.B) {
	from := large(1_000_000)
	for _, n := range []int{1, 1_000} {
		edits := make(map[int32]*metadata.Edit)
		var changed []*metadata.Chunk
		for i := range n {
			uid := from.UID(i * (from.Len() / n))
			no := metadata.ChunkOf(uid)
			if edits[no] == nil {
				edits[no] = from.chunk(no).Edit()
			}
			edits[no].Set(int(uid%metadata.ChunkSlots), metadata.Slot{ModSeq: 2})
		}
		for _, c := range from.chunks {
			if e := edits[c.No()]; e != nil {
				changed = append(changed, e.Chunk())
			}
		}
		to := from.with(from.row, changed)
		b.Run(fmt.Sprintf("changed=%d/of=1000000", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if d := Diff(from, to); d.Changed != n {
					b.Fatalf("%d changed", d.Changed)
				}
			}
		})
		b.Run(fmt.Sprintf("with=%d/of=1000000", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				from.with(from.row, changed)
			}
		})
	}
}

func BenchmarkNumbers(b *testing.B) {
	s := large(1_000_000)
	b.Run("UID", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			s.UID(i * 7919 % s.Len())
		}
	})
	b.Run("Rank", func(b *testing.B) {
		b.ReportAllocs()
		last := s.Last()
		for i := 0; b.Loop(); i++ {
			s.Rank(uint32(i) * 7919 % last)
		}
	})
	b.Run("Live", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			for range s.Live(1, lastUID) {
				n++
			}
		}
		b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "messages/s")
	})
}

// filled is a cluster whose INBOX has n messages: one that was appended, and
// copies of it.
func filled(b *testing.B, n int) *cluster {
	b.Helper()
	c := newCluster(b, metadata.Quota{})
	x := c.still()
	c.append(x, Inbox, mail("1"))
	mine := c.enter(x, Inbox)
	for have := 1; have < n; have = mine.Snapshot().Len() {
		view := mine.Snapshot()
		last := view.UID(min(have, n-have, 10_000) - 1)
		if _, err := mine.Copy(b.Context(), CopyArgs{View: view, UIDs: []metadata.UIDRange{{First: 1, Last: last}}, Dest: Inbox}); err != nil {
			b.Fatal(err)
		}
	}
	return c
}

func BenchmarkMailbox(b *testing.B) {
	c := filled(b, 100_000)
	x := c.still()
	mine := c.enter(x, Inbox)
	ref := mine.box.ref
	b.Run("open/100000/cold", func(b *testing.B) {
		for b.Loop() {
			box := newBox(x.Store, ref, mine.Snapshot().Mailbox())
			if err := box.refresh(b.Context()); err != nil || box.current.Load().Len() < 100_000 {
				b.Fatal(err)
			}
		}
	})
	b.Run("open/100000/held", func(b *testing.B) {
		for b.Loop() {
			m, err := x.Open(b.Context(), Inbox, func() {})
			if err != nil {
				b.Fatal(err)
			}
			m.Close()
		}
	})
	for _, n := range []uint32{1, 1_000} {
		b.Run(fmt.Sprintf("store/%d/of=100000", n), func(b *testing.B) {
			b.ReportAllocs()
			mine.store(all(mine.Snapshot()), RemoveFlags, "seen")
			for i := 0; b.Loop(); i++ {
				args := StoreFlags{
					View: mine.Snapshot(), UIDs: []metadata.UIDRange{{First: 5_000, Last: 5_000 + n - 1}},
					Mode: []FlagMode{AddFlags, RemoveFlags}[i%2], Flags: flagSet("seen"),
				}
				if done, err := mine.Store(b.Context(), args); err != nil || len(done.Changed) != int(n) {
					b.Fatal(len(done.Changed), err)
				}
			}
		})
	}
}

// BenchmarkHint is the time from the STORE's answer on one node to the news on the other.
func BenchmarkHint(b *testing.B) {
	for _, bus := range []string{"memory", "nats"} {
		b.Run(bus, func(b *testing.B) {
			c := newCluster(b, metadata.Quota{})
			if bus == "nats" {
				c.onNATS()
			}
			x, y := c.node(), c.node()
			c.append(x, Inbox, mail("1"))
			mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				done := mine.store(one(1), []FlagMode{AddFlags, RemoveFlags}[i%2], "flagged")
				b.StartTimer()
				theirs.await("the change", func() bool { return theirs.Snapshot().row.ModSeq >= done.After.row.ModSeq })
			}
		})
	}
}

func BenchmarkAppend(b *testing.B) {
	for _, workers := range []int{1, 8} {
		b.Run(fmt.Sprintf("connections=%d", workers), func(b *testing.B) {
			c := newCluster(b, metadata.Quota{})
			x := c.still()
			c.enter(x, Inbox)
			text := mail("benchmark")
			work := make(chan struct{})
			var running sync.WaitGroup
			for range workers {
				running.Go(func() {
					for range work {
						if _, err := upload(b.Context(), x.Account, Incoming{Mailbox: Inbox}, text, nil); err != nil {
							b.Error(err)
						}
					}
				})
			}
			b.ReportAllocs()
			for b.Loop() {
				work <- struct{}{}
			}
			close(work)
			running.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "appends/s")
		})
	}
}

// A message costs a node at most 24 bytes, whatever number of sessions has it
// open. Not in parallel: it measures the heap of the process.
func TestMemoryOfSnapshots(t *testing.T) {
	const messages = 1_000_000
	var before, after runtime.MemStats
	collect := func() {
		runtime.GC() // twice: what pools hold goes with the second
		runtime.GC()
	}
	collect()
	runtime.ReadMemStats(&before)
	s := large(messages)
	b := box{sizes: sizes{}}
	for uid := range s.Live(1, lastUID) {
		b.sizes.put(uid, int64(uid))
	}
	collect()
	runtime.ReadMemStats(&after)
	held := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(s.row.UIDNext)
	t.Logf("%.1f bytes a UID", held)
	if held > 24 {
		t.Errorf("%.1f bytes a UID", held)
	}
	runtime.KeepAlive(s)
	runtime.KeepAlive(&b)
}

// BenchmarkTraces is a STORE without traces, with a trace that is not sampled, and with one that is.
func BenchmarkTraces(b *testing.B) {
	for _, of := range []struct {
		name   string
		traces trace.TracerProvider
		flags  trace.TraceFlags
	}{
		{"off", nil, 0},
		{"unsampled", sdktrace.NewTracerProvider(), 0},
		{"sampled", sdktrace.NewTracerProvider(), trace.FlagsSampled},
	} {
		b.Run(of.name, func(b *testing.B) {
			c := newCluster(b, metadata.Quota{})
			x := c.still(func(c *Config) { c.Traces = of.traces })
			c.append(x, Inbox, mail("1"))
			mine := c.enter(x, Inbox)
			ctx := trace.ContextWithSpanContext(b.Context(), trace.NewSpanContext(trace.SpanContextConfig{
				TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}, TraceFlags: of.flags,
			}))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				mine.storeIn(ctx, 1, []FlagMode{AddFlags, RemoveFlags}[i%2], "seen")
			}
		})
	}
}
