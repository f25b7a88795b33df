package query_test

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
)

// seed makes the events of BenchmarkScenarios other ones.
var seed = flag.Uint64("seed", 1, "seed of the events of BenchmarkScenarios")

// rooms is a model of 10 buildings with 10 floors of 20 rooms each, whose rooms report what they measure.
type rooms struct {
	shape, empty *graph.Shape
	measured     [10 * 10 * 20][3]float64 // temperature, humidity, co2
}

func newRooms() *rooms {
	r := &rooms{shape: graph.NewShape("temperature", "humidity", "co2"), empty: graph.NewShape()}
	for i := range r.measured {
		r.measured[i] = [3]float64{70, 40, 500}
	}
	return r
}

func (r *rooms) room(op graph.Op, i int) graph.Change {
	m := &r.measured[i]
	return node(op, fmt.Sprint("room", i), "Room", r.shape, graph.Float(m[0]), graph.Float(m[1]), graph.Float(m[2]))
}

func (r *rooms) elements(yield func(graph.Change)) {
	for b := range 10 {
		yield(node(graph.OpInsert, fmt.Sprint("building", b), "Building", r.empty))
	}
	for f := range 100 {
		yield(node(graph.OpInsert, fmt.Sprint("floor", f), "Floor", r.empty))
		yield(relationship("PART_OF", fmt.Sprint("of", f), fmt.Sprint("floor", f), fmt.Sprint("building", f/10)))
	}
	for i := range r.measured {
		yield(r.room(graph.OpInsert, i))
		yield(relationship("PART_OF", fmt.Sprint("in", i), fmt.Sprint("room", i), fmt.Sprint("floor", i/20)))
	}
}

// event moves one of the measures of one room by up to 2 either way and updates the whole room.
func (r *rooms) event(chance *rand.Rand) graph.Change {
	i := chance.IntN(len(r.measured))
	r.measured[i][chance.IntN(3)] += chance.Float64()*4 - 2
	return r.room(graph.OpUpdate, i)
}

// BenchmarkScenarios has the scenarios that query-perf, the benchmark of Drasi's engine, measures: the same model, the same
// mix of events, every event a transaction.
func BenchmarkScenarios(b *testing.B) {
	const comfort = "floor(50 + (r.temperature - 72) + (r.humidity - 42) + CASE WHEN r.co2 > 500 THEN (r.co2 - 500) / 25 ELSE 0 END)"
	const average = "MATCH (r:Room)-[:PART_OF]->(f:Floor) RETURN elementId(f) AS floor, avg(" + comfort + ") AS comfort"
	for _, s := range []struct{ name, text string }{
		{"projection", "MATCH (r:Room) RETURN elementId(r) AS room, r.temperature, r.humidity, r.co2"},
		{"calculation", "MATCH (r:Room) RETURN elementId(r) AS room, " + comfort + " AS comfort"},
		{"average", average},
		{"noChange", average + " // the original's fourth scenario is its third under another name"},
	} {
		for _, backend := range []string{"memory", "pebble"} {
			b.Run(s.name+"/"+backend, func(b *testing.B) {
				chance := rand.New(rand.NewPCG(*seed, 0)) //nolint:gosec // must be the same each time
				model := newRooms()
				before := heap()
				q := open(b, openBackend(b, backend), s.text)
				load(b, q, model.elements)
				state := stateOf(q, before)
				m := stream{batch: batchSize, warm: 5000, change: func(int) graph.Change { return model.event(chance) }}
				m.measure(b, q)
				state.report(b)
			})
		}
	}
}

// BenchmarkQueries has many queries over one stream, of which each shows the changes of a few orders.
func BenchmarkQueries(b *testing.B) {
	const n = 1000
	for _, c := range []struct {
		queries int
		backend string
	}{{100, "memory"}, {100, "pebble"}, {1000, "memory"}} {
		b.Run(fmt.Sprintf("%d/%s", c.queries, c.backend), func(b *testing.B) {
			if testing.Short() && c.queries > 100 {
				b.Skip("too large for -short")
			}
			backend := openBackend(b, c.backend)
			var queries []*query.Query
			for i := range c.queries {
				q := open(b, backend, fmt.Sprintf("MATCH (o:Order) WHERE o.id %% %d = %d RETURN o.id, o.amount", c.queries, i))
				load(b, q, func(yield func(graph.Change)) { orders(n, yield) })
				require.NotZero(b, q.Stats().Elements)
				queries = append(queries, q)
			}
			r := rand.New(rand.NewPCG(1, 2)) //nolint:gosec // must be the same each time
			m := stream{batch: 1000 / c.queries, warm: 100, change: func(i int) graph.Change { return anyOrder(n, i, r) }}
			m.measure(b, queries...)
		})
	}
}

// BenchmarkLoad loads and seals; one operation is one row.
func BenchmarkLoad(b *testing.B) {
	for _, backend := range []string{"memory", "pebble"} {
		b.Run(backend, func(b *testing.B) {
			q := open(b, openBackend(b, backend), "MATCH (o:Order) WHERE o.amount >= 500 RETURN o.id, o.amount * 2 AS twice")
			b.ReportAllocs()
			b.ResetTimer()
			load(b, q, func(yield func(graph.Change)) { orders(b.N, yield) })
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "rows/s")
		})
	}
}
