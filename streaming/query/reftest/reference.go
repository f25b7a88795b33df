// Package reftest answers queries in the simplest way there is, to hold the engine against: it tries every element at
// every place of a pattern and computes every clause from the whole table before it. Nothing is indexed, planned,
// remembered or maintained. With the engine it shares the syntax tree, the values and the evaluation of expressions.
//
// It makes random queries, graphs and changes, too, so that all tests that want them draw the same ones.
package reftest

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher"
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// Reference answers one query, on any number of graphs. One goroutine uses it.
type Reference struct {
	tree     *ast.Query
	compiler *eval.Compiler
	env      *eval.Env
	slots    map[string]int
	count    int // slots
	prepared map[ast.Expr]*expression

	nodes, relationships []*graph.Element
	answer               *Answer
}

// New returns a reference for a query that the engine accepts; of others it knows nothing.
func New(text string, parameters map[string]graph.Value) (*Reference, error) {
	tree, err := cypher.Parse(text)
	if err != nil {
		return nil, err
	}
	r := &Reference{tree: tree, slots: make(map[string]int), prepared: make(map[ast.Expr]*expression)}
	r.compiler = &eval.Compiler{Errs: &token.Errors{Text: text}, Alloc: r.alloc, Parameters: parameters}
	return r, nil
}

// row is one row of a table.
type row struct {
	vars map[string]graph.Value
	// order is what rows have been sorted by, and for items of UNWIND their place. Rows with the same order may come in
	// any order.
	order []sortValue
	// Behind a projection: what there was before it, of one row of the group, and its aggregations. ORDER BY and WHERE may
	// use both.
	before    map[string]graph.Value
	aggregate func(*ast.Call) (graph.Value, error)
}

type sortValue struct {
	graph.Value
	descending bool
}

func (in row) with(name string, v graph.Value) row {
	vars := maps.Clone(in.vars)
	vars[name] = v
	return row{vars: vars, order: in.order}
}

func has(in row, name string) bool {
	_, ok := in.vars[name]
	return ok
}

func compareOrder(a, b []sortValue) int {
	for i := range min(len(a), len(b)) {
		c := graph.Compare(a[i].Value, b[i].Value)
		if a[i].descending {
			c = -c
		}
		if c != 0 {
			return c
		}
	}
	return len(a) - len(b)
}

// Answer answers the query on a graph. Columns are those of the result, in their order.
func (r *Reference) Answer(elements map[graph.ElementID]*graph.Element, columns []string) *Answer {
	r.nodes, r.relationships = nil, nil
	for _, id := range slices.Sorted(maps.Keys(elements)) {
		if e := elements[id]; e.IsRelationship() {
			r.relationships = append(r.relationships, e)
		} else {
			r.nodes = append(r.nodes, e)
		}
	}
	r.answer = &Answer{columns: columns}
	rows := r.query(r.tree, row{vars: map[string]graph.Value{}})
	if last := r.lastReturn(); last != nil && len(last.OrderBy) > 0 {
		r.answer.ordered = true
	}
	r.answer.rows = rows
	return r.answer
}

// lastReturn returns the RETURN whose order is that of the result, if there is only one.
func (r *Reference) lastReturn() *ast.Return {
	if len(r.tree.Parts) > 1 {
		return nil
	}
	clauses := r.tree.Parts[0].Clauses
	last, _ := clauses[len(clauses)-1].(*ast.Return)
	return last
}

// query returns the rows of a query for one row of what surrounds it.
func (r *Reference) query(q *ast.Query, outer row) []row {
	var all []row
	for _, part := range q.Parts {
		all = append(all, r.single(part, outer)...)
	}
	if len(q.Parts) == 1 {
		return all
	}
	for i := range all {
		all[i].order = nil
	}
	if q.Unions[0].All {
		return all
	}
	names := columnsOf(q.Parts[0])
	return distinct(all, func(in row) []graph.Value { return values(in, names) })
}

func columnsOf(q *ast.SingleQuery) (names []string) {
	if last, ok := q.Clauses[len(q.Clauses)-1].(*ast.Return); ok {
		for _, item := range last.Items {
			names = append(names, item.Column())
		}
	}
	return names
}

func values(in row, names []string) []graph.Value {
	list := make([]graph.Value, len(names))
	for i, name := range names {
		list[i] = in.vars[name]
	}
	return list
}

// single returns the rows of a sequence of clauses for one row of what surrounds it.
func (r *Reference) single(q *ast.SingleQuery, outer row) []row {
	outer.order = nil
	rows := []row{outer}
	for _, clause := range q.Clauses {
		var next []row
		switch c := clause.(type) {
		case *ast.Match:
			for _, in := range rows {
				next = append(next, r.match(c, in)...)
			}
		case *ast.Unwind:
			for _, in := range rows {
				next = append(next, r.unwind(c, in)...)
			}
		case *ast.With:
			next = r.project(&c.Projection, c.Where, rows, outer, false)
		case *ast.Return:
			next = r.project(&c.Projection, nil, rows, outer, q == r.tree.Parts[0] && r.lastReturn() == c)
		}
		rows = next
	}
	return rows
}

func (r *Reference) match(m *ast.Match, in row) []row {
	rows := r.patterns(m.Patterns, m.Where, in)
	if len(rows) > 0 || !m.Optional {
		return rows
	}
	for _, p := range m.Patterns {
		names := []*ast.Name{p.Variable}
		for i, n := range p.Nodes {
			if names = append(names, n.Variable); i < len(p.Relationships) {
				names = append(names, p.Relationships[i].Variable)
			}
		}
		for _, name := range names {
			if name != nil && !has(in, name.Text) {
				in = in.with(name.Text, graph.Null)
			}
		}
	}
	return []row{in}
}

func (r *Reference) unwind(u *ast.Unwind, in row) (rows []row) {
	list, err := r.value(u.List, in)
	if err != nil || list.IsNull() {
		return nil
	}
	items := []graph.Value{list}
	if list.Kind() == graph.KindList {
		items = list.AsList()
	}
	for i, item := range items {
		next := in.with(u.Variable.Text, item)
		next.order = append(slices.Clone(in.order), sortValue{Value: graph.Int(int64(i))})
		rows = append(rows, next)
	}
	return rows
}

// form tells equivalent values apart: of 1 and 1.0, of which one stands for both, it is the integer.
func form(v graph.Value) string {
	switch v.Kind() {
	case graph.KindInt, graph.KindFloat:
		return string(rune('0' + v.Kind()))
	case graph.KindList:
		return forms(v.AsList())
	case graph.KindMap:
		return forms(v.AsMap().Values)
	}
	return ""
}

func forms(list []graph.Value) string {
	var b strings.Builder
	for _, v := range list {
		b.WriteString(form(v))
	}
	return b.String()
}

func compareAll(a, b []graph.Value) int {
	return slices.CompareFunc(a, b, graph.Compare)
}

// distinct keeps one of the rows with equivalent keys, that of the smallest form, without any order.
func distinct(rows []row, keys func(row) []graph.Value) (kept []row) {
	for _, in := range rows {
		in.order = nil
		k := keys(in)
		i := slices.IndexFunc(kept, func(other row) bool { return compareAll(keys(other), k) == 0 })
		switch {
		case i < 0:
			kept = append(kept, in)
		case forms(k) < forms(keys(kept[i])):
			kept[i] = in
		}
	}
	return kept
}
