package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

type builder struct {
	plan       *Plan
	errs       *token.Errors
	variables  map[string]int // -> position
	parameters map[string]graph.Value
	conditions []ast.Expr
}

func (b *builder) build(q *ast.Query) {
	// Nodes are numbered first, so that relationships follow all of them.
	number := make(map[any]int)
	b.eachPattern(q, func(_ int, pattern *ast.Pattern) {
		for _, n := range pattern.Nodes {
			number[n] = b.node(n)
		}
	})
	b.plan.Nodes = len(b.plan.Positions)
	b.eachPattern(q, func(clause int, pattern *ast.Pattern) {
		for i, r := range pattern.Relationships {
			b.relationship(clause, r, number[pattern.Nodes[i]], number[pattern.Nodes[i+1]])
		}
	})
	if n := len(b.plan.Positions); n > maxPositions {
		b.errs.Add(q.Clauses[0].Position(), "the patterns have %d elements, at most %d are supported", n, maxPositions)
		return
	}
	for _, c := range q.Clauses {
		if m, ok := c.(*ast.Match); ok && m.Where != nil {
			b.conjuncts(m.Where)
		}
	}
	b.plan.compilers[0] = &eval.Compiler{Slot: b.slot, Parameters: b.parameters, Errs: b.errs}
	b.compileConditions()
	b.returns(q.Clauses[len(q.Clauses)-1].(*ast.Return))
	if len(b.errs.List) == 0 {
		b.plan.makeAnchors()
	}
}

func (b *builder) eachPattern(q *ast.Query, visit func(clause int, pattern *ast.Pattern)) {
	for i, c := range q.Clauses {
		if m, ok := c.(*ast.Match); ok {
			for _, pattern := range m.Patterns {
				visit(i, pattern)
			}
		}
	}
}

func (b *builder) slot(name string) (int, bool) {
	slot, ok := b.variables[name]
	return slot, ok
}

func (b *builder) node(n *ast.NodePattern) int {
	at := len(b.plan.Positions)
	if n.Variable != nil {
		if known, ok := b.variables[n.Variable.Text]; ok {
			at = known
		} else {
			b.variables[n.Variable.Text] = at
		}
	}
	if at == len(b.plan.Positions) {
		b.plan.Positions = append(b.plan.Positions, Position{Name: nameOf(n.Variable, at, "(%d)"), Named: n.Variable != nil})
	}
	b.constrain(at, n.Variable, n.Labels, n.Properties, n.Where, n.Range)
	return at
}

func nameOf(variable *ast.Name, at int, format string) string {
	if variable != nil {
		return ast.FormatName(variable.Text)
	}
	return fmt.Sprintf(format, at)
}

func (b *builder) relationship(clause int, r *ast.RelationshipPattern, left, right int) {
	if r.Direction == ast.Left {
		left, right = right, left
	}
	at := len(b.plan.Positions)
	if r.Variable != nil {
		switch known, ok := b.variables[r.Variable.Text]; {
		case ok && known < b.plan.Nodes:
			b.errs.Add(r.Variable.Range, "%s is a node and cannot be a relationship as well", ast.FormatName(r.Variable.Text))
		case ok:
			b.errs.Add(r.Variable.Range, "the relationship %s is used twice; a relationship matches once", ast.FormatName(r.Variable.Text))
		}
		b.variables[r.Variable.Text] = at
	}
	b.plan.Positions = append(b.plan.Positions, Position{
		Name: nameOf(r.Variable, at, "[%d]"), Named: r.Variable != nil, Relationship: true,
		Left: left, Right: right, Undirected: r.Direction == ast.Undirected, Match: clause,
	})
	b.constrain(at, r.Variable, r.Types, r.Properties, r.Where, r.Range)
}

// constrain adds what an element pattern asks for. Inline maps become comparisons.
func (b *builder) constrain(at int, variable *ast.Name, labels ast.LabelExpr, properties, where ast.Expr, r token.Range) {
	if labels != nil {
		b.plan.Positions[at].Labels = append(b.plan.Positions[at].Labels, labels)
	}
	subject := func(r token.Range) ast.Expr {
		name := anonymous(at)
		if variable != nil {
			name = variable.Text
		} else {
			b.variables[name] = at
		}
		return &ast.Variable{Base: ast.Base{Range: r}, Name: name}
	}
	equals := func(key string, value ast.Expr) {
		base := ast.Base{Range: value.Position()}
		property := &ast.Property{Base: base, Subject: subject(base.Range), Name: key}
		b.conditions = append(b.conditions, &ast.Comparison{Base: base, Ops: []string{"="}, Operands: []ast.Expr{property, value}})
	}
	switch properties := properties.(type) {
	case *ast.MapLiteral:
		eval.MapKeys(properties, b.errs)
		for i, k := range properties.Keys {
			equals(k.Text, properties.Values[i])
		}
	case *ast.Parameter:
		v, ok := b.parameters[properties.Name]
		if !ok || v.Kind() != graph.KindMap {
			b.errs.Add(properties.Range, "the parameter $%s is not a map", ast.FormatName(properties.Name))
			return
		}
		for i, k := range v.AsMap().Keys {
			equals(k, &ast.Literal{Base: properties.Base, Value: v.AsMap().Values[i]})
		}
	}
	if where != nil {
		b.conjuncts(where)
	}
}

// anonymous is the name of an element without one; no text can contain it.
func anonymous(at int) string { return fmt.Sprintf("\x00%d", at) }

// conjuncts takes a condition apart at its ANDs.
func (b *builder) conjuncts(e ast.Expr) {
	if and, ok := e.(*ast.Binary); ok && and.Op == "AND" {
		b.conjuncts(and.Left)
		b.conjuncts(and.Right)
		return
	}
	b.conditions = append(b.conditions, e)
}

func (b *builder) compileConditions() {
	for _, e := range b.conditions {
		b.refuseAggregates(e, "WHERE")
		c := Condition{Expr: e, Positions: b.reads(e)}
		c.Eval = b.plan.compilers[0].Compile(e)
		b.plan.Conditions = append(b.plan.Conditions, c)
	}
}

// reads notes what e reads of each element and returns which elements these are.
func (b *builder) reads(e ast.Expr) (positions uint64) {
	use := func(e ast.Expr) *Position {
		if v, ok := e.(*ast.Variable); ok {
			if at, ok := b.variables[v.Name]; ok {
				positions |= 1 << at
				b.plan.Positions[at].Read = true
				return &b.plan.Positions[at]
			}
		}
		return nil
	}
	ast.Walk(e, func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.Property:
			if p := use(e.Subject); p != nil {
				if !slices.Contains(p.Properties, e.Name) {
					p.Properties = append(p.Properties, e.Name)
				}
				return false
			}
		case *ast.LabelTest:
			if p := use(e.Subject); p != nil {
				p.ReadLabels = true
				return false
			}
		case *ast.NullTest: // whether an element is there needs nothing of it
			if use(e.Operand) != nil {
				return false
			}
		case *ast.Call: // count(n) neither
			if strings.EqualFold(e.Name, "count") && len(e.Args) == 1 && use(e.Args[0]) != nil {
				return false
			}
		case *ast.Variable:
			if p := use(e); p != nil {
				p.All, p.ReadLabels = true, true
			}
		}
		return true
	})
	return positions
}
