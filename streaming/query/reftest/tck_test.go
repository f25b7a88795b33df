package reftest_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/cyphertest"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/reftest"
	"github.com/perdure/perdure/streaming/query/tcktest"
)

// TestTCK holds the reference itself against openCypher's technology compatibility kit: what measures has to be right.
func TestTCK(t *testing.T) {
	scenarios := cyphertest.ReadOnly(cyphertest.TCK(t))
	skipped, err := os.ReadFile(filepath.Join("..", "testdata", "tck-skip.txt"))
	require.NoError(t, err)
	checked := 0
	for _, s := range scenarios {
		if s.Expect.Error != "" || slices.Contains(strings.Split(string(skipped), "\n"), s.Name) {
			continue
		}
		checked++
		t.Run(s.Name, func(t *testing.T) { checkScenario(t, &s) })
	}
	t.Logf("%d scenarios", checked)
}

func checkScenario(t *testing.T, s *cyphertest.Scenario) {
	var g tcktest.Graph
	for _, statement := range s.Setup {
		require.NoError(t, g.Run(statement))
	}
	parameters := make(map[string]graph.Value)
	for _, p := range s.Parameters {
		_, rows, err := g.Ask("RETURN "+p[1]+" AS value", nil)
		require.NoError(t, err)
		parameters[p[0]] = rows[0][0]
	}
	plan, err := query.Compile(s.Query, query.Options{Parameters: parameters})
	require.NoError(t, err)
	r, err := reftest.New(s.Query, parameters)
	require.NoError(t, err)
	elements := make(map[graph.ElementID]*graph.Element)
	for _, e := range g.Elements {
		elements[e.ID] = &e
	}
	var got, want []string
	for _, row := range r.Answer(elements, plan.Columns()).Rows() {
		var texts []string
		for _, v := range row {
			texts = append(texts, tcktest.Text(v, s.Expect.AnyListOrder))
		}
		got = append(got, strings.Join(texts, " | "))
	}
	for _, cells := range s.Expect.Rows {
		var texts []string
		for _, cell := range cells {
			text, err := tcktest.Normal(cell, s.Expect.AnyListOrder)
			require.NoError(t, err)
			texts = append(texts, text)
		}
		want = append(want, strings.Join(texts, " | "))
	}
	if !s.Expect.Ordered {
		slices.Sort(got)
		slices.Sort(want)
	}
	require.Equal(t, want, got, "%s\n%s", strings.Join(s.Setup, "\n"), s.Query)
}
