package parser

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// refused are the clauses that are known but not run, by their first words, longer ones before their prefixes.
var refused = []struct {
	words  []string
	reason string
}{
	{[]string{"OPTIONAL", "MATCH"}, "OPTIONAL MATCH is not supported yet"},
	{[]string{"WITH"}, "WITH is not supported yet"},
	{[]string{"UNWIND"}, "UNWIND is not supported yet"},
	{[]string{"UNION", "ALL"}, "UNION ALL is not supported yet"},
	{[]string{"UNION"}, "UNION is not supported yet"},
	{[]string{"ORDER", "BY"}, "ORDER BY is not supported yet"},
	{[]string{"SKIP"}, "SKIP is not supported yet"},
	{[]string{"LIMIT"}, "LIMIT is not supported yet"},
	{[]string{"CALL"}, "CALL is not allowed: a continuous query calls no procedures"},
	{[]string{"YIELD"}, "YIELD is not allowed: a continuous query calls no procedures"},
	{[]string{"LOAD", "CSV"}, "LOAD CSV is not allowed: a continuous query reads its sources only"},
	{[]string{"CREATE"}, "CREATE is not allowed: a continuous query only reads"},
	{[]string{"MERGE"}, "MERGE is not allowed: a continuous query only reads"},
	{[]string{"SET"}, "SET is not allowed: a continuous query only reads"},
	{[]string{"DETACH", "DELETE"}, "DETACH DELETE is not allowed: a continuous query only reads"},
	{[]string{"DELETE"}, "DELETE is not allowed: a continuous query only reads"},
	{[]string{"REMOVE"}, "REMOVE is not allowed: a continuous query only reads"},
	{[]string{"FOREACH"}, "FOREACH is not allowed: a continuous query only reads"},
}

func (p *parser) query(q *ast.Query) {
	returned := false
	for p.peek().Kind != token.EOF {
		if p.symbol(";") && p.peekAt(1).Kind == token.EOF {
			p.at++
			break
		}
		if returned && p.startsClause() && !p.startsRefused() {
			p.errs.Add(p.peek().Range, "nothing may follow RETURN")
		}
		if !p.recovering(func() { returned = p.clause(q) || returned }) {
			p.skipClause()
		}
	}
	if !returned && len(p.errs.List) == 0 {
		p.fail(p.peek().Range, "the query has no RETURN")
	}
}

// clause reads one clause and reports whether it was RETURN.
func (p *parser) clause(q *ast.Query) bool {
	start := p.peek().Range
	for _, r := range refused {
		if p.accept(r.words...) {
			p.fail(start.Through(p.last()), "%s", r.reason)
		}
	}
	switch {
	case p.accept("MATCH"):
		m := &ast.Match{}
		p.match(m)
		m.Range = start.Through(p.last())
		q.Clauses = append(q.Clauses, m)
		return false
	case p.accept("RETURN"):
		r := &ast.Return{}
		p.returns(r)
		r.Range = start.Through(p.last())
		q.Clauses = append(q.Clauses, r)
		if len(r.Items) > 0 || r.Star {
			p.endOfReturn()
		}
		return true
	}
	p.unexpected("MATCH or RETURN")
	return false
}

func (p *parser) startsRefused() bool {
	for _, r := range refused {
		if p.words(r.words...) {
			return true
		}
	}
	return false
}

func (p *parser) startsClause() bool {
	return p.words("MATCH") || p.words("RETURN") || p.startsRefused()
}

// skipClause goes on at the next word that may start a clause; what failed has taken at least one token or stands at
// one that starts none.
func (p *parser) skipClause() {
	for p.peek().Kind != token.EOF && !p.startsClause() {
		p.at++
	}
}

func (p *parser) endOfReturn() {
	if t := p.peek(); t.Kind != token.EOF && !p.symbol(";") && !p.startsClause() {
		p.unexpected("\",\" or the end of the query")
	}
}

func (p *parser) match(m *ast.Match) {
	for {
		m.Patterns = append(m.Patterns, p.pattern())
		if !p.acceptSymbol(",") {
			break
		}
	}
	if p.accept("WHERE") {
		m.Where = p.expr()
	}
	if t := p.peek(); t.Kind != token.EOF && !p.startsClause() {
		p.unexpected("WHERE, another clause or an operator")
	}
}

func (p *parser) returns(r *ast.Return) {
	r.Distinct = p.accept("DISTINCT")
	if p.acceptSymbol("*") {
		r.Star = true
		if !p.acceptSymbol(",") {
			return
		}
	}
	for {
		if !p.recovering(func() { r.Items = append(r.Items, p.item()) }) {
			p.skipItem()
		}
		if !p.acceptSymbol(",") {
			return
		}
	}
}

// skipItem goes on at the comma that ends a broken column, or at the end of the clause.
func (p *parser) skipItem() {
	for depth := 0; p.peek().Kind != token.EOF && !p.startsClause(); p.at++ {
		if p.peek().Kind != token.Symbol {
			continue
		}
		switch p.peek().Text {
		case "(", "[", "{":
			depth++
		case ")", "]", "}":
			depth--
		case ",":
			if depth <= 0 {
				return
			}
		}
	}
}

func (p *parser) item() *ast.Item {
	start := p.peek().Range
	e := p.expr()
	r := start.Through(p.last()) // with the parentheses around e
	item := &ast.Item{Expr: e, Text: p.text[r.From:r.To]}
	if p.accept("AS") {
		item.Alias = p.variable("a name after AS")
	}
	return item
}
