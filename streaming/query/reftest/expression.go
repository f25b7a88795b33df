package reftest

import (
	"math/rand/v2"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
)

// expression is one that can be evaluated. What looks at the graph or at other rows is computed before, and stands in
// slots of its own.
type expression struct {
	eval     eval.Func
	slots    map[string]int // of its variables
	computed map[ast.Expr]int
	order    []ast.Expr // of computed
}

func (r *Reference) alloc() int {
	r.count++
	return r.count - 1
}

func (r *Reference) prepare(e ast.Expr) *expression {
	if x := r.prepared[e]; x != nil {
		return x
	}
	x := &expression{slots: make(map[string]int), computed: make(map[ast.Expr]int)}
	ast.Walk(e, func(e ast.Expr) bool {
		if !isComputed(e) {
			return true
		}
		x.computed[e] = r.alloc()
		x.order = append(x.order, e)
		return false
	})
	r.compiler.Slot = func(name string) (int, bool) {
		if _, ok := r.slots[name]; !ok {
			r.slots[name] = r.alloc()
		}
		x.slots[name] = r.slots[name]
		return r.slots[name], true
	}
	r.compiler.Replace = func(e ast.Expr) (int, bool) {
		slot, ok := x.computed[e]
		return slot, ok
	}
	x.eval = r.compiler.Compile(e)
	if err := r.compiler.Errs.Err(); err != nil {
		panic(err)
	}
	r.env = r.compiler.NewEnv(r.count)
	r.env.Random = rand.New(rand.NewPCG(1, 1)) //nolint:gosec // chance that can be repeated
	r.prepared[e] = x
	return x
}

// isComputed reports whether an expression is computed here and not by package eval.
func isComputed(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.Subquery, *ast.PatternPredicate, *ast.PatternComprehension:
		return true
	case *ast.Call:
		switch name := strings.ToLower(e.Name); {
		case eval.IsAggregate(e), name == "startnode", name == "endnode":
			return true
		case name == "exists":
			_, ok := e.Args[0].(*ast.PatternPredicate)
			return ok
		}
	case *ast.ListComprehension:
		return containsComputed(e.Where) || containsComputed(e.Map)
	case *ast.Quantifier:
		return containsComputed(e.Where)
	case *ast.Reduce:
		return containsComputed(e.Body)
	}
	return false
}

// containsComputed reports whether the body of a comprehension, which is evaluated for each item, looks at the graph.
func containsComputed(e ast.Expr) bool {
	found := false
	ast.Walk(e, func(e ast.Expr) bool {
		found = found || isComputed(e)
		return !found
	})
	return found
}

func (r *Reference) value(e ast.Expr, in row) (graph.Value, error) { return r.valueIn(e, in, nil) }

// valueIn evaluates an expression in which aggregate, when there is one, knows the aggregations.
func (r *Reference) valueIn(e ast.Expr, in row, aggregate func(*ast.Call) (graph.Value, error)) (graph.Value, error) {
	x := r.prepare(e)
	computed := make([]graph.Value, len(x.order))
	for i, part := range x.order {
		var err error
		if eval.IsAggregate(part) {
			computed[i], err = aggregate(part.(*ast.Call))
		} else {
			computed[i], err = r.compute(part, in)
		}
		if err != nil {
			return graph.Null, err
		}
	}
	for name, slot := range x.slots {
		r.env.Slots[slot] = in.vars[name]
	}
	for i, part := range x.order {
		r.env.Slots[x.computed[part]] = computed[i]
	}
	return x.eval(r.env)
}

// compute evaluates an expression that looks at the graph.
func (r *Reference) compute(e ast.Expr, in row) (graph.Value, error) {
	switch e := e.(type) {
	case *ast.PatternPredicate:
		return graph.Bool(len(r.patterns([]*ast.Pattern{e.Pattern}, nil, in)) > 0), nil
	case *ast.Subquery:
		rows := r.query(e.Query, in)
		switch e.Kind {
		case "exists":
			return graph.Bool(len(rows) > 0), nil
		case "count":
			return graph.Int(int64(len(rows))), nil
		}
		column := columnsOf(e.Query.Parts[0])[0]
		var list []ordered
		for _, found := range rows {
			list = append(list, ordered{found.vars[column], found.order})
		}
		return r.list(list), nil
	case *ast.PatternComprehension:
		var list []ordered
		for _, found := range r.patterns([]*ast.Pattern{e.Pattern}, e.Where, in) {
			if v, err := r.value(e.Map, found); err == nil {
				list = append(list, ordered{v, nil})
			}
		}
		return r.list(list), nil
	case *ast.Call:
		if p, ok := e.Args[0].(*ast.PatternPredicate); ok {
			return r.compute(p, in)
		}
		v, err := r.value(e.Args[0], in)
		if err != nil || v.IsNull() {
			return graph.Null, err
		}
		id := v.AsElement().End
		if strings.EqualFold(e.Name, "startNode") {
			id = v.AsElement().Start
		}
		return graph.NodeOf(r.node(id)), nil
	case *ast.ListComprehension:
		return r.comprehension(e, in)
	case *ast.Quantifier:
		conditions := &ast.ListComprehension{Base: e.Base, Variable: e.Variable, List: e.List, Map: e.Where}
		list, err := r.comprehension(conditions, in)
		if err != nil {
			return graph.Null, err
		}
		all := &ast.Quantifier{Base: e.Base, Kind: e.Kind, Variable: e.Variable, List: &ast.Variable{Name: e.Variable.Text}}
		return r.value(all, in.with(e.Variable.Text, list))
	case *ast.Reduce:
		return r.reduce(e, in)
	}
	panic("reftest: nothing computes " + ast.FormatExpr(e))
}

func (r *Reference) comprehension(e *ast.ListComprehension, in row) (graph.Value, error) {
	list, err := r.value(e.List, in)
	if err != nil || list.IsNull() {
		return graph.Null, err
	}
	kept := []graph.Value{}
	for _, item := range list.AsList() {
		each := in.with(e.Variable.Text, item)
		if e.Where != nil {
			switch kept, err := r.value(e.Where, each); {
			case err != nil:
				return graph.Null, err
			case kept.Kind() != graph.KindBool || !kept.AsBool():
				continue
			}
		}
		if e.Map != nil {
			if item, err = r.value(e.Map, each); err != nil {
				return graph.Null, err
			}
		}
		kept = append(kept, item)
	}
	return graph.List(kept), nil
}

func (r *Reference) reduce(e *ast.Reduce, in row) (graph.Value, error) {
	total, err := r.value(e.Init, in)
	if err != nil {
		return graph.Null, err
	}
	list, err := r.value(e.List, in)
	if err != nil || list.IsNull() {
		return graph.Null, err
	}
	for _, item := range list.AsList() {
		if total, err = r.value(e.Body, in.with(e.Variable.Text, item).with(e.Accumulator.Text, total)); err != nil {
			return graph.Null, err
		}
	}
	return total, nil
}
