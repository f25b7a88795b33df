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
	case *ast.ListComprehension, *ast.Quantifier, *ast.Reduce:
		b.liftLoop(e, c, plain)
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

// liftLoop lifts from a list comprehension, a quantifier or a reduce.
func (b *builder) liftLoop(e ast.Expr, c *chain, s site) {
	l := loopOf(e)
	if r, ok := e.(*ast.Reduce); ok {
		b.lift(r.Init, c, s)
		if b.refuseTotal(r) {
			return
		}
	}
	b.lift(*l.list, c, s)
	if overRows(e) {
		b.replaced[e] = b.loop(e, c, s)
		return
	}
	b.liftBody(e, c, s)
}

func (b *builder) liftBody(e ast.Expr, c *chain, s site) {
	condition := s
	condition.predicate = true
	switch e := e.(type) {
	case *ast.ListComprehension:
		b.lift(e.Where, c, condition)
		b.lift(e.Map, c, s)
	case *ast.Quantifier:
		b.lift(e.Where, c, condition)
	case *ast.Reduce:
		b.lift(e.Body, c, s)
	}
}

// loop adds a list comprehension, a quantifier or a reduce whose body has subqueries that use its item. The items become
// rows, for which the subqueries are answered; each row gives a list of the item and the answers, which are the parts of
// the body. The list of these is what the expression is then evaluated over, as any other.
func (b *builder) loop(e ast.Expr, c *chain, s site) variable {
	l := loopOf(e)
	items := b.expr(*l.list, c, s)
	inner, in := b.perItem(*l.list, l.item, items, c, s)
	before := len(b.errs.List)
	b.liftBody(e, inner, in)
	if len(b.errs.List) > before {
		return variable{}
	}
	row := &ast.ListLiteral{Items: []ast.Expr{&ast.Variable{Name: l.item}}} // of the item and the parts
	from := []int{in.vars[l.item].slot}
	var to []int // where the parts are while the body is evaluated
	for _, body := range bodyOf(e) {
		ast.Walk(body, func(part ast.Expr) bool {
			v, ok := b.replaced[part]
			if ok {
				row.Items, from, to = append(row.Items, part), append(from, v.slot), append(to, b.slot())
				b.replaced[part] = variable{to[len(to)-1], v.typ}
			}
			return !ok
		})
	}
	list := &ast.ListComprehension{Base: ast.Base{Range: (*l.list).Position()}, Variable: ast.Name{Text: l.item}, List: *l.list, Map: row}
	found := b.collect(c, inner, row, b.listOf(from))
	b.replaced[list] = b.ifList(list, items, found.slot, c)
	*l.list = list
	b.compiler.Parts[l.expr] = to
	x := b.compile(l.expr, s)
	reads := slices.DeleteFunc(x.reads, func(slot int) bool { return slices.Contains(to, slot) })
	result := variable{b.slot(), x.typ}
	item := Item{Expr: e, Eval: x.eval, Slot: result.slot, Volatile: b.volatile(l.expr)}
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{item}}, reads...)
	return result
}

// loopExpr is a copy of a list comprehension, a quantifier or a reduce, of which the list may be exchanged.
type loopExpr struct {
	expr ast.Expr
	list *ast.Expr
	item string // name of the variable
}

func loopOf(e ast.Expr) loopExpr {
	switch e := e.(type) {
	case *ast.ListComprehension:
		same := *e
		return loopExpr{&same, &same.List, e.Variable.Text}
	case *ast.Quantifier:
		same := *e
		return loopExpr{&same, &same.List, e.Variable.Text}
	case *ast.Reduce:
		same := *e
		return loopExpr{&same, &same.List, e.Variable.Text}
	}
	panic("plan: no loop")
}

// perItem starts a chain with a row for each item of a list, for which a variable stands.
func (b *builder) perItem(e ast.Expr, name string, items compiled, c *chain, s site) (*chain, site) {
	inner := b.argument(c, s.vars)
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
	return inner, s
}

// listOf returns a list of the values in slots.
func (b *builder) listOf(slots []int) compiled {
	for _, slot := range slots {
		b.uses[slot].all = true
	}
	row := func(env *eval.Env) (graph.Value, error) {
		values := make([]graph.Value, len(slots))
		for i, slot := range slots {
			values[i] = env.Slots[slot]
		}
		return graph.List(values), nil
	}
	return compiled{row, slots, typ{kind: list}}
}

// ifList adds what has been made of the items of a list, or what is there when it is no list.
func (b *builder) ifList(e ast.Expr, items compiled, made int, c *chain) variable {
	v := variable{b.slot(), items.typ}
	choose := func(env *eval.Env) (graph.Value, error) {
		v, err := items.eval(env)
		if err != nil || v.Kind() != graph.KindList {
			return v, err
		}
		return env.Slots[made], nil
	}
	reads := append(slices.Clone(items.reads), made)
	c.at = b.add(&Project{Base: Base{Input: c.at}, Items: []Item{{Expr: e, Eval: choose, Slot: v.slot}}}, reads...)
	return v
}

// refuseTotal reports the subqueries in the body of a reduce that use what has been reduced so far, if there are any.
func (b *builder) refuseTotal(e *ast.Reduce) (refused bool) {
	total := e.Accumulator.Text
	ast.Walk(e.Body, func(part ast.Expr) bool {
		if !isSubquery(part) && !overRows(part) {
			return true
		}
		if mentions(part, total) {
			b.errs.Report(token.Unsupported, part.Position(), "a subquery inside of reduce cannot use %s: it is answered for all items before they are reduced; it may use %s, and what it finds may be combined with %s outside of it",
				ast.FormatName(total), ast.FormatName(e.Variable.Text), ast.FormatName(total))
			refused = true
		}
		return false
	})
	return refused
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
