package parser_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/graph"
)

// TestRoundTrip prints random trees and parses the text: every operator gets the parentheses that it needs.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := generator{t}.value(4)
		text := ast.FormatExpr(e)
		again, err := parser.ParseExpr(text)
		require.NoError(t, err, text)
		require.Equal(t, dump(e), dump(again), text)
	})
}

type generator struct{ t *rapid.T }

func (g generator) pick(n int) int { return rapid.IntRange(0, n-1).Draw(g.t, "pick") }

func (g generator) of(options ...string) string { return options[g.pick(len(options))] }

func (g generator) name() ast.Name {
	return ast.Name{Text: g.of("a", "b", "count", "any", "IN", "not", "a b", "`", "", "é", "_1", "Match")}
}

func (g generator) optionalName() *ast.Name {
	if g.pick(2) == 0 {
		return nil
	}
	n := g.name()
	return &n
}

func (g generator) optional(e func(int) ast.Expr, depth int) ast.Expr {
	if g.pick(2) == 0 {
		return nil
	}
	return e(depth)
}

func (g generator) list(depth int) (list []ast.Expr) {
	for range g.pick(4) {
		list = append(list, g.value(depth))
	}
	return list
}

// condition returns an expression that may be a pattern.
func (g generator) condition(depth int) ast.Expr {
	if g.pick(6) == 0 {
		p := g.pattern(depth - 1)
		p.Variable = nil
		return &ast.PatternPredicate{Pattern: p}
	}
	return g.value(depth)
}

func (g generator) value(depth int) ast.Expr {
	if depth <= 0 {
		return g.leaf()
	}
	depth--
	switch g.pick(18) {
	case 0:
		return &ast.Property{Subject: g.value(depth), Name: g.name().Text}
	case 1:
		return &ast.Index{Subject: g.value(depth), Index: g.value(depth)}
	case 2:
		return &ast.Slice{Subject: g.value(depth), From: g.optional(g.value, depth), To: g.optional(g.value, depth)}
	case 3:
		return &ast.LabelTest{Subject: g.value(depth), Labels: g.labels(2)}
	case 4:
		return &ast.Unary{Op: "NOT", Operand: g.condition(depth)}
	case 5:
		return &ast.Unary{Op: g.of("+", "-"), Operand: g.value(depth)}
	case 6:
		return &ast.Binary{Op: g.of("AND", "OR", "XOR"), Left: g.condition(depth), Right: g.condition(depth)}
	case 7, 8:
		op := g.of("+", "-", "*", "/", "%", "^", "IN", "STARTS WITH", "ENDS WITH", "CONTAINS", "=~")
		return &ast.Binary{Op: op, Left: g.value(depth), Right: g.value(depth)}
	case 9:
		c := &ast.Comparison{Operands: []ast.Expr{g.value(depth)}}
		for range 1 + g.pick(2) {
			c.Ops = append(c.Ops, g.of("=", "<>", "<", "<=", ">", ">="))
			c.Operands = append(c.Operands, g.value(depth))
		}
		return c
	case 10:
		return &ast.NullTest{Operand: g.value(depth), Not: g.pick(2) == 0}
	case 11:
		return &ast.ListLiteral{Items: g.list(depth)}
	case 12:
		return &ast.ListComprehension{Variable: g.name(), List: g.value(depth), Where: g.optional(g.condition, depth), Map: g.optional(g.value, depth)}
	case 13:
		return &ast.PatternComprehension{Pattern: g.pattern(depth), Where: g.optional(g.condition, depth), Map: g.value(depth)}
	case 14:
		return &ast.Quantifier{Kind: g.of("all", "any", "none", "single"), Variable: g.name(), List: g.value(depth), Where: g.optional(g.condition, depth)}
	case 15:
		return &ast.Reduce{Accumulator: g.name(), Init: g.value(depth), Variable: g.name(), List: g.value(depth), Body: g.value(depth)}
	case 16:
		return &ast.Case{
			Subject: g.optional(g.value, depth), Else: g.optional(g.value, depth),
			Whens: []ast.When{{Condition: g.value(depth), Then: g.value(depth)}},
		}
	default:
		return g.other(depth)
	}
}

func (g generator) other(depth int) ast.Expr {
	switch g.pick(5) {
	case 0:
		m := &ast.MapLiteral{}
		for range g.pick(3) {
			m.Keys, m.Values = append(m.Keys, g.name()), append(m.Values, g.value(depth))
		}
		return m
	case 1:
		return &ast.Call{Name: g.of("f", "date.truncate", "count"), Args: g.list(depth)}
	case 2:
		m := &ast.MapProjection{Subject: &ast.Variable{Name: g.name().Text}}
		for range g.pick(3) {
			item := ast.MapItem{Key: g.name(), Value: g.optional(g.value, depth)}
			if g.pick(3) == 0 {
				item = ast.MapItem{All: true}
			}
			m.Items = append(m.Items, item)
		}
		return m
	default:
		match := &ast.Match{Patterns: []*ast.Pattern{g.pattern(depth)}, Where: g.optional(g.condition, depth)}
		s := &ast.Subquery{Kind: g.of("exists", "count"), Bare: true}
		clauses := []ast.Clause{match}
		if g.pick(2) == 0 {
			s.Kind, s.Bare = g.of("exists", "count", "collect"), false
			r := &ast.Return{Projection: ast.Projection{
				Items: []*ast.Item{{Expr: g.value(depth), Alias: g.optionalName()}}, Distinct: g.pick(2) == 0,
				OrderBy: []*ast.SortItem{{Expr: g.value(depth), Descending: g.pick(2) == 0}},
				Skip:    g.optional(g.value, depth), Limit: g.optional(g.value, depth),
			}}
			clauses = append(clauses, &ast.Unwind{List: g.value(depth), Variable: g.name()}, r)
		}
		s.Query = &ast.Query{Parts: []*ast.SingleQuery{{Clauses: clauses}}}
		return s
	}
}

func (g generator) leaf() ast.Expr {
	switch g.pick(4) {
	case 0:
		return &ast.Parameter{Name: g.of("p", "1", "in", "a b")}
	case 1:
		values := []graph.Value{
			graph.Null, graph.Bool(true), graph.Int(0), graph.Int(7), graph.Int(-7), graph.Int(-1 << 63), graph.Float(0.5),
			graph.Float(-1e300), graph.String(""), graph.String("it's \\ \n \x00 é"),
		}
		return &ast.Literal{Value: values[g.pick(len(values))]}
	default:
		return &ast.Variable{Name: g.name().Text}
	}
}

func (g generator) pattern(depth int) *ast.Pattern {
	p := &ast.Pattern{Variable: g.optionalName(), Nodes: []*ast.NodePattern{g.node(depth)}}
	for range 1 + g.pick(2) {
		r := &ast.RelationshipPattern{
			Direction: ast.Direction(g.pick(3)), Variable: g.optionalName(), Where: g.optional(g.condition, depth-2),
			Properties: g.properties(depth - 2),
		}
		if g.pick(2) == 0 {
			r.Types = g.labels(2)
		}
		if g.pick(2) == 0 {
			r.Length = &ast.Length{Min: int64(g.pick(3)), Max: int64(g.pick(4)) - 1}
		}
		p.Relationships = append(p.Relationships, r)
		p.Nodes = append(p.Nodes, g.node(depth))
	}
	return p
}

func (g generator) node(depth int) *ast.NodePattern {
	n := &ast.NodePattern{Variable: g.optionalName(), Properties: g.properties(depth - 2), Where: g.optional(g.condition, depth-2)}
	if g.pick(2) == 0 {
		n.Labels = g.labels(2)
	}
	return n
}

func (g generator) properties(depth int) ast.Expr {
	if g.pick(3) > 0 {
		return nil
	}
	return &ast.MapLiteral{Keys: []ast.Name{g.name()}, Values: []ast.Expr{g.value(depth)}}
}

func (g generator) labels(depth int) ast.LabelExpr {
	switch pick := g.pick(6); {
	case depth > 0 && pick < 2:
		return &ast.LabelBinary{Or: pick == 0, Left: g.labels(depth - 1), Right: g.labels(depth - 1)}
	case pick == 2:
		return &ast.LabelNot{Operand: g.labels(depth - 1)}
	case pick == 3:
		return &ast.LabelAny{}
	}
	return &ast.LabelName{Name: g.name()}
}
