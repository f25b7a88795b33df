package plan

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// aggregates are the functions that make one value of many rows.
var aggregates = map[string]bool{"count": true, "sum": true, "avg": true, "min": true, "max": true}

func isAggregate(e ast.Expr) bool {
	c, ok := e.(*ast.Call)
	return ok && aggregates[strings.ToLower(c.Name)]
}

func hasAggregate(e ast.Expr) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		found = found || isAggregate(e)
		return !found
	})
	return found
}

func (b *builder) refuseAggregates(e ast.Expr, where string) {
	ast.Walk(e, func(e ast.Expr) bool {
		if isAggregate(e) {
			b.errs.Add(e.Position(), "an aggregation cannot be used in %s", where)
		}
		return true
	})
}

func (b *builder) returns(r *ast.Return) {
	items := r.Items
	if r.Star {
		items = append(b.star(r), items...)
	}
	names := make(map[string]bool)
	for _, item := range items {
		name := item.Column()
		if names[name] {
			at := item.Expr.Position()
			if item.Alias != nil {
				at = item.Alias.Range
			}
			b.errs.Add(at, "two columns have the name %q", name)
		}
		names[name] = true
		b.plan.Columns = append(b.plan.Columns, name)
		b.plan.Grouped = b.plan.Grouped || hasAggregate(item.Expr)
		b.reads(item.Expr)
	}
	b.plan.Distinct = r.Distinct
	if b.plan.Grouped {
		b.grouped(items)
		return
	}
	for _, item := range items {
		b.plan.Items = append(b.plan.Items, b.plan.compilers[0].Compile(item.Expr))
	}
}

// star returns an item for each variable, in the order of their names.
func (b *builder) star(r *ast.Return) []*ast.Item {
	var items []*ast.Item
	for _, name := range slices.Sorted(maps.Keys(b.variables)) {
		if b.plan.Positions[b.variables[name]].Named {
			items = append(items, &ast.Item{Expr: &ast.Variable{Base: ast.Base{Range: r.Range}, Name: name}, Text: name})
		}
	}
	if len(items) == 0 {
		b.errs.Add(r.Range, "RETURN * needs at least one variable")
	}
	return items
}

// grouped makes items without aggregation the keys of groups. The others may use these keys, aggregations and constants.
func (b *builder) grouped(items []*ast.Item) {
	p := b.plan
	keys := make(map[string]int) // printed expression -> slot in the group
	for _, item := range items {
		if !hasAggregate(item.Expr) {
			text := ast.FormatExpr(item.Expr)
			if _, ok := keys[text]; !ok {
				keys[text] = len(p.Keys)
				p.Keys = append(p.Keys, p.compilers[0].Compile(item.Expr))
				p.KeyExprs = append(p.KeyExprs, item.Expr)
			}
		}
	}
	calls := make(map[string]int) // printed call -> slot in the group
	for _, item := range items {
		ast.Walk(item.Expr, func(e ast.Expr) bool {
			if !isAggregate(e) {
				return true
			}
			text := ast.FormatExpr(e)
			if _, ok := calls[text]; !ok {
				calls[text] = len(p.Keys) + len(p.Aggregates)
				p.Aggregates = append(p.Aggregates, b.aggregate(e.(*ast.Call)))
			}
			return false
		})
	}
	p.compilers[1] = &eval.Compiler{
		Parameters: b.parameters, Errs: b.errs,
		Slot: func(string) (int, bool) { return 0, true }, // Replace and ungrouped see to variables
		Replace: func(e ast.Expr) (int, bool) {
			if isAggregate(e) {
				return calls[ast.FormatExpr(e)], true
			}
			slot, ok := keys[ast.FormatExpr(e)]
			return slot, ok
		},
	}
	for _, item := range items {
		b.ungrouped(item.Expr, keys)
		p.Items = append(p.Items, p.compilers[1].Compile(item.Expr))
	}
}

// ungrouped reports variables that are neither a key nor inside an aggregation.
func (b *builder) ungrouped(e ast.Expr, keys map[string]int) {
	ast.Walk(e, func(e ast.Expr) bool {
		if _, ok := keys[ast.FormatExpr(e)]; ok || isAggregate(e) {
			return false
		}
		if v, ok := e.(*ast.Variable); ok {
			b.errs.Add(v.Range, "%s is neither aggregated nor, alone or in this expression, a column of its own", ast.FormatName(v.Name))
		}
		return true
	})
}

func (b *builder) aggregate(c *ast.Call) Aggregate {
	a := Aggregate{Name: strings.ToLower(c.Name), Distinct: c.Distinct, Expr: c}
	switch {
	case c.Star && a.Name != "count":
		b.errs.Add(c.Range, "only count takes *")
	case c.Star:
	case len(c.Args) != 1:
		b.errs.Add(c.Range, "%s takes one argument, not %d", a.Name, len(c.Args))
	default:
		b.refuseAggregates(c.Args[0], "another aggregation")
		a.Arg = b.plan.compilers[0].Compile(c.Args[0])
	}
	return a
}
