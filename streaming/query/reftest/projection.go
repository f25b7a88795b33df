package reftest

import (
	"maps"
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// project returns the rows of WITH or RETURN; last says that it is the one whose rows are the result.
func (r *Reference) project(p *ast.Projection, where ast.Expr, rows []row, outer row, last bool) []row {
	items := p.Items
	if p.Star && len(rows) > 0 {
		for _, name := range slices.Backward(slices.Sorted(maps.Keys(rows[0].vars))) {
			items = slices.Insert(slices.Clone(items), 0, &ast.Item{Expr: &ast.Variable{Name: name}, Text: name})
		}
	}
	columns := make([]string, len(items))
	for i, item := range items {
		columns[i] = item.Column()
	}
	if slices.ContainsFunc(items, func(i *ast.Item) bool { return aggregates(i.Expr) != nil }) {
		rows = r.group(items, rows, outer)
	} else {
		rows = r.each(rows, func(in row) (row, error) { return r.items(items, in, in) })
	}
	if p.Distinct {
		rows = distinct(rows, func(in row) []graph.Value { return values(in, columns) })
		for i := range rows {
			rows[i].vars = shown(rows[i], columns, outer)
		}
	}
	if len(p.OrderBy) > 0 {
		rows = r.each(rows, func(in row) (row, error) { return r.sorted(p.OrderBy, items, in) })
	}
	if p.Skip != nil || p.Limit != nil {
		rows = r.window(p, rows, columns, last)
	}
	if where != nil {
		rows = slices.DeleteFunc(rows, func(in row) bool { return !r.holds(where, in.behind()) })
	}
	for i := range rows {
		rows[i] = row{vars: shown(rows[i], columns, outer), order: rows[i].order}
	}
	return rows
}

// behind returns a row with all that ORDER BY and WHERE see behind a projection: columns hide what was there before.
func (in row) behind() row {
	vars := maps.Clone(in.before)
	maps.Copy(vars, in.vars)
	return row{vars: vars}
}

// each applies f to each row; rows on which it fails are left out.
func (r *Reference) each(rows []row, f func(row) (row, error)) (result []row) {
	for _, in := range rows {
		if out, err := f(in); err == nil {
			result = append(result, out)
		}
	}
	return result
}

// shown returns what the clauses behind a projection see: its columns and what surrounds the query.
func shown(in row, columns []string, outer row) map[string]graph.Value {
	vars := maps.Clone(outer.vars)
	for _, name := range columns {
		vars[name] = in.vars[name]
	}
	return vars
}

// items computes the columns of in and adds them to out.
func (r *Reference) items(items []*ast.Item, in, out row) (row, error) {
	out.vars, out.before = maps.Clone(out.vars), in.vars
	for _, item := range items {
		v, err := r.valueIn(item.Expr, in, out.aggregate)
		if err != nil {
			return row{}, err
		}
		out.vars[item.Column()] = v
	}
	return out, nil
}

// sorted gives a row its order. A key that stands among the columns is that column.
func (r *Reference) sorted(keys []*ast.SortItem, items []*ast.Item, in row) (row, error) {
	in.order = nil
	for _, key := range keys {
		e := key.Expr
		for _, item := range items {
			if _, hidden := in.vars[ast.FormatExpr(e)]; !hidden && ast.FormatExpr(item.Expr) == ast.FormatExpr(e) {
				e = &ast.Variable{Name: item.Column()}
			}
		}
		v, err := r.valueIn(e, in.behind(), in.aggregate)
		if err != nil {
			return row{}, err
		}
		in.order = append(in.order, sortValue{v, key.Descending})
	}
	return in, nil
}

// window returns the rows from SKIP up to LIMIT. Where rows that differ have the same order, any of them may be in it.
func (r *Reference) window(p *ast.Projection, rows []row, columns []string, last bool) []row {
	amount := func(e ast.Expr, otherwise int) int {
		if e == nil {
			return otherwise
		}
		v, err := r.value(e, row{})
		if err != nil {
			panic(err)
		}
		return int(v.AsInt())
	}
	from := min(amount(p.Skip, 0), len(rows))
	to := min(from+amount(p.Limit, len(rows)), len(rows))
	slices.SortStableFunc(rows, func(a, b row) int { return compareOrder(a.order, b.order) })
	for _, cut := range []int{from, to} {
		if from == to || cut == 0 || cut == len(rows) {
			continue
		}
		for i := range rows {
			tied := compareOrder(rows[i].order, rows[cut].order) == 0 && compareOrder(rows[cut-1].order, rows[cut].order) == 0
			if !tied || slices.EqualFunc(values(rows[i], columns), values(rows[cut], columns), graph.Identical) {
				continue
			}
			if last {
				r.answer.candidates = slices.Clone(rows)
			} else {
				r.answer.undetermined = true
			}
		}
	}
	return rows[from:to:to]
}

// aggregates returns the aggregations in an expression, without those of subqueries.
func aggregates(e ast.Expr) (calls []*ast.Call) {
	ast.Walk(e, func(e ast.Expr) bool {
		if eval.IsAggregate(e) {
			calls = append(calls, e.(*ast.Call))
			return false
		}
		return true
	})
	return calls
}

// group is the rows of an aggregating projection with the same keys.
type group struct {
	keys   []graph.Value
	row    row // one of its rows
	inputs map[*ast.Call][]input
	rows   int64
}

// input is what a row gives to an aggregation.
type input struct {
	ordered
	extra graph.Value // the percentile
}

func (r *Reference) group(items []*ast.Item, rows []row, outer row) []row {
	var keys []*ast.Item
	var calls []*ast.Call
	for _, item := range items {
		if found := aggregates(item.Expr); found != nil {
			calls = append(calls, found...)
		} else {
			keys = append(keys, item)
		}
	}
	var groups []*group
	if len(keys) == 0 {
		groups = append(groups, &group{row: outer, inputs: make(map[*ast.Call][]input)})
	}
	for _, in := range rows {
		if g, err := r.gather(keys, calls, in); err == nil {
			groups = merged(groups, g)
		}
	}
	var result []row
	for _, g := range groups {
		aggregate := func(c *ast.Call) (graph.Value, error) { return r.aggregate(c, g) }
		if out, err := r.items(items, g.row, row{vars: outer.vars, aggregate: aggregate}); err == nil {
			result = append(result, out)
		}
	}
	return result
}

// gather returns the group of a single row.
func (r *Reference) gather(keys []*ast.Item, calls []*ast.Call, in row) (*group, error) {
	g := &group{row: in, rows: 1, inputs: make(map[*ast.Call][]input)}
	for _, item := range keys {
		v, err := r.value(item.Expr, in)
		if err != nil {
			return nil, err
		}
		g.keys = append(g.keys, v)
	}
	for _, c := range calls {
		if c.Star {
			continue
		}
		v, err := r.value(c.Args[0], in)
		if err != nil {
			return nil, err
		}
		x := input{ordered: ordered{v, in.order}}
		if len(c.Args) > 1 {
			if x.extra, err = r.value(c.Args[1], in); err != nil {
				return nil, err
			}
		}
		if v.IsNull() {
			continue
		}
		if err := fit(c, x); err != nil {
			return nil, err
		}
		g.inputs[c] = append(g.inputs[c], x)
	}
	return g, nil
}

func merged(groups []*group, g *group) []*group {
	i := slices.IndexFunc(groups, func(other *group) bool { return compareAll(other.keys, g.keys) == 0 })
	if i < 0 {
		return append(groups, g)
	}
	other := groups[i]
	other.rows++
	for c, inputs := range g.inputs {
		other.inputs[c] = append(other.inputs[c], inputs...)
	}
	if other.rows == 1 || forms(g.keys) < forms(other.keys) {
		other.keys, other.row = g.keys, g.row
	}
	return groups
}
