package query_test

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// BenchmarkLargeTransaction applies one transaction of so many inserts in parts, and says what memory that took at most,
// almost without garbage.
func BenchmarkLargeTransaction(b *testing.B) {
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	for _, rows := range []int{200_000, 1_000_000} {
		b.Run(fmt.Sprint(rows), func(b *testing.B) {
			plan, err := query.Compile("MATCH (o:Order) RETURN o.id, o.customer, o.total", query.Options{})
			require.NoError(b, err)
			shape := graph.NewShape("id", "customer", "total")
			parts := func(yield func([]graph.Change) error) error {
				const part = 4096
				for from := 0; from < rows; from += part {
					var changes []graph.Change
					for i := from; i < min(from+part, rows); i++ {
						changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
							ID: graph.ElementID(fmt.Sprint("Order:", i)), Labels: []string{"Order"}, Shape: shape,
							Values: []graph.Value{graph.Int(int64(i)), graph.String(fmt.Sprint("customer ", i%1000)), graph.Int(int64(i % 100))},
						}})
					}
					if err := yield(changes); err != nil {
						return err
					}
				}
				return nil
			}
			for b.Loop() { // only the first tells of memory
				store, err := pebble.New(pebble.Options{Dir: b.TempDir()}).Open("q")
				require.NoError(b, err)
				q, err := query.Open(plan, store)
				require.NoError(b, err)
				require.NoError(b, q.Begin(result.State{}))
				before := heapTaken()
				events, err := q.Apply(query.Batch{Source: "s", Offset: 1, Transactions: []graph.Transaction{{}}, Parts: parts})
				b.ReportMetric(float64(heapTaken()-before)/float64(rows), "peak-B/row")
				require.NoError(b, err)
				require.False(b, events[len(events)-1].More)
				require.EqualValues(b, rows, q.Stats().Rows)
				require.NoError(b, q.Close())
			}
		})
	}
}

// heapTaken returns how much memory the heap has ever had from the system.
func heapTaken() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapSys
}
