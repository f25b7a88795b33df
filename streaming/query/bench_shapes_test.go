package query_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/perdure/perdure/streaming/graph"
)

var (
	orderShape    = graph.NewShape("id", "amount", "status")
	customerShape = graph.NewShape("name", "rank")
)

func order(op graph.Op, id int, amount int64, status string) graph.Change {
	return node(op, fmt.Sprint("Order:", id), "Order", orderShape, graph.Int(int64(id)), graph.Int(amount), graph.String(status))
}

func orders(n int, yield func(graph.Change)) {
	for i := range n {
		yield(order(graph.OpInsert, i, int64(i%1000), "open"))
	}
}

// anyOrder gives an order another amount.
func anyOrder(n, i int, r *rand.Rand) graph.Change {
	return order(graph.OpUpdate, r.IntN(n), int64(1000+i), "open")
}

// anyOrderAgain gives an order one of the amounts that there are.
func anyOrderAgain(n, _ int, r *rand.Rand) graph.Change {
	return order(graph.OpUpdate, r.IntN(n), r.Int64N(900), "open")
}

// BenchmarkElements has queries over nodes of one label.
func BenchmarkElements(b *testing.B) {
	all, large := []int{1_000, 10_000, 100_000, 1_000_000}, []int{10_000, 1_000_000}
	text := func(s string) string { return "MATCH (o:Order) " + s }
	run(b, []shape{
		{"filter", text("WHERE o.amount >= 0 AND o.status = 'open' RETURN o.id, o.amount * 2 AS twice"), all, orders, anyOrder, false},
		{"filteredOut", text("WHERE o.amount < 0 RETURN o.id"), all, orders, anyOrder, false},
		{"insertDelete", text("WHERE o.amount >= 0 AND o.status = 'open' RETURN o.id, o.amount * 2 AS twice"), all, orders,
			func(n, i int, _ *rand.Rand) graph.Change {
				if i%2 == 0 {
					return order(graph.OpInsert, n+i, 1, "open")
				}
				return order(graph.OpDelete, n+i-1, 1, "open")
			}, false},
		{"groups", text("RETURN o.id % 1000 AS kind, count(*), sum(o.amount), avg(o.amount)"), large, orders, anyOrder, false},
		{"minMax", text("RETURN min(o.amount), max(o.amount)"), large, orders, anyOrder, false},
		{"top10/in", text("RETURN o.id, o.amount ORDER BY o.amount DESC LIMIT 10"), large, orders, anyOrder, false},
		{"top10/out", text("RETURN o.id, o.amount ORDER BY o.amount DESC LIMIT 10"), large, orders, anyOrderAgain, false},
		{"collect/10", text("RETURN o.id % 1000 AS kind, collect(o.amount)"), []int{10_000}, orders, anyOrder, false},
		{"collect/all", text("RETURN collect(o.amount)"), []int{1_000, 10_000}, orders, anyOrder, true},
		{"distinct", text("RETURN DISTINCT o.amount % 100 AS rest"), []int{10_000}, orders, anyOrder, false},
	})
}

// tree yields orders of customers of cities of countries, three of each in one of the next: n orders.
func tree(n int, yield func(graph.Change)) {
	levels := []string{"Order", "Customer", "City", "Country"}
	for level, label := range levels {
		for i := range n {
			if label == "Order" {
				yield(order(graph.OpInsert, i, int64(i), "open"))
			} else {
				yield(customer(graph.OpInsert, label, i, fmt.Sprint("name", i), 0))
			}
			if level+1 < len(levels) {
				yield(relationship("OF", fmt.Sprint("OF:", level, ":", i), fmt.Sprint(label, ":", i), fmt.Sprint(levels[level+1], ":", i/3)))
			}
		}
		n = (n + 2) / 3
	}
}

func customer(op graph.Op, label string, id int, name string, rank int) graph.Change {
	return node(op, fmt.Sprint(label, ":", id), label, customerShape, graph.String(name), graph.Int(int64(rank)))
}

// rename gives a node of the tree another name; as many orders as given are below it.
func rename(label string, below int) func(n, i int, r *rand.Rand) graph.Change {
	return func(n, i int, r *rand.Rand) graph.Change {
		return customer(graph.OpUpdate, label, r.IntN(n/below), fmt.Sprint("new", i), i%2)
	}
}

// BenchmarkPatterns has queries over the tree.
func BenchmarkPatterns(b *testing.B) {
	some, one := []int{1_000, 10_000, 100_000}, []int{10_000}
	const hop = "MATCH (o:Order)-[:OF]->(c:Customer) WHERE o.amount >= 0 RETURN o.id, c.name, o.amount"
	const hops = "MATCH (o:Order)-[:OF]->(c:Customer)-[:OF]->(t:City)-[:OF]->(l:Country) RETURN o.id, o.amount, l.name"
	run(b, []shape{
		{"hop/order", hop, some, tree, anyOrder, false},
		{"hop/customer", hop, some, tree, rename("Customer", 3), false},
		{"threeHops/order", hops, some, tree, anyOrder, false},
		{"threeHops/country", hops, some, tree, rename("Country", 27), false},
		{"optional/order", "MATCH (o:Order) OPTIONAL MATCH (o)-[:OF]->(c:Customer) WHERE c.rank = 0 RETURN o.id, c.name, o.amount", some, tree, anyOrder, false},
		{"optional/customer", "MATCH (o:Order) OPTIONAL MATCH (o)-[:OF]->(c:Customer) WHERE c.rank = 0 RETURN o.id, c.name", some, tree, rename("Customer", 3), false},
		{"variable/order", "MATCH (o:Order)-[:OF*1..4]->(p) RETURN o.amount, p.name", some, tree, anyOrder, false},
		{"with", "MATCH (o:Order) WITH o WHERE o.amount >= 0 MATCH (o)-[:OF]->(c:Customer) RETURN o.id, c.name, o.amount", one, tree, anyOrder, false},
		{"exists", "MATCH (o:Order) WHERE EXISTS { (o)-[:OF]->(c:Customer) WHERE c.name <> '' } RETURN o.id, o.amount", one, tree, anyOrder, false},
		{"collect", "MATCH (o:Order)-[:OF]->(c:Customer) RETURN c.name, collect(o.amount) AS amounts", one, tree, anyOrder, false},
	})
}

// star yields a customer with n orders.
func star(n int, yield func(graph.Change)) {
	yield(customer(graph.OpInsert, "Customer", 0, "name", 0))
	for i := range n {
		yield(order(graph.OpInsert, i, int64(i), "open"))
		yield(relationship("OF", fmt.Sprint("OF:", i), fmt.Sprint("Order:", i), "Customer:0"))
	}
}

// BenchmarkHub has a node with many neighbours.
func BenchmarkHub(b *testing.B) {
	const text = "MATCH (o:Order)-[:OF]->(c:Customer) RETURN o.id, c.name"
	n := []int{10_000}
	run(b, []shape{
		{"unread", text, n, star, func(_, i int, _ *rand.Rand) graph.Change { return customer(graph.OpUpdate, "Customer", 0, "name", i) }, false},
		{"read", text, n, star, func(_, i int, _ *rand.Rand) graph.Change {
			return customer(graph.OpUpdate, "Customer", 0, fmt.Sprint("name", i), 0)
		}, true},
		{"neighbour", "MATCH (o:Order)-[:OF]->(c:Customer) RETURN o.amount, c.name", n, star, anyOrder, false},
	})
}

// BenchmarkJoin joins by value: one customer and n orders have the same key.
func BenchmarkJoin(b *testing.B) {
	const text = "MATCH (o:Order), (c:Customer) WHERE o.status = c.name RETURN o.id, o.amount, c.rank"
	n := []int{10_000}
	graphOf := func(n int, yield func(graph.Change)) {
		orders(n, yield)
		yield(customer(graph.OpInsert, "Customer", 0, "open", 0))
	}
	run(b, []shape{
		{"many", text, n, graphOf, anyOrder, false},
		{"one", text, n, graphOf, func(_, i int, _ *rand.Rand) graph.Change { return customer(graph.OpUpdate, "Customer", 0, "open", i) }, true},
	})
}

// BenchmarkLater joins the rows of an aggregation with a later pattern by value: the change of a customer finds its row.
func BenchmarkLater(b *testing.B) {
	const text = "MATCH (o:Order) WITH o.id AS id, sum(o.amount) AS total MATCH (c:Customer {rank: id}) RETURN c.name, total"
	graphOf := func(n int, yield func(graph.Change)) {
		orders(n, yield)
		for i := range n {
			yield(customer(graph.OpInsert, "Customer", i, "name", i))
		}
	}
	run(b, []shape{
		{"customer", text, []int{1_000, 10_000}, graphOf, func(n, i int, r *rand.Rand) graph.Change {
			id := r.IntN(n)
			return customer(graph.OpUpdate, "Customer", id, fmt.Sprint("new", i), id)
		}, false},
	})
}

// BenchmarkDocuments updates a number beside a text of 50 kB.
func BenchmarkDocuments(b *testing.B) {
	shapeOfDocument := graph.NewShape("body", "edition")
	body := strings.Repeat("0123456789", 5000)
	document := func(op graph.Op, i, edition int) graph.Change {
		return node(op, fmt.Sprint("Document:", i), "Document", shapeOfDocument, graph.String(body), graph.Int(int64(edition)))
	}
	documents := func(n int, yield func(graph.Change)) {
		for i := range n {
			yield(document(graph.OpInsert, i, 0))
		}
	}
	change := func(n, i int, r *rand.Rand) graph.Change { return document(graph.OpUpdate, r.IntN(n), i+1) }
	n := []int{1_000}
	run(b, []shape{
		{"unread", "MATCH (d:Document) RETURN d.edition", n, documents, change, false},
		{"read", "MATCH (d:Document) RETURN d.edition, size(d.body) AS size", n, documents, change, false},
		{"shown", "MATCH (d:Document) RETURN d.edition, d.body", n, documents, change, false},
	})
}
