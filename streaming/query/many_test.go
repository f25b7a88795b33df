package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query/querytest"
)

// TestManyRows has more rows than operators know in memory, and takes away at the ends that they know.
func TestManyRows(t *testing.T) {
	const orders = 400
	for i, text := range []string{
		"MATCH (o:Order) RETURN o.id, o.status ORDER BY o.amount DESC SKIP 3 LIMIT 5",
		"MATCH (o:Order) WITH o ORDER BY o.amount SKIP 2 RETURN o.id, o.amount",
		"MATCH (o:Order) RETURN o.id % 3 AS kind, min(o.amount), max(o.amount), count(DISTINCT o.amount), percentileDisc(o.amount, 0.3)",
		"MATCH (o:Order) WITH o.id AS id, o.amount AS amount MATCH (c:Customer) WHERE c.rank = amount % 2 RETURN id, c.name",
		"MATCH (o:Order) WITH o.id AS id, o.amount AS amount WHERE amount > 120 MATCH (c:Customer) RETURN id, c.name",
		"MATCH (o:Order) WITH o.amount % 3 AS kind, count(*) AS n MATCH (c:Customer) WHERE c.rank < n RETURN kind, n, c.name",
		"MATCH (o:Order) WITH o ORDER BY o.amount LIMIT 300 MATCH (o)-[:OF]->(c) OPTIONAL MATCH (o)-[:OF]->(d) WHERE d.rank = 1 RETURN o.id, c.name, d.name",
		"MATCH (c:Customer) RETURN c.name, COLLECT { MATCH (o:Order)-[:OF]->(c) RETURN o.amount ORDER BY o.amount LIMIT 4 } AS least",
	} {
		for _, backend := range []string{"memory", "pebble"} {
			t.Run(fmt.Sprint(i, "/", backend), func(t *testing.T) {
				t.Parallel()
				var store index.Backend = memory.New()
				if backend == "pebble" {
					store = pebble.New(pebble.Options{Dir: t.TempDir()})
				}
				s := querytest.NewSession(t, store, text, nil)
				defer s.Close()
				r := rand.New(rand.NewPCG(1, uint64(i))) //nolint:gosec // must be the same each time
				world := make(map[graph.ElementID]*graph.Element)
				note := func(c graph.Change) graph.Change {
					if c.Op == graph.OpDelete {
						delete(world, c.Element.ID)
					} else {
						world[c.Element.ID] = &c.Element
					}
					return c
				}
				var all []graph.Change
				for c := range 3 {
					all = append(all, note(customer(graph.OpInsert, "Customer", c, fmt.Sprint("name", c), c%2)))
				}
				amounts := make([]int64, orders)
				for o := range orders {
					amounts[o] = int64(o)
					all = append(all, note(order(graph.OpInsert, o, amounts[o], "open")),
						note(relationship("OF", fmt.Sprint("OF:", o), fmt.Sprint("Order:", o), fmt.Sprint("Customer:", o%3))))
				}
				s.Load(all)
				// change moves an order, often to an end of the order or away from one.
				change := func() graph.Change {
					o := r.IntN(orders)
					switch r.IntN(5) {
					case 0: // anywhere
						amounts[o] = r.Int64N(orders)
					case 1: // to an end
						amounts[o] = r.Int64N(2)*1000 - r.Int64N(9)
					case 2:
						return customer(graph.OpUpdate, "Customer", o%3, fmt.Sprint("new", r.IntN(4)), r.IntN(2))
					default: // away from an end
						ends := [...]int64{slices.Min(amounts), slices.Max(amounts)}
						o = slices.Index(amounts, ends[r.IntN(2)])
						amounts[o] = r.Int64N(orders)
						if r.IntN(3) == 0 {
							return order(graph.OpDelete, o, amounts[o], "open")
						}
					}
					return order(graph.OpUpdate, o, amounts[o], fmt.Sprint(r.IntN(2)))
				}
				for batch := range 60 {
					var transactions [][]graph.Change
					for range 1 + r.IntN(8) {
						var changes []graph.Change
						for range 1 + r.IntN(12) {
							changes = append(changes, note(change()))
						}
						transactions = append(transactions, changes)
					}
					if batch%9 == 8 {
						s.Reopen()
					}
					s.Apply(transactions...)
					if batch%4 == 0 {
						requireFresh(t, s, text, world)
					}
				}
			})
		}
	}
}
