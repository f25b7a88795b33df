package parser

import (
	"strconv"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// startsNamedPath reports whether "name = (" comes next.
func (p *parser) startsNamedPath() bool { return p.variableAt(p.at) && p.symbolAt(p.at+1, "=") }

// pattern reads a path with its name, if it has one.
func (p *parser) pattern() *ast.Pattern {
	pattern := &ast.Pattern{}
	start := p.peek().Range
	if p.startsNamedPath() {
		name := p.variable("the name of the path")
		pattern.Variable = &name
		p.at++
	}
	p.path(pattern)
	pattern.Range = p.since(start)
	return pattern
}

// path reads nodes and relationships, possibly in parentheses as a whole.
func (p *parser) path(pattern *ast.Pattern) {
	if p.words("shortestPath") || p.words("allShortestPaths") || p.words("ANY") || p.words("ALL") || p.words("SHORTEST") {
		p.fail(token.Unsupported, p.peek().Range, "%s is not supported: a continuous query matches all paths", p.peek().Text)
	}
	if p.symbol("(") && p.symbolAt(p.at+1, "(") {
		p.enter()
		p.at++
		p.path(pattern)
		p.expectSymbol(")", "to close the parenthesis around the pattern")
		p.leave()
		if p.symbol("{") || p.symbol("+") || p.symbol("*") {
			p.fail(token.Unsupported, p.peek().Range, "repeated patterns are not supported; write the relationship as -[*1..3]->")
		}
		return
	}
	pattern.Nodes = append(pattern.Nodes, p.node())
	for p.symbol("-") || p.symbol("<") {
		pattern.Relationships = append(pattern.Relationships, p.relationship())
		pattern.Nodes = append(pattern.Nodes, p.node())
	}
}

func (p *parser) node() *ast.NodePattern {
	p.count()
	n := &ast.NodePattern{}
	start := p.peek().Range
	p.expectSymbol("(", "to start a node pattern")
	e := p.element("the node pattern", ")")
	n.Variable, n.Labels, n.Properties, n.Where = e.variable, e.labels, e.properties, e.where
	n.Range = p.since(start)
	return n
}

func (p *parser) relationship() *ast.RelationshipPattern {
	p.count()
	r := &ast.RelationshipPattern{}
	start := p.peek().Range
	left := p.acceptSymbol("<")
	p.expectSymbol("-", "in a relationship pattern")
	if p.acceptSymbol("[") {
		e := p.element("the relationship pattern", "]")
		r.Variable, r.Types, r.Length, r.Properties, r.Where = e.variable, e.labels, e.length, e.properties, e.where
	}
	p.expectSymbol("-", "to end a relationship pattern")
	right := p.acceptSymbol(">")
	switch {
	case left && !right:
		r.Direction = ast.Left
	case right && !left:
		r.Direction = ast.Right
	}
	r.Range = p.since(start)
	return r
}

type element struct {
	variable          *ast.Name
	labels            ast.LabelExpr
	length            *ast.Length
	properties, where ast.Expr
}

// element reads what stands between the brackets of a node or relationship pattern, and the closing one.
func (p *parser) element(what, end string) (e element) {
	inList := p.open()
	if p.variableAt(p.at) {
		name := p.variable("a variable")
		e.variable = &name
	}
	if p.acceptSymbol(":") || p.accept("IS") {
		e.labels = p.labels()
	}
	if end == "]" {
		e.length = p.length()
	}
	switch {
	case p.symbol("{"):
		e.properties = p.mapLiteral()
	case p.peek().Class == token.Parameter:
		t := p.peek()
		p.fail(token.InvalidParameterUse, t.Range, "a parameter cannot stand for all properties; write {name: $%s.name}",
			ast.FormatName(t.Text))
	}
	e.where = p.where()
	p.expectSymbol(end, "to end "+what)
	p.close(inList)
	return e
}

// length reads *, *2, *1.., *..3 or *1..3, if there is one.
func (p *parser) length() *ast.Length {
	start := p.peek().Range
	if p.symbol("..") {
		p.fail(token.InvalidRelationshipPattern, start, "a range of lengths needs a \"*\" before it")
	}
	if !p.acceptSymbol("*") {
		return nil
	}
	l := &ast.Length{Min: 1, Max: -1}
	least, exact := p.hops()
	if exact {
		l.Min, l.Max = least, least
	}
	if p.acceptSymbol("..") {
		l.Max = -1
		if most, ok := p.hops(); ok {
			l.Max = most
		}
	}
	l.Range = p.since(start)
	return l
}

// hops reads a bound of a length, if there is one.
func (p *parser) hops() (n int64, ok bool) {
	t := p.peek()
	switch {
	case t.Class == token.Parameter:
		p.fail(token.InvalidParameterUse, t.Range, "the length of a pattern must be a number that is written here, not a parameter")
	case t.Class == token.Float, p.symbol("-"), p.symbol("+"):
		p.fail(token.InvalidRelationshipPattern, t.Range, "the length of a pattern must be a whole number, 0 or more")
	case t.Class != token.Integer:
		return 0, false
	}
	p.at++
	n, err := strconv.ParseInt(t.Text, 0, 64)
	if err != nil {
		p.fail(token.IntegerOverflow, t.Range, "the number %s is too large", t.Text)
	}
	return n, true
}

// labels reads a label expression: "|" binds weaker than "&", which may also be written ":"; "|:" is the old "|".
func (p *parser) labels() ast.LabelExpr {
	l := p.labelTerm()
	for !p.inList && p.acceptSymbol("|") {
		p.acceptSymbol(":")
		p.count()
		l = &ast.LabelBinary{Or: true, Left: l, Right: p.labelTerm()}
	}
	return l
}

func (p *parser) labelTerm() ast.LabelExpr {
	l := p.labelFactor()
	for p.acceptSymbol("&") || p.acceptSymbol(":") {
		p.count()
		l = &ast.LabelBinary{Left: l, Right: p.labelFactor()}
	}
	return l
}

func (p *parser) labelFactor() ast.LabelExpr {
	p.count()
	switch {
	case p.acceptSymbol("!"):
		p.enter()
		l := &ast.LabelNot{Operand: p.labelFactor()}
		p.leave()
		return l
	case p.acceptSymbol("%"):
		return &ast.LabelAny{}
	case p.acceptSymbol("("):
		inList := p.open()
		l := p.labels()
		p.expectSymbol(")", "to end the label expression")
		p.close(inList)
		return l
	}
	return &ast.LabelName{Name: p.anyName("a label or type")}
}
