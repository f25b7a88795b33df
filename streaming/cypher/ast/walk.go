package ast

// Walk calls visit for e and, as long as visit returns true, for its operands.
func Walk(e Expr, visit func(Expr) bool) {
	if e == nil || !visit(e) {
		return
	}
	for _, child := range Children(e) {
		Walk(child, visit)
	}
}

// Children returns the operands of an expression, in the order of the text.
func Children(e Expr) []Expr {
	switch e := e.(type) {
	case *Property:
		return []Expr{e.Subject}
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
	}
	return nil
}

// WalkQuery walks all expressions of a query in the order of the text.
func WalkQuery(q *Query, visit func(Expr) bool) {
	for _, c := range q.Clauses {
		switch c := c.(type) {
		case *Match:
			for _, p := range c.Patterns {
				for i, n := range p.Nodes {
					if i > 0 {
						r := p.Relationships[i-1]
						Walk(r.Properties, visit)
						Walk(r.Where, visit)
					}
					Walk(n.Properties, visit)
					Walk(n.Where, visit)
				}
			}
			Walk(c.Where, visit)
		case *Return:
			for _, item := range c.Items {
				Walk(item.Expr, visit)
			}
		}
	}
}
