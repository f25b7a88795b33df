package parser

import (
	"strconv"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// expr reads an expression where a condition may stand: it may be a pattern.
func (p *parser) expr() ast.Expr { return p.binary(ast.LevelOr) }

// value reads an expression where no pattern may stand.
func (p *parser) value() ast.Expr { return p.noPattern(p.expr()) }

func (p *parser) noPattern(e ast.Expr) ast.Expr {
	if pattern, ok := e.(*ast.PatternPredicate); ok {
		p.errs.Report(token.UnexpectedSyntax, pattern.Range,
			"a pattern can only be a condition here; write exists( ), COUNT { } or a comprehension [pattern | value]")
	}
	return e
}

// binary reads operands and the operators between them that are of at least this level.
func (p *parser) binary(level int) ast.Expr {
	start := p.peek().Range
	left := p.operand(level)
	for {
		op, words := p.operator()
		if words == 0 {
			return left
		}
		own := ast.Precedence(op)
		if own < level {
			return left
		}
		p.count()
		switch {
		case own == ast.LevelComparison:
			left = p.comparison(start, left)
		case op == "IS NULL" || op == "IS NOT NULL":
			p.at += words
			left = &ast.NullTest{Base: p.base(start), Operand: p.noPattern(left), Not: op == "IS NOT NULL"}
		default:
			p.at += words
			right := p.binary(own + 1)
			if own > ast.LevelAnd {
				p.noPattern(left)
				p.noPattern(right)
			}
			left = &ast.Binary{Base: p.base(start), Op: op, Left: left, Right: right}
		}
	}
}

// operator returns the operator that comes next, in upper case, and how many tokens it has: 0 when there is none.
func (p *parser) operator() (op string, words int) {
	t := p.token(p.at)
	if t.Class == token.Symbol {
		switch t.Text {
		case "=", "<>", "<", "<=", ">", ">=", "=~", "+", "-", "*", "/", "%", "^":
			return t.Text, 1
		}
		return "", 0
	}
	if t.Class != token.Identifier || len(t.Text) > len("CONTAINS") {
		return "", 0
	}
	switch op = strings.ToUpper(t.Text); op {
	case "OR", "XOR", "AND", "IN", "CONTAINS":
		return op, 1
	case "STARTS", "ENDS":
		if p.wordAt(p.at+1, "WITH") {
			return op + " WITH", 2
		}
	case "IS":
		switch {
		case p.wordAt(p.at+1, "NULL"):
			return "IS NULL", 2
		case p.wordAt(p.at+1, "NOT") && p.wordAt(p.at+2, "NULL"):
			return "IS NOT NULL", 3
		}
	}
	return "", 0
}

// comparison reads the rest of a chain of comparisons.
func (p *parser) comparison(start token.Range, first ast.Expr) ast.Expr {
	c := &ast.Comparison{Operands: []ast.Expr{p.noPattern(first)}}
	for {
		op, words := p.operator()
		if words == 0 || ast.Precedence(op) != ast.LevelComparison {
			c.Base = p.base(start)
			return c
		}
		p.at++
		c.Ops = append(c.Ops, op)
		c.Operands = append(c.Operands, p.noPattern(p.binary(ast.LevelPredicate)))
	}
}

// operand reads what stands before or behind an operator of this level: an atom and what is attached to it.
func (p *parser) operand(level int) ast.Expr {
	start := p.peek().Range
	switch {
	case p.words("NOT"):
		if level > ast.LevelNot {
			p.fail(token.UnexpectedSyntax, start, "NOT cannot stand here without parentheses around it")
		}
		p.enter()
		p.count()
		p.at++
		operand := p.binary(ast.LevelNot)
		p.leave()
		return &ast.Unary{Base: p.base(start), Op: "NOT", Operand: operand}
	case p.symbol("-") && p.literalAt(p.at+1):
		p.count()
		p.at++
		t := p.next()
		return p.number(start.Through(t.Range), t.Class, "-"+t.Text)
	case p.symbol("-"), p.symbol("+"):
		p.enter()
		p.count()
		op := p.next().Text
		operand := p.noPattern(p.operand(ast.LevelUnary))
		p.leave()
		return &ast.Unary{Base: p.base(start), Op: op, Operand: operand}
	}
	return p.postfix(start, p.atom())
}

// literalAt reports whether there is a number to which nothing is attached: a "-" before it belongs to it.
func (p *parser) literalAt(at int) bool {
	if c := p.token(at).Class; c != token.Integer && c != token.Float {
		return false
	}
	return !p.symbolAt(at+1, ".") && !p.symbolAt(at+1, "[") && !p.symbolAt(at+1, ":")
}

// postfix reads properties, indexes and slices, and last a label test.
func (p *parser) postfix(start token.Range, e ast.Expr) ast.Expr {
	for {
		switch {
		case p.acceptSymbol("."):
			p.count()
			name := p.anyName("a property name")
			e = &ast.Property{Base: p.base(start), Subject: p.noPattern(e), Name: name.Text}
		case p.symbol("["):
			p.count()
			e = p.subscript(start, p.noPattern(e))
		case p.acceptSymbol(":"):
			p.count()
			labels := p.labels()
			return &ast.LabelTest{Base: p.base(start), Subject: p.noPattern(e), Labels: labels}
		default:
			return e
		}
	}
}

func (p *parser) subscript(start token.Range, subject ast.Expr) ast.Expr {
	inList := p.open()
	p.at++
	var from, to ast.Expr
	if !p.symbol("..") {
		from = p.value()
	}
	slice := p.acceptSymbol("..")
	if slice && !p.symbol("]") {
		to = p.value()
	}
	p.expectSymbol("]", "to end the index")
	p.close(inList)
	if slice {
		return &ast.Slice{Base: p.base(start), Subject: subject, From: from, To: to}
	}
	return &ast.Index{Base: p.base(start), Subject: subject, Index: from}
}

// number makes a literal; text has its sign.
func (p *parser) number(r token.Range, class token.Class, text string) ast.Expr {
	literal := &ast.Literal{Base: ast.Base{Range: r}}
	if class == token.Integer {
		i, err := strconv.ParseInt(text, 0, 64)
		if err != nil {
			p.errs.Report(token.IntegerOverflow, r, "the number %s is too large", token.Shorten(text))
		}
		literal.Value = graph.Int(i)
		return literal
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		p.errs.Report(token.FloatingPointOverflow, r, "the number %s is too large", token.Shorten(text))
	}
	literal.Value = graph.Float(f)
	return literal
}
