package telemetry

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector keeps the spans that it is given. What block returns decides about each batch.
type collector struct {
	block func(context.Context) error

	mu     sync.Mutex
	spans  []sdktrace.ReadOnlySpan
	closed chan struct{}
}

func (c *collector) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	if c.block != nil {
		if err := c.block(ctx); err != nil {
			return err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, spans...)
	return nil
}

func (c *collector) Shutdown(context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.closed:
	default:
		close(c.closed)
	}
	return nil
}

func newTestTraces(ratio float64, block func(context.Context) error) (*Traces, *collector, *Metrics) {
	c := &collector{block: block, closed: make(chan struct{})}
	m := NewMetrics("")
	return NewTraces(TraceOptions{Ratio: ratio, Exporter: c, Resource: resource.Empty(), Metrics: m, Log: zap.NewNop()}), c, m
}

func attributesOf(s sdktrace.ReadOnlySpan) map[string]any {
	all := make(map[string]any)
	for _, a := range s.Attributes() {
		all[string(a.Key)] = a.Value.AsInterface()
	}
	return all
}

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func after(ms int) time.Time { return at.Add(time.Duration(ms) * time.Millisecond) }

// tell tells of one transaction what all stages do.
func tell(traces *Traces, tx Transaction) {
	traces.Stored(tx, Stored{Kind: "postgres", Committed: at, Durable: after(1), Log: "CHG_default_shop", Offset: 7, Changes: 2})
	traces.Applied(tx, Applied{
		Query: "totals", Log: "CHG_default_shop", Offset: 7, Sequence: 3, Rows: 1, Read: after(2), Applied: after(3), Published: after(4),
	})
	traces.Ended(tx, Delivery{
		Reaction: "mail", Query: "totals", Key: "default.mail:totals:3", Log: "RES_default_totals", Sequence: 3, Began: after(5), Ended: after(9), Attempts: 2,
		Failures: []FailedTry{{after(6), "DeliveryFailed"}}, Outcome: Delivered,
	})
}

func TestATraceLinksTheStages(t *testing.T) {
	tx := Transaction{"default", "shop", "0/16B3748"}
	var before []sdktrace.ReadOnlySpan
	for range 2 { // as two processes, or one that was started again
		traces, c, _ := newTestTraces(1, nil)
		require.True(t, traces.Follows(tx))
		tell(traces, tx)
		require.NoError(t, traces.Close(t.Context()))
		require.Len(t, c.spans, 3)
		for i, s := range before {
			require.Equal(t, s.SpanContext(), c.spans[i].SpanContext())
		}
		before = c.spans
	}
	source, query, reaction := before[0], before[1], before[2]
	for i, s := range before {
		require.Equal(t, tx.TraceID(), s.SpanContext().TraceID())
		require.True(t, s.SpanContext().SpanID().IsValid())
		require.Equal(t, "0/16B3748", attributesOf(s)[KeyPosition])
		require.Equal(t, "shop", attributesOf(s)[KeySource])
		if i > 0 {
			require.Equal(t, before[i-1].SpanContext().SpanID(), s.Parent().SpanID())
		}
	}
	require.False(t, source.Parent().SpanID().IsValid())
	require.Equal(t, []string{"source", "query", "reaction"}, []string{source.Name(), query.Name(), reaction.Name()})
	require.Equal(t, []time.Time{at, after(1), after(2), after(4), after(5), after(9)}, []time.Time{
		source.StartTime(), source.EndTime(), query.StartTime(), query.EndTime(), reaction.StartTime(), reaction.EndTime(),
	})
	require.Equal(t, "postgresql", attributesOf(source)["db.system.name"])
	require.Equal(t, int64(7), attributesOf(source)[KeyOffset])
	require.Equal(t, int64(3), attributesOf(query)[KeySequence])
	require.Equal(t, int64(7), attributesOf(query)[KeyOffset])
	require.Equal(t, int64(3), attributesOf(reaction)[KeySequence])
	require.Equal(t, "RES_default_totals", attributesOf(reaction)["messaging.destination.name"])
	require.Equal(t, "delivered", attributesOf(reaction)["outcome"])
	require.Equal(t, fmt.Sprintf("00-%s-%s-01", tx.TraceID(), reaction.SpanContext().SpanID()), TraceParent(tx.DeliveryContext(t.Context(), "default.mail:totals:3")))
	require.Empty(t, TraceParent(t.Context()))
	require.Equal(t, codes.Unset, reaction.Status().Code)
	require.Len(t, reaction.Events(), 1)
	require.Equal(t, []attribute.KeyValue{attribute.String("error.type", "DeliveryFailed")}, reaction.Events()[0].Attributes)
}

func TestWhatIsNotDeliveredIsAnError(t *testing.T) {
	traces, c, _ := newTestTraces(1, nil)
	traces.Ended(Transaction{"default", "shop", "1"}, Delivery{Began: after(1), Ended: at, Attempts: 1, Failures: []FailedTry{{at, "DeliveryRejected"}}, Outcome: DeadLettered})
	require.NoError(t, traces.Close(t.Context()))
	require.Equal(t, sdktrace.Status{Code: codes.Error, Description: "DeliveryRejected"}, c.spans[0].Status())
	require.Equal(t, at, c.spans[0].StartTime(), "a span does not begin after its end")
}

// TestTheRatioIsKept holds the decision against OpenTelemetry's own sampler, and its ratio against chance.
func TestTheRatioIsKept(t *testing.T) {
	const n, ratio = 100_000, 0.05
	traces, _, _ := newTestTraces(ratio, nil)
	defer traces.Close(t.Context()) //nolint:errcheck // has nothing to send
	standard, followed := sdktrace.TraceIDRatioBased(ratio), 0
	for i := range n {
		tx := Transaction{"default", "shop", fmt.Sprintf("0/%X", 0x16B3748+56*i)}
		follows := traces.Follows(tx)
		require.Equal(t, standard.ShouldSample(sdktrace.SamplingParameters{TraceID: tx.TraceID()}).Decision == sdktrace.RecordAndSample, follows)
		if follows {
			followed++
		}
	}
	require.InDelta(t, n*ratio, followed, 6*math.Sqrt(n*ratio*(1-ratio)))
	var off *Traces
	require.False(t, off.Follows(Transaction{"default", "shop", "1"}))
	require.NoError(t, off.Close(t.Context()))
	none, _, _ := newTestTraces(0, nil)
	defer none.Close(t.Context()) //nolint:errcheck // has nothing to send
	require.False(t, none.Follows(Transaction{"default", "shop", "1"}))
}

func TestIDsDiffer(t *testing.T) {
	spans := make(map[trace.SpanID]string)
	traces := make(map[trace.TraceID]bool)
	for _, tx := range []Transaction{{"a", "b", "1"}, {"a", "b", "2"}, {"ab", "", "1"}, {"a", "b1", ""}} {
		traces[tx.TraceID()] = true
		for _, stage := range []string{"query", "reaction"} {
			for _, name := range []string{"x", "y"} {
				for sequence := range uint64(3) {
					id, what := tx.spanID(stage, name, sequence), fmt.Sprint(tx, stage, name, sequence)
					require.NotContains(t, spans, id, "%s and %s", spans[id], what)
					spans[id] = what
				}
			}
		}
	}
	require.Len(t, traces, 4)
}

// TestADeadCollectorDisturbsNothing tells more spans than fit while the collector hangs: nothing waits, all are counted,
// and the end is bounded.
func TestADeadCollectorDisturbsNothing(t *testing.T) {
	var c *collector
	traces, c, m := newTestTraces(1, func(ctx context.Context) error {
		select {
		case <-c.closed:
			return errors.New("closed")
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	const told = maxSpans + 100
	for i := range told {
		traces.Stored(Transaction{"default", "shop", fmt.Sprint(i)}, Stored{Committed: at, Durable: at})
	}
	require.Contains(t, scrape(t, m), `perdure_trace_spans_total{outcome="full"} 100`)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	began := time.Now()
	require.ErrorIs(t, traces.Close(ctx), context.DeadlineExceeded)
	require.Less(t, time.Since(began), 10*time.Second)
	require.Eventually(t, func() bool { return traces.exporter.waiting.Load() == 0 }, 10*time.Second, 5*time.Millisecond)
	require.Contains(t, scrape(t, m), fmt.Sprintf(`perdure_trace_spans_total{outcome="failed"} %d`, maxSpans))
}

func TestSpansAreCounted(t *testing.T) {
	traces, c, m := newTestTraces(1, nil)
	tell(traces, Transaction{"default", "shop", "1"})
	require.NoError(t, traces.Close(t.Context()))
	require.Len(t, c.spans, 3)
	require.Contains(t, scrape(t, m), `perdure_trace_spans_total{outcome="exported"} 3`)
}

// BenchmarkFollows measures what a transaction costs that is not followed.
func BenchmarkFollows(b *testing.B) {
	sparse, _, _ := newTestTraces(0.0001, nil)
	defer sparse.Close(b.Context()) //nolint:errcheck // has nothing to send
	for name, traces := range map[string]*Traces{"off": nil, "1 in 10000": sparse} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				traces.Follows(Transaction{"default", "shop", "0/16B3748"})
			}
		})
	}
}
