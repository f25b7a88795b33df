package ast

import (
	"strings"
	"unicode"

	"github.com/perdure/perdure/streaming/graph"
)

// Precedence levels, lowest first; an operand of a lower level than its operator wants is put in parentheses.
const (
	levelOr = iota
	levelXor
	levelAnd
	levelNot
	levelComparison
	levelPredicate
	levelAdd
	levelMultiply
	levelPower
	levelUnary
	levelPostfix
	levelAtom
)

var binaryLevels = map[string]int{
	"OR": levelOr, "XOR": levelXor, "AND": levelAnd, "+": levelAdd, "-": levelAdd, "*": levelMultiply,
	"/": levelMultiply, "%": levelMultiply, "^": levelPower,
	"IN": levelPredicate, "STARTS WITH": levelPredicate, "ENDS WITH": levelPredicate, "CONTAINS": levelPredicate,
}

// Format prints a query: one clause a line, keywords in upper case. Parsing the text gives the same tree.
func Format(q *Query) string {
	var p printer
	for i, c := range q.Parts[0].Clauses {
		if i > 0 {
			p.WriteByte('\n')
		}
		switch c := c.(type) {
		case *Match:
			p.match(c)
		case *Return:
			p.returns(c)
		}
	}
	return p.String()
}

// FormatExpr prints an expression.
func FormatExpr(e Expr) string {
	var p printer
	p.expr(e, levelOr)
	return p.String()
}

// FormatLabels prints a label expression without its colon.
func FormatLabels(l LabelExpr) string {
	var p printer
	p.labels(l, 0)
	return p.String()
}

// FormatName prints a name, in backticks when it needs them.
func FormatName(name string) string {
	if plain(name) {
		return name
	}
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

func plain(name string) bool {
	for i, r := range name {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) || r == unicode.ReplacementChar {
			return false
		}
	}
	return name != "" && !Reserved(name)
}

// Reserved reports whether a word cannot be a variable's name without backticks.
func Reserved(word string) bool {
	switch strings.ToUpper(word) {
	case "AND", "AS", "ASC", "ASCENDING", "BY", "CALL", "CASE", "CONTAINS", "CREATE", "DELETE", "DESC", "DESCENDING",
		"DETACH", "DISTINCT", "ELSE", "END", "ENDS", "EXISTS", "FALSE", "IN", "IS", "LIMIT", "MATCH", "MERGE", "NOT", "NULL",
		"ON", "OPTIONAL", "OR", "ORDER", "REMOVE", "RETURN", "SET", "SKIP", "STARTS", "THEN", "TRUE", "UNION", "UNWIND",
		"WHEN", "WHERE", "WITH", "XOR", "YIELD":
		return true
	}
	return false
}

type printer struct{ strings.Builder }

func (p *printer) match(m *Match) {
	p.WriteString("MATCH ")
	for i, pattern := range m.Patterns {
		p.comma(i)
		for j, n := range pattern.Nodes {
			if j > 0 {
				p.relationship(pattern.Relationships[j-1])
			}
			p.WriteByte('(')
			p.element(n.Variable, n.Labels, n.Properties, n.Where)
			p.WriteByte(')')
		}
	}
	if m.Where != nil {
		p.WriteString("\nWHERE ")
		p.expr(m.Where, levelOr)
	}
}

func (p *printer) relationship(r *RelationshipPattern) {
	left, right := "-", "-"
	switch r.Direction {
	case Left:
		left = "<-"
	case Right:
		right = "->"
	}
	p.WriteString(left)
	if r.Variable != nil || r.Types != nil || r.Properties != nil || r.Where != nil {
		p.WriteByte('[')
		p.element(r.Variable, r.Types, r.Properties, r.Where)
		p.WriteByte(']')
	}
	p.WriteString(right)
}

func (p *printer) element(variable *Name, labels LabelExpr, properties, where Expr) {
	start := p.Len()
	space := func() {
		if p.Len() > start {
			p.WriteByte(' ')
		}
	}
	if variable != nil {
		p.WriteString(FormatName(variable.Text))
	}
	if labels != nil {
		p.WriteByte(':')
		p.labels(labels, 0)
	}
	if properties != nil {
		space()
		p.expr(properties, levelAtom)
	}
	if where != nil {
		space()
		p.WriteString("WHERE ")
		p.expr(where, levelOr)
	}
}

// labels prints with the level of the surrounding operator: 0 none or "|", 1 "&", 2 "!".
func (p *printer) labels(l LabelExpr, level int) {
	switch l := l.(type) {
	case *LabelName:
		p.WriteString(FormatName(l.Name.Text))
	case *LabelAny:
		p.WriteByte('%')
	case *LabelNot:
		p.WriteByte('!')
		p.labels(l.Operand, 2)
	case *LabelBinary:
		own, op := 1, "&"
		if l.Or {
			own, op = 0, "|"
		}
		if own < level {
			p.WriteByte('(')
			defer p.WriteByte(')')
		}
		p.labels(l.Left, own)
		p.WriteString(op)
		p.labels(l.Right, own+1) // operators group to the left
	}
}

func (p *printer) returns(r *Return) {
	p.WriteString("RETURN ")
	if r.Distinct {
		p.WriteString("DISTINCT ")
	}
	if r.Star {
		p.WriteByte('*')
	}
	for i, item := range r.Items {
		if r.Star {
			i++
		}
		p.comma(i)
		p.expr(item.Expr, levelOr)
		if item.Alias != nil {
			p.WriteString(" AS ")
			p.WriteString(FormatName(item.Alias.Text))
		}
	}
}

func (p *printer) comma(i int) {
	if i > 0 {
		p.WriteString(", ")
	}
}

func levelOf(e Expr) int {
	switch e := e.(type) {
	case *Binary:
		return binaryLevels[e.Op]
	case *Comparison:
		return levelComparison
	case *NullTest:
		return levelPredicate
	case *Unary:
		if e.Op == "NOT" {
			return levelNot
		}
		return levelUnary
	case *Property, *LabelTest:
		return levelPostfix
	case *Literal:
		if e.Value.IsNumber() && strings.HasPrefix(e.Value.String(), "-") {
			return levelUnary
		}
	}
	return levelAtom
}

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
		p.WriteString("$" + FormatName(e.Name))
	case *Property:
		p.expr(e.Subject, levelPostfix)
		p.WriteString("." + FormatName(e.Name))
	case *LabelTest:
		p.expr(e.Subject, levelPostfix)
		p.WriteByte(':')
		p.labels(e.Labels, 0)
	case *Unary:
		p.WriteString(e.Op)
		if e.Op == "NOT" {
			p.WriteByte(' ')
		}
		p.expr(e.Operand, own)
	case *Binary:
		p.expr(e.Left, own)
		p.WriteString(" " + e.Op + " ")
		p.expr(e.Right, own+1)
	case *Comparison:
		for i, operand := range e.Operands {
			if i > 0 {
				p.WriteString(" " + e.Ops[i-1] + " ")
			}
			p.expr(operand, levelPredicate)
		}
	case *NullTest:
		p.expr(e.Operand, levelPredicate)
		if e.Not {
			p.WriteString(" IS NOT NULL")
		} else {
			p.WriteString(" IS NULL")
		}
	case *ListLiteral:
		p.WriteByte('[')
		p.list(e.Items)
		p.WriteByte(']')
	case *MapLiteral:
		p.WriteByte('{')
		for i, k := range e.Keys {
			p.comma(i)
			p.WriteString(FormatName(k.Text) + ": ")
			p.expr(e.Values[i], levelOr)
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
		p.list(e.Args)
		p.WriteByte(')')
	}
}

func (p *printer) list(items []Expr) {
	for i, item := range items {
		p.comma(i)
		p.expr(item, levelOr)
	}
}
