package plan

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// lift adds the nodes for all subqueries in an expression, which then reads their slots.
func (b *builder) lift(e ast.Expr, c *chain, s site) {
	if e == nil {
		return
	}
	if _, done := b.replaced[e]; done || s.replace != nil && replaces(s, e) {
		return
	}
	plain := s
	plain.predicate = false
	condition := s
	condition.predicate = true
	switch e := e.(type) {
	case *ast.Subquery:
		b.replaced[e] = b.subquery(e, c, s.vars)
	case *ast.PatternComprehension:
		b.replaced[e] = b.patternComprehension(e, c, s.vars)
	case *ast.PatternPredicate:
		if !s.predicate {
			b.errs.Report(token.UnexpectedSyntax, e.Range, "a pattern is a condition and can stand only where one is wanted; COUNT { } counts its matches")
		}
		b.replaced[e] = b.patternPredicate(e.Pattern, c, s.vars)
	case *ast.Unary:
		if e.Op != "NOT" {
			s = plain
		}
		b.lift(e.Operand, c, s)
	case *ast.Binary:
		if e.Op != "AND" && e.Op != "OR" && e.Op != "XOR" {
			s = plain
		}
		b.lift(e.Left, c, s)
		b.lift(e.Right, c, s)
	case *ast.Case:
		b.lift(e.Subject, c, plain)
		for _, when := range e.Whens {
			if e.Subject == nil {
				b.lift(when.Condition, c, condition)
			} else {
				b.lift(when.Condition, c, plain)
			}
			b.lift(when.Then, c, plain)
		}
		b.lift(e.Else, c, plain)
	case *ast.Call:
		b.liftCall(e, c, s)
	case *ast.ListComprehension:
		b.lift(e.List, c, plain)
		if dependent(e.Variable.Text, e.Where, e.Map) {
			b.replaced[e] = b.comprehension(e, c, plain)
			return
		}
		b.lift(e.Where, c, condition)
		b.lift(e.Map, c, plain)
	case *ast.Quantifier:
		b.lift(e.List, c, plain)
		if dependent(e.Variable.Text, e.Where) {
			b.replaced[e] = b.quantifier(e, c, plain)
			return
		}
		b.lift(e.Where, c, condition)
	case *ast.Reduce:
		b.lift(e.Init, c, plain)
		b.lift(e.List, c, plain)
		if dependent(e.Variable.Text, e.Body) || dependent(e.Accumulator.Text, e.Body) {
			b.errs.Report(token.Unsupported, e.Body.Position(), "a subquery inside of reduce cannot use its variables; compute a list with [%s IN ... | ...] first", ast.FormatName(e.Variable.Text))
			return
		}
		b.lift(e.Body, c, plain)
	default:
		for _, child := range ast.Children(e) {
			b.lift(child, c, plain)
		}
	}
}

func (b *builder) liftCall(e *ast.Call, c *chain, s site) {
	name := strings.ToLower(e.Name)
	if name == "exists" && len(e.Args) == 1 {
		if p, ok := e.Args[0].(*ast.PatternPredicate); ok {
			b.replaced[e] = b.patternPredicate(p.Pattern, c, s.vars)
			return
		}
	}
	s.predicate = false
	if isSubquery(e) {
		b.replaced[e] = b.endOf(e, name == "startnode", c, s)
		return
	}
	for _, arg := range e.Args {
		b.lift(arg, c, s)
	}
}

// comprehension adds a list comprehension whose body has subqueries that use its variable: its items become rows.
func (b *builder) comprehension(e *ast.ListComprehension, c *chain, s site) variable {
	items := b.expr(e.List, c, s)
	inner := b.argument(c, s.vars)
	x := variable{b.slot(), typ{kind: items.typ.item}}
	inner.order = b.slot()
	n := &Unwind{Base: Base{Input: inner.at}, List: Item{Expr: e.List, Eval: items.eval, Slot: x.slot}, Order: inner.order, From: NoSlot}
	inner.at = b.add(n, items.reads...)
	s.vars = s.vars.with(scope{e.Variable.Text: x})
	b.filter(e.Where, inner, s)
	mapped := e.Map
	if mapped == nil {
		mapped = &ast.Variable{Base: ast.Base{Range: e.Variable.Range}, Name: e.Variable.Text}
	}
	found := b.collect(c, inner, mapped, b.expr(mapped, inner, s))
	result := variable{b.slot(), found.typ}
	known := func(env *eval.Env) (graph.Value, error) { // no list, no result
		switch v, err := items.eval(env); {
		case err != nil || v.IsNull():
			return graph.Null, err
		case v.Kind() != graph.KindList:
			return graph.Null, &eval.Error{Kind: token.InvalidArgumentType, Message: "a list comprehension wants a list"}
		}
		return env.Slots[found.slot], nil
	}
	reads := append(slices.Clone(items.reads), found.slot)
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e, Eval: known, Slot: result.slot}}}, reads...)
	return result
}

// quantifier adds a quantifier whose condition has subqueries that use its variable: the conditions become a list.
func (b *builder) quantifier(e *ast.Quantifier, c *chain, s site) variable {
	s.predicate = true
	conditions := &ast.ListComprehension{Base: e.Base, Variable: e.Variable, List: e.List, Map: e.Where}
	b.replaced[conditions] = b.comprehension(conditions, c, s)
	over := *e
	over.List, over.Where = conditions, &ast.Variable{Base: e.Base, Name: e.Variable.Text}
	x := b.compile(&over, s)
	v := variable{b.slot(), x.typ}
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e, Eval: x.eval, Slot: v.slot}}}, x.reads...)
	return v
}

// endOf adds startNode or endNode: the node is looked up by a pattern.
func (b *builder) endOf(e *ast.Call, start bool, c *chain, s site) variable {
	r, ok := s.vars[nameOf(e.Args[0])]
	if !ok {
		x := b.expr(e.Args[0], c, s)
		r = variable{b.slot(), x.typ}
		c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e.Args[0], Eval: x.eval, Slot: r.slot}}}, x.reads...)
	}
	if !r.typ.kind.is(relationship) {
		b.errs.Report(token.InvalidArgumentType, e.Args[0].Position(), "%s does not take %s", e.Name, r.typ.kind.a())
		return variable{}
	}
	r.typ.kind = relationship
	const given, wanted = hidden + "r", hidden + "n"
	inner := b.argument(c, scope{given: r})
	ends := []*ast.NodePattern{{}, {}}
	ends[1].Variable = &ast.Name{Text: wanted}
	if start {
		slices.Reverse(ends)
	}
	m := b.newMatch(inner)
	m.patterns([]*ast.Pattern{{Nodes: ends, Relationships: []*ast.RelationshipPattern{{Variable: &ast.Name{Text: given}, Direction: ast.Right}}}})
	m.finish()
	return b.apply(c, inner, inner.vars[wanted], graph.Null)
}

// nameOf returns the name of a variable, or what is no name.
func nameOf(e ast.Expr) string {
	if v, ok := e.(*ast.Variable); ok {
		return v.Name
	}
	return ""
}

// containsSubquery reports whether an expression has a part that nodes compute.
func containsSubquery(e ast.Expr) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		found = found || isSubquery(e)
		return !found
	})
	return found
}

// dependent reports whether the body of a comprehension, quantifier or reduce has subqueries that use its variable, or
// that of another one in it: these cannot be computed before.
func dependent(name string, body ...ast.Expr) bool {
	found := false
	for _, e := range body {
		ast.Walk(e, func(e ast.Expr) bool {
			switch e := e.(type) {
			case *ast.ListComprehension:
				found = found || dependent(e.Variable.Text, e.Where, e.Map)
			case *ast.Quantifier:
				found = found || dependent(e.Variable.Text, e.Where)
			}
			if isSubquery(e) {
				found = found || mentions(e, name)
				return false
			}
			return !found
		})
	}
	return found
}

// mentions reports whether a name occurs in an expression, as whatever.
func mentions(e ast.Expr, name string) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Variable:
			found = found || e.Name == name
		case *ast.PatternPredicate:
			found = found || patternMentions(e.Pattern, name)
		case *ast.PatternComprehension:
			found = found || patternMentions(e.Pattern, name)
		case *ast.Subquery:
			found = found || queryMentions(e.Query, name)
		}
		return !found
	})
	return found
}

func patternMentions(p *ast.Pattern, name string) bool {
	is := func(n *ast.Name) bool { return n != nil && n.Text == name }
	for _, n := range p.Nodes {
		if is(n.Variable) || mentions(n.Properties, name) || mentions(n.Where, name) {
			return true
		}
	}
	for _, r := range p.Relationships {
		if is(r.Variable) || mentions(r.Properties, name) || mentions(r.Where, name) {
			return true
		}
	}
	return false
}

func queryMentions(q *ast.Query, name string) bool {
	found := false
	ast.WalkQuery(q, func(e ast.Expr) bool {
		found = found || mentions(e, name)
		return false
	})
	for _, part := range q.Parts {
		for _, clause := range part.Clauses {
			if m, ok := clause.(*ast.Match); ok {
				found = found || slices.ContainsFunc(m.Patterns, func(p *ast.Pattern) bool { return patternMentions(p, name) })
			}
		}
	}
	return found
}
