// Package parser turns the text of a query into its syntax tree, or into everything that is wrong with it.
//
// Clauses are read by recursive descent, expressions by precedence climbing. A problem ends the clause or the column it
// is in; reading goes on with the next one, so that several problems are reported at once.
package parser

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// maxDepth bounds how deep expressions nest, so that no text can exhaust the stack.
const maxDepth = 500

// Parse reads a query. The error is a *token.Errors.
func Parse(text string) (*ast.Query, error) {
	p := newParser(text)
	q := &ast.Query{Text: text}
	p.recovering(func() { p.query(q) })
	if err := p.errs.Err(); err != nil {
		return nil, err
	}
	return q, nil
}

// ParseExpr reads a single expression.
func ParseExpr(text string) (ast.Expr, error) {
	p := newParser(text)
	var e ast.Expr
	p.recovering(func() {
		e = p.expr()
		if p.peek().Kind != token.EOF {
			p.unexpected("the end of the expression")
		}
	})
	if err := p.errs.Err(); err != nil {
		return nil, err
	}
	return e, nil
}

func newParser(text string) *parser {
	p := &parser{text: text, errs: &token.Errors{Text: text}}
	p.tokens = token.Scan(text, p.errs)
	return p
}

type parser struct {
	text   string
	tokens []token.Token
	at     int
	depth  int
	errs   *token.Errors
}

// bailout unwinds to the innermost recovering.
type bailout struct{}

// recovering runs parse and reports whether it came to its end.
func (p *parser) recovering(parse func()) (ok bool) {
	depth := p.depth
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(bailout); !ours {
				panic(r)
			}
			p.depth, ok = depth, false
		}
	}()
	parse()
	return true
}

func (p *parser) fail(r token.Range, format string, args ...any) {
	p.errs.Add(r, format, args...)
	panic(bailout{})
}

func (p *parser) unexpected(wanted string) {
	t := p.peek()
	found := "\"" + p.text[t.Range.From:t.Range.To] + "\""
	if t.Kind == token.EOF {
		found = "the end of the query"
	}
	p.fail(t.Range, "expected %s, found %s", wanted, found)
}

func (p *parser) peek() token.Token { return p.tokens[p.at] }

func (p *parser) peekAt(n int) token.Token { return p.tokens[min(p.at+n, len(p.tokens)-1)] }

func (p *parser) next() token.Token {
	t := p.tokens[p.at]
	if t.Kind != token.EOF {
		p.at++
	}
	return t
}

// last returns where the token before the next one stands.
func (p *parser) last() token.Range { return p.tokens[max(p.at-1, 0)].Range }

func isWord(t token.Token, word string) bool {
	return t.Kind == token.Identifier && strings.EqualFold(t.Text, word)
}

// words reports whether these keywords come next.
func (p *parser) words(words ...string) bool {
	for i, w := range words {
		if !isWord(p.peekAt(i), w) {
			return false
		}
	}
	return true
}

// accept takes the keywords if they come next.
func (p *parser) accept(words ...string) bool {
	if !p.words(words...) {
		return false
	}
	p.at += len(words)
	return true
}

func (p *parser) symbol(s string) bool {
	t := p.peek()
	return t.Kind == token.Symbol && t.Text == s
}

func (p *parser) acceptSymbol(s string) bool {
	if !p.symbol(s) {
		return false
	}
	p.at++
	return true
}

func (p *parser) expectSymbol(s, where string) {
	if !p.acceptSymbol(s) {
		p.unexpected("\"" + s + "\" " + where)
	}
}

// anyName reads a label, type or key, which may be spelt like a keyword.
func (p *parser) anyName(what string) ast.Name {
	t := p.peek()
	if t.Kind != token.Identifier && t.Kind != token.QuotedIdentifier {
		p.unexpected(what)
	}
	p.at++
	return ast.Name{Range: t.Range, Text: t.Text}
}

// variable reads a name that must not be a keyword.
func (p *parser) variable(what string) *ast.Name {
	if t := p.peek(); t.Kind == token.Identifier && ast.Reserved(t.Text) {
		p.fail(t.Range, "expected %s, found the keyword %s; write it in backticks if it is meant as a name", what, strings.ToUpper(t.Text))
	}
	n := p.anyName(what)
	return &n
}

func (p *parser) startsVariable() bool {
	t := p.peek()
	return t.Kind == token.QuotedIdentifier || t.Kind == token.Identifier && !ast.Reserved(t.Text)
}

// enter guards recursion; call the result when leaving.
func (p *parser) enter() func() {
	if p.depth++; p.depth > maxDepth {
		p.fail(p.peek().Range, "this nests too deeply")
	}
	return func() { p.depth-- }
}
