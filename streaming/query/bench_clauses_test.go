package query_test

import (
	"fmt"
	"testing"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

// BenchmarkClauses updates one of 10,000 orders under queries of one clause each. Orders belong to one of 2,000
// customers, customers live in one of 100 cities, cities lie in one of 5 countries.
func BenchmarkClauses(b *testing.B) {
	const orders, customers, cities, countries = 10000, 2000, 100, 5
	changes := hopGraph(customers, orders)
	name := graph.NewShape("name")
	for i := range cities {
		changes = append(changes, node(fmt.Sprintf("City:%d", i), "City", name, graph.String(fmt.Sprint("city", i))),
			relationship(fmt.Sprintf("LIES:%d", i), fmt.Sprintf("City:%d", i), fmt.Sprintf("Country:%d", i%countries)))
	}
	for i := range countries {
		changes = append(changes, node(fmt.Sprintf("Country:%d", i), "Country", name, graph.String(fmt.Sprint("country", i))))
	}
	for i := range customers {
		changes = append(changes, relationship(fmt.Sprintf("LIVES:%d", i), fmt.Sprintf("Customer:%d", i), fmt.Sprintf("City:%d", i%cities)))
	}
	for _, c := range []struct{ name, text string }{
		{"threeHop", "MATCH (o:Order)-[:OF]->(c:Customer)-[:OF]->(t:City)-[:OF]->(l:Country) WHERE o.amount > 100 RETURN o.id, c.name, t.name, l.name"},
		{"with", "MATCH (o:Order) WITH o WHERE o.amount > 100 MATCH (o)-[:OF]->(c:Customer) RETURN o.id, c.name, o.amount"},
		{"optional", "MATCH (o:Order) OPTIONAL MATCH (o)-[:OF]->(c:Customer) WHERE c.name = 'name7' RETURN o.id, c.name, o.amount"},
		{"exists", "MATCH (o:Order) WHERE EXISTS { (o)-[:OF]->(c:Customer) WHERE c.name <> 'name7' } RETURN o.id, o.amount"},
		{"topK", "MATCH (o:Order) RETURN o.id, o.amount ORDER BY o.amount DESC LIMIT 10"},
		{"collect", "MATCH (o:Order)-[:OF]->(c:Customer) RETURN c.name, collect(o.amount) AS amounts"},
		{"variable", "MATCH (o:Order)-[*1..3]->(p) RETURN o.id, o.amount, p.name"},
		{"distinct", "MATCH (o:Order) RETURN DISTINCT o.amount % 100 AS rest"},
	} {
		b.Run(c.name, func(b *testing.B) {
			backends(b, func(b *testing.B, backend index.Backend) {
				q := openBench(b, backend, c.text)
				load(b, q, changes...)
				apply(b, q, func(i int) graph.Change { return order(graph.OpUpdate, i*7919%orders, i, int64(150+i), "open") })
			})
		})
	}
}
