package parser

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
)

func (p *parser) with(start token.Range) *ast.With {
	w := &ast.With{}
	p.projection(&w.Projection)
	w.Where = p.where()
	w.Range = p.since(start)
	p.endClause(orClause)
	return w
}

func (p *parser) returns(start token.Range) *ast.Return {
	r := &ast.Return{}
	p.projection(&r.Projection)
	r.Range = p.since(start)
	p.endClause(orClause)
	return r
}

// projection reads columns and what follows them. A problem in a column ends only that one.
func (p *parser) projection(r *ast.Projection) {
	r.Distinct = p.accept("DISTINCT")
	r.Star = p.acceptSymbol("*")
	if !r.Star || p.acceptSymbol(",") {
		p.items(r)
	}
	if !p.endsItems(p.at) && !p.endsPart() {
		p.refuse()
		p.unexpected("\",\", ORDER BY, SKIP, LIMIT, another clause or an operator")
	}
	if p.accept("ORDER") {
		p.expect("BY", "after ORDER")
		r.OrderBy = append(r.OrderBy, p.sortItem())
		for p.acceptSymbol(",") {
			r.OrderBy = append(r.OrderBy, p.sortItem())
		}
	}
	if p.accept("SKIP") {
		r.Skip = p.value()
	}
	if p.accept("LIMIT") {
		r.Limit = p.value()
	}
}

func (p *parser) items(r *ast.Projection) {
	for {
		from := p.at
		item := func() { r.Items = append(r.Items, p.item()) }
		switch {
		case p.nested > 0: // a subquery ends at its first problem
			item()
		case !p.recovering(item):
			p.skip(from, func(at int) bool { return p.symbolAt(at, ",") || p.symbolAt(at, ";") || p.endsItems(at) })
		}
		if !p.acceptSymbol(",") {
			return
		}
	}
}

// endsItems reports whether the columns of a projection end before a token that begins something else.
func (p *parser) endsItems(at int) bool {
	return p.startsClause(at) || p.wordAt(at, "ORDER") || p.wordAt(at, "SKIP") || p.wordAt(at, "LIMIT") || p.wordAt(at, "WHERE")
}

func (p *parser) item() *ast.Item {
	start := p.peek().Range
	e := p.value()
	r := p.since(start) // with the parentheses around e
	item := &ast.Item{Expr: e, Text: p.text[r.From:r.To]}
	if p.accept("AS") {
		name := p.variable("a name after AS")
		item.Alias = &name
	}
	if !p.symbol(",") && !p.endsItems(p.at) && !p.endsPart() {
		p.unexpected("\",\", AS, another clause or an operator")
	}
	return item
}

func (p *parser) sortItem() *ast.SortItem {
	s := &ast.SortItem{Expr: p.value()}
	switch {
	case p.accept("DESC"), p.accept("DESCENDING"):
		s.Descending = true
	case p.accept("ASC"), p.accept("ASCENDING"):
	}
	return s
}
