// Package tracing keeps one OpenTelemetry span for each channel.
package tracing

import (
	"context"
	"sync"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/cartage-dev/cartage/datatransfer"
)

// SpansIndex maps channels to their spans. Nothing is kept when the tracer does not record.
type SpansIndex struct {
	mu    sync.Mutex
	spans map[datatransfer.ChannelID]trace.Span
}

// NewSpansIndex returns an empty index.
func NewSpansIndex() *SpansIndex { return &SpansIndex{spans: map[datatransfer.ChannelID]trace.Span{}} }

// SpanForChannel returns ctx with the span of the channel, which is started when there is none.
func (si *SpansIndex) SpanForChannel(ctx context.Context, id datatransfer.ChannelID) (context.Context, trace.Span) {
	si.mu.Lock()
	defer si.mu.Unlock()
	if s, ok := si.spans[id]; ok {
		return trace.ContextWithSpan(ctx, s), s
	}
	ctx, s := otel.Tracer("data-transfer").Start(ctx, "transfer")
	if s.IsRecording() { // the text of an id costs more than a block
		s.SetAttributes(attribute.String("channelID", id.String()))
		si.spans[id] = s
	}
	return ctx, s
}

// Child starts a span below that of a channel. What it returns must be called with the outcome.
func (si *SpansIndex) Child(ctx context.Context, id datatransfer.ChannelID, name string) (context.Context, func(error)) {
	ctx, _ = si.SpanForChannel(ctx, id)
	ctx, span := otel.Tracer("data-transfer").Start(ctx, name)
	if span.IsRecording() {
		span.SetAttributes(attribute.String("channelID", id.String()))
	}
	return ctx, func(err error) {
		if err != nil {
			span.RecordError(err)
			span.SetStatus(codes.Error, err.Error())
		}
		span.End()
	}
}

// EndChannelSpan ends the span of a channel.
func (si *SpansIndex) EndChannelSpan(id datatransfer.ChannelID) {
	si.mu.Lock()
	defer si.mu.Unlock()
	if s, ok := si.spans[id]; ok {
		s.End()
		delete(si.spans, id)
	}
}

// EndAll ends all spans.
func (si *SpansIndex) EndAll() {
	si.mu.Lock()
	defer si.mu.Unlock()
	for id, s := range si.spans {
		s.End()
		delete(si.spans, id)
	}
}
