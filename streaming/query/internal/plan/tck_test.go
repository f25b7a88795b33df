package plan_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/cyphertest"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// TestTCK compiles every query of the TCK: those that fail do so with the kind that the TCK wants, the plans of the
// others keep the promises of the package comment.
func TestTCK(t *testing.T) {
	scenarios := cyphertest.ReadOnly(cyphertest.TCK(t))
	require.NotEmpty(t, scenarios)
	for _, s := range scenarios {
		t.Run(s.Name, func(t *testing.T) {
			parameters := make(map[string]graph.Value)
			for _, p := range s.Parameters {
				parameters[p[0]] = constant(t, p[1])
			}
			q, err := parser.Parse(s.Query)
			var p *plan.Plan
			if err == nil {
				p, err = plan.New(q, parameters)
			}
			if err == nil && s.Expect.Phase != "compile time" {
				plan.CheckLive(t, p)
				require.NotEmpty(t, p.Explain())
				return
			}
			if s.Expect.Error == "" || s.Expect.Phase == "runtime" && len(s.Parameters) == 0 { // which are known now
				require.NoError(t, err, s.Query)
			}
			require.Error(t, err, s.Query)
			var errs *token.Errors
			require.ErrorAs(t, err, &errs)
			if s.Expect.Kind != "*" {
				require.Equal(t, s.Expect.Kind, string(errs.List[0].Kind), "%s\n%v", s.Query, err)
			}
		})
	}
}

// constant evaluates a parameter's text.
func constant(t *testing.T, text string) graph.Value {
	q, err := parser.Parse("RETURN " + text)
	require.NoError(t, err)
	errs := &token.Errors{}
	c := &eval.Compiler{Errs: errs}
	f := c.Compile(q.Parts[0].Clauses[0].(*ast.Return).Items[0].Expr)
	require.Empty(t, errs.List)
	v, err := f(c.NewEnv(0))
	require.NoError(t, err)
	return v
}

// problems prints what is wrong with a query: line, column, kind and message of each.
func problems(t *testing.T, err error) string {
	var errs *token.Errors
	require.ErrorAs(t, err, &errs)
	var b strings.Builder
	for _, e := range errs.List {
		line := strings.Count(errs.Text[:e.Range.From], "\n") + 1
		column := e.Range.From - strings.LastIndexByte(errs.Text[:e.Range.From], '\n')
		fmt.Fprintf(&b, "%d:%d %s: %s\n", line, column, e.Kind, e.Message)
	}
	return b.String()
}
