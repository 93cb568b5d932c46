package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

const (
	tracesPath  = "/v1/traces"    // of collectors, where the setting names none
	tracesFlush = 3 * time.Second // for the last spans of a node
	tracesQuiet = time.Minute     // between two lines of the log about the same trouble
)

// openTraces begins to send spans, if the settings say where to.
func (n *node) openTraces(ctx context.Context) error {
	c := n.cfg.Traces
	if c.Endpoint == "" {
		return nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(tracesURL(c.Endpoint)))
	if err != nil {
		return usageError{fmt.Errorf("traces.endpoint: %w", err)}
	}
	about, err := resource.Merge(resource.NewSchemaless(
		attribute.String("service.name", "starling"),
		attribute.String("service.version", version()),
		attribute.String("service.instance.id", n.cfg.Hostname),
	), resource.Environment())
	if err != nil {
		return usageError{fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES: %w", err)}
	}
	quiet := zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, tracesQuiet, 1, 0)
	})
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(loggingExporter{exporter, n.log.WithOptions(quiet)}),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(c.Sample))),
		sdktrace.WithResource(about),
	)
	n.traces = provider
	n.onClose(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tracesFlush)
		defer cancel()
		if err := provider.Shutdown(ctx); err != nil {
			n.log.Warn("the last spans were not sent", zap.Error(err))
		}
	})
	return nil
}

// tracesURL is where spans are sent: the standard path, if the setting names none.
func tracesURL(endpoint string) string {
	_, rest, _ := strings.Cut(endpoint, "://")
	if host := strings.TrimSuffix(rest, "/"); !strings.Contains(host, "/") {
		return strings.TrimSuffix(endpoint, "/") + tracesPath
	}
	return endpoint
}

// loggingExporter says in the node's log what could not be sent, of which nobody
// else would hear.
type loggingExporter struct {
	sdktrace.SpanExporter
	log *zap.Logger
}

// ExportSpans implements sdktrace.SpanExporter.
func (e loggingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if err := e.SpanExporter.ExportSpans(ctx, spans); err != nil {
		e.log.Warn("spans not sent", zap.Int("spans", len(spans)), zap.Error(err))
	}
	return nil
}
