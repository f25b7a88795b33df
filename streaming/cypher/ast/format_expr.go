package ast

import (
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// expr prints an expression where one of at least this level may stand.
func (p *printer) expr(e Expr, level int) {
	own := levelOf(e)
	if own < level {
		p.WriteByte('(')
		defer p.WriteByte(')')
	}
	switch e := e.(type) {
	case *Literal:
		p.Write(graph.AppendText(nil, e.Value))
	case *Variable:
		p.WriteString(FormatName(e.Name))
	case *Parameter:
		p.WriteString("$" + formatKey(e.Name))
	case *Property:
		p.expr(e.Subject, LevelPostfix)
		p.WriteString("." + formatKey(e.Name))
	case *Index:
		p.expr(e.Subject, LevelPostfix)
		p.WriteByte('[')
		p.expr(e.Index, LevelOr)
		p.WriteByte(']')
	case *Slice:
		p.expr(e.Subject, LevelPostfix)
		p.WriteByte('[')
		p.optional("", e.From)
		p.optional("..", e.To)
		if e.To == nil {
			p.WriteString("..")
		}
		p.WriteByte(']')
	case *LabelTest:
		p.labelTest(e)
	case *Unary:
		p.unary(e, own)
	case *Binary:
		p.expr(e.Left, own)
		p.WriteString(" " + e.Op + " ")
		p.expr(e.Right, own+1)
	case *Comparison:
		for i, operand := range e.Operands {
			if i > 0 {
				p.WriteString(" " + e.Ops[i-1] + " ")
			}
			p.expr(operand, LevelPredicate)
		}
	case *NullTest:
		p.expr(e.Operand, LevelPredicate)
		if e.Not {
			p.WriteString(" IS NOT NULL")
		} else {
			p.WriteString(" IS NULL")
		}
	default:
		p.enclosed(e)
	}
}

// enclosed prints what ends with a bracket or keyword of its own and so never needs parentheses.
func (p *printer) enclosed(e Expr) {
	switch e := e.(type) {
	case *ListLiteral:
		p.list(e)
	case *MapLiteral:
		p.WriteByte('{')
		for i, k := range e.Keys {
			p.comma(i)
			p.WriteString(formatKey(k.Text) + ": ")
			p.expr(e.Values[i], LevelOr)
		}
		p.WriteByte('}')
	case *Call:
		p.WriteString(e.Name + "(")
		if e.Distinct {
			p.WriteString("DISTINCT ")
		}
		if e.Star {
			p.WriteByte('*')
		}
		p.exprs(e.Args)
		p.WriteByte(')')
	case *Case:
		p.cases(e)
	case *ListComprehension:
		p.WriteString("[" + FormatName(e.Variable.Text) + " IN ")
		p.expr(e.List, LevelOr)
		p.where(" ", e.Where)
		p.optional(" | ", e.Map)
		p.WriteByte(']')
	case *PatternComprehension:
		p.WriteByte('[')
		p.pattern(e.Pattern)
		p.where(" ", e.Where)
		p.optional(" | ", e.Map)
		p.WriteByte(']')
	case *Quantifier:
		p.WriteString(e.Kind + "(" + FormatName(e.Variable.Text) + " IN ")
		p.expr(e.List, LevelOr)
		p.where(" ", e.Where)
		p.WriteByte(')')
	case *Reduce:
		p.WriteString("reduce(" + FormatName(e.Accumulator.Text) + " = ")
		p.expr(e.Init, LevelOr)
		p.WriteString(", " + FormatName(e.Variable.Text) + " IN ")
		p.expr(e.List, LevelOr)
		p.optional(" | ", e.Body)
		p.WriteByte(')')
	case *MapProjection:
		p.mapProjection(e)
	case *PatternPredicate:
		p.pattern(e.Pattern)
	case *Subquery:
		p.subquery(e)
	}
}

func (p *printer) exprs(list []Expr) {
	for i, e := range list {
		p.comma(i)
		p.expr(e, LevelOr)
	}
}

// unary puts a number behind a minus in parentheses: without them it would be a negative literal.
func (p *printer) unary(e *Unary, level int) {
	p.WriteString(e.Op)
	if e.Op == "NOT" {
		p.WriteByte(' ')
	}
	if l, ok := e.Operand.(*Literal); ok && e.Op == "-" && l.Value.IsNumber() && !l.negative() {
		level = LevelAtom + 1
	}
	p.expr(e.Operand, level)
}

// labelTest puts alternatives in parentheses: in a comprehension their "|" would end the condition.
func (p *printer) labelTest(e *LabelTest) {
	p.expr(e.Subject, LevelPostfix)
	p.WriteByte(':')
	p.labels(e.Labels, 1)
}

// list prints a literal. A single item that begins with "variable IN" needs parentheses not to make it a comprehension.
func (p *printer) list(l *ListLiteral) {
	p.WriteByte('[')
	if len(l.Items) == 1 && beginsLikeComprehension(l.Items[0]) {
		p.expr(l.Items[0], LevelAtom+1)
	} else {
		p.exprs(l.Items)
	}
	p.WriteByte(']')
}

func beginsLikeComprehension(e Expr) bool {
	for {
		switch left := e.(type) {
		case *Binary:
			if _, ok := left.Left.(*Variable); ok && left.Op == "IN" {
				return true
			}
			e = left.Left
		case *Comparison:
			e = left.Operands[0]
		case *NullTest:
			e = left.Operand
		default:
			return false
		}
	}
}

func (p *printer) cases(c *Case) {
	p.WriteString("CASE")
	p.optional(" ", c.Subject)
	for _, w := range c.Whens {
		p.optional(" WHEN ", w.Condition)
		p.optional(" THEN ", w.Then)
	}
	p.optional(" ELSE ", c.Else)
	p.WriteString(" END")
}

func (p *printer) mapProjection(e *MapProjection) {
	subject := FormatExpr(e.Subject)
	if strings.EqualFold(subject, "count") || strings.EqualFold(subject, "collect") {
		subject = "`" + subject + "`" // not to make it a subquery
	}
	p.WriteString(subject + " {")
	for i, item := range e.Items {
		p.comma(i)
		if item.All {
			p.WriteString(".*")
			continue
		}
		v, ok := item.Value.(*Variable)
		switch {
		case item.Value == nil:
			p.WriteString("." + formatKey(item.Key.Text))
		case ok && v.Name == item.Key.Text:
			p.WriteString(FormatName(v.Name))
		default:
			p.optional(formatKey(item.Key.Text)+": ", item.Value)
		}
	}
	p.WriteByte('}')
}

// subquery prints on one line.
func (p *printer) subquery(e *Subquery) {
	separator := p.separator
	p.separator = " "
	p.WriteString(strings.ToUpper(e.Kind) + " { ")
	if e.Bare {
		p.patterns(e.Query.Parts[0].Clauses[0].(*Match))
	} else {
		p.query(e.Query)
	}
	p.WriteString(" }")
	p.separator = separator
}
