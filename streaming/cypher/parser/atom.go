package parser

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

func (p *parser) atom() ast.Expr {
	p.count()
	t := p.peek()
	b := ast.Base{Range: t.Range}
	switch t.Class {
	case token.Integer, token.Float:
		p.at++
		return p.number(t.Range, t.Class, t.Text)
	case token.String:
		p.at++
		return &ast.Literal{Base: b, Value: graph.String(t.Text)}
	case token.Parameter:
		p.at++
		return &ast.Parameter{Base: b, Name: t.Text}
	case token.QuotedIdentifier:
		p.at++
		return p.projected(&ast.Variable{Base: b, Name: t.Text})
	case token.Identifier:
		return p.word(t)
	case token.Symbol:
		switch t.Text {
		case "(":
			return p.parenthesised()
		case "[":
			return p.bracketed()
		case "{":
			return p.mapLiteral()
		}
	}
	p.unexpected("an expression")
	return nil
}

func (p *parser) parenthesised() ast.Expr {
	if p.startsPattern(p.at) {
		pattern := p.pattern()
		return &ast.PatternPredicate{Base: ast.Base{Range: pattern.Range}, Pattern: pattern}
	}
	inList := p.open()
	p.at++
	e := p.expr()
	p.expectSymbol(")", "to close the parenthesis")
	p.close(inList)
	return e
}

// word reads what starts with an identifier: a constant, an expression with a keyword, a call or a variable.
func (p *parser) word(t token.Token) ast.Expr {
	b := ast.Base{Range: t.Range}
	call := p.symbolAt(p.at+1, "(")
	if len(t.Text) <= len("allShortestPaths") {
		switch upper := strings.ToUpper(t.Text); upper {
		case "TRUE", "FALSE":
			p.at++
			return &ast.Literal{Base: b, Value: graph.Bool(upper == "TRUE")}
		case "NULL":
			p.at++
			return &ast.Literal{Base: b}
		case "CASE":
			return p.cases()
		case "EXISTS":
			if call {
				return p.call()
			}
			fallthrough
		case "COUNT", "COLLECT":
			if p.symbolAt(p.at+1, "{") {
				return p.subquery(strings.ToLower(upper))
			}
		case "ALL", "ANY", "NONE", "SINGLE":
			if call {
				return p.quantifier(strings.ToLower(upper))
			}
		case "REDUCE":
			if call {
				return p.reduce()
			}
		case "SHORTESTPATH", "ALLSHORTESTPATHS":
			if call {
				p.fail(token.Unsupported, t.Range, "%s is not supported: a continuous query matches all paths", t.Text)
			}
		}
	}
	if !ast.Reserved(t.Text) && p.callFollows() {
		return p.call()
	}
	return p.projected(&ast.Variable{Base: b, Name: p.variable("an expression").Text})
}

// callFollows reports whether a name, possibly with dots, and "(" come next.
func (p *parser) callFollows() bool {
	for at := p.at + 1; ; at += 2 {
		if !p.symbolAt(at, ".") {
			return p.symbolAt(at, "(")
		}
		if p.token(at+1).Class != token.Identifier {
			return false
		}
	}
}

// call reads a function or an aggregation. Only exists takes a pattern.
func (p *parser) call() ast.Expr {
	start := p.next()
	c := &ast.Call{Name: start.Text}
	for p.acceptSymbol(".") {
		c.Name += "." + p.next().Text
	}
	argument := p.value
	if strings.EqualFold(c.Name, "exists") {
		argument = p.expr
	}
	inList := p.open()
	p.expectSymbol("(", "to start the arguments")
	c.Distinct = p.accept("DISTINCT")
	switch {
	case !c.Distinct && p.symbol(")"):
	case !c.Distinct && p.acceptSymbol("*"):
		c.Star = true
	default:
		c.Args = append(c.Args, argument())
		for p.acceptSymbol(",") {
			c.Args = append(c.Args, argument())
		}
	}
	p.expectSymbol(")", "to end the arguments of "+c.Name)
	p.close(inList)
	c.Base = p.base(start.Range)
	return c
}

func (p *parser) cases() ast.Expr {
	start := p.next().Range
	p.enter()
	c := &ast.Case{}
	if !p.words("WHEN") {
		c.Subject = p.value()
	}
	for p.accept("WHEN") {
		w := ast.When{Condition: p.expr()}
		if c.Subject != nil {
			p.noPattern(w.Condition)
		}
		p.expect("THEN", "after the condition of WHEN")
		w.Then = p.value()
		c.Whens = append(c.Whens, w)
	}
	if len(c.Whens) == 0 {
		p.unexpected("WHEN in CASE")
	}
	if p.accept("ELSE") {
		c.Else = p.value()
	}
	p.expect("END", "to end CASE")
	p.leave()
	c.Base = p.base(start)
	return c
}

func (p *parser) mapLiteral() ast.Expr {
	start := p.next().Range
	inList := p.open()
	m := &ast.MapLiteral{}
	for !p.symbol("}") {
		if len(m.Keys) > 0 {
			p.expectSymbol(",", "or \"}\" in the map")
		}
		m.Keys = append(m.Keys, p.anyName("a key"))
		p.expectSymbol(":", "after the key")
		m.Values = append(m.Values, p.value())
	}
	p.at++
	p.close(inList)
	m.Base = p.base(start)
	return m
}

// projected reads the map projection of a variable, if there is one.
func (p *parser) projected(v *ast.Variable) ast.Expr {
	if !p.acceptSymbol("{") {
		return v
	}
	inList := p.open()
	m := &ast.MapProjection{Subject: v}
	for !p.symbol("}") {
		if len(m.Items) > 0 {
			p.expectSymbol(",", "or \"}\" in the map projection")
		}
		p.count()
		m.Items = append(m.Items, p.mapItem())
	}
	p.at++
	p.close(inList)
	m.Base = p.base(v.Range)
	return m
}

func (p *parser) mapItem() ast.MapItem {
	if p.acceptSymbol(".") {
		if p.acceptSymbol("*") {
			return ast.MapItem{All: true}
		}
		return ast.MapItem{Key: p.anyName("a property name or \"*\"")}
	}
	name := p.anyName("\".property\", \".*\", a key or a variable")
	if p.acceptSymbol(":") {
		return ast.MapItem{Key: name, Value: p.value()}
	}
	return ast.MapItem{Key: name, Value: &ast.Variable{Base: ast.Base{Range: name.Range}, Name: name.Text}}
}
