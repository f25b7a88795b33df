package pipeline

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

// BenchmarkCommitToEvent measures the time from a commit at the source to the event at somebody who follows the query,
// at a given rate of transactions.
func BenchmarkCommitToEvent(b *testing.B) {
	for _, rate := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%d/s", rate), func(b *testing.B) {
			r := newRig(b)
			r.index = pebble.New(pebble.Options{Dir: b.TempDir()})
			source := r.readySource()
			query := r.startQuery(late)
			eventually(b, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
			ctx, cancel := context.WithCancel(b.Context())
			defer cancel()
			took := make([]time.Duration, 0, b.N)
			done := make(chan error, 1)
			go func() {
				done <- NewResults(r.conn, "").Follow(ctx, "late", 0, func(e *result.Event) error {
					if took = append(took, time.Since(e.CommitTime)); len(took) == b.N {
						return errLoaded
					}
					return nil
				}, nil)
			}()
			tick := time.NewTicker(time.Second / time.Duration(rate))
			defer tick.Stop()
			for i := range b.N {
				<-tick.C
				r.book.commit(item(graph.OpInsert, "Item", i, "x", 100))
			}
			require.ErrorIs(b, <-done, errLoaded)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
			query.drained()
			source.drained()
		})
	}
}

// BenchmarkSource measures how many transactions a second a source puts into its change log, and what following some of
// them costs.
func BenchmarkSource(b *testing.B) {
	for _, ratio := range []float64{0, 0.01, 1} {
		b.Run(fmt.Sprintf("traced=%v", ratio), func(b *testing.B) {
			r := newRig(b)
			if ratio > 0 {
				r.traces = telemetry.NewTraces(telemetry.TraceOptions{
					Ratio: ratio, Exporter: tracetest.NewNoopExporter(), Resource: resource.Empty(), Metrics: telemetry.NewMetrics(""), Log: zap.NewNop(),
				})
				defer r.traces.Close(context.Background()) //nolint:errcheck // nobody gets the spans
			}
			for i := range b.N {
				r.book.commit(item(graph.OpInsert, "Item", i, "x", 100))
			}
			b.ResetTimer()
			source := r.startSource()
			eventually(b, func() bool { return r.book.confirmedAt() == r.book.end() }, "everything is confirmed")
			b.StopTimer()
			source.drained()
		})
	}
}
