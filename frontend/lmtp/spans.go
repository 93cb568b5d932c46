package lmtp

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
)

// span is that of a message's delivery; without traces it does nothing.
type span struct{ trace.Span }

// span begins the span of a message's delivery to so many recipients.
func (srv *Server) span(ctx context.Context, recipients int) (context.Context, span) {
	if srv.tracer == nil {
		return ctx, span{}
	}
	ctx, s := srv.tracer.Start(ctx, "LMTP DATA", trace.WithSpanKind(trace.SpanKindServer))
	if s.IsRecording() {
		s.SetAttributes(attribute.Int("starling.recipients", recipients))
	}
	return ctx, span{s}
}

// note says in the span that a recipient could not be served. What is for good, such
// as a full mailbox, is no error of the span.
func (s span) note(err error) {
	if r := resultOf(err); s.Span != nil && r == deferred {
		s.SetStatus(codes.Error, results[r])
	}
}

// end ends the span.
func (s span) end(err error) {
	s.note(err)
	if s.Span != nil {
		s.End()
	}
}
