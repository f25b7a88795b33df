package parser_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
)

// queries are what the benchmarks parse: as users write them, and shapes whose time must grow with their length only.
func benchmarks() map[string]string {
	return map[string]string{
		"short": "MATCH (n:Person) WHERE n.age > 18 RETURN n.name AS name",
		"long": `MATCH (o:Order)-[:CONTAINS]->(i:Item {state: 'open'})<-[:STOCKS*1..3]-(w:Warehouse)
			WHERE o.total >= $minimum AND NOT (o)-[:CANCELLED_BY]->() AND w.region IN ['EU', 'US'] AND i.name STARTS WITH 'A'
			OPTIONAL MATCH (o)-[:PLACED_BY]->(c:Customer)
			WITH o, c, collect(DISTINCT i {.sku, .name, price: i.price * (1 + o.tax)}) AS items, sum(i.price) AS total
			WHERE total > 100 AND size([x IN items WHERE x.price > 10 | x.sku]) > 1
			RETURN o.id AS id, coalesce(c.name, 'unknown') AS customer, CASE WHEN total > 1000 THEN 'large' ELSE 'small' END AS class,
				[(o)-[:SHIPPED_IN]->(p) WHERE p.weight > 1 | p.id] AS parcels, EXISTS { (c)-[:LIKES]->(:Item) } AS likes
			ORDER BY total DESC, id SKIP 1 LIMIT 10`,
		"list of 10000":      "RETURN [" + strings.Repeat("1234, ", 9_999) + "1]",
		"OR of 5000":         "MATCH (n) WHERE n.x = 1" + strings.Repeat(" OR n.x = 1", 5_000) + " RETURN n",
		"500 parentheses":    "RETURN " + strings.Repeat("(", 500) + "a" + strings.Repeat(")", 500),
		"400 maybe patterns": "RETURN " + strings.Repeat("((a) - [b] + ", 400) + "a" + strings.Repeat(")", 400),
	}
}

func BenchmarkParse(b *testing.B) {
	for name, text := range benchmarks() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			b.ReportAllocs()
			for b.Loop() {
				_, err := parser.Parse(text)
				require.NoError(b, err)
			}
		})
	}
}

func BenchmarkFormat(b *testing.B) {
	for name, text := range benchmarks() {
		b.Run(name, func(b *testing.B) {
			q, err := parser.Parse(text)
			require.NoError(b, err)
			b.ReportAllocs()
			for b.Loop() {
				ast.Format(q)
			}
		})
	}
}
