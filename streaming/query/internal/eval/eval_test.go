package eval

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// TestExpressions runs testdata: the command eval takes expressions, one a line, and gives for each its value, or the
// kind of its error and the message. The variables n, m and r are two nodes and a relationship between them, p is the path.
func TestExpressions(t *testing.T) {
	datadriven.Walk(t, "testdata", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			require.Equal(t, "eval", d.Cmd)
			var b strings.Builder
			for line := range strings.Lines(d.Input) {
				b.WriteString(evaluate(t, strings.TrimSpace(line)) + "\n")
			}
			return b.String()
		})
	})
}

var testNow = time.Date(2024, 2, 29, 13, 14, 15, 123456789, time.UTC)

func evaluate(t *testing.T, text string) string {
	q, err := parser.Parse("RETURN " + text)
	if err != nil {
		return problem(t, err)
	}
	errs := &token.Errors{Text: text}
	slots := len(testNames)
	c := &Compiler{
		Slot:  func(name string) (int, bool) { i, ok := testNames[name]; return i, ok },
		Alloc: func() int { slots++; return slots - 1 },
		Errs:  errs,
	}
	f := c.Compile(q.Parts[0].Clauses[0].(*ast.Return).Items[0].Expr)
	if err := errs.Err(); err != nil {
		return problem(t, err)
	}
	env := c.NewEnv(slots)
	env.Now, env.Random = testNow, rand.New(rand.NewPCG(1, 2))
	copy(env.Slots, testValues())
	v, err := f(env)
	if err != nil {
		return problem(t, err)
	}
	again, err := f(env)
	require.NoError(t, err)
	if !strings.Contains(text, "rand") {
		require.True(t, graph.Identical(v, again), "%s changes between evaluations", text)
	}
	return v.String()
}

func problem(t *testing.T, err error) string {
	var e *Error
	if errors.As(err, &e) {
		return string(e.Kind) + ": " + e.Message
	}
	var list *token.Errors
	require.ErrorAs(t, err, &list)
	return "compile " + string(list.List[0].Kind) + ": " + list.List[0].Message
}

var testNames = map[string]int{"n": 0, "m": 1, "r": 2, "p": 3, "missing": 4}

func testValues() []graph.Value {
	n := &graph.Element{ID: "a", Labels: []string{"A", "B"}, Shape: graph.NewShape("x", "name", "none"), Values: []graph.Value{graph.Int(1), graph.String("ann"), graph.Null}}
	m := &graph.Element{ID: "b", Labels: []string{"C"}}
	r := &graph.Element{ID: "r", Labels: []string{"T"}, Start: "a", End: "b", Shape: graph.NewShape("w"), Values: []graph.Value{graph.Float(0.5)}}
	return []graph.Value{
		graph.NodeOf(n), graph.NodeOf(m), graph.RelationshipOf(r),
		graph.PathOf(&graph.Path{Nodes: []*graph.Element{n, m}, Relationships: []*graph.Element{r}}), graph.Null,
	}
}
