package ast

// Walk calls visit for e and, as long as visit returns true, for its Children, in the order of the text. It enters the
// patterns of comprehensions and predicates but no subquery: visit sees *Subquery and may call WalkQuery with its Query.
//
// Some expressions bind variables, which hide those of the same name around them:
//
//   - *ListComprehension and *Quantifier bind Variable in Where and Map, not in List;
//   - *Reduce binds Accumulator and Variable in Body, not in Init and List;
//   - *PatternComprehension binds those variables of its pattern that are not bound around it, in all that it consists of;
//     the others are the same as around it;
//   - *Subquery likewise, in its clauses; *PatternPredicate binds nothing.
func Walk(e Expr, visit func(Expr) bool) {
	if e == nil || !visit(e) {
		return
	}
	for _, child := range Children(e) {
		Walk(child, visit)
	}
}

// Children returns the expressions directly below an expression, in the order of the text; for patterns, their
// properties and conditions. A *Subquery has none: what is in its query has clauses, and scopes, of its own.
func Children(e Expr) []Expr {
	switch e := e.(type) {
	case *Property:
		return []Expr{e.Subject}
	case *Index:
		return []Expr{e.Subject, e.Index}
	case *Slice:
		return present(e.Subject, e.From, e.To)
	case *LabelTest:
		return []Expr{e.Subject}
	case *Unary:
		return []Expr{e.Operand}
	case *Binary:
		return []Expr{e.Left, e.Right}
	case *Comparison:
		return e.Operands
	case *NullTest:
		return []Expr{e.Operand}
	case *ListLiteral:
		return e.Items
	case *MapLiteral:
		return e.Values
	case *Call:
		return e.Args
	case *Case:
		children := present(e.Subject)
		for _, w := range e.Whens {
			children = append(children, w.Condition, w.Then)
		}
		return append(children, present(e.Else)...)
	case *ListComprehension:
		return present(e.List, e.Where, e.Map)
	case *Quantifier:
		return present(e.List, e.Where)
	case *Reduce:
		return []Expr{e.Init, e.List, e.Body}
	case *MapProjection:
		children := []Expr{e.Subject}
		for _, item := range e.Items {
			children = append(children, present(item.Value)...)
		}
		return children
	case *PatternComprehension:
		return append(patternExprs(e.Pattern), present(e.Where, e.Map)...)
	case *PatternPredicate:
		return patternExprs(e.Pattern)
	}
	return nil
}

func present(exprs ...Expr) []Expr {
	var list []Expr
	for _, e := range exprs {
		if e != nil {
			list = append(list, e)
		}
	}
	return list
}

// patternExprs returns the properties and conditions in a pattern, in the order of the text.
func patternExprs(p *Pattern) []Expr {
	var list []Expr
	for i, n := range p.Nodes {
		list = append(list, present(n.Properties, n.Where)...)
		if i < len(p.Relationships) {
			r := p.Relationships[i]
			list = append(list, present(r.Properties, r.Where)...)
		}
	}
	return list
}

// WalkQuery walks all expressions of a query in the order of the text, as Walk does: those of subqueries are left out.
func WalkQuery(q *Query, visit func(Expr) bool) {
	for _, part := range q.Parts {
		for _, c := range part.Clauses {
			for _, e := range clauseExprs(c) {
				Walk(e, visit)
			}
		}
	}
}

// clauseExprs returns the expressions that stand directly in a clause, in the order of the text.
func clauseExprs(c Clause) []Expr {
	switch c := c.(type) {
	case *Match:
		var list []Expr
		for _, p := range c.Patterns {
			list = append(list, patternExprs(p)...)
		}
		return append(list, present(c.Where)...)
	case *Unwind:
		return []Expr{c.List}
	case *With:
		return append(c.exprs(), present(c.Where)...)
	case *Return:
		return c.exprs()
	}
	return nil
}

func (p *Projection) exprs() []Expr {
	var list []Expr
	for _, item := range p.Items {
		list = append(list, item.Expr)
	}
	for _, s := range p.OrderBy {
		list = append(list, s.Expr)
	}
	return append(list, present(p.Skip, p.Limit)...)
}
