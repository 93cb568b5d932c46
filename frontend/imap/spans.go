package imap

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"starling/frontend/imapwire"
)

// tracer makes the spans of commands and notifications; nil: none are made.
type tracer struct {
	trace.Tracer
	names  map[string]string // of the spans, by command
	server trace.SpanStartOption
	news   trace.SpanStartOption
}

func newTracer(provider trace.TracerProvider) *tracer {
	if provider == nil {
		return nil
	}
	t := &tracer{
		Tracer: provider.Tracer("starling/frontend/imap"),
		names:  make(map[string]string, len(commands)),
		server: trace.WithSpanKind(trace.SpanKindServer),
		news:   trace.WithSpanKind(trace.SpanKindConsumer),
	}
	for name := range commands {
		t.names[name] = "IMAP " + name
	}
	return t
}

// command begins the span of a command of the table. It has the command's name and
// how it ended, never its arguments.
func (t *tracer) command(ctx context.Context, name string) (context.Context, trace.Span) {
	if t == nil {
		return ctx, nil
	}
	return t.Start(ctx, t.names[name], t.server)
}

// notification begins the span of telling a client in IDLE what a commit changed, as a
// child of that commit's, on whatever node that was. There is none for a commit that is not traced.
func (t *tracer) notification(ctx context.Context, cause trace.SpanContext) trace.Span {
	if t == nil || !cause.IsSampled() {
		return nil
	}
	_, span := t.Start(trace.ContextWithRemoteSpanContext(ctx, cause), "IMAP notify", t.news)
	return span
}

// endSpan ends the span of a command, if there is one, with how it ended. What a client
// did wrong is no error of the span.
func endSpan(span trace.Span, result imapwire.Status, code imapwire.Code) {
	if span == nil {
		return
	}
	if span.IsRecording() {
		span.SetAttributes(attribute.String("imap.result", string(result)))
		switch code {
		case imapwire.CodeUnavailable, imapwire.CodeServerBug, imapwire.CodeCorruption:
			span.SetStatus(codes.Error, string(code))
		}
	}
	span.End()
}
