package query_test

import (
	"maps"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// reference answers a query on a graph by trying every element at every place. It shares nothing with the engine but
// the evaluation of expressions.
type reference struct {
	tree     *ast.Query
	slots    map[string]int
	compiler *eval.Compiler
	funcs    map[ast.Expr]eval.Func
	env      *eval.Env

	nodes, relationships []*graph.Element
	used                 map[graph.ElementID]bool
	row                  func()
}

func newReference(text string) *reference {
	tree, err := parser.Parse(text)
	if err != nil {
		panic(err)
	}
	r := &reference{tree: tree, slots: make(map[string]int), funcs: make(map[ast.Expr]eval.Func)}
	r.compiler = &eval.Compiler{Errs: &token.Errors{}, Slot: func(name string) (int, bool) {
		if _, ok := r.slots[name]; !ok {
			r.slots[name] = len(r.slots)
		}
		return r.slots[name], true
	}}
	return r
}

func (r *reference) eval(e ast.Expr) (graph.Value, error) {
	if r.funcs[e] == nil {
		r.funcs[e] = r.compiler.Compile(e)
		sites := r.compiler.NewEnv(16)
		copy(sites.Slots, r.env.Slots)
		r.env = sites
	}
	return r.funcs[e](r.env)
}

// answer returns the rows as text, sorted.
func (r *reference) answer(elements map[graph.ElementID]*graph.Element) []string {
	r.nodes, r.relationships = nil, nil
	for _, id := range slices.Sorted(maps.Keys(elements)) {
		if e := elements[id]; e.IsRelationship() {
			r.relationships = append(r.relationships, e)
		} else {
			r.nodes = append(r.nodes, e)
		}
	}
	r.env = r.compiler.NewEnv(16)
	ret := r.tree.Parts[0].Clauses[len(r.tree.Parts[0].Clauses)-1].(*ast.Return)
	var rows []string
	groups := make(map[string]*referenceGroup)
	if grouped(ret) && len(keysOf(ret)) == 0 {
		groups[""] = &referenceGroup{values: make(map[ast.Expr][]graph.Value)}
	}
	r.row = func() {
		if grouped(ret) {
			r.gather(ret, groups)
		} else if row, ok := r.project(ret, nil); ok {
			rows = append(rows, row)
		}
	}
	r.clauses(r.tree.Parts[0].Clauses)
	for _, g := range groups {
		if row, ok := r.project(ret, g); ok {
			rows = append(rows, row)
		}
	}
	slices.Sort(rows)
	if ret.Distinct {
		rows = slices.Compact(rows)
	}
	return rows
}

func (r *reference) clauses(clauses []ast.Clause) {
	m, ok := clauses[0].(*ast.Match)
	if !ok {
		r.row()
		return
	}
	outer := r.used
	r.used = make(map[graph.ElementID]bool)
	r.patterns(m.Patterns, func() {
		if r.holds(m.Where) {
			inner := r.used
			r.clauses(clauses[1:])
			r.used = inner
		}
	})
	r.used = outer
}

func (r *reference) holds(e ast.Expr) bool {
	if e == nil {
		return true
	}
	v, err := r.eval(e)
	return err == nil && v.Kind() == graph.KindBool && v.AsBool()
}

func (r *reference) patterns(patterns []*ast.Pattern, next func()) {
	if len(patterns) == 0 {
		next()
		return
	}
	p := patterns[0]
	for _, n := range r.nodes {
		r.node(p.Nodes[0], n, func() { r.path(p, 0, n, func() { r.patterns(patterns[1:], next) }) })
	}
}

func (r *reference) path(p *ast.Pattern, i int, at *graph.Element, next func()) {
	if i == len(p.Relationships) {
		next()
		return
	}
	pattern := p.Relationships[i]
	for _, rel := range r.relationships {
		if r.used[rel.ID] {
			continue
		}
		r.used[rel.ID] = true
		step := func(from, to graph.ElementID) {
			if from != at.ID || !eval.HasLabels(rel.Labels, pattern.Types) {
				return
			}
			for _, n := range r.nodes {
				if n.ID == to {
					r.bound(pattern.Variable, graph.RelationshipOf(rel), pattern.Properties, rel, func() {
						r.node(p.Nodes[i+1], n, func() { r.path(p, i+1, n, next) })
					})
				}
			}
		}
		if pattern.Direction != ast.Left {
			step(rel.Start, rel.End)
		}
		if pattern.Direction != ast.Right && (pattern.Direction == ast.Left || rel.Start != rel.End) {
			step(rel.End, rel.Start)
		}
		delete(r.used, rel.ID)
	}
}

func (r *reference) node(pattern *ast.NodePattern, n *graph.Element, next func()) {
	if eval.HasLabels(n.Labels, pattern.Labels) {
		r.bound(pattern.Variable, graph.NodeOf(n), pattern.Properties, n, next)
	}
}

// bound goes on with the variable set, if it is not set to something else.
func (r *reference) bound(variable *ast.Name, v graph.Value, properties ast.Expr, e *graph.Element, next func()) {
	if m, ok := properties.(*ast.MapLiteral); ok {
		for i, k := range m.Keys {
			want, err := r.eval(m.Values[i])
			if err != nil {
				return
			}
			if same := graph.Equal(e.Get(k.Text), want); same.IsNull() || !same.AsBool() {
				return
			}
		}
	}
	if variable == nil {
		next()
		return
	}
	slot, _ := r.compiler.Slot(variable.Text)
	old := r.env.Slots[slot]
	if !old.IsNull() && old.AsElement().ID != e.ID {
		return
	}
	r.env.Slots[slot] = v
	next()
	r.env.Slots[slot] = old
}

type referenceGroup struct {
	rows   int64
	keys   map[ast.Expr]graph.Value
	values map[ast.Expr][]graph.Value
}

func isCall(e ast.Expr) bool {
	_, ok := e.(*ast.Call)
	return ok
}

func grouped(ret *ast.Return) bool {
	return slices.ContainsFunc(ret.Items, func(i *ast.Item) bool { return isCall(i.Expr) })
}

func keysOf(ret *ast.Return) (keys []ast.Expr) {
	for _, item := range ret.Items {
		if !isCall(item.Expr) {
			keys = append(keys, item.Expr)
		}
	}
	return keys
}

func (r *reference) gather(ret *ast.Return, groups map[string]*referenceGroup) {
	keys := make(map[ast.Expr]graph.Value)
	var id []byte
	for _, e := range keysOf(ret) {
		v, err := r.eval(e)
		if err != nil {
			return
		}
		keys[e] = v
		id = graph.AppendKey(id, v)
	}
	values := make(map[ast.Expr]graph.Value)
	for _, item := range ret.Items {
		c, ok := item.Expr.(*ast.Call)
		if !ok || c.Star {
			continue
		}
		v, err := r.eval(c.Args[0])
		if err != nil || (c.Name == "sum" || c.Name == "avg") && !v.IsNull() && !v.IsNumber() {
			return
		}
		values[c] = v
	}
	g := groups[string(id)]
	if g == nil {
		g = &referenceGroup{values: make(map[ast.Expr][]graph.Value)}
		groups[string(id)] = g
	}
	g.keys = keys
	g.rows++
	for e, v := range values {
		if !v.IsNull() {
			g.values[e] = append(g.values[e], v)
		}
	}
}

func (r *reference) project(ret *ast.Return, g *referenceGroup) (string, bool) {
	var parts []string
	for _, item := range ret.Items {
		var v graph.Value
		var err error
		switch c, ok := item.Expr.(*ast.Call); {
		case ok && c.Star:
			v = graph.Int(g.rows)
		case ok:
			v = aggregate(c, g.values[c])
		case g != nil:
			v = g.keys[item.Expr]
		default:
			v, err = r.eval(item.Expr)
		}
		if err != nil {
			return "", false
		}
		parts = append(parts, item.Column()+": "+v.String())
	}
	return "{" + strings.Join(parts, ", ") + "}", true
}

// aggregate computes an aggregation of integers, of floats whose sums are exact, and of what min and max take.
func aggregate(c *ast.Call, values []graph.Value) graph.Value {
	values = slices.Clone(values)
	slices.SortStableFunc(values, func(a, b graph.Value) int {
		if d := graph.Compare(a, b); d != 0 {
			return d
		}
		return int(a.Kind()) - int(b.Kind())
	})
	if c.Distinct {
		values = slices.CompactFunc(values, func(a, b graph.Value) bool { return graph.Compare(a, b) == 0 })
	}
	switch c.Name {
	case "count":
		return graph.Int(int64(len(values)))
	case "min", "max":
		switch {
		case len(values) == 0:
			return graph.Null
		case c.Name == "min":
			return values[0]
		}
		return values[len(values)-1]
	}
	var ints int64
	var floats float64
	isFloat := false
	for _, v := range values {
		if v.Kind() == graph.KindInt {
			ints += v.AsInt()
		} else {
			floats, isFloat = floats+v.AsFloat(), true
		}
	}
	switch {
	case c.Name == "avg" && len(values) == 0:
		return graph.Null
	case c.Name == "avg":
		return graph.Float((floats + float64(ints)) / float64(len(values)))
	case isFloat:
		return graph.Float(floats + float64(ints))
	}
	return graph.Int(ints)
}
