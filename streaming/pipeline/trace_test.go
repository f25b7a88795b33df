package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

// spans are those that traces have told.
type spans struct {
	t        testing.TB
	exporter *tracetest.InMemoryExporter
}

// trace has the hosts that are made from now on follow a ratio of the transactions, as a process of its own would.
func (r *rig) trace(t *testing.T, ratio float64) *spans {
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "10")
	exporter := tracetest.NewInMemoryExporter()
	traces := telemetry.NewTraces(telemetry.TraceOptions{
		Ratio: ratio, Exporter: exporter, Resource: resource.Empty(), Metrics: telemetry.NewMetrics(""), Log: zap.NewNop(),
	})
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, traces.Close(ctx))
	})
	r.traces = traces
	return &spans{t, exporter}
}

// of returns the spans of a stage.
func (s *spans) of(stage string) []tracetest.SpanStub {
	return slices.DeleteFunc(s.exporter.GetSpans(), func(span tracetest.SpanStub) bool { return span.Name != stage })
}

// await returns the spans of a stage when there are so many, and no more.
func (s *spans) await(stage string, n int) []tracetest.SpanStub {
	s.t.Helper()
	eventually(s.t, func() bool { return len(s.of(stage)) >= n }, fmt.Sprintf("%d spans of stage %s", n, stage))
	require.Len(s.t, s.of(stage), n)
	return s.of(stage)
}

// value returns an attribute as text, "" when it is missing.
func value(span tracetest.SpanStub, key string) string {
	for _, a := range span.Attributes {
		if string(a.Key) == key {
			return a.Value.String()
		}
	}
	return ""
}

// TestATransactionIsFollowedFromSourceToReaction, to a reaction that is killed while it delivers, too.
func TestATransactionIsFollowedFromSourceToReaction(t *testing.T) {
	r := newRig(t)
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	told := r.trace(t, 1)
	closed := make(chan struct{})
	f := &receiver{}
	f.fail = func(e *result.Event) error {
		if e.Sequence == 2 {
			select {
			case <-closed:
			default:
				return failure.DeliveryFailed.Errorf("not now: %v", e.Diffs[0].After[1])
			}
		}
		return nil
	}
	r.reactions = []reaction.Factory{f}
	source, query := r.readySource(), r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.book.commit(item(graph.OpInsert, "Item", 1, "secret", 100), item(graph.OpInsert, "Item", 2, "secret", 100)) // event 1
	r.book.commit(item(graph.OpInsert, "Item", 3, "secret", 5))                                                   // no event
	r.book.commit(item(graph.OpUpdate, "Item", 1, "secret", 101))                                                 // event 2
	r.caughtUp("late")
	running := r.startReaction()

	sources, queries := told.await("source", 3), told.await("query", 3)
	for i, span := range sources {
		require.Equal(t, fmt.Sprint(i+1), value(span, telemetry.KeyPosition))
		require.Equal(t, []string{"2", "1", "1"}[i], value(span, "changes"))
		require.NotEmpty(t, value(span, telemetry.KeyOffset))
		require.Equal(t, r.book.log[i].CommitTime.UnixMicro(), span.StartTime.UnixMicro())
	}
	slices.SortFunc(queries, func(a, b tracetest.SpanStub) int {
		return strings.Compare(value(a, telemetry.KeyPosition), value(b, telemetry.KeyPosition))
	})
	for i, span := range queries {
		require.Equal(t, sources[i].SpanContext.TraceID(), span.SpanContext.TraceID())
		require.Equal(t, sources[i].SpanContext.SpanID(), span.Parent.SpanID())
		require.Equal(t, []string{"1", "", "2"}[i], value(span, telemetry.KeySequence))
		require.Equal(t, value(sources[i], telemetry.KeyOffset), value(span, telemetry.KeyOffset))
		require.Equal(t, "applied", span.Events[0].Name)
	}
	delivered := told.await("reaction", 1)[0]
	require.Equal(t, "1", value(delivered, telemetry.KeySequence))
	require.Equal(t, "delivered", value(delivered, "outcome"))
	requireChild(t, queries[0], delivered)

	eventually(t, func() bool { return running.status.Snapshot().Backpressure != "" }, "event 2 fails")
	running.kill()
	interrupted := told.await("reaction", 2)[1]
	require.Equal(t, "interrupted", value(interrupted, "outcome"))
	require.Equal(t, "DeliveryFailed", interrupted.Status.Description)
	requireChild(t, queries[2], interrupted)

	again := r.trace(t, 1)
	close(closed)
	running = r.startReaction()
	redelivered := again.await("reaction", 1)[0]
	require.Equal(t, "delivered", value(redelivered, "outcome"))
	require.Equal(t, interrupted.SpanContext, redelivered.SpanContext)
	requireChild(t, queries[2], redelivered)
	running.drained()
	query.drained()
	source.drained()
	require.NotContains(t, fmt.Sprint(told.exporter.GetSpans(), again.exporter.GetSpans()), "secret", "spans have no data of rows")
}

func requireChild(t *testing.T, parent, child tracetest.SpanStub) {
	t.Helper()
	require.Equal(t, parent.SpanContext.TraceID(), child.SpanContext.TraceID())
	require.Equal(t, parent.SpanContext.SpanID(), child.Parent.SpanID())
}

// TestEachTransactionOfAGroupHasItsSpan: transactions that share a message, and one that takes several.
func TestEachTransactionOfAGroupHasItsSpan(t *testing.T) {
	r := newRig(t)
	told := r.trace(t, 1)
	for i := range 50 {
		r.book.commit(item(graph.OpInsert, "Item", i, "x", 100))
	}
	large := strings.Repeat("x", maxMessage)
	r.book.commit(item(graph.OpInsert, "Item", 50, large, 1), item(graph.OpInsert, "Item", 51, large, 1), item(graph.OpInsert, "Item", 52, large, 1))
	source := r.startSource()
	all := told.await("source", 51)
	source.drained()
	traces := make(map[trace.TraceID]bool)
	for i, span := range all {
		require.Equal(t, fmt.Sprint(i+1), value(span, telemetry.KeyPosition))
		traces[span.SpanContext.TraceID()] = true
	}
	require.Len(t, traces, 51)
	require.Equal(t, "3", value(all[50], "changes"))
}

// TestStagesDecideAlike: of the transactions that are followed at all, each stage tells.
func TestStagesDecideAlike(t *testing.T) {
	r := newRig(t)
	told := r.trace(t, 0.2)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.startReaction()
	wanted := 0
	for i := range 100 {
		p := r.book.commit(item(graph.OpInsert, "Item", i, "x", 100))
		if r.traces.Follows(telemetry.Transaction{Instance: "default", Source: "shop", Position: string(p)}) {
			wanted++
		}
	}
	require.NotZero(t, wanted)
	eventually(t, func() bool { return f.last() == 100 }, "the last event")
	positions := func(stage string) (all []string) {
		for _, span := range told.await(stage, wanted) {
			all = append(all, value(span, telemetry.KeyPosition))
		}
		slices.Sort(all)
		return all
	}
	require.Equal(t, positions("source"), positions("query"))
	require.Equal(t, positions("source"), positions("reaction"))
}
