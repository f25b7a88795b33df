package parser

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

func (p *parser) pattern() *ast.Pattern {
	start := p.peek().Range
	if p.startsVariable() {
		switch {
		case p.peekAt(1).Kind == token.Symbol && p.peekAt(1).Text == "=":
			p.fail(start.Through(p.peekAt(1).Range), "named paths are not supported yet")
		case p.words("shortestPath"), p.words("allShortestPaths"):
			p.fail(start, "%s is not supported", p.peek().Text)
		}
	}
	pattern := &ast.Pattern{Nodes: []*ast.NodePattern{p.node()}}
	for p.symbol("-") || p.symbol("<") {
		pattern.Relationships = append(pattern.Relationships, p.relationship())
		pattern.Nodes = append(pattern.Nodes, p.node())
	}
	return pattern
}

func (p *parser) node() *ast.NodePattern {
	n := &ast.NodePattern{}
	start := p.peek().Range
	p.expectSymbol("(", "to start a node pattern")
	n.Variable, n.Labels, n.Properties, n.Where = p.element("the node pattern", ")")
	n.Range = start.Through(p.last())
	return n
}

func (p *parser) relationship() *ast.RelationshipPattern {
	r := &ast.RelationshipPattern{}
	start := p.peek().Range
	left := p.acceptSymbol("<")
	p.expectSymbol("-", "in a relationship pattern")
	if p.acceptSymbol("[") {
		r.Variable, r.Types, r.Properties, r.Where = p.element("the relationship pattern", "]")
	}
	p.expectSymbol("-", "to end a relationship pattern")
	right := p.acceptSymbol(">")
	switch {
	case left && !right:
		r.Direction = ast.Left
	case right && !left:
		r.Direction = ast.Right
	}
	r.Range = start.Through(p.last())
	return r
}

// element reads what stands between the brackets of a node or relationship pattern, and the closing one.
func (p *parser) element(what, end string) (variable *ast.Name, labels ast.LabelExpr, properties, where ast.Expr) {
	if p.startsVariable() {
		variable = p.variable("a variable")
	}
	if p.acceptSymbol(":") || p.accept("IS") {
		labels = p.labels()
	}
	if end == "]" && p.symbol("*") {
		p.fail(p.peek().Range, "variable-length relationships are not supported yet")
	}
	switch {
	case p.symbol("{"):
		properties = p.mapLiteral()
	case p.peek().Kind == token.Parameter:
		t := p.next()
		properties = &ast.Parameter{Base: ast.Base{Range: t.Range}, Name: t.Text}
	}
	if p.accept("WHERE") {
		where = p.expr()
	}
	p.expectSymbol(end, "to end "+what)
	return variable, labels, properties, where
}

// labels reads a label expression: "|" binds weaker than "&", which may also be written ":"; "|:" is the old "|".
func (p *parser) labels() ast.LabelExpr {
	defer p.enter()()
	l := p.labelTerm()
	for p.acceptSymbol("|") {
		p.acceptSymbol(":")
		l = &ast.LabelBinary{Or: true, Left: l, Right: p.labelTerm()}
	}
	return l
}

func (p *parser) labelTerm() ast.LabelExpr {
	l := p.labelFactor()
	for p.acceptSymbol("&") || p.acceptSymbol(":") {
		l = &ast.LabelBinary{Left: l, Right: p.labelFactor()}
	}
	return l
}

func (p *parser) labelFactor() ast.LabelExpr {
	defer p.enter()()
	switch {
	case p.acceptSymbol("!"):
		return &ast.LabelNot{Operand: p.labelFactor()}
	case p.acceptSymbol("%"):
		return &ast.LabelAny{}
	case p.acceptSymbol("("):
		l := p.labels()
		p.expectSymbol(")", "to end the label expression")
		return l
	}
	return &ast.LabelName{Name: p.anyName("a label or type")}
}
