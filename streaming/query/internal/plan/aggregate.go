package plan

import (
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// groupKey is a column without aggregation.
type groupKey struct {
	variable
	simple bool // a variable or a property of one: expressions with aggregations may use it
}

// groups is what an aggregating projection has computed, by the text of the expression.
type groups struct {
	*builder
	keys       map[string]groupKey
	aggregates map[string]variable
	columns    map[string]variable
}

// group adds an aggregating projection: columns without aggregation are the keys of the groups; the others are computed
// from aggregations and keys. It returns what the clauses behind it may use, too.
func (b *builder) group(items []*ast.Item, c *chain) ([]column, site) {
	g := &groups{builder: b, keys: map[string]groupKey{}, aggregates: map[string]variable{}, columns: map[string]variable{}}
	n := &Aggregate{Keys: b.scopeKey(c), Seed: -1, Order: NoSlot}
	var reads []int
	visible := c.outer.with(nil)
	for name, v := range c.vars {
		if outer, ok := c.outer[name]; !ok || outer != v {
			visible[name] = variable{slot: grouped}
		}
	}
	for _, item := range items {
		if hasAggregate(item.Expr) {
			continue
		}
		name := ast.FormatExpr(item.Expr)
		if _, ok := g.keys[name]; ok {
			continue
		}
		key, from := g.key(item.Expr, c)
		n.Keys = append(n.Keys, Item{Expr: item.Expr, Eval: from.eval, Slot: key.slot})
		reads = append(reads, from.reads...)
		g.keys[name] = key
		b.plan.names[key.slot] = name
		if v, ok := item.Expr.(*ast.Variable); ok {
			visible[v.Name] = key.variable
		}
	}
	for _, item := range items {
		reads = append(reads, g.collect(item.Expr, n, c)...)
	}
	if len(n.Keys) == len(b.scopeKey(c)) { // none of its own
		n.Seed = c.start
	}
	n.Input = c.at
	c.at = b.add(n, reads...)
	c.unsort()
	columns := b.items(g.asKeys(items), c, site{vars: visible, replace: g.simple})
	for i, item := range items {
		columns[i].name = item.Column()
		g.columns[ast.FormatExpr(item.Expr)] = columns[i].variable
	}
	return columns, site{vars: c.outer.with(scopeOf(columns)), replace: g.projected}
}

// key computes a key before the aggregation.
func (g *groups) key(e ast.Expr, c *chain) (groupKey, compiled) {
	s := site{vars: c.vars}
	if v, ok := c.vars[nameOf(e)]; ok {
		return groupKey{variable{g.copyOf(v.slot), v.typ}, true}, compiled{eval.Slot(v.slot), []int{v.slot}, v.typ}
	}
	x := g.expr(e, c, s)
	simple := false
	if p, ok := e.(*ast.Property); ok {
		_, simple = c.vars[nameOf(p.Subject)]
	}
	return groupKey{variable{g.slot(), x.typ}, simple}, x
}

// collect adds the aggregations in an expression, and returns the slots that they read.
func (g *groups) collect(e ast.Expr, n *Aggregate, c *chain) (reads []int) {
	call, ok := e.(*ast.Call)
	if !ok || !eval.IsAggregate(e) {
		if isSubquery(e) {
			return nil
		}
		body := bodyOf(e)
		for _, child := range ast.Children(e) {
			if !slices.Contains(body, child) {
				reads = append(reads, g.collect(child, n, c)...)
			}
		}
		return reads
	}
	name := ast.FormatExpr(e)
	if _, ok := g.aggregates[name]; ok {
		return nil
	}
	a := Aggregation{Name: lower(call), Distinct: call.Distinct, Expr: call, Slot: g.slot()}
	result := functions[a.Name].returns
	switch {
	case call.Star && a.Name != "count":
		g.errs.Report(token.InvalidSyntax, call.Range, "only count takes *")
	case call.Star:
	case len(call.Args) != eval.AggregateArgs(call.Name):
		g.errs.Report(token.InvalidNumberOfArguments, call.Range, "%s takes %d arguments, got %d", call.Name, eval.AggregateArgs(call.Name), len(call.Args))
	default:
		x := g.input(call.Args[0], a.Name == "count", c)
		a.Arg, reads = x.eval, x.reads
		switch a.Name {
		case "collect":
			result = typ{list, x.typ.kind}
			n.Order = c.order
		case "min", "max":
			result = x.typ
		}
		if len(call.Args) > 1 {
			extra := g.input(call.Args[1], false, c)
			a.Extra, reads = extra.eval, append(reads, extra.reads...)
		}
	}
	n.Aggregates = append(n.Aggregates, a)
	g.aggregates[name] = variable{a.Slot, result}
	g.plan.names[a.Slot] = name
	return reads
}

// bodyOf returns the parts of an expression that are evaluated for each item of a list, where nothing can be aggregated.
func bodyOf(e ast.Expr) []ast.Expr {
	switch e := e.(type) {
	case *ast.ListComprehension:
		return []ast.Expr{e.Where, e.Map}
	case *ast.Quantifier:
		return []ast.Expr{e.Where}
	case *ast.Reduce:
		return []ast.Expr{e.Body}
	}
	return nil
}

// input computes what is aggregated. Of an element that is counted nothing but its presence matters.
func (g *groups) input(e ast.Expr, counted bool, c *chain) compiled {
	if hasAggregate(e) {
		g.errs.Report(token.NestedAggregation, e.Position(), "an aggregation cannot be inside of another one")
		return compiled{}
	}
	if callsRandom(e) {
		g.errs.Report(token.NonConstantExpression, e.Position(), "a random number cannot be aggregated; make it a column with WITH first")
	}
	if v, ok := c.vars[nameOf(e)]; ok && counted {
		return compiled{eval.Slot(v.slot), []int{v.slot}, v.typ}
	}
	return g.expr(e, c, site{vars: c.vars})
}

func callsRandom(e ast.Expr) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		if c, ok := e.(*ast.Call); ok {
			found = found || lower(c) == "rand"
		}
		return !found
	})
	return found
}

// asKeys replaces the columns that are keys by expressions that are known to be computed.
func (g *groups) asKeys(items []*ast.Item) []*ast.Item {
	result := make([]*ast.Item, len(items))
	for i, item := range items {
		result[i] = item
		if key, ok := g.keys[ast.FormatExpr(item.Expr)]; ok && !hasAggregate(item.Expr) {
			known := &ast.Variable{Base: ast.Base{Range: item.Expr.Position()}, Name: hidden}
			g.replaced[known] = key.variable
			result[i] = &ast.Item{Expr: known, Alias: item.Alias, Text: item.Text}
		}
	}
	return result
}

// simple knows the aggregations and those keys that expressions with aggregations may use.
func (g *groups) simple(e ast.Expr) (variable, bool) {
	name := ast.FormatExpr(e)
	if v, ok := g.aggregates[name]; ok && eval.IsAggregate(e) {
		return v, true
	}
	key, ok := g.keys[name]
	return key.variable, ok && key.simple
}

// ambiguous reports a variable that has no single value in a group.
func (b *builder) ambiguous(name string, at token.Range) {
	b.errs.Report(token.AmbiguousAggregationExpression, at, "%s is neither aggregated nor, alone or in this expression, a column of its own", ast.FormatName(name))
}

// projected knows the columns and what they are made of.
func (g *groups) projected(e ast.Expr) (variable, bool) {
	if v, ok := g.columns[ast.FormatExpr(e)]; ok {
		return v, true
	}
	return g.simple(e)
}

// sortSite returns what a key of ORDER BY may use: one that aggregates cannot use columns that are more than a variable
// or a property, as in the projection itself.
func (b *builder) sortSite(e ast.Expr, s site) site {
	if s.replace == nil || !hasAggregate(e) || replaces(s, e) {
		return s
	}
	known := s.replace
	s.replace = func(e ast.Expr) (variable, bool) {
		v, ok := known(e)
		if ok && !hasAggregate(e) && !isSimple(e) {
			b.errs.Report(token.AmbiguousAggregationExpression, e.Position(), "next to an aggregation, give this column a name and use that")
		}
		return v, ok
	}
	return s
}

// isSimple reports whether an expression is a constant, a variable or a property of a variable.
func isSimple(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Variable, *ast.Literal, *ast.Parameter:
		return true
	case *ast.Property:
		_, ok := e.Subject.(*ast.Variable)
		return ok
	}
	return false
}
