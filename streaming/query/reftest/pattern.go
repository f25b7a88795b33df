package reftest

import (
	"maps"
	"slices"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// attempt is a way to lay the patterns of one MATCH over the graph, as far as it has come.
type attempt struct {
	vars map[string]graph.Value
	used map[graph.ElementID]bool // relationships
	// each is what has been laid where, for the conditions in the patterns, which are tried when everything is bound.
	each []placed
}

// placed is an element where a pattern asks for properties or a condition.
type placed struct {
	name              *ast.Name
	properties, where ast.Expr
	element           graph.Value
}

func (a attempt) bind(name *ast.Name, v graph.Value) (attempt, bool) {
	if name == nil {
		return a, true
	}
	if old, bound := a.vars[name.Text]; bound {
		return a, old.Kind() == v.Kind() && graph.Compare(old, v) == 0
	}
	a.vars = maps.Clone(a.vars)
	a.vars[name.Text] = v
	return a, true
}

func (a attempt) place(p placed) attempt {
	a.each = append(slices.Clip(a.each), p)
	return a
}

func (a attempt) use(id graph.ElementID) attempt {
	a.used = maps.Clone(a.used)
	a.used[id] = true
	return a
}

// patterns returns a row for each way to lay the patterns of one MATCH over the graph.
func (r *Reference) patterns(patterns []*ast.Pattern, where ast.Expr, in row) (rows []row) {
	attempts := []attempt{{vars: in.vars, used: map[graph.ElementID]bool{}}}
	for _, p := range patterns {
		var next []attempt
		for _, a := range attempts {
			r.pattern(p, a, func(a attempt) { next = append(next, a) })
		}
		attempts = next
	}
	for _, a := range attempts {
		found := row{vars: a.vars, order: in.order}
		if !slices.ContainsFunc(a.each, func(p placed) bool { return !r.fits(p, found) }) && (where == nil || r.holds(where, found)) {
			rows = append(rows, found)
		}
	}
	return rows
}

// fits reports whether an element is as the pattern wants it.
func (r *Reference) fits(p placed, in row) bool {
	if p.name != nil {
		in = in.with(p.name.Text, p.element) // the single relationship of a list
	}
	if m, ok := p.properties.(*ast.MapLiteral); ok {
		for i, k := range m.Keys {
			want, err := r.value(m.Values[i], in)
			if err != nil {
				return false
			}
			if same := graph.Equal(p.element.AsElement().Get(k.Text), want); same.IsNull() || !same.AsBool() {
				return false
			}
		}
	}
	return p.where == nil || r.holds(p.where, in)
}

func (r *Reference) holds(condition ast.Expr, in row) bool {
	v, err := r.value(condition, in)
	return err == nil && v.Kind() == graph.KindBool && v.AsBool()
}

func (r *Reference) node(id graph.ElementID) *graph.Element {
	for _, n := range r.nodes {
		if n.ID == id {
			return n
		}
	}
	return nil
}

// pattern calls found for each way to lay one pattern over the graph.
func (r *Reference) pattern(p *ast.Pattern, a attempt, found func(attempt)) {
	for _, n := range r.nodes {
		path := &graph.Path{Nodes: []*graph.Element{n}}
		r.at(p, 0, n, a, path, func(a attempt, path *graph.Path) {
			if a, ok := a.bind(p.Variable, graph.PathOf(path)); ok {
				found(a)
			}
		})
	}
}

// at lays the i-th node of a pattern over n, and goes on.
func (r *Reference) at(p *ast.Pattern, i int, n *graph.Element, a attempt, path *graph.Path, found func(attempt, *graph.Path)) {
	want := p.Nodes[i]
	a, ok := a.bind(want.Variable, graph.NodeOf(n))
	if !ok || !eval.HasLabels(n.Labels, want.Labels) {
		return
	}
	a = a.place(placed{want.Variable, want.Properties, want.Where, graph.NodeOf(n)})
	if i == len(p.Relationships) {
		found(a, path)
		return
	}
	rel := p.Relationships[i]
	if rel.Length != nil {
		r.follow(rel, n, a, path, nil, func(end *graph.Element, a attempt, path *graph.Path, list []graph.Value) {
			if a, ok := a.bind(rel.Variable, graph.List(list)); ok {
				r.at(p, i+1, end, a, path, found)
			}
		})
		return
	}
	r.step(rel, n, a, path, func(e, end *graph.Element, a attempt, path *graph.Path) {
		if a, ok := a.bind(rel.Variable, graph.RelationshipOf(e)); ok {
			a = a.place(placed{rel.Variable, rel.Properties, rel.Where, graph.RelationshipOf(e)})
			r.at(p, i+1, end, a, path, found)
		}
	})
}

// step calls next for each relationship that leads from a node as a pattern wants it, and is free.
func (r *Reference) step(rel *ast.RelationshipPattern, n *graph.Element, a attempt, path *graph.Path, next func(e, end *graph.Element, a attempt, path *graph.Path)) {
	for _, e := range r.relationships {
		if a.used[e.ID] || !eval.HasLabels(e.Labels, rel.Types) {
			continue
		}
		try := func(from, to graph.ElementID) {
			if end := r.node(to); from == n.ID && end != nil {
				next(e, end, a.use(e.ID), &graph.Path{
					Nodes:         append(slices.Clip(path.Nodes), end),
					Relationships: append(slices.Clip(path.Relationships), e),
				})
			}
		}
		if rel.Direction != ast.Left {
			try(e.Start, e.End)
		}
		if rel.Direction == ast.Left || rel.Direction == ast.Undirected && e.Start != e.End {
			try(e.End, e.Start)
		}
	}
}

// follow calls next for each way from a node along a relationship of variable length.
func (r *Reference) follow(rel *ast.RelationshipPattern, n *graph.Element, a attempt, path *graph.Path, list []graph.Value, next func(end *graph.Element, a attempt, path *graph.Path, list []graph.Value)) {
	if int64(len(list)) >= rel.Length.Min {
		next(n, a, path, list)
	}
	if rel.Length.Max >= 0 && int64(len(list)) >= rel.Length.Max {
		return
	}
	r.step(rel, n, a, path, func(e, end *graph.Element, a attempt, path *graph.Path) {
		v := graph.RelationshipOf(e)
		a = a.place(placed{rel.Variable, rel.Properties, rel.Where, v})
		r.follow(rel, end, a, path, append(slices.Clip(list), v), next)
	})
}
