package parser_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/cyphertest"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// ours are the kinds of compile-time errors that the parser finds, in all their forms; the others need to know what
// variables and functions are.
var ours = []token.Kind{
	token.UnexpectedSyntax, token.InvalidClauseComposition, token.InvalidNumberLiteral, token.IntegerOverflow,
	token.InvalidUnicodeCharacter, token.InvalidUnicodeLiteral, token.InvalidParameterUse,
	token.InvalidRelationshipPattern, token.FloatingPointOverflow,
}

// TestTCK parses every query of the openCypher TCK: what only reads is parsed and printed back, what writes is refused as
// that, and what is wrong in a way that the parser sees is refused with the kind that the TCK names.
func TestTCK(t *testing.T) {
	queries := tckQueries(t)
	var parsed, refused, wrong int
	for _, q := range queries {
		tree, err := parser.Parse(q.text)
		kinds := kindsOf(t, err)
		switch {
		case slices.Contains(kinds, token.Unsupported):
			require.Regexp(t, `(?i)\b(CREATE|MERGE|SET|DELETE|REMOVE|FOREACH|CALL)\b`, q.text, q.where)
			refused++
		case slices.Contains(ours, q.want):
			require.Contains(t, kinds, q.want, "%s:\n%s", q.where, q.text)
			require.Len(t, kinds, 1, "%s:\n%v", q.where, err)
			wrong++
		default:
			require.NoError(t, err, "%s:\n%s", q.where, q.text)
			requireStable(t, tree)
			requireTexts(t, tree)
			parsed++
		}
	}
	t.Logf("%d queries of the TCK: %d parsed, %d refused because they write, %d refused as wrong", len(queries), parsed, refused, wrong)
	require.Greater(t, parsed, 1000)
	require.Greater(t, wrong, 20)
}

func kindsOf(t testing.TB, err error) (kinds []token.Kind) {
	var errs *token.Errors
	if !errors.As(err, &errs) {
		require.NoError(t, err)
		return nil
	}
	for _, e := range errs.List {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// requireTexts compares the text of each column with what is printed when it is parsed again.
func requireTexts(t *testing.T, q *ast.Query) {
	for _, part := range q.Parts {
		for _, c := range part.Clauses {
			if r, ok := c.(*ast.Return); ok {
				for _, item := range r.Items {
					e, err := parser.ParseExpr(item.Text)
					require.NoError(t, err, item.Text)
					require.Equal(t, ast.FormatExpr(item.Expr), ast.FormatExpr(e))
				}
			}
		}
	}
}

type tckQuery struct {
	where string
	text  string
	want  token.Kind // of the error at compile time; empty when there is none
}

// tckQueries returns the queries of all scenarios, those of outlines once for each of their examples, and the statements
// that make their graphs.
func tckQueries(t testing.TB) (queries []tckQuery) {
	for _, s := range cyphertest.TCK(t) {
		for _, statement := range s.Setup {
			queries = append(queries, tckQuery{where: s.Name, text: statement})
		}
		q := tckQuery{where: s.Name, text: s.Query}
		if s.Expect.Phase == "compile time" || s.Expect.Phase == "any time" {
			q.want = token.Kind(s.Expect.Kind)
		}
		queries = append(queries, q)
	}
	return queries
}
