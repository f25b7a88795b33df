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

// TestParser prints what is parsed, or the errors with their kinds:
//
//	parse: a query
//	expr: an expression
//	tree: an expression, with parentheses around every operation
//	columns: the names of the columns of a query's last clause
func TestParser(t *testing.T) {
	datadriven.Walk(t, "testdata/scripts", func(t *testing.T, path string) {
		datadriven.RunTest(t, path, func(t *testing.T, d *datadriven.TestData) string {
			switch d.Cmd {
			case "parse":
				q, err := parser.Parse(d.Input)
				if err != nil {
					return explain(t, err)
				}
				requireStable(t, q)
				return ast.Format(q)
			case "expr":
				e, err := parser.ParseExpr(d.Input)
				if err != nil {
					return explain(t, err)
				}
				return ast.FormatExpr(e)
			case "tree":
				e, err := parser.ParseExpr(d.Input)
				if err != nil {
					return explain(t, err)
				}
				return parenthesised(e)
			case "columns":
				q, err := parser.Parse(d.Input)
				if err != nil {
					return explain(t, err)
				}
				clauses := q.Parts[0].Clauses
				out := ""
				for _, item := range clauses[len(clauses)-1].(*ast.Return).Items {
					out += item.Column() + "\n"
				}
				return out
			}
			d.Fatalf(t, "unknown command %q", d.Cmd)
			return ""
		})
	})
}

// explain shows errors with their kinds.
func explain(t *testing.T, err error) string {
	var errs *token.Errors
	require.True(t, errors.As(err, &errs))
	out := ""
	for _, e := range errs.List {
		one := token.Errors{Text: errs.Text, List: []token.Error{e}}
		out += string(e.Kind) + " " + one.Error() + "\n"
	}
	return out
}

// parenthesised shows what binds what.
func parenthesised(e ast.Expr) string {
	children := ast.Children(e)
	list := func(separator string) string {
		out := ""
		for i, child := range children {
			if i > 0 {
				out += separator
			}
			out += parenthesised(child)
		}
		return out
	}
	switch e := e.(type) {
	case *ast.Binary:
		return "(" + list(" "+e.Op+" ") + ")"
	case *ast.Comparison:
		return "(" + list(" ? ") + ")"
	case *ast.Unary:
		return "(" + e.Op + " " + list("") + ")"
	case *ast.NullTest:
		return "(" + list("") + " null?)"
	case *ast.LabelTest:
		return "(" + list("") + " : " + ast.FormatLabels(e.Labels) + ")"
	case *ast.Property:
		return "(" + list("") + " . " + e.Name + ")"
	case *ast.Index:
		return "(" + list(" @ ") + ")"
	}
	return ast.FormatExpr(e)
}

func seeds(f *testing.F) {
	for _, s := range []string{
		"MATCH (n:A|B {x: 1})-[r:T|:U]->(m:!(C&D) WHERE m.y > 2) WHERE n.a + 1 < 2 <= m.b RETURN n.x + -1 AS k, count(*)",
		"MATCH (`a b`), ({`k``k`: $p}) RETURN DISTINCT *, -(-1), - -x, NOT (NOT true = false) = null",
		"RETURN 'a\\'b\\u00e9\\uD83D\\uDE00', \"x\", 0x1F, 0o17, 1e-5, .5, [1, [2]], {a: {b: 1}}, a.b.c, f.g(x, DISTINCT y), 2 ^ 3 ^ 4 // end",
		"MATCH (n RETURN 1 +, 2 WITH x CREATE (n) /* open",
		"RETURN (((((a.`b`))))):A:B IS NOT NULL IN [] STARTS WITH '' XOR $`q r` =~ 'x' ENDS WITH \"\" CONTAINS 'y';",
		"OPTIONAL MATCH p = ((a)<-[:T*1..3]->()--(b IS C)) UNWIND x[1..] AS y WITH *, a AS b ORDER BY y DESC SKIP 1 LIMIT 2 WHERE y RETURN *",
		"RETURN 1 UNION ALL MATCH (a)-[*..2]-()<-[r*0..]-({k: 1}) RETURN a[0], a[..2], a[1..2], a {.x, .*, y, z: 1}",
		"MATCH (a) WHERE NOT (a)-->(:B) AND exists((a)<--()) OR EXISTS { (a)-[x]-(b) WHERE x.y } RETURN COUNT { MATCH (a) }, COLLECT { MATCH (b) RETURN b UNION RETURN 1 }",
		"RETURN [x IN y WHERE x:A | x.z], [x IN y], [(x IN y)], [x IN y, 2], [p = (a)-->(b) WHERE a:(A|B) | p], [(a)--(b) | 1]",
		"RETURN all(x IN y WHERE (x)-->()), none(x IN y), reduce(s = 0, x IN y | s + x), CASE a WHEN 1 THEN 2 ELSE 3 END, CASE WHEN (a)--() THEN 1 END",
		"RETURN -9223372036854775808, - 1[0], (a) - [b] - (c), (a+1) - [b] - (c), `count` {.x}, a:A|B, -(1)",
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
			requireStable(t, q)
			return
		}
		var errs *token.Errors
		require.True(t, errors.As(err, &errs))
		require.NotEmpty(t, errs.Error())
		for _, e := range errs.List {
			require.True(t, 0 <= e.Range.From && e.Range.From <= e.Range.To && e.Range.To <= len(text), "%+v", e)
			require.NotEmpty(t, e.Kind)
		}
	})
}

// FuzzExpr feeds expressions, which random queries seldom reach.
func FuzzExpr(f *testing.F) {
	f.Add("a + b * -c ^ d IN [x IN e WHERE x.y | x] AND NOT (f)-->() OR g.h[1..2] IS NULL")
	f.Add("CASE WHEN a THEN {b: c} ELSE d {.e, .*} END:F&G")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parser.ParseExpr(text)
		if err != nil {
			return
		}
		printed := ast.FormatExpr(e)
		again, err := parser.ParseExpr(printed)
		require.NoError(t, err, printed)
		require.Equal(t, dump(e), dump(again), printed)
	})
}
