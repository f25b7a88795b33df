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
		if overRows(e) {
			b.replaced[e] = b.comprehension(e, c, plain)
			return
		}
		b.lift(e.Where, c, condition)
		b.lift(e.Map, c, plain)
	case *ast.Quantifier:
		b.lift(e.List, c, plain)
		if overRows(e) {
			b.replaced[e] = b.quantifier(e, c, plain)
			return
		}
		b.lift(e.Where, c, condition)
	case *ast.Reduce:
		b.lift(e.Init, c, plain)
		b.lift(e.List, c, plain)
		if overRows(e) {
			b.replaced[e] = b.reduce(e, c, plain)
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

// perItem starts a chain with a row for each item of a list, for which a variable stands.
func (b *builder) perItem(e ast.Expr, name string, c *chain, s site) (items compiled, inner *chain, in site) {
	items = b.expr(e, c, s)
	inner = b.argument(c, s.vars)
	x := variable{b.slot(), typ{kind: items.typ.item}}
	inner.order = b.slot()
	n := &Unwind{Base: Base{Input: inner.at}, List: Item{Expr: e, Eval: items.eval, Slot: x.slot}, Order: inner.order, From: NoSlot}
	inner.at = b.add(n, items.reads...)
	s.vars = s.vars.with(scope{name: x})
	if known := s.replace; known != nil {
		s.replace = func(e ast.Expr) (variable, bool) {
			if mentions(e, name) { // another variable of this name
				return variable{}, false
			}
			return known(e)
		}
	}
	return items, inner, s
}

// collected adds what was collected for the items of a list: null when the list is null.
func (b *builder) collected(e ast.Expr, what string, items compiled, found variable, c *chain) variable {
	result := variable{b.slot(), found.typ}
	known := func(env *eval.Env) (graph.Value, error) {
		switch v, err := items.eval(env); {
		case err != nil || v.IsNull():
			return graph.Null, err
		case v.Kind() != graph.KindList:
			return graph.Null, &eval.Error{Kind: token.InvalidArgumentType, Message: what + " wants a list"}
		}
		return env.Slots[found.slot], nil
	}
	reads := append(slices.Clone(items.reads), found.slot)
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e, Eval: known, Slot: result.slot}}}, reads...)
	return result
}

// comprehension adds a list comprehension whose body has subqueries that use its variable: its items become rows.
func (b *builder) comprehension(e *ast.ListComprehension, c *chain, s site) variable {
	items, inner, s := b.perItem(e.List, e.Variable.Text, c, s)
	b.filter(e.Where, inner, s)
	mapped := e.Map
	if mapped == nil {
		mapped = &ast.Variable{Base: ast.Base{Range: e.Variable.Range}, Name: e.Variable.Text}
	}
	found := b.collect(c, inner, mapped, b.expr(mapped, inner, s))
	return b.collected(e, "a list comprehension", items, found, c)
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

// reduce adds a reduce whose body has subqueries that use its item: the items become rows, which collect for each item
// what its subqueries say; that list is what is reduced.
func (b *builder) reduce(e *ast.Reduce, c *chain, s site) variable {
	before := len(b.errs.List)
	b.refuseTotal(e)
	if len(b.errs.List) > before {
		return variable{}
	}
	items, inner, in := b.perItem(e.List, e.Variable.Text, c, s)
	b.lift(e.Body, inner, in)
	if len(b.errs.List) > before {
		return variable{}
	}
	from := []int{in.vars[e.Variable.Text].slot} // of an item and its parts
	var to []int                                 // where reduce puts the parts
	ast.Walk(e.Body, func(part ast.Expr) bool {
		v, ok := b.replaced[part]
		if ok {
			from, to = append(from, v.slot), append(to, b.slot())
			b.replaced[part] = variable{to[len(to)-1], v.typ}
		}
		return !ok
	})
	for _, slot := range from {
		b.uses[slot].all = true
	}
	row := func(env *eval.Env) (graph.Value, error) {
		values := make([]graph.Value, len(from))
		for i, slot := range from {
			values[i] = env.Slots[slot]
		}
		return graph.List(values), nil
	}
	found := b.collect(c, inner, e.Body, compiled{row, from, typ{}})
	found.typ = typ{list, items.typ.item}
	list := &ast.ListLiteral{Base: ast.Base{Range: e.List.Position()}}
	b.replaced[list] = b.collected(e.List, "reduce", items, found, c)
	over := *e
	over.List = list
	b.compiler.Parts[&over] = to
	x := b.compile(&over, s)
	reads := slices.DeleteFunc(x.reads, func(slot int) bool { return slices.Contains(to, slot) })
	result := variable{b.slot(), x.typ}
	item := Item{Expr: e, Eval: x.eval, Slot: result.slot, Volatile: b.volatile(&over)}
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{item}}, reads...)
	return result
}

// refuseTotal reports the subqueries in the body of a reduce that use what has been reduced so far.
func (b *builder) refuseTotal(e *ast.Reduce) {
	total := e.Accumulator.Text
	ast.Walk(e.Body, func(part ast.Expr) bool {
		if !isSubquery(part) && !overRows(part) {
			return true
		}
		if mentions(part, total) {
			b.errs.Report(token.Unsupported, part.Position(), "a subquery inside of reduce cannot use %s: it is answered for all items before they are reduced; it may use %s, and what it finds may be combined with %s outside of it",
				ast.FormatName(total), ast.FormatName(e.Variable.Text), ast.FormatName(total))
		}
		return false
	})
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

// overRows reports whether a comprehension, quantifier or reduce has subqueries that use its variables, or those of
// another one in it: these cannot be computed before.
func overRows(e ast.Expr) bool { return dependent(locals(e), bodyOf(e)) }

// dependent reports whether there are subqueries in expressions that use variables of these names, or any that exist
// inside of the expressions only.
func dependent(names []string, exprs []ast.Expr) bool {
	return slices.ContainsFunc(exprs, func(e ast.Expr) bool {
		if e == nil || isSubquery(e) {
			return e != nil && slices.ContainsFunc(names, func(name string) bool { return mentions(e, name) })
		}
		return dependent(slices.Concat(names, locals(e)), ast.Children(e))
	})
}

// locals returns the names of the variables that exist inside of an expression only.
func locals(e ast.Expr) []string {
	switch e := e.(type) {
	case *ast.ListComprehension:
		return []string{e.Variable.Text}
	case *ast.Quantifier:
		return []string{e.Variable.Text}
	case *ast.Reduce:
		return []string{e.Accumulator.Text, e.Variable.Text}
	}
	return nil
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
