package mailstore

import (
	"context"
	"slices"
	"testing"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"starling/events"
	"starling/metadata"
)

// traced has a node make spans, which are recorded.
func traced() (option func(*Config), spans *tracetest.SpanRecorder) {
	spans = tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans), sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.NeverSample())))
	return func(c *Config) { c.Traces = provider }, spans
}

// command is the context of a command that is sampled, and its trace.
func command(t *testing.T, id byte) (context.Context, trace.SpanContext) {
	t.Helper()
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{id}, SpanID: trace.SpanID{id}, TraceFlags: trace.FlagsSampled})
	return trace.ContextWithSpanContext(t.Context(), span), span
}

func ended(spans *tracetest.SpanRecorder, name string) []sdktrace.ReadOnlySpan {
	return slices.DeleteFunc(slices.Clone(spans.Ended()), func(s sdktrace.ReadOnlySpan) bool { return s.Name() != name })
}

func (cl *client) storeIn(ctx context.Context, uid uint32, mode FlagMode, flag string) {
	cl.t.Helper()
	if _, err := cl.Store(ctx, StoreFlags{View: cl.Snapshot(), UIDs: one(uid), Mode: mode, Flags: flagSet(flag)}); err != nil {
		cl.t.Error(err)
	}
}

// A command's trace goes on in the commit, in the hint, and in the reading on the
// other node, whose snapshot says what it is due to.
func TestTraceCrossesNodes(t *testing.T) {
	t.Parallel()
	onEachBus(t, func(t *testing.T, c *cluster) {
		onX, spansX := traced()
		onY, spansY := traced()
		x, y := c.node(onX), c.node(onY)
		c.append(x, Inbox, mail("1"))
		mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
		before := time.Now()
		ctx, asked := command(t, 1)
		mine.storeIn(ctx, 1, AddFlags, "seen")
		theirs.await("store", func() bool { return flagsOf(theirs.Snapshot(), 1) == `\Seen` })

		commit, publish := ended(spansX, "mailstore commit"), ended(spansX, "mailstore publish")
		if len(commit) != 1 || len(publish) != 1 {
			t.Fatalf("%d commits, %d hints", len(commit), len(publish))
		}
		if commit[0].Parent().SpanID() != asked.SpanID() || publish[0].Parent().SpanID() != commit[0].SpanContext().SpanID() {
			t.Errorf("commit is part of %v, hint of %v", commit[0].Parent(), publish[0].Parent())
		}
		if publish[0].SpanKind() != trace.SpanKindProducer {
			t.Errorf("the hint is a span of kind %v", publish[0].SpanKind())
		}
		for who, cl := range map[string]*client{"this node": mine, "the other node": theirs} {
			cause := cl.Snapshot().Cause()
			if cause.Trace.TraceID() != asked.TraceID() || cause.Trace.SpanID() != publish[0].SpanContext().SpanID() {
				t.Errorf("%s: the cause is part of %v", who, cause.Trace)
			}
			if cause.At.Before(before) || cause.At.After(time.Now()) {
				t.Errorf("%s: the cause was at %v", who, cause.At)
			}
		}
		y.stop() // so that its span has ended
		catchUp := ended(spansY, "mailstore catch up")
		if len(catchUp) != 1 {
			t.Fatalf("%d readings", len(catchUp))
		}
		if parent := catchUp[0].Parent(); !parent.IsRemote() || parent.SpanID() != publish[0].SpanContext().SpanID() || catchUp[0].SpanKind() != trace.SpanKindConsumer {
			t.Errorf("the reading is part of %v", parent)
		}
	})
}

// A commit is part of what the first of its sessions does, and linked to the others.
func TestTraceOfGroup(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	option, spans := traced()
	x := c.still(option)
	for range 3 {
		c.append(x, Inbox, mail("1"))
	}
	mine := c.enter(x, Inbox)
	second, parent := command(t, 2)
	third, link := command(t, 3)
	mine.together(
		func() { mine.storeIn(t.Context(), 1, AddFlags, "seen") },
		func() { mine.storeIn(second, 2, AddFlags, "seen") },
		func() { mine.storeIn(third, 3, AddFlags, "seen") })
	commits := ended(spans, "mailstore commit")
	if len(commits) != 1 {
		t.Fatalf("%d commits", len(commits))
	}
	links := commits[0].Links()
	if commits[0].Parent().TraceID() != parent.TraceID() || len(links) != 1 || links[0].SpanContext.TraceID() != link.TraceID() {
		t.Errorf("the commit is part of %v, with links %v", commits[0].Parent(), links)
	}
}

// What is not sampled makes no span, and its hint has no trace; but a time.
func TestUnsampledMakesNoSpans(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	option, spans := traced()
	x, y := c.node(option), c.node(option)
	c.append(x, Inbox, mail("1"))
	mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
	span := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}})
	mine.storeIn(trace.ContextWithSpanContext(t.Context(), span), 1, AddFlags, "seen")
	theirs.await("store", func() bool { return flagsOf(theirs.Snapshot(), 1) == `\Seen` })
	if cause := theirs.Snapshot().Cause(); cause.Trace.IsValid() || cause.At.IsZero() {
		t.Errorf("cause %+v", cause)
	}
	if got := len(spans.Started()); got != 0 {
		t.Errorf("%d spans", got)
	}
}

// Of changes that are taken in together, the first that was told of is the cause; of what
// nobody told of there is none.
func TestCauseOfSeveral(t *testing.T) {
	t.Parallel()
	c := newCluster(t, metadata.Quota{})
	x, y := c.still(), c.still()
	c.append(x, Inbox, mail("1"))
	mine, theirs := c.enter(x, Inbox), c.enter(y, Inbox)
	version := func() metadata.Version { return mine.Snapshot().row.Version }
	told := func(modseq, at int64) { theirs.box.told(events.Event{ModSeq: modseq, Epoch: version().Epoch, At: at}) }
	mine.store(one(1), AddFlags, "seen")
	told(version().ModSeq, 2000)
	mine.store(one(1), AddFlags, "flagged")
	told(version().ModSeq, 3000)
	if got := theirs.refresh().Cause().At; got.UnixNano() != 2000 {
		t.Errorf("the cause was at %v", got.UnixNano())
	}
	mine.store(one(1), RemoveFlags, "flagged")
	if got := theirs.refresh().Cause(); !got.At.IsZero() {
		t.Errorf("the cause of what nobody told of was at %v", got.At)
	}
	// A hint of what is not there yet waits for it.
	told(version().ModSeq+2, 4000)
	mine.store(one(1), AddFlags, "flagged")
	if got := theirs.refresh().Cause(); !got.At.IsZero() {
		t.Errorf("the cause of an earlier change was at %v", got.At)
	}
	mine.store(one(1), RemoveFlags, "flagged")
	if got := theirs.refresh().Cause().At; got.UnixNano() != 4000 {
		t.Errorf("the cause was at %v", got.UnixNano())
	}
}

func TestHintKeepsCause(t *testing.T) {
	t.Parallel()
	_, span := command(t, 7)
	for _, want := range []Cause{{At: time.Unix(5, 7)}, {At: time.Unix(5, 7), Trace: span}} {
		got := causeOf(want.stamp(events.Event{}))
		if !got.At.Equal(want.At) || got.Trace.TraceID() != want.Trace.TraceID() || got.Trace.SpanID() != want.Trace.SpanID() ||
			got.Trace.IsSampled() != want.Trace.IsSampled() {
			t.Errorf("%+v became %+v", want, got)
		}
	}
	if got := causeOf(events.Event{}); !got.At.IsZero() || got.Trace.IsValid() {
		t.Errorf("a hint without a cause has %+v", got)
	}
}

// Without traces, and with one that is not sampled, nothing is allocated for them.
// Not in parallel: it counts the allocations of the process.
func TestAllocationsOfTraces(t *testing.T) {
	on, _ := traced()
	var cfg Config
	on(&cfg)
	unsampled := trace.ContextWithSpanContext(t.Context(),
		trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
	for name, s := range map[string]*Store{"off": {}, "not sampled": {tracer: cfg.Traces.Tracer("test")}} {
		group := []*pending{{}, {}}
		if n := testing.AllocsPerRun(100, func() {
			group[0].span = s.spanOf(unsampled)
			ctx, span := s.commitSpan(len(group), func(i int) trace.SpanContext { return group[i].span })
			_ = s.cause(ctx).stamp(events.Event{})
			end(span, nil)
			_, span = s.catchUpSpan(trace.SpanContext{}, group[0].span)
			end(span, nil)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
