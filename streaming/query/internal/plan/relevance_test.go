package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

func compile(t *testing.T, text string) (*plan.Plan, error) {
	q, err := parser.Parse(text)
	require.NoError(t, err)
	return plan.New(q, nil)
}

// TestRelevance checks what is stored of which elements.
func TestRelevance(t *testing.T) {
	const byLabel = "MATCH (a:A {x: 1})-[r:R]->(b:B) WITH a, b.y AS y MATCH (c:C {z: y}) RETURN a.w"
	for _, c := range []struct {
		query        string
		labels       []string
		relationship bool
		want         store.Relevance
	}{
		{byLabel, []string{"A"}, false, store.Relevance{Positions: []uint64{0b001, 0}, Properties: []string{"w", "x"}}},
		{byLabel, []string{"B", "A"}, false, store.Relevance{Positions: []uint64{0b011, 0}, Properties: []string{"w", "x", "y"}}},
		{byLabel, []string{"C"}, false, store.Relevance{Positions: []uint64{0, 0b001}, Scans: []int{0}, Properties: []string{"z"}}},
		{byLabel, []string{"R"}, true, store.Relevance{Positions: []uint64{0b100, 0}}},
		{byLabel, []string{"S"}, true, store.Relevance{Positions: []uint64{0, 0}}},
		{byLabel, []string{"Other"}, false, store.Relevance{Positions: []uint64{0, 0}}},

		// Every node may be inside of a segment; a path shows it whole.
		{"MATCH (a:A)-[:R*]->(b:B) RETURN a.x", []string{"Other"}, false, store.Relevance{Positions: []uint64{0b100}}},
		{"MATCH p = (a:A)-[:R*]->(b:B) RETURN p", []string{"Other"}, false, store.Relevance{Positions: []uint64{0b100}, All: true}},
		{"MATCH p = (a:A)-[:R*]->(b:B) RETURN length(p)", []string{"Other"}, false, store.Relevance{Positions: []uint64{0b100}}},
		{"MATCH (a:A)-[:R*1]->(b:B) RETURN a.x", []string{"Other"}, false, store.Relevance{Positions: []uint64{0}}},
		// Nothing is followed.
		{"MATCH (a:A)-[:R*0]->(b:B) RETURN a.x", []string{"R"}, true, store.Relevance{Positions: []uint64{0}}},
		{"MATCH (a:A)-[:R*3..2]->(b:B) RETURN a.x", []string{"R"}, true, store.Relevance{Positions: []uint64{0}}},

		{"MATCH (a:A) RETURN count(a)", []string{"A"}, false, store.Relevance{Positions: []uint64{1}}},
		{"MATCH (a:A) WITH a AS b, count(*) AS c RETURN b.x, c", []string{"A"}, false, store.Relevance{Positions: []uint64{1}, Properties: []string{"x"}}},
		{"MATCH (a:A) RETURN a UNION MATCH (a:B) RETURN a", []string{"B"}, false, store.Relevance{Positions: []uint64{0, 1}, All: true}},
		{"MATCH (a:A) WITH a MATCH (a)-->(b:B) RETURN b.x", []string{"Other"}, false, store.Relevance{Positions: []uint64{0, 0}}},
	} {
		p, err := compile(t, c.query)
		require.NoError(t, err)
		got := p.Relevance(c.labels, c.relationship)
		require.Equal(t, c.want.Positions, got.Positions, "%s of %v\n%s", c.query, c.labels, p.Explain())
		require.ElementsMatch(t, c.want.Scans, got.Scans, c.query)
		require.ElementsMatch(t, c.want.Properties, got.Properties, "%s of %v", c.query, c.labels)
		require.Equal(t, c.want.All, got.All, c.query)
	}
}

func TestTooManyElements(t *testing.T) {
	var chain strings.Builder
	for i := range 32 {
		fmt.Fprintf(&chain, "(n%d)-->", i)
	}
	_, err := compile(t, "MATCH "+chain.String()+"() RETURN 1")
	var errs *token.Errors
	require.ErrorAs(t, err, &errs)
	require.Equal(t, token.LimitExceeded, errs.List[0].Kind)
	_, err = compile(t, "MATCH "+strings.TrimSuffix(chain.String(), "-->")+" RETURN 1")
	require.NoError(t, err)
}
