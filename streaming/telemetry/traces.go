package telemetry

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.40.0"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
)

// Traces tell of some of the transactions what became of them at each stage, as OpenTelemetry spans: source, query and
// reaction, each the parent of the next. Which transactions, and all ids, follow from the source's name and the position:
// so every stage decides and names alike without being told, in whatever process it runs and however often it is started.
// A nil one follows nothing. All methods but Close are safe for concurrent use, none waits for the collector, and spans
// carry no data of rows.
type Traces struct {
	bound    uint64 // of the hashes of the transactions that are followed
	tracer   trace.Tracer
	provider *sdktrace.TracerProvider
	exporter *exporter
}

// TraceOptions says which transactions are followed and where spans go.
type TraceOptions struct {
	Ratio    float64 // of the transactions that are followed, from 0 to 1
	Exporter sdktrace.SpanExporter
	Resource *resource.Resource // what the spans come from
	Metrics  *Metrics           // count what becomes of spans
	Log      *zap.Logger
}

// maxSpans is how many spans may wait for the collector. More are dropped and counted.
const maxSpans = 2048

// NewTraces returns traces; Close ends them.
func NewTraces(o TraceOptions) *Traces {
	e := &exporter{SpanExporter: o.Exporter, metrics: o.Metrics, log: o.Log}
	e.batches = sdktrace.NewBatchSpanProcessor(e, sdktrace.WithMaxQueueSize(maxSpans))
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithSampler(sdktrace.AlwaysSample()), // what is not to be followed never gets there
		sdktrace.WithIDGenerator(derivedIDs{}), sdktrace.WithResource(o.Resource), sdktrace.WithSpanProcessor(queue{e}),
	)
	return &Traces{
		bound: uint64(max(0, min(o.Ratio, 1)) * (1 << 63)), tracer: provider.Tracer("github.com/perdure/perdure"), provider: provider, exporter: e,
	}
}

// Close sends what waits, until ctx ends.
func (t *Traces) Close(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return errors.Join(t.provider.Shutdown(ctx), t.exporter.SpanExporter.Shutdown(ctx)) // the first leaves out the second when it is late
}

// Transaction names a transaction of a source.
type Transaction struct {
	Instance, Source string
	Position         string
}

// Follows reports whether a transaction is followed. It decides as OpenTelemetry's sampler does that takes a ratio of the
// trace ids.
func (t *Traces) Follows(tx Transaction) bool {
	return t != nil && tx.hash(lowHalf)>>1 < t.bound
}

// What the hashes are for that ids are made of.
const (
	lowHalf byte = iota
	highHalf
	spanID
)

// hash returns a hash of the transaction and what more is given, another one for each use.
func (tx Transaction) hash(use byte, more ...string) uint64 {
	var room [128]byte // holds what usually comes, so that nothing is allocated
	text := append(room[:0], use)
	for _, part := range [...]string{tx.Instance, tx.Source, tx.Position} {
		text = append(append(text, part...), 0)
	}
	for _, part := range more {
		text = append(append(text, part...), 0)
	}
	return xxhash.Sum64(text)
}

// TraceID returns the id of the trace of a transaction.
func (tx Transaction) TraceID() (id trace.TraceID) {
	binary.BigEndian.PutUint64(id[:8], tx.hash(highHalf))
	binary.BigEndian.PutUint64(id[8:], tx.hash(lowHalf))
	return id
}

// spanID returns the id of the span of a component. The same work gets the same id when it is done again.
func (tx Transaction) spanID(stage, component string, sequence uint64) (id trace.SpanID) {
	binary.BigEndian.PutUint64(id[:], tx.hash(spanID, stage, component, strconv.FormatUint(sequence, 10)))
	return id
}

// Stored is what a source did with a transaction.
type Stored struct {
	Kind      string // of the source
	Committed time.Time
	Durable   time.Time // in the change log
	Log       string
	Offset    uint64
	Changes   int
}

// databases are what the semantic conventions call the systems behind kinds of sources.
var databases = map[string]attribute.KeyValue{"postgres": semconv.DBSystemNamePostgreSQL}

// Stored tells that a transaction is in the change log.
func (t *Traces) Stored(tx Transaction, s Stored) {
	attributes := []attribute.KeyValue{
		attribute.Int("changes", s.Changes), offset(s.Offset), nats, semconv.MessagingDestinationName(s.Log), semconv.MessagingOperationTypeSend,
	}
	if database, ok := databases[s.Kind]; ok {
		attributes = append(attributes, database)
	}
	t.start(tx, "source", trace.SpanKindProducer, trace.SpanID{}, tx.spanID("source", "", 0), s.Committed, s.Durable, attributes).
		End(trace.WithTimestamp(s.Durable))
}

// Applied is what a query did with a transaction.
type Applied struct {
	Query     string
	Log       string // that it was read from
	Offset    uint64 // there; 0 when the event was made by an earlier attempt
	Sequence  uint64 // of the event; 0 when nothing changed for the query
	Rows      int    // that changed
	Read      time.Time
	Applied   time.Time // zero when an earlier attempt did
	Published time.Time // zero when there is no event
}

// Applied tells that a query has applied a transaction and published what that changed.
func (t *Traces) Applied(tx Transaction, a Applied) {
	end := a.Published
	if end.IsZero() {
		end = a.Applied
	}
	attributes := []attribute.KeyValue{
		attribute.String(KeyQuery, a.Query), attribute.Int("rows", a.Rows), nats, semconv.MessagingDestinationName(a.Log), semconv.MessagingOperationTypeProcess,
	}
	if a.Offset > 0 {
		attributes = append(attributes, offset(a.Offset))
	}
	if a.Sequence > 0 {
		attributes = append(attributes, sequence(a.Sequence))
	}
	span := t.start(tx, "query", trace.SpanKindConsumer, tx.spanID("source", "", 0), tx.spanID("query", a.Query, a.Sequence), a.Read, end, attributes)
	if !a.Applied.IsZero() {
		span.AddEvent("applied", trace.WithTimestamp(a.Applied))
	}
	span.End(trace.WithTimestamp(end))
}

// Outcomes of a delivery.
const (
	Delivered    = "delivered"
	DeadLettered = "deadLettered"
	GivenUp      = "givenUp"     // with the attempt of the reaction: it comes again
	Interrupted  = "interrupted" // by the end of the attempt of the reaction: it comes again
)

// Delivery is what a reaction did with an event, or with a row of it.
type Delivery struct {
	Reaction, Query string
	Key             string // of the delivery, the same in every try
	Log             string // that it was read from
	Sequence        uint64
	Began, Ended    time.Time
	Attempts        int
	Failures        []FailedTry
	Outcome         string
}

// FailedTry is one that did not succeed. Messages of failures may quote rows and are not told.
type FailedTry struct {
	At   time.Time
	Code string
}

// maxFailures bounds how many failed tries a span tells of.
const maxFailures = 32

// Ended tells that a reaction is done with a delivery.
func (t *Traces) Ended(tx Transaction, d Delivery) {
	span := t.start(tx, "reaction", trace.SpanKindConsumer, tx.spanID("query", d.Query, d.Sequence), tx.spanID("reaction", d.Key, 0),
		d.Began, d.Ended, []attribute.KeyValue{
			attribute.String(KeyReaction, d.Reaction), attribute.String(KeyQuery, d.Query), sequence(d.Sequence),
			attribute.Int("attempts", d.Attempts), attribute.String("outcome", d.Outcome),
			nats, semconv.MessagingDestinationName(d.Log), semconv.MessagingOperationTypeProcess, semconv.MessagingMessageID(d.Key),
		})
	for _, f := range d.Failures[:min(len(d.Failures), maxFailures)] {
		span.AddEvent("failed", trace.WithTimestamp(f.At), trace.WithAttributes(semconv.ErrorTypeKey.String(f.Code)))
	}
	if d.Outcome != Delivered && len(d.Failures) > 0 {
		code := d.Failures[len(d.Failures)-1].Code
		span.SetStatus(codes.Error, code)
		span.SetAttributes(semconv.ErrorTypeKey.String(code))
	}
	span.End(trace.WithTimestamp(d.Ended))
}

// DeliveryContext returns a context that says which span the tries of a delivery belong to, for TraceParent.
func (tx Transaction) DeliveryContext(ctx context.Context, key string) context.Context {
	return trace.ContextWithSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: tx.TraceID(), SpanID: tx.spanID("reaction", key, 0), TraceFlags: trace.FlagsSampled,
	}))
}

// TraceParent returns the value of the header traceparent of W3C's Trace Context, "" where nothing is followed.
func TraceParent(ctx context.Context) string {
	span := trace.SpanContextFromContext(ctx)
	if !span.IsValid() {
		return ""
	}
	return fmt.Sprintf("00-%s-%s-%s", span.TraceID(), span.SpanID(), span.TraceFlags())
}

// nats is the system of all logs.
var nats = semconv.MessagingSystemKey.String("nats")

func offset(n uint64) attribute.KeyValue   { return attribute.Int64(KeyOffset, int64(n)) }
func sequence(n uint64) attribute.KeyValue { return attribute.Int64(KeySequence, int64(n)) }

// start begins a span that has happened already. Clocks differ: one that began after its end takes no time.
func (t *Traces) start(
	tx Transaction, name string, kind trace.SpanKind, parent, id trace.SpanID, began, ended time.Time, attributes []attribute.KeyValue,
) trace.Span {
	if began.After(ended) {
		began = ended
	}
	derived := trace.SpanContextConfig{TraceID: tx.TraceID(), SpanID: parent, TraceFlags: trace.FlagsSampled, Remote: true}
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(derived))
	derived.SpanID = id
	_, span := t.tracer.Start(context.WithValue(ctx, idsKey{}, derived), name,
		trace.WithSpanKind(kind), trace.WithTimestamp(began), trace.WithAttributes(attributes...),
		trace.WithAttributes(attribute.String(KeyInstance, tx.Instance), attribute.String(KeySource, tx.Source), attribute.String(KeyPosition, tx.Position)),
	)
	return span
}

// derivedIDs implements sdktrace.IDGenerator with the ids that start derives.
type derivedIDs struct{}

type idsKey struct{}

func (derivedIDs) NewIDs(ctx context.Context) (trace.TraceID, trace.SpanID) {
	ids, _ := ctx.Value(idsKey{}).(trace.SpanContextConfig)
	return ids.TraceID, ids.SpanID
}

func (g derivedIDs) NewSpanID(ctx context.Context, _ trace.TraceID) trace.SpanID {
	_, id := g.NewIDs(ctx)
	return id
}

// exporter counts what becomes of spans, and says once when the collector begins to fail.
type exporter struct {
	sdktrace.SpanExporter
	batches sdktrace.SpanProcessor // brings spans here
	metrics *Metrics
	log     *zap.Logger
	waiting atomic.Int64
	failing bool // used by the goroutine of batches
}

// ExportSpans implements sdktrace.SpanExporter. A failure is told here and nowhere else.
func (e *exporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := e.SpanExporter.ExportSpans(ctx, spans)
	e.waiting.Add(-int64(len(spans)))
	if err == nil {
		e.failing = false
		e.count("exported", len(spans))
		return nil
	}
	e.count("failed", len(spans))
	if !e.failing {
		e.failing = true
		e.log.Warn("spans are dropped: the collector does not take them", zap.Error(err))
	}
	return nil
}

func (e *exporter) count(outcome string, n int) {
	e.metrics.counters["trace_spans_total"].WithLabelValues(outcome).Add(float64(n))
}

// queue implements sdktrace.SpanProcessor: it lets through to batches as many spans as those hold, so that what they would
// drop in silence is counted.
type queue struct{ *exporter }

func (q queue) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (q queue) OnEnd(s sdktrace.ReadOnlySpan) {
	if q.waiting.Add(1) > maxSpans {
		q.waiting.Add(-1)
		q.count("full", 1)
		return
	}
	q.batches.OnEnd(s)
}

func (q queue) ForceFlush(ctx context.Context) error { return q.batches.ForceFlush(ctx) }

func (q queue) Shutdown(ctx context.Context) error { return q.batches.Shutdown(ctx) }
