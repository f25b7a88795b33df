package parser

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// bracketed reads what begins with "[": "[x IN" without a comma is a list comprehension, a pattern and "|" are a pattern
// comprehension, everything else is a list.
func (p *parser) bracketed() ast.Expr {
	start := p.peek().Range
	inside := p.groups[p.at]
	inList := p.open()
	p.at++
	var e ast.Expr
	switch {
	case !inside.comma && p.variableAt(p.at) && p.wordAt(p.at+1, "IN"):
		e = p.listComprehension(start)
	case inside.bar && (p.startsPattern(p.at) || p.startsNamedPath() && p.startsPattern(p.at+2)):
		e = p.patternComprehension(start)
	default:
		e = p.listLiteral(start)
	}
	p.close(inList)
	return e
}

func (p *parser) listLiteral(start token.Range) ast.Expr {
	l := &ast.ListLiteral{}
	if !p.symbol("]") {
		l.Items = append(l.Items, p.value())
		for p.acceptSymbol(",") {
			l.Items = append(l.Items, p.value())
		}
	}
	p.expectSymbol("]", "to end the list")
	l.Base = p.base(start)
	return l
}

func (p *parser) listComprehension(start token.Range) ast.Expr {
	l := &ast.ListComprehension{}
	p.inList = true
	l.Variable, l.List = p.each()
	l.Where = p.where()
	if p.acceptSymbol("|") {
		l.Map = p.value()
	}
	p.expectSymbol("]", "to end the list comprehension")
	l.Base = p.base(start)
	return l
}

func (p *parser) patternComprehension(start token.Range) ast.Expr {
	c := &ast.PatternComprehension{Pattern: p.pattern()}
	p.inList = true
	c.Where = p.where()
	p.expectSymbol("|", "and what to make of each match")
	c.Map = p.value()
	p.expectSymbol("]", "to end the pattern comprehension")
	c.Base = p.base(start)
	return c
}

// each reads "variable IN list".
func (p *parser) each() (ast.Name, ast.Expr) {
	name := p.variable("a variable and IN")
	p.expect("IN", "and a list")
	return name, p.value()
}

func (p *parser) quantifier(kind string) ast.Expr {
	start := p.next().Range
	inList := p.open()
	p.at++
	q := &ast.Quantifier{Kind: kind}
	q.Variable, q.List = p.each()
	q.Where = p.where()
	p.expectSymbol(")", "to end "+kind)
	p.close(inList)
	q.Base = p.base(start)
	return q
}

func (p *parser) reduce() ast.Expr {
	start := p.next().Range
	inList := p.open()
	p.at++
	r := &ast.Reduce{Accumulator: p.variable("the variable of the result, as in reduce(sum = 0, x IN list | sum + x)")}
	p.expectSymbol("=", "and the first value")
	r.Init = p.value()
	p.expectSymbol(",", "and the list")
	p.inList = true
	r.Variable, r.List = p.each()
	p.expectSymbol("|", "and the next value")
	r.Body = p.value()
	p.expectSymbol(")", "to end reduce")
	p.close(inList)
	r.Base = p.base(start)
	return r
}

func (p *parser) subquery(kind string) ast.Expr {
	start := p.next().Range
	inList := p.open()
	p.nested++
	p.at++
	s := &ast.Subquery{Kind: kind}
	if p.symbol("(") || p.startsNamedPath() {
		s.Bare = true
		s.Query = p.bare()
	} else {
		s.Query = p.query(kind)
	}
	p.expectSymbol("}", "to end "+strings.ToUpper(kind))
	p.nested--
	p.close(inList)
	s.Base = p.base(start)
	if s.Bare && kind == "collect" {
		p.errs.Report(token.InvalidClauseComposition, s.Range, "COLLECT { } needs a query with RETURN")
	}
	return s
}

// bare reads the patterns and the condition of a subquery that has no clauses.
func (p *parser) bare() *ast.Query {
	p.count()
	m := &ast.Match{}
	start := p.peek().Range
	p.patterns(m)
	m.Range = p.since(start)
	return &ast.Query{Text: p.text, Parts: []*ast.SingleQuery{{Range: m.Range, Clauses: []ast.Clause{m}}}}
}
