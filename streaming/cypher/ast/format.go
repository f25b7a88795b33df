package ast

import (
	"strconv"
	"strings"
	"unicode"
)

// Format prints a query: one clause a line, keywords in upper case. Parsing the text gives the same tree, but for ranges
// and the source texts of columns.
func Format(q *Query) string {
	p := printer{separator: "\n"}
	p.query(q)
	return p.String()
}

// FormatExpr prints an expression.
func FormatExpr(e Expr) string {
	p := printer{separator: " "}
	p.expr(e, LevelOr)
	return p.String()
}

// FormatLabels prints a label expression without its colon.
func FormatLabels(l LabelExpr) string {
	var p printer
	p.labels(l, 0)
	return p.String()
}

// FormatPattern prints a pattern.
func FormatPattern(pattern *Pattern) string {
	p := printer{separator: " "}
	p.pattern(pattern)
	return p.String()
}

// FormatName prints the name of a variable, in backticks when it needs them.
func FormatName(name string) string {
	if Reserved(name) {
		return "`" + name + "`"
	}
	return formatKey(name)
}

// formatKey prints a label, type, key, property or parameter, which may be spelt like a keyword.
func formatKey(name string) string {
	if plain(name) {
		return name
	}
	return "`" + strings.ReplaceAll(name, "`", "``") + "`"
}

func plain(name string) bool {
	for i, r := range name {
		if r != '_' && !unicode.IsLetter(r) && (i == 0 || !unicode.IsDigit(r)) {
			return false
		}
	}
	return name != ""
}

type printer struct {
	strings.Builder
	separator string // between clauses
}

func (p *printer) query(q *Query) {
	for i, part := range q.Parts {
		if i > 0 {
			p.WriteString(p.separator + "UNION")
			if q.Unions[i-1].All {
				p.WriteString(" ALL")
			}
			p.WriteString(p.separator)
		}
		for j, c := range part.Clauses {
			if j > 0 {
				p.WriteString(p.separator)
			}
			p.clause(c)
		}
	}
}

func (p *printer) clause(c Clause) {
	switch c := c.(type) {
	case *Match:
		if c.Optional {
			p.WriteString("OPTIONAL ")
		}
		p.WriteString("MATCH ")
		p.patterns(c)
	case *Unwind:
		p.WriteString("UNWIND ")
		p.expr(c.List, LevelOr)
		p.WriteString(" AS " + FormatName(c.Variable.Text))
	case *With:
		p.WriteString("WITH ")
		p.projection(&c.Projection)
		p.where(p.separator, c.Where)
	case *Return:
		p.WriteString("RETURN ")
		p.projection(&c.Projection)
	}
}

func (p *printer) patterns(m *Match) {
	for i, pattern := range m.Patterns {
		p.comma(i)
		p.pattern(pattern)
	}
	p.where(p.separator, m.Where)
}

func (p *printer) where(separator string, condition Expr) {
	p.optional(separator+"WHERE ", condition)
}

// optional prints an expression behind its keyword, if there is one.
func (p *printer) optional(keyword string, e Expr) {
	if e != nil {
		p.WriteString(keyword)
		p.expr(e, LevelOr)
	}
}

func (p *printer) projection(r *Projection) {
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
		p.expr(item.Expr, LevelOr)
		if item.Alias != nil {
			p.WriteString(" AS " + FormatName(item.Alias.Text))
		}
	}
	for i, s := range r.OrderBy {
		if i == 0 {
			p.WriteString(p.separator + "ORDER BY ")
		}
		p.comma(i)
		p.expr(s.Expr, LevelOr)
		if s.Descending {
			p.WriteString(" DESC")
		}
	}
	p.optional(p.separator+"SKIP ", r.Skip)
	p.optional(p.separator+"LIMIT ", r.Limit)
}

func (p *printer) pattern(pattern *Pattern) {
	if pattern.Variable != nil {
		p.WriteString(FormatName(pattern.Variable.Text) + " = ")
	}
	for i, n := range pattern.Nodes {
		if i > 0 {
			p.relationship(pattern.Relationships[i-1])
		}
		p.WriteByte('(')
		p.element(n.Variable, n.Labels, nil, n.Properties, n.Where)
		p.WriteByte(')')
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
	if r.Variable != nil || r.Types != nil || r.Length != nil || r.Properties != nil || r.Where != nil {
		p.WriteByte('[')
		p.element(r.Variable, r.Types, r.Length, r.Properties, r.Where)
		p.WriteByte(']')
	}
	p.WriteString(right)
}

func (p *printer) element(variable *Name, labels LabelExpr, length *Length, properties, where Expr) {
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
	if length != nil {
		p.length(length)
	}
	if properties != nil {
		space()
		p.expr(properties, LevelAtom)
	}
	if where != nil {
		space()
		p.where("", where)
	}
}

func (p *printer) length(l *Length) {
	p.WriteByte('*')
	switch {
	case l.Max < 0 && l.Min == 1:
	case l.Max < 0:
		p.WriteString(strconv.FormatInt(l.Min, 10) + "..")
	case l.Max == l.Min:
		p.WriteString(strconv.FormatInt(l.Min, 10))
	default:
		p.WriteString(strconv.FormatInt(l.Min, 10) + ".." + strconv.FormatInt(l.Max, 10))
	}
}

// labels prints with the level of the surrounding operator: 0 none or "|", 1 "&", 2 "!".
func (p *printer) labels(l LabelExpr, level int) {
	switch l := l.(type) {
	case *LabelName:
		p.WriteString(formatKey(l.Name.Text))
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

func (p *printer) comma(i int) {
	if i > 0 {
		p.WriteString(", ")
	}
}
