package plan

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
)

// Explain describes the plan: what is stored, how matches are found from each position, and what becomes of them.
func (p *Plan) Explain() string {
	var b strings.Builder
	fmt.Fprintf(&b, "columns: %s\n", strings.Join(p.Columns, ", "))
	for i := range p.Positions {
		p.explainPosition(&b, i)
	}
	for i := range p.Anchors {
		p.explainAnchor(&b, &p.Anchors[i])
	}
	if p.Scanned != 0 {
		b.WriteString("warning: parts of the pattern are not connected; their matches are multiplied\n")
	}
	if p.Grouped {
		fmt.Fprintf(&b, "aggregate by (%s): %s\n", exprs(p.KeyExprs), p.calls())
	}
	if p.Distinct {
		b.WriteString("distinct\n")
	}
	return b.String()
}

func (p *Plan) explainPosition(b *strings.Builder, at int) {
	position := &p.Positions[at]
	what, shape := "node", position.Name
	if position.Relationship {
		what = "relationship"
		arrow := "->"
		if position.Undirected {
			arrow = "-"
		}
		shape = fmt.Sprintf("%s -[%s]%s %s", p.Positions[position.Left].Name, strings.Trim(position.Name, "[]"), arrow, p.Positions[position.Right].Name)
	}
	fmt.Fprintf(b, "%s %s", what, shape)
	for _, l := range position.Labels {
		b.WriteString(" :" + ast.FormatLabels(l))
	}
	switch {
	case position.All:
		b.WriteString(" keeps all properties")
	case len(position.Properties) > 0:
		fmt.Fprintf(b, " keeps %s", strings.Join(position.Properties, ", "))
	}
	b.WriteByte('\n')
}

func (p *Plan) explainAnchor(b *strings.Builder, a *Anchor) {
	fmt.Fprintf(b, "on change of %s", p.Positions[a.Position].Name)
	p.explainConditions(b, a.Conditions)
	for i := range a.Steps {
		s := &a.Steps[i]
		switch s.Kind {
		case Expand:
			fmt.Fprintf(b, "; from %s along %s to %s", p.Positions[s.From].Name, p.Positions[s.Relationship].Name, p.Positions[s.To].Name)
		case Ends:
			r := &p.Positions[s.Relationship]
			fmt.Fprintf(b, "; its ends %s and %s", p.Positions[r.Left].Name, p.Positions[r.Right].Name)
		case Scan:
			fmt.Fprintf(b, "; every %s", p.Positions[s.To].Name)
		}
		p.explainConditions(b, s.Conditions)
	}
	b.WriteByte('\n')
}

func (p *Plan) explainConditions(b *strings.Builder, conditions []int) {
	for i, c := range conditions {
		if i == 0 {
			b.WriteString(" where ")
		} else {
			b.WriteString(" and ")
		}
		b.WriteString(p.text(p.Conditions[c]))
	}
}

// text prints a condition; elements without a variable show their made-up name.
func (p *Plan) text(c Condition) string {
	text := ast.FormatExpr(c.Expr)
	for rest := c.Positions; rest != 0; rest &= rest - 1 {
		at := bits.TrailingZeros64(rest)
		text = strings.ReplaceAll(text, ast.FormatName(anonymous(at)), p.Positions[at].Name)
	}
	return text
}

func exprs(list []ast.Expr) string {
	var parts []string
	for _, e := range list {
		parts = append(parts, ast.FormatExpr(e))
	}
	return strings.Join(parts, ", ")
}

func (p *Plan) calls() string {
	var list []ast.Expr
	for i := range p.Aggregates {
		list = append(list, p.Aggregates[i].Expr)
	}
	return exprs(list)
}
