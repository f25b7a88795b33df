package parser_test

import (
	"errors"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// TestParser prints what is parsed, or the errors.
func TestParser(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "parse":
				q, err := parser.Parse(d.Input)
				if err != nil {
					return err.Error()
				}
				requireStable(t, ast.Format(q))
				return ast.Format(q)
			case "expr":
				e, err := parser.ParseExpr(d.Input)
				if err != nil {
					return err.Error()
				}
				return ast.FormatExpr(e)
			}
			d.Fatalf(t, "unknown command %q", d.Cmd)
			return ""
		})
	})
}

// requireStable parses what was printed and prints it again.
func requireStable(t *testing.T, text string) {
	q, err := parser.Parse(text)
	require.NoError(t, err, "printed:\n%s", text)
	require.Equal(t, text, ast.Format(q))
}

func seeds(f *testing.F) {
	for _, s := range []string{
		"MATCH (n:A|B {x: 1})-[r:T|:U]->(m:!(C&D) WHERE m.y > 2) WHERE n.a + 1 < 2 <= m.b RETURN n.x + -1 AS k, count(*)",
		"MATCH (`a b`), ({`k``k`: $p}) RETURN DISTINCT *, -(-1), - -x, NOT (NOT true = false) = null",
		"RETURN 'a\\'b\\u00e9', \"x\", 0x1F, 1e-5, .5, [1, [2]], {a: {b: 1}}, a.b.c, f.g(x, DISTINCT y), 2 ^ 3 ^ 4 // end",
		"MATCH (n RETURN 1 +, 2 WITH x CREATE (n) /* open",
		"RETURN (((((a.`b`))))):A:B IS NOT NULL IN [] STARTS WITH '' XOR $`q r`;",
	} {
		f.Add(s)
	}
}

// FuzzParse feeds any text: no panic; errors lie within the text; what parses prints to something that parses the same.
func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := parser.Parse(text)
		if err == nil {
			requireStable(t, ast.Format(q))
			return
		}
		var errs *token.Errors
		require.True(t, errors.As(err, &errs))
		require.NotEmpty(t, errs.Error())
		for _, e := range errs.List {
			require.True(t, 0 <= e.Range.From && e.Range.From <= e.Range.To && e.Range.To <= len(text), "%+v", e)
		}
	})
}

// FuzzScan feeds any text to the lexer: tokens follow each other within the text.
func FuzzScan(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, text string) {
		errs := &token.Errors{Text: text}
		at := 0
		for _, tok := range token.Scan(text, errs) {
			require.LessOrEqual(t, at, tok.Range.From)
			require.LessOrEqual(t, tok.Range.From, tok.Range.To)
			at = tok.Range.To
		}
		require.LessOrEqual(t, at, len(text))
	})
}
