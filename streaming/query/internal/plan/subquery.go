package plan

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// argument starts a subquery: it returns the chain of its rows.
func (b *builder) argument(c *chain, vars scope) *chain {
	scopeSlot := b.slot()
	id := b.add(&Argument{Base{Input: c.at}, scopeSlot})
	c.at = id
	return &chain{at: id, vars: vars, outer: vars, order: NoSlot, scope: scopeSlot, start: id}
}

// optional adds OPTIONAL MATCH.
func (b *builder) optional(clause *ast.Match, c *chain) {
	inner := b.argument(c, c.vars)
	m := b.newMatch(inner)
	m.add(clause)
	m.finish()
	n := &Optional{Base{Input: inner.start}, inner.at, inner.scope, m.writes()}
	c.at = b.add(n)
	c.vars = inner.vars
}

// apply brings a value of a subquery's rows back to the outer rows.
func (b *builder) apply(c, inner *chain, from variable, otherwise graph.Value) variable {
	v := variable{b.slot(), from.typ}
	b.derived = append(b.derived, [2]int{v.slot, from.slot})
	c.at = b.add(&Apply{Base{Input: inner.start}, inner.at, inner.scope, from.slot, v.slot, otherwise})
	return v
}

// perScope adds an Aggregate with one group for each scope that has rows.
func (b *builder) perScope(inner *chain, aggregates []Aggregation, reads ...int) {
	n := &Aggregate{
		Base: Base{Input: inner.at}, Keys: []Item{{Eval: eval.Slot(inner.scope), Slot: inner.scope}},
		Seed: -1, Aggregates: aggregates, Order: inner.order,
	}
	inner.at = b.add(n, reads...)
	inner.unsort()
}

// exists returns whether a subquery has rows.
func (b *builder) exists(c, inner *chain) variable {
	inner.unsort()
	b.perScope(inner, nil)
	found := variable{b.slot(), typ{kind: boolean}}
	yes := func(*eval.Env) (graph.Value, error) { return graph.Bool(true), nil }
	inner.at = b.add(&Project{Base: Base{Input: inner.at}, Items: []Item{{Eval: yes, Slot: found.slot}}})
	return b.apply(c, inner, found, graph.Bool(false))
}

// count returns how many rows a subquery has.
func (b *builder) count(c, inner *chain) variable {
	inner.unsort()
	n := variable{b.slot(), typ{kind: integer}}
	b.perScope(inner, []Aggregation{{Name: "count", Expr: &ast.Call{Name: "count", Star: true}, Slot: n.slot}})
	return b.apply(c, inner, n, graph.Int(0))
}

// collect returns the list of a value of a subquery's rows.
func (b *builder) collect(c, inner *chain, e ast.Expr, value compiled) variable {
	found := variable{b.slot(), typ{list, value.typ.kind}}
	call := &ast.Call{Name: "collect", Args: []ast.Expr{e}}
	b.perScope(inner, []Aggregation{{Name: "collect", Expr: call, Arg: value.eval, Nulls: true, Slot: found.slot}}, value.reads...)
	return b.apply(c, inner, found, graph.List(nil))
}

// subquery adds EXISTS, COUNT or COLLECT.
func (b *builder) subquery(e *ast.Subquery, c *chain, vars scope) variable {
	inner := b.argument(c, vars)
	columns := b.query(e.Query, inner)
	switch e.Kind {
	case "exists":
		return b.exists(c, inner)
	case "count":
		return b.count(c, inner)
	}
	if len(columns) != 1 {
		b.errs.Report(token.InvalidSyntax, e.Range, "COLLECT wants one column, got %d", len(columns))
		return variable{}
	}
	column := columns[0]
	b.uses[column.slot].all = true
	value := compiled{eval.Slot(column.slot), []int{column.slot}, column.typ}
	return b.collect(c, inner, &ast.Variable{Base: e.Base, Name: column.name}, value)
}

// patternPredicate adds a pattern that is a condition.
func (b *builder) patternPredicate(p *ast.Pattern, c *chain, vars scope) variable {
	inner := b.argument(c, vars)
	m := b.newMatch(inner)
	m.closed = true
	m.patterns([]*ast.Pattern{p})
	m.finish()
	return b.exists(c, inner)
}

// patternComprehension adds [pattern WHERE condition | value].
func (b *builder) patternComprehension(e *ast.PatternComprehension, c *chain, vars scope) variable {
	inner := b.argument(c, vars)
	m := b.newMatch(inner)
	m.patterns([]*ast.Pattern{e.Pattern})
	if e.Where != nil {
		m.where(e.Where)
	}
	m.finish()
	value := b.expr(e.Map, inner, site{vars: inner.vars})
	return b.collect(c, inner, e.Map, value)
}
