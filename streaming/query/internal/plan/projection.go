package plan

import (
	"math/rand/v2"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// project adds WITH or RETURN and returns the columns.
func (b *builder) project(p *ast.Projection, at token.Range, where ast.Expr, with bool, c *chain) []column {
	items := p.Items
	if p.Star {
		items = append(b.star(c, at), items...)
	}
	before := len(b.errs.List)
	var columns []column
	behind := site{}
	if grouped := hasAggregates(items); grouped {
		columns, behind = b.group(items, c)
	} else {
		columns = b.items(items, c, site{vars: c.vars})
		behind.vars = c.vars.with(scopeOf(columns)) // what follows may use what was there before, too
	}
	if p.Distinct {
		columns = b.distinct(c, columns)
		behind = site{vars: c.outer.with(scopeOf(columns)), replace: same(items, columns)}
	}
	b.order(p, c, behind)
	b.limit(p, c)
	b.refuseAggregates(where)
	b.filter(where, c, behind)
	b.checkNames(items, columns, with, before)
	c.vars = c.outer.with(scopeOf(columns))
	return columns
}

func hasAggregates(items []*ast.Item) bool {
	for _, item := range items {
		if hasAggregate(item.Expr) {
			return true
		}
	}
	return false
}

// star returns an item for each variable, in the order of their names.
func (b *builder) star(c *chain, at token.Range) (items []*ast.Item) {
	for _, name := range c.vars.names() {
		items = append(items, &ast.Item{Expr: &ast.Variable{Base: ast.Base{Range: at}, Name: name}, Text: name})
	}
	if len(items) == 0 {
		b.errs.Report(token.NoVariablesInScope, at, "* stands for all variables, and there are none")
	}
	return items
}

func scopeOf(columns []column) scope {
	s := make(scope, len(columns))
	for _, column := range columns {
		s[column.name] = column.variable
	}
	return s
}

// checkNames reports columns without a name of their own. A missing alias is no news when the expression is wrong.
func (b *builder) checkNames(items []*ast.Item, columns []column, with bool, before int) {
	names := make(map[string]bool)
	broken := len(b.errs.List) > before
	for i, column := range columns {
		if names[column.name] {
			b.errs.Report(token.ColumnNameConflict, column.at, "two columns have the name %q", column.name)
		}
		names[column.name] = true
		if _, plain := items[i].Expr.(*ast.Variable); with && items[i].Alias == nil && !plain && !broken {
			b.errs.Report(token.NoExpressionAlias, column.at, "WITH needs a name for this: %s AS name", column.name)
		}
	}
}

func columnOf(item *ast.Item, v variable) column {
	at := item.Expr.Position()
	if item.Alias != nil {
		at = item.Alias.Range
	}
	return column{name: item.Column(), variable: v, at: at}
}

// items computes columns. One that is a variable gets no slot of its own.
func (b *builder) items(items []*ast.Item, c *chain, s site) (columns []column) {
	n := &Project{}
	var reads []int
	for _, item := range items {
		v, ok := s.vars[nameOf(item.Expr)]
		if !ok {
			b.prepare(item.Expr, c, s)
			v, ok = b.computed(item.Expr, s)
		}
		if !ok {
			x := b.compile(item.Expr, s)
			v = variable{b.slot(), x.typ}
			b.plan.names[v.slot] = item.Column()
			n.Items = append(n.Items, Item{Expr: item.Expr, Eval: x.eval, Slot: v.slot})
			reads = append(reads, x.reads...)
		}
		columns = append(columns, columnOf(item, v))
	}
	if len(n.Items) > 0 {
		n.Input = c.at
		c.at = b.add(n, reads...)
	}
	return columns
}

// computed returns the slot of an expression that has been computed before.
func (b *builder) computed(e ast.Expr, s site) (variable, bool) {
	k := checker{builder: b, site: s}
	return k.computed(e)
}

// distinct adds DISTINCT.
func (b *builder) distinct(c *chain, columns []column) []column {
	n := &Aggregate{Base: Base{Input: c.at}, Keys: b.scopeKey(c), Seed: -1, Order: NoSlot}
	result := make([]column, len(columns))
	var reads []int
	for i, column := range columns {
		result[i] = column
		result[i].slot = b.copyOf(column.slot)
		n.Keys = append(n.Keys, Item{Expr: &ast.Variable{Name: column.name}, Eval: eval.Slot(column.slot), Slot: result[i].slot})
		reads = append(reads, column.slot)
	}
	c.at = b.add(n, reads...)
	c.unsort()
	return result
}

// scopeKey returns the key that keeps the rows of different outer rows apart.
func (b *builder) scopeKey(c *chain) []Item {
	if c.scope == NoSlot {
		return nil
	}
	return []Item{{Eval: eval.Slot(c.scope), Slot: c.scope}}
}

// order adds ORDER BY.
func (b *builder) order(p *ast.Projection, c *chain, s site) {
	if len(p.OrderBy) == 0 {
		return
	}
	n := &Order{}
	var reads []int
	for _, key := range p.OrderBy {
		x := b.expr(key.Expr, c, b.sortSite(key.Expr, s))
		n.Keys = append(n.Keys, SortKey{Item: Item{Expr: key.Expr, Eval: x.eval, Slot: NoSlot}, Descending: key.Descending})
		reads = append(reads, x.reads...)
	}
	n.Input, n.Slot = c.at, b.slot()
	c.at, c.order, c.sorted = b.add(n, reads...), n.Slot, true
}

// limit adds SKIP and LIMIT.
func (b *builder) limit(p *ast.Projection, c *chain) {
	if p.Skip == nil && p.Limit == nil {
		return
	}
	n := &Limit{Base: Base{Input: c.at}, Scope: c.scope, Order: c.order, Limit: -1}
	if p.Skip != nil {
		n.Skip = b.amount("SKIP", p.Skip)
	}
	if p.Limit != nil {
		n.Limit = b.amount("LIMIT", p.Limit)
	}
	c.at = b.add(n)
}

// amount evaluates what stands behind SKIP and LIMIT. A number that rand() chooses is the same whenever the query is
// compiled, as what has been stored depends on it.
func (b *builder) amount(clause string, e ast.Expr) int64 {
	before := len(b.errs.List)
	var inside ast.Expr
	ast.Walk(e, func(e ast.Expr) bool {
		if _, ok := e.(*ast.Variable); (ok || isSubquery(e) || eval.IsAggregate(e)) && inside == nil {
			inside = e
		}
		return inside == nil
	})
	if inside != nil {
		b.errs.Report(token.NonConstantExpression, inside.Position(), "%s is the same for all rows and cannot use what differs between them", clause)
		return 0
	}
	x := b.compile(e, site{})
	if len(b.errs.List) > before {
		return 0
	}
	env := b.compiler.NewEnv(b.plan.Slots)
	env.Random = rand.New(rand.NewPCG(1, 2))
	v, err := x.eval(env)
	switch {
	case err != nil:
		b.errs.Report(token.InvalidArgumentType, e.Position(), "%s: %s", clause, err)
	case v.Kind() != graph.KindInt:
		b.errs.Report(token.InvalidArgumentType, e.Position(), "%s wants an INTEGER, not %s", clause, v)
	case v.AsInt() < 0:
		b.errs.Report(token.NegativeIntegerArgument, e.Position(), "%s cannot be negative", clause)
	default:
		return v.AsInt()
	}
	return 0
}

// same returns what makes expressions that are columns refer to these.
func same(items []*ast.Item, columns []column) func(ast.Expr) (variable, bool) {
	known := make(map[string]variable)
	for i, item := range items {
		known[ast.FormatExpr(item.Expr)] = columns[i].variable
	}
	return func(e ast.Expr) (variable, bool) {
		v, ok := known[ast.FormatExpr(e)]
		return v, ok
	}
}

// lower is the name of a function as tables have it.
func lower(c *ast.Call) string { return strings.ToLower(c.Name) }
