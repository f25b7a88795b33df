package parser_test

import (
	"reflect"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
)

// everything has each type of node, and each of its fields set.
const everything = `MATCH p = (a:A {x: $x} WHERE a.y = 1)-[r:T*1..2 {z: 2} WHERE r.z > 0]->(b) WHERE NOT (a)--({k: 1}) OR exists((b)-->(:B))
UNWIND [1, 'a', {m: null}] AS u
WITH DISTINCT a, [x IN u WHERE x:L | x + 1] AS l, u ORDER BY u DESC SKIP 1 LIMIT 2 WHERE l IS NOT NULL
OPTIONAL MATCH (a)
RETURN CASE a WHEN 1 THEN 2 ELSE 3 END, all(x IN l WHERE x), reduce(s = 0, x IN l | s + x), a {.x, .*, y: 1, u},
  [q = (a)-[t {w: 4}]-(c WHERE c.v) WHERE c.w | c.x[0]], l[0..-1], count(DISTINCT -a.x), 1 < a.x <= 3,
  EXISTS { (a)-->(e) WHERE e.x }, COLLECT { MATCH (f) WHERE f.y RETURN f.z UNION RETURN 5 }`

// TestWalk compares what Walk visits with all expressions that are in the tree.
func TestWalk(t *testing.T) {
	texts := []string{everything}
	for _, q := range benchmarks() {
		texts = append(texts, q)
	}
	types := map[reflect.Type]bool{}
	for _, text := range texts {
		q, err := parser.Parse(text)
		require.NoError(t, err)
		visited := map[ast.Expr]int{}
		var visit func(ast.Expr) bool
		visit = func(e ast.Expr) bool {
			visited[e]++
			if s, ok := e.(*ast.Subquery); ok {
				ast.WalkQuery(s.Query, visit)
			}
			return true
		}
		ast.WalkQuery(q, visit)
		inTree := map[ast.Expr]int{}
		findExprs(reflect.ValueOf(q), inTree)
		require.Equal(t, len(inTree), len(visited))
		require.Equal(t, inTree, visited)
		for e := range inTree {
			types[reflect.TypeOf(e)] = true
		}
	}
	require.Len(t, types, 22, "a type of expression is not in the text above")
}

// findExprs counts all expressions below v.
func findExprs(v reflect.Value, found map[ast.Expr]int) {
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return
		}
		if e, ok := v.Interface().(ast.Expr); ok {
			found[e]++
		}
		findExprs(v.Elem(), found)
	case reflect.Interface:
		findExprs(v.Elem(), found)
	case reflect.Slice:
		for i := range v.Len() {
			findExprs(v.Index(i), found)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				findExprs(v.Field(i), found)
			}
		}
	}
}

// TestWalkStops does not go below an expression for which visit returns false.
func TestWalkStops(t *testing.T) {
	e, err := parser.ParseExpr("a + [b, f(c)]")
	require.NoError(t, err)
	var visited []string
	ast.Walk(e, func(e ast.Expr) bool {
		visited = append(visited, ast.FormatExpr(e))
		_, list := e.(*ast.ListLiteral)
		return !list
	})
	require.Equal(t, []string{"a + [b, f(c)]", "a", "[b, f(c)]"}, visited)
}
