// Package parser turns the text of a query into its syntax tree, or into everything that is wrong with it.
//
// Clauses are read by recursive descent, expressions by precedence climbing. Where openCypher's grammar is ambiguous (a
// parenthesis may begin a pattern or an expression, a bracket a list or a comprehension) a few tokens ahead decide, with
// the help of an index of the brackets made beforehand; nothing is ever read twice, so the time is linear in the text.
//
// A problem ends the clause, or the column, that it is in; reading goes on with the next one, so that several problems are
// reported at once and none that only follows from another.
package parser

import (
	"strings"
	"unicode/utf8"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// The limits on a query. Those who walk a tree may do so by recursion.
const (
	// MaxText is how many bytes the text may have.
	MaxText = 1 << 20
	// MaxDepth is how deep parentheses, brackets, subqueries and operators before an operand may nest.
	MaxDepth = 500
	// MaxParts is how many expressions, patterns, labels and clauses a query may consist of. No tree is deeper.
	MaxParts = 50_000
)

// Parse reads a query. The error is a *token.Errors.
func Parse(text string) (*ast.Query, error) {
	if err := check(text); err != nil {
		return nil, err
	}
	p := newParser(text)
	var q *ast.Query
	p.recovering(func() { q = p.query("") })
	if err := p.errs.Err(); err != nil {
		return nil, err
	}
	return q, nil
}

// ParseExpr reads a single expression. The error is a *token.Errors.
func ParseExpr(text string) (ast.Expr, error) {
	if err := check(text); err != nil {
		return nil, err
	}
	p := newParser(text)
	var e ast.Expr
	p.recovering(func() {
		e = p.expr()
		if p.peek().Class != token.EOF {
			p.unexpected("an operator or the end of the expression")
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
	p.groups = findGroups(p.tokens)
	return p
}

// check returns what keeps a text from being read at all.
func check(text string) error {
	errs := &token.Errors{Text: text}
	if len(text) > MaxText {
		errs.Report(token.LimitExceeded, token.Range{}, "the query has %d bytes; at most %d are allowed", len(text), MaxText)
	} else if i := invalidUTF8(text); i >= 0 {
		errs.Report(token.InvalidUnicodeCharacter, token.Range{From: i, To: i + 1}, "the query is not valid UTF-8 here")
	}
	return errs.Err()
}

// invalidUTF8 returns where the first byte stands that belongs to no character, or -1.
func invalidUTF8(text string) int {
	if utf8.ValidString(text) {
		return -1
	}
	for i, r := range text {
		if r == utf8.RuneError && !strings.HasPrefix(text[i:], string(utf8.RuneError)) {
			return i
		}
	}
	return -1
}

type parser struct {
	text   string
	tokens []token.Token
	groups []group
	at     int // index of the next token
	depth  int
	parts  int
	nested int  // how many subqueries are open
	inList bool // "|" ends the expression: it is directly in a comprehension
	errs   *token.Errors
}

// bailout unwinds to the innermost recovering.
type bailout struct{}

// recovering runs parse and reports whether it came to its end.
func (p *parser) recovering(parse func()) (ok bool) {
	depth, nested, inList := p.depth, p.nested, p.inList
	defer func() {
		if r := recover(); r != nil {
			if _, ours := r.(bailout); !ours {
				panic(r)
			}
			p.depth, p.nested, p.inList, ok = depth, nested, inList, false
		}
	}()
	parse()
	return true
}

func (p *parser) fail(kind token.Kind, r token.Range, format string, args ...any) {
	p.errs.Report(kind, r, format, args...)
	if p.errs.Full() {
		p.at = len(p.tokens) - 1
	}
	panic(bailout{})
}

// exceeded ends the whole query: what is too large is not worth going on with.
func (p *parser) exceeded(format string, limit int) {
	r := p.peek().Range
	p.at = len(p.tokens) - 1
	p.fail(token.LimitExceeded, r, format, limit)
}

func (p *parser) unexpected(wanted string) {
	t := p.peek()
	if t.Class == token.EOF {
		p.fail(token.UnexpectedSyntax, t.Range, "expected %s, found the end of the query", wanted)
	}
	if t.Class == token.Integer { // no number is meant here, so that it does not matter if it is a valid one
		p.errs.Forget(t.Range.From)
	}
	found := p.text[t.Range.From:t.Range.To]
	if t.Class == token.Symbol && (found == "!=" || found == "||") {
		p.fail(token.UnexpectedSyntax, t.Range, "%q is not openCypher; write %q", found, map[string]string{"!=": "<>", "||": "+"}[found])
	}
	p.fail(token.UnexpectedSyntax, t.Range, "expected %s, found \"%s\"", wanted, token.Shorten(found))
}

// open enters a bracket; close, with what open returned, leaves it.
func (p *parser) open() (inList bool) {
	p.enter()
	inList, p.inList = p.inList, false
	return inList
}

func (p *parser) close(inList bool) {
	p.leave()
	p.inList = inList
}

// enter guards recursion; leave ends it.
func (p *parser) enter() {
	if p.depth++; p.depth > MaxDepth {
		p.exceeded("this nests too deeply; at most %d levels are allowed", MaxDepth)
	}
}

func (p *parser) leave() { p.depth-- }

// count notes that the query has one more part.
func (p *parser) count() {
	if p.parts++; p.parts > MaxParts {
		p.exceeded("the query is too large; it may consist of at most %d expressions, patterns and clauses", MaxParts)
	}
}

func (p *parser) peek() token.Token { return p.tokens[p.at] }

func (p *parser) token(at int) *token.Token { return &p.tokens[min(at, len(p.tokens)-1)] }

func (p *parser) next() token.Token {
	t := p.tokens[p.at]
	if t.Class != token.EOF {
		p.at++
	}
	return t
}

// last returns where the token before the next one stands.
func (p *parser) last() token.Range { return p.tokens[max(p.at-1, 0)].Range }

// since returns the range from start to the last token that was taken.
func (p *parser) since(start token.Range) token.Range { return start.Through(p.last()) }

func (p *parser) base(start token.Range) ast.Base { return ast.Base{Range: p.since(start)} }

func (p *parser) wordAt(at int, word string) bool {
	t := p.token(at)
	return t.Class == token.Identifier && len(t.Text) == len(word) && strings.EqualFold(t.Text, word)
}

// words reports whether these keywords come next.
func (p *parser) words(words ...string) bool {
	for i, w := range words {
		if !p.wordAt(p.at+i, w) {
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

func (p *parser) expect(word, where string) {
	if !p.accept(word) {
		p.unexpected(word + " " + where)
	}
}

func (p *parser) symbolAt(at int, s string) bool {
	t := p.token(at)
	return t.Class == token.Symbol && t.Text == s
}

func (p *parser) symbol(s string) bool { return p.symbolAt(p.at, s) }

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

// anyName reads a label, type, key or property, which may be spelt like a keyword.
func (p *parser) anyName(what string) ast.Name {
	t := p.peek()
	if t.Class != token.Identifier && t.Class != token.QuotedIdentifier {
		p.unexpected(what)
	}
	p.at++
	return ast.Name{Range: t.Range, Text: t.Text}
}

// variable reads a name that must not be a keyword.
func (p *parser) variable(what string) ast.Name {
	if t := p.peek(); t.Class == token.Identifier && p.reservedAt(p.at) {
		p.fail(token.UnexpectedSyntax, t.Range, "expected %s, found the keyword %s; write it in backticks if it is meant as a name",
			what, strings.ToUpper(t.Text))
	}
	return p.anyName(what)
}

func (p *parser) variableAt(at int) bool {
	t := p.token(at)
	return t.Class == token.QuotedIdentifier || t.Class == token.Identifier && !p.reservedAt(at)
}

// reservedAt reports whether a word is no name without backticks. An order is what many queries are about, so that it is
// one unless BY follows.
func (p *parser) reservedAt(at int) bool {
	return ast.Reserved(p.token(at).Text) && !(p.wordAt(at, "ORDER") && !p.wordAt(at+1, "BY"))
}
