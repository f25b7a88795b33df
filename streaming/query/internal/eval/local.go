package eval

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// local is a variable that exists inside of one expression.
type local struct {
	name string
	slot int
}

// with compiles something in which name is a variable of its own, and returns its slot. Values are written there while
// the expression is evaluated; nothing outside of it reads them.
func (c *Compiler) with(name string, compile func()) (slot int) {
	c.spends, c.varies = true, true
	slot = c.Alloc()
	c.locals = append(c.locals, local{name, slot})
	compile()
	c.locals = c.locals[:len(c.locals)-1]
	return slot
}

// resolve returns the slot of a variable.
func (c *Compiler) resolve(name string) (slot int, ok bool) {
	for i := len(c.locals) - 1; i >= 0; i-- {
		if c.locals[i].name == name {
			return c.locals[i].slot, true
		}
	}
	return c.Slot(name)
}

// items evaluates an expression that is to be a list; null gives ok == false.
func items(f Func, what string, env *Env) (list []graph.Value, ok bool, err error) {
	v, err := f(env)
	switch {
	case err != nil || v.IsNull():
		return nil, false, err
	case v.Kind() != graph.KindList:
		return nil, false, wrongType(what+" wants a list", v)
	}
	if err := env.made(v); err != nil {
		return nil, false, err
	}
	return v.AsList(), true, nil
}

// takeApart puts the parts that have been computed for an item into their slots and returns the item, see Compiler.Parts.
func (env *Env) takeApart(v graph.Value, parts []int) graph.Value {
	list := v.AsList()
	for i, slot := range parts {
		env.Slots[slot] = list[i+1]
	}
	return list[0]
}

func (c *Compiler) listComprehension(e *ast.ListComprehension) Func {
	list := c.compile(e.List)
	var where Condition
	var mapped Func
	slot := c.with(e.Variable.Text, func() {
		if e.Where != nil {
			where = c.condition(e.Where)
		}
		if e.Map != nil {
			mapped = c.compile(e.Map)
		}
	})
	parts, apart := c.Parts[e]
	return func(env *Env) (graph.Value, error) {
		all, ok, err := items(list, "a list comprehension", env)
		if !ok {
			return graph.Null, err
		}
		kept := make([]graph.Value, 0, len(all))
		for _, v := range all {
			if apart {
				v = env.takeApart(v, parts)
			}
			env.Slots[slot] = v
			if where != nil {
				t, err := where(env)
				if err != nil {
					return graph.Null, err
				}
				if t != True {
					continue
				}
			}
			if mapped != nil {
				if v, err = mapped(env); err != nil {
					return graph.Null, err
				}
			}
			kept = append(kept, v)
		}
		return graph.List(kept), nil
	}
}

func (c *Compiler) quantifier(e *ast.Quantifier) Func {
	list := c.compile(e.List)
	var where Condition
	slot := c.with(e.Variable.Text, func() {
		if e.Where != nil {
			where = c.condition(e.Where)
		}
	})
	if where == nil {
		where = Slot(slot).truth
	}
	verdict := quantifiers[e.Kind]
	parts, apart := c.Parts[e]
	return func(env *Env) (graph.Value, error) {
		all, ok, err := items(list, e.Kind, env)
		if !ok {
			return graph.Null, err
		}
		var n counts
		for _, v := range all {
			if apart {
				v = env.takeApart(v, parts)
			}
			env.Slots[slot] = v
			t, err := where(env)
			if err != nil {
				return graph.Null, err
			}
			switch t {
			case True:
				n.yes++
			case False:
				n.no++
			default:
				n.unknown++
			}
		}
		return verdict(n), nil
	}
}

// counts says for how many items a condition is true, false and null.
type counts struct{ yes, no, unknown int }

// quantifiers say what becomes of the counts. An item that decides wins over those that are unknown.
var quantifiers = map[string]func(n counts) graph.Value{
	"all":  func(n counts) graph.Value { return decided(n.no > 0, false, n.unknown > 0) },
	"any":  func(n counts) graph.Value { return decided(n.yes > 0, true, n.unknown > 0) },
	"none": func(n counts) graph.Value { return decided(n.yes > 0, false, n.unknown > 0) },
	"single": func(n counts) graph.Value {
		if n.yes != 1 && n.unknown == 0 {
			return graph.Bool(false)
		}
		return decided(n.yes > 1, false, n.unknown > 0)
	},
}

// decided is value if something decided, else null if something is unknown, else the opposite of value.
func decided(decides, value, unknown bool) graph.Value {
	switch {
	case decides:
		return graph.Bool(value)
	case unknown:
		return graph.Null
	}
	return graph.Bool(!value)
}

// maxNesting is how deep lists and maps may be within each other; only reduce can nest without an end.
const maxNesting = 100

func nestedDeeper(v graph.Value, depth int) bool {
	var parts []graph.Value
	switch v.Kind() {
	case graph.KindList:
		parts = v.AsList()
	case graph.KindMap:
		parts = v.AsMap().Values
	default:
		return false
	}
	if depth == 0 {
		return true
	}
	for _, p := range parts {
		if nestedDeeper(p, depth-1) {
			return true
		}
	}
	return false
}

func (c *Compiler) reduce(e *ast.Reduce) Func {
	start, list := c.compile(e.Init), c.compile(e.List)
	var body Func
	var item int
	total := c.with(e.Accumulator.Text, func() {
		item = c.with(e.Variable.Text, func() { body = c.compile(e.Body) })
	})
	parts, apart := c.Parts[e]
	return func(env *Env) (graph.Value, error) {
		all, ok, err := items(list, "reduce", env)
		if !ok {
			return graph.Null, err
		}
		v, err := start(env)
		for _, next := range all {
			if err != nil {
				return graph.Null, err
			}
			if apart {
				next = env.takeApart(next, parts)
			}
			env.Slots[total], env.Slots[item] = v, next
			if v, err = body(env); err == nil && nestedDeeper(v, maxNesting) {
				err = failed(token.LimitExceeded, "reduce makes a value that is nested deeper than %d", maxNesting)
			}
		}
		return v, err
	}
}
