package mailstore

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"starling/events"
)

// Cause is what made a mailbox what it is: the last change of it, on whatever node.
type Cause struct {
	At    time.Time         // when it was committed, by the clock of the node that did; zero: not known
	Trace trace.SpanContext // what it is part of; not valid: not known, or not sampled
}

// Cause is the change that made this snapshot of the one before. Of several that were
// taken in together it is the one that was told of first; of what nobody
// told of, it is zero.
func (s *Snapshot) Cause() Cause { return s.cause }

// A change is made, and a mailbox read, for several sessions together, and goes on when
// one of them leaves. So neither runs under the context of a command: it takes the
// span of that context along. Spans are made where one of them is sampled, and
// otherwise nothing is done at all.

// spanOf is the sampled span of ctx, if any.
func (s *Store) spanOf(ctx context.Context) trace.SpanContext {
	if s.tracer != nil {
		if span := trace.SpanContextFromContext(ctx); span.IsSampled() {
			return span
		}
	}
	return trace.SpanContext{}
}

// within is a context for work in the background that is part of span.
func within(span trace.SpanContext) context.Context {
	if !span.IsValid() {
		return context.Background()
	}
	return trace.ContextWithSpanContext(context.Background(), span)
}

// commitSpan is groupSpan for a commit.
func (s *Store) commitSpan(n int, of func(int) trace.SpanContext) (context.Context, trace.Span) {
	return s.groupSpan("mailstore commit", "starling.changes", n, of)
}

// groupSpan begins the span of what is done at once for those whose spans are given by
// of, 0 to n-1: the first that is sampled is its parent, and it is linked to the others.
// size is the attribute that says how many there are.
func (s *Store) groupSpan(name, size string, n int, of func(int) trace.SpanContext) (context.Context, trace.Span) {
	ctx := context.Background()
	if s.tracer == nil {
		return ctx, trace.SpanFromContext(ctx)
	}
	var parent trace.SpanContext
	var links []trace.Link
	for i := range n {
		switch span := of(i); {
		case !span.IsValid():
		case !parent.IsValid():
			parent = span
		default:
			links = append(links, trace.Link{SpanContext: span})
		}
	}
	if !parent.IsValid() {
		return ctx, trace.SpanFromContext(ctx)
	}
	return s.tracer.Start(within(parent), name, trace.WithLinks(links...), trace.WithAttributes(attribute.Int(size, n)))
}

// catchUpSpan begins the span of reading what a hint told of, as part of what the hint is.
// asked is the span of who waits for it.
func (s *Store) catchUpSpan(hint, asked trace.SpanContext) (context.Context, trace.Span) {
	if s.tracer == nil || !hint.IsValid() {
		ctx := within(asked)
		return ctx, trace.SpanFromContext(context.Background())
	}
	options := []trace.SpanStartOption{trace.WithSpanKind(trace.SpanKindConsumer)}
	if asked.IsValid() {
		options = append(options, trace.WithLinks(trace.Link{SpanContext: asked}))
	}
	return s.tracer.Start(trace.ContextWithRemoteSpanContext(context.Background(), hint), "mailstore catch up", options...)
}

// end ends a span; what went wrong may name what nobody but the log should see.
func end(span trace.Span, err error) {
	if err != nil {
		span.SetStatus(codes.Error, "")
	}
	span.End()
}

// cause is that of a change that was committed just now as part of ctx, for the hints
// that tell of it.
func (s *Store) cause(ctx context.Context) Cause {
	c := Cause{At: time.Now()}
	if parent := s.spanOf(ctx); parent.IsValid() {
		_, span := s.tracer.Start(ctx, "mailstore publish", trace.WithSpanKind(trace.SpanKindProducer))
		c.Trace = span.SpanContext()
		span.End()
	}
	return c
}

// stamp has a hint say what it is due to.
func (c Cause) stamp(e events.Event) events.Event {
	e.At = c.At.UnixNano()
	if c.Trace.IsSampled() {
		id, span := c.Trace.TraceID(), c.Trace.SpanID()
		copy(e.Trace[copy(e.Trace[:], id[:]):], span[:])
	}
	return e
}

// causeOf is what a hint says that it is due to.
func causeOf(e events.Event) Cause {
	var c Cause
	if e.At != 0 {
		c.At = time.Unix(0, e.At)
	}
	if e.Trace != (events.Trace{}) {
		var config trace.SpanContextConfig
		copy(config.SpanID[:], e.Trace[copy(config.TraceID[:], e.Trace[:]):])
		config.TraceFlags, config.Remote = trace.FlagsSampled, true
		c.Trace = trace.NewSpanContext(config)
	}
	return c
}

// since is how long ago the cause was, 0 if the clocks of the nodes disagree.
func (c Cause) since() time.Duration { return max(0, time.Since(c.At)) }
