package parser

import (
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// query reads what UNION joins, up to the end of the text or, in a subquery of the given kind, to its bracket.
func (p *parser) query(kind string) *ast.Query {
	q := &ast.Query{Text: p.text}
	for {
		q.Parts = append(q.Parts, p.part(kind))
		start := p.peek().Range
		if !p.accept("UNION") {
			break
		}
		u := ast.Union{All: p.accept("ALL")}
		u.Range = p.since(start)
		if len(q.Unions) > 0 && q.Unions[0].All != u.All {
			p.errs.Report(token.InvalidClauseComposition, u.Range, "UNION and UNION ALL cannot be mixed")
		}
		q.Unions = append(q.Unions, u)
	}
	if p.nested == 0 && p.acceptSymbol(";") && p.peek().Class != token.EOF {
		p.unexpected("the end of the query behind \";\"")
	}
	return q
}

// part reads the clauses of one part. After a problem the outermost query goes on with the next clause; a subquery does
// not, it ends the clause that it is in.
func (p *parser) part(kind string) *ast.SingleQuery {
	part := &ast.SingleQuery{}
	start := p.peek().Range
	before := len(p.errs.List)
	for !p.endsPart() {
		from := p.at
		clause := func() { part.Clauses = append(part.Clauses, p.clause()) }
		switch {
		case kind != "":
			clause()
		case !p.recovering(clause):
			p.skip(from, func(at int) bool { return at > from && p.startsClause(at) || p.symbolAt(at, ";") })
		}
	}
	part.Range = p.since(start)
	if len(p.errs.List) == before {
		p.compose(part, kind)
	}
	return part
}

// endsPart reports whether a part ends here. A bracket ends subqueries; the outermost query refuses it.
func (p *parser) endsPart() bool {
	return p.peek().Class == token.EOF || p.words("UNION") || p.nested == 0 && p.symbol(";") || p.nested > 0 && p.symbol("}")
}

// compose checks the order of clauses.
func (p *parser) compose(part *ast.SingleQuery, kind string) {
	if len(part.Clauses) == 0 {
		p.unexpected("MATCH, OPTIONAL MATCH, UNWIND, WITH or RETURN")
	}
	last := len(part.Clauses) - 1
	for i, c := range part.Clauses[:last] {
		if _, ok := c.(*ast.Return); ok {
			p.errs.Report(token.InvalidClauseComposition, part.Clauses[i+1].Position(), "nothing may follow RETURN")
			return
		}
	}
	switch part.Clauses[last].(type) {
	case *ast.Return:
		return
	case *ast.Match, *ast.Unwind:
		if kind == "exists" || kind == "count" {
			return
		}
	}
	what := strings.ToUpper(kind) + " { }"
	if kind == "" {
		if len(p.errs.List) > 0 { // of the lexer, which may have hidden the RETURN
			return
		}
		what = "the query"
	}
	p.errs.Report(token.InvalidClauseComposition, p.peek().Range, "%s has no RETURN at its end", what)
}

// refused are the clauses that are known but that no continuous query has, by their first words, and why.
var refused = []struct {
	words  []string
	reason string
}{
	{[]string{"CREATE"}, onlyReads},
	{[]string{"INSERT"}, onlyReads},
	{[]string{"MERGE"}, onlyReads},
	{[]string{"SET"}, onlyReads},
	{[]string{"DETACH", "DELETE"}, onlyReads},
	{[]string{"DELETE"}, onlyReads},
	{[]string{"REMOVE"}, onlyReads},
	{[]string{"FOREACH"}, onlyReads},
	{[]string{"DROP"}, onlyReads},
	{[]string{"LOAD", "CSV"}, "a continuous query reads its sources only"},
	{[]string{"USE"}, "a continuous query reads the sources that it is given"},
	{[]string{"CALL"}, "a continuous query calls no procedures"},
	{[]string{"YIELD"}, "a continuous query calls no procedures"},
	{[]string{"USING"}, "the planner takes no hints"},
	{[]string{"EXPLAIN"}, "ask for the plan of the query instead"},
	{[]string{"PROFILE"}, "ask for the plan of the query instead"},
}

const onlyReads = "a continuous query only reads"

// misplaced are parts of clauses that may be found where a clause should begin, and where they belong.
var misplaced = []struct{ word, belongs string }{
	{"WHERE", "the end of MATCH, OPTIONAL MATCH and WITH"},
	{"ORDER", "WITH and RETURN, behind the columns"},
	{"SKIP", "WITH and RETURN, behind the columns and ORDER BY"},
	{"LIMIT", "WITH and RETURN, behind the columns, ORDER BY and SKIP"},
}

// startsClause reports whether a clause, or UNION, begins at a token; it does not where a property, label or key has a
// name like that.
func (p *parser) startsClause(at int) bool {
	if p.tokens[at].Class != token.Identifier || p.symbolAt(at+1, ":") {
		return false
	}
	if before := at - 1; at > 0 && (p.symbolAt(before, ".") || p.symbolAt(before, ":") ||
		p.wordAt(before, "STARTS") || p.wordAt(before, "ENDS")) {
		return false
	}
	switch strings.ToUpper(p.tokens[at].Text) {
	case "MATCH", "UNWIND", "WITH", "RETURN", "UNION":
		return true
	case "OPTIONAL":
		return p.wordAt(at+1, "MATCH")
	}
	return p.refusedAt(at) >= 0
}

// refusedAt returns the index in refused of the clause that begins at a token, or -1.
func (p *parser) refusedAt(at int) int {
	for i, r := range refused {
		if p.wordAt(at, r.words[0]) && (len(r.words) == 1 || p.wordAt(at+1, r.words[1])) {
			return i
		}
	}
	return -1
}

func (p *parser) clause() ast.Clause {
	p.count()
	start := p.peek().Range
	switch {
	case p.accept("MATCH"):
		return p.match(start, false)
	case p.accept("OPTIONAL"):
		p.expect("MATCH", "after OPTIONAL")
		return p.match(start, true)
	case p.accept("UNWIND"):
		return p.unwind(start)
	case p.accept("WITH"):
		return p.with(start)
	case p.accept("RETURN"):
		return p.returns(start)
	}
	p.refuse()
	p.unexpected("MATCH, OPTIONAL MATCH, UNWIND, WITH or RETURN")
	return nil
}

// refuse fails with the reason when something known stands where a clause should begin.
func (p *parser) refuse() {
	start := p.peek().Range
	if i := p.refusedAt(p.at); i >= 0 {
		r := refused[i]
		p.at += len(r.words)
		kind := token.Unsupported
		if p.nested > 0 && r.reason == onlyReads {
			kind = token.InvalidClauseComposition
		}
		p.fail(kind, p.since(start), "%s is not supported: %s", strings.Join(r.words, " "), r.reason)
	}
	for _, m := range misplaced {
		if p.words(m.word) {
			p.fail(token.InvalidClauseComposition, start, "%s cannot stand here; it belongs to %s", m.word, m.belongs)
		}
	}
}

// endClause checks that a clause ends where nothing in it goes on.
func (p *parser) endClause(wanted string) {
	if p.endsPart() || p.startsClause(p.at) {
		return
	}
	p.refuse()
	p.unexpected(wanted)
}

const orClause = "another clause or an operator"

func (p *parser) match(start token.Range, optional bool) *ast.Match {
	m := &ast.Match{Optional: optional}
	p.patterns(m)
	m.Range = p.since(start)
	if m.Where == nil {
		p.endClause("\",\", WHERE or another clause")
	} else {
		p.endClause(orClause)
	}
	return m
}

// patterns reads the patterns and the condition of MATCH and of subqueries that consist of nothing else.
func (p *parser) patterns(m *ast.Match) {
	m.Patterns = append(m.Patterns, p.pattern())
	for p.acceptSymbol(",") {
		m.Patterns = append(m.Patterns, p.pattern())
	}
	m.Where = p.where()
}

// where reads WHERE and its condition, if there is one.
func (p *parser) where() ast.Expr {
	if !p.accept("WHERE") {
		return nil
	}
	return p.expr()
}

func (p *parser) unwind(start token.Range) *ast.Unwind {
	u := &ast.Unwind{List: p.value()}
	p.expect("AS", "and a name, or an operator")
	u.Variable = p.variable("a name after AS")
	u.Range = p.since(start)
	p.endClause("another clause")
	return u
}
