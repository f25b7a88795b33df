package plan_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// TestExplain compiles the queries of testdata: "explain" prints the plan, "errors" what is wrong with a query, each
// problem with its kind.
func TestExplain(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			parameters := map[string]graph.Value{"n": graph.Int(3), "list": graph.List([]graph.Value{graph.Int(1)})}
			q, err := parser.Parse(strings.TrimSpace(d.Input))
			if err != nil {
				return problems(t, err)
			}
			p, err := plan.New(q, parameters)
			if err != nil {
				return problems(t, err)
			}
			plan.CheckLive(t, p)
			var x plan.Explanation
			require.NoError(t, json.Unmarshal(p.ExplainJSON(), &x))
			require.Len(t, x.Nodes, len(p.Nodes))
			if d.Cmd == "errors" {
				return "none\n"
			}
			return p.Explain()
		})
	})
}
