package parser

import (
	"strconv"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// levels are the left-associative binary operators, weakest first. Between AND and "+" come NOT, comparisons and
// predicates, which have shapes of their own.
var (
	logicLevels      = [][]string{{"OR"}, {"XOR"}, {"AND"}}
	arithmeticLevels = [][]string{{"+", "-"}, {"*", "/", "%"}, {"^"}}
)

func (p *parser) expr() ast.Expr {
	defer p.enter()()
	return p.logic(0)
}

func base(from, to token.Range) ast.Base { return ast.Base{Range: from.Through(to)} }

func (p *parser) logic(level int) ast.Expr {
	if level == len(logicLevels) {
		return p.not()
	}
	start := p.peek().Range
	left := p.logic(level + 1)
	for op := logicLevels[level][0]; p.accept(op); {
		right := p.logic(level + 1)
		left = &ast.Binary{Base: base(start, p.last()), Op: op, Left: left, Right: right}
	}
	return left
}

func (p *parser) not() ast.Expr {
	start := p.peek().Range
	if !p.accept("NOT") {
		return p.comparison()
	}
	defer p.enter()()
	operand := p.not()
	return &ast.Unary{Base: base(start, p.last()), Op: "NOT", Operand: operand}
}

func (p *parser) comparison() ast.Expr {
	start := p.peek().Range
	first := p.predicate()
	c := &ast.Comparison{Operands: []ast.Expr{first}}
	for p.peek().Kind == token.Symbol {
		switch op := p.peek().Text; op {
		case "=", "<>", "<", "<=", ">", ">=":
			p.at++
			c.Ops = append(c.Ops, op)
			c.Operands = append(c.Operands, p.predicate())
			continue
		case "!=":
			p.fail(p.peek().Range, `"!=" is not openCypher; write "<>"`)
		case "=~":
			p.fail(p.peek().Range, "regular expressions are not supported yet")
		}
		break
	}
	if len(c.Ops) == 0 {
		return first
	}
	c.Base = base(start, p.last())
	return c
}

func (p *parser) predicate() ast.Expr {
	start := p.peek().Range
	left := p.arithmetic(0)
	for {
		op := ""
		switch {
		case p.accept("IS", "NOT", "NULL"):
			left = &ast.NullTest{Base: base(start, p.last()), Operand: left, Not: true}
			continue
		case p.accept("IS", "NULL"):
			left = &ast.NullTest{Base: base(start, p.last()), Operand: left}
			continue
		case p.accept("IN"):
			op = "IN"
		case p.accept("STARTS", "WITH"):
			op = "STARTS WITH"
		case p.accept("ENDS", "WITH"):
			op = "ENDS WITH"
		case p.accept("CONTAINS"):
			op = "CONTAINS"
		default:
			return left
		}
		right := p.arithmetic(0)
		left = &ast.Binary{Base: base(start, p.last()), Op: op, Left: left, Right: right}
	}
}

func (p *parser) arithmetic(level int) ast.Expr {
	if level == len(arithmeticLevels) {
		return p.unary()
	}
	start := p.peek().Range
	left := p.arithmetic(level + 1)
	for {
		op := ""
		for _, candidate := range arithmeticLevels[level] {
			if op == "" && p.acceptSymbol(candidate) {
				op = candidate
			}
		}
		if op == "" {
			return left
		}
		right := p.arithmetic(level + 1)
		left = &ast.Binary{Base: base(start, p.last()), Op: op, Left: left, Right: right}
	}
}

func (p *parser) unary() ast.Expr {
	start := p.peek()
	switch {
	case p.symbol("-") && (p.peekAt(1).Kind == token.Integer || p.peekAt(1).Kind == token.Float):
		p.at++
		number := p.next()
		return p.postfix(start, p.number(start.Range.Through(number.Range), "-"+number.Text))
	case p.symbol("-"), p.symbol("+"):
		defer p.enter()()
		p.at++
		operand := p.unary()
		return &ast.Unary{Base: base(start.Range, p.last()), Op: start.Text, Operand: operand}
	}
	return p.postfix(start, p.atom())
}

func (p *parser) postfix(start token.Token, e ast.Expr) ast.Expr {
	for {
		switch {
		case p.acceptSymbol("."):
			name := p.anyName("a property name")
			e = &ast.Property{Base: base(start.Range, p.last()), Subject: e, Name: name.Text}
		case p.symbol(":"):
			p.at++
			labels := p.labels()
			e = &ast.LabelTest{Base: base(start.Range, p.last()), Subject: e, Labels: labels}
		case p.symbol("["):
			p.fail(p.peek().Range, "subscripts and slices are not supported yet")
		case p.symbol("{"):
			p.fail(p.peek().Range, "map projections are not supported yet")
		default:
			return e
		}
	}
}

func (p *parser) number(r token.Range, text string) ast.Expr {
	literal := &ast.Literal{Base: ast.Base{Range: r}}
	if i, err := strconv.ParseInt(text, 0, 64); err == nil {
		literal.Value = graph.Int(i)
		return literal
	} else if !strings.ContainsAny(text, ".eE") || strings.Contains(text, "0x") {
		p.fail(r, "the number %s is too large", text)
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.fail(r, "the number %s is too large", text)
	}
	literal.Value = graph.Float(f)
	return literal
}

func (p *parser) atom() ast.Expr {
	t := p.peek()
	b := ast.Base{Range: t.Range}
	switch t.Kind {
	case token.Integer, token.Float:
		p.at++
		return p.number(t.Range, t.Text)
	case token.String:
		p.at++
		return &ast.Literal{Base: b, Value: graph.String(t.Text)}
	case token.Parameter:
		p.at++
		return &ast.Parameter{Base: b, Name: t.Text}
	case token.QuotedIdentifier:
		p.at++
		return &ast.Variable{Base: b, Name: t.Text}
	case token.Identifier:
		return p.word(t)
	case token.Symbol:
		switch t.Text {
		case "(":
			return p.parenthesised()
		case "[":
			return p.listLiteral()
		case "{":
			return p.mapLiteral()
		}
	}
	p.unexpected("an expression")
	return nil
}

func (p *parser) parenthesised() ast.Expr {
	start := p.next().Range
	if p.symbol(")") || p.symbol(":") || p.startsPattern() {
		p.fail(start, "patterns in expressions are not supported yet")
	}
	e := p.expr()
	p.expectSymbol(")", "to close the parenthesis")
	return e
}

// startsPattern reports whether "variable)-[", "variable)--" or "variable)<-" comes next, which no expression does.
func (p *parser) startsPattern() bool {
	if !p.startsVariable() || p.peekAt(1).Text != ")" || p.peekAt(1).Kind != token.Symbol {
		return false
	}
	a, b := p.peekAt(2), p.peekAt(3)
	return a.Kind == token.Symbol && b.Kind == token.Symbol && (a.Text == "-" && b.Text == "[" || a.Text == "<" && b.Text == "-" && p.peekAt(4).Text == "[")
}

// word reads what starts with an identifier: a constant, a call, a variable or something that is not supported.
func (p *parser) word(t token.Token) ast.Expr {
	b := ast.Base{Range: t.Range}
	switch upper := strings.ToUpper(t.Text); upper {
	case "TRUE", "FALSE":
		p.at++
		return &ast.Literal{Base: b, Value: graph.Bool(upper == "TRUE")}
	case "NULL":
		p.at++
		return &ast.Literal{Base: b}
	case "CASE":
		p.fail(t.Range, "CASE is not supported yet")
	case "EXISTS", "COUNT", "COLLECT":
		if next := p.peekAt(1); next.Kind == token.Symbol && next.Text == "{" {
			p.fail(t.Range, "%s { } is not supported yet", upper)
		}
	case "ALL", "ANY", "NONE", "SINGLE", "REDUCE":
		if next := p.peekAt(1); next.Kind == token.Symbol && next.Text == "(" {
			p.fail(t.Range, "%s( ) is not supported yet", strings.ToLower(upper))
		}
	}
	if p.callFollows() {
		return p.call()
	}
	return &ast.Variable{Base: b, Name: p.variable("an expression").Text}
}

// callFollows reports whether a name, possibly with dots, and "(" come next.
func (p *parser) callFollows() bool {
	for i := 1; ; i += 2 {
		t := p.peekAt(i)
		if t.Kind != token.Symbol || t.Text != "." {
			return t.Kind == token.Symbol && t.Text == "("
		}
		if p.peekAt(i+1).Kind != token.Identifier {
			return false
		}
	}
}

func (p *parser) call() ast.Expr {
	start := p.next()
	c := &ast.Call{Name: start.Text}
	for p.acceptSymbol(".") {
		c.Name += "." + p.next().Text
	}
	p.expectSymbol("(", "to start the arguments")
	c.Distinct = p.accept("DISTINCT")
	if !c.Distinct && p.acceptSymbol("*") {
		c.Star = true
	} else if !p.symbol(")") {
		c.Args = p.exprs()
	}
	p.expectSymbol(")", "to end the arguments of "+c.Name)
	c.Base = base(start.Range, p.last())
	return c
}

func (p *parser) exprs() []ast.Expr {
	list := []ast.Expr{p.expr()}
	for p.acceptSymbol(",") {
		list = append(list, p.expr())
	}
	return list
}

func (p *parser) listLiteral() ast.Expr {
	start := p.next().Range
	l := &ast.ListLiteral{}
	if !p.symbol("]") {
		l.Items = p.exprs()
	}
	if p.symbol("|") || p.words("WHERE") {
		p.fail(start, "list comprehensions are not supported yet")
	}
	p.expectSymbol("]", "to end the list")
	l.Base = base(start, p.last())
	return l
}

func (p *parser) mapLiteral() ast.Expr {
	start := p.next().Range
	m := &ast.MapLiteral{}
	for !p.symbol("}") {
		if len(m.Keys) > 0 {
			p.expectSymbol(",", "or \"}\" in the map")
		}
		m.Keys = append(m.Keys, p.anyName("a key"))
		p.expectSymbol(":", "after the key")
		m.Values = append(m.Values, p.expr())
	}
	p.expectSymbol("}", "to end the map")
	m.Base = base(start, p.last())
	return m
}
