package query_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// batchSize is how many transactions of one change a batch has, as when the pipeline is busy.
const batchSize = 100

func backends(b *testing.B, run func(b *testing.B, backend index.Backend)) {
	b.Run("memory", func(b *testing.B) { run(b, memory.New()) })
	b.Run("pebble", func(b *testing.B) { run(b, pebble.New(pebble.Options{Dir: b.TempDir()})) })
}

func openBench(b *testing.B, backend index.Backend, text string) *query.Query {
	p, err := query.Compile(text, query.Options{})
	require.NoError(b, err)
	s, err := backend.Open("bench")
	require.NoError(b, err)
	q, err := query.Open(p, s)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, q.Close()) })
	return q
}

var (
	orderShape    = graph.NewShape("id", "customer", "amount", "status", "note")
	orderLabel    = []string{"Order"}
	customerShape = graph.NewShape("name", "city")
)

func order(op graph.Op, id, customer int, amount int64, status string) graph.Change {
	return graph.Change{Op: op, Element: graph.Element{
		ID: graph.ElementID(fmt.Sprintf("Order:%d", id)), Labels: orderLabel, Shape: orderShape,
		Values: []graph.Value{
			graph.Int(int64(id)), graph.String(fmt.Sprintf("customer-%d", customer)), graph.Int(amount), graph.String(status),
			graph.String("a text that the query does not read"),
		},
	}}
}

func relationship(id, from, to string) graph.Change {
	return graph.Change{Op: graph.OpInsert, Element: graph.Element{
		ID: graph.ElementID(id), Labels: []string{"OF"}, Start: graph.ElementID(from), End: graph.ElementID(to),
	}}
}

func node(id, label string, shape *graph.Shape, values ...graph.Value) graph.Change {
	return graph.Change{Op: graph.OpInsert, Element: graph.Element{
		ID: graph.ElementID(id), Labels: []string{label}, Shape: shape, Values: values,
	}}
}

// apply measures one change after the other, in batches; change i is given by the function.
func apply(b *testing.B, q *query.Query, change func(i int) graph.Change) {
	var batches []query.Batch
	for i := 0; i < b.N; i += batchSize {
		batch := query.Batch{Source: "bench", Offset: uint64(i + 1)}
		for j := i; j < min(b.N, i+batchSize); j++ {
			batch.Transactions = append(batch.Transactions, graph.Transaction{Changes: []graph.Change{change(j)}})
		}
		batches = append(batches, batch)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, batch := range batches {
		events, err := q.Apply(batch)
		if err != nil {
			b.Fatal(err)
		}
		if n := len(events); n > 0 {
			if err := q.TrimOutbox(events[n-1].Sequence); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "changes/s")
}

func load(b *testing.B, q *query.Query, changes ...graph.Change) {
	const step = 1000
	for len(changes) > step {
		require.NoError(b, q.Load("bench", nil, changes[:step]))
		changes = changes[step:]
	}
	require.NoError(b, q.Load("bench", nil, changes))
	require.NoError(b, q.Seal(result.State{}, 1000))
	require.NoError(b, q.TrimOutbox(q.State().Sequence))
}

const filterText = "MATCH (o:Order) WHERE o.amount > 100 AND o.status = 'open' RETURN o.id, o.customer, o.amount * 2 AS twice"

// BenchmarkFilterInsert inserts elements, half of which pass the filter.
func BenchmarkFilterInsert(b *testing.B) {
	backends(b, func(b *testing.B, backend index.Backend) {
		q := openBench(b, backend, filterText)
		require.NoError(b, q.Begin(result.State{}))
		apply(b, q, func(i int) graph.Change { return order(graph.OpInsert, i, i%1000, int64(i%2)*200, "open") })
	})
}

// BenchmarkFilterUpdate updates 10,000 elements, so that rows change.
func BenchmarkFilterUpdate(b *testing.B) {
	backends(b, func(b *testing.B, backend index.Backend) {
		q := openBench(b, backend, filterText)
		var changes []graph.Change
		for i := range 10000 {
			changes = append(changes, order(graph.OpInsert, i, i, 50, "open"))
		}
		load(b, q, changes...)
		apply(b, q, func(i int) graph.Change {
			return order(graph.OpUpdate, i*7919%10000, i%1000, int64(101+i), "open")
		})
	})
}

// BenchmarkLoad loads and seals; one operation is one row.
func BenchmarkLoad(b *testing.B) {
	backends(b, func(b *testing.B, backend index.Backend) {
		q := openBench(b, backend, filterText)
		changes := make([]graph.Change, b.N)
		for i := range changes {
			changes[i] = order(graph.OpInsert, i, i%1000, int64(i%2)*200, "open")
		}
		b.ReportAllocs()
		b.ResetTimer()
		load(b, q, changes...)
		b.StopTimer()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
	})
}

const hopText = "MATCH (o:Order)-[:OF]->(c:Customer) WHERE o.amount > 100 RETURN o.id, c.name, o.amount"

func hopGraph(customers, orders int) (changes []graph.Change) {
	for i := range customers {
		changes = append(changes, node(fmt.Sprintf("Customer:%d", i), "Customer", customerShape, graph.String(fmt.Sprint("name", i)), graph.String("x")))
	}
	for i := range orders {
		changes = append(changes, order(graph.OpInsert, i, i%customers, 200, "open"),
			relationship(fmt.Sprintf("OF:%d", i), fmt.Sprintf("Order:%d", i), fmt.Sprintf("Customer:%d", i%customers)))
	}
	return changes
}

// BenchmarkHop updates either end of a hop: an order has one relationship, a customer five.
func BenchmarkHop(b *testing.B) {
	const customers, orders = 2000, 10000
	changes := map[string]func(i int) graph.Change{
		"order": func(i int) graph.Change {
			return order(graph.OpUpdate, i*7919%orders, i, int64(150+i), "open")
		},
		"customer": func(i int) graph.Change {
			return node(fmt.Sprintf("Customer:%d", i*7919%customers), "Customer", customerShape, graph.String(fmt.Sprint("new", i)), graph.String("x"))
		},
	}
	for name, change := range changes {
		b.Run(name, func(b *testing.B) {
			backends(b, func(b *testing.B, backend index.Backend) {
				q := openBench(b, backend, hopText)
				load(b, q, hopGraph(customers, orders)...)
				apply(b, q, change)
			})
		})
	}
}

// BenchmarkHub updates a property that nobody reads of a node with 10,000 neighbours.
func BenchmarkHub(b *testing.B) {
	backends(b, func(b *testing.B, backend index.Backend) {
		q := openBench(b, backend, hopText)
		load(b, q, hopGraph(1, 10000)...)
		apply(b, q, func(i int) graph.Change {
			return node("Customer:0", "Customer", customerShape, graph.String("name0"), graph.String(fmt.Sprint("city", i)))
		})
	})
}

// BenchmarkAggregate updates 10,000 elements in 100 groups.
func BenchmarkAggregate(b *testing.B) {
	for name, text := range map[string]string{
		"sum": "MATCH (o:Order) RETURN o.customer, count(*), sum(o.amount)",
		"max": "MATCH (o:Order) RETURN o.customer, min(o.amount), max(o.amount)",
	} {
		b.Run(name, func(b *testing.B) {
			backends(b, func(b *testing.B, backend index.Backend) {
				q := openBench(b, backend, text)
				var changes []graph.Change
				for i := range 10000 {
					changes = append(changes, order(graph.OpInsert, i, i%100, int64(i), "open"))
				}
				load(b, q, changes...)
				apply(b, q, func(i int) graph.Change {
					id := i * 7919 % 10000
					return order(graph.OpUpdate, id, id%100, int64(i), "open")
				})
			})
		})
	}
}
