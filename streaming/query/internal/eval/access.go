package eval

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

func (c *Compiler) index(e *ast.Index) Func {
	subject, index := c.compile(e.Subject), c.compile(e.Index)
	return func(env *Env) (graph.Value, error) {
		v, err := subject(env)
		if err != nil {
			return graph.Null, err
		}
		i, err := index(env)
		if err != nil {
			return graph.Null, err
		}
		return elementAt(v, i)
	}
}

func elementAt(v, i graph.Value) (graph.Value, error) {
	switch v.Kind() {
	case graph.KindNull:
		return graph.Null, nil
	case graph.KindList:
		switch i.Kind() {
		case graph.KindNull:
			return graph.Null, nil
		case graph.KindInt:
			list, at := v.AsList(), i.AsInt()
			if at < 0 {
				at += int64(len(list))
			}
			if at < 0 || at >= int64(len(list)) {
				return graph.Null, nil
			}
			return list[at], nil
		}
		return graph.Null, wrongType("a list is indexed by integers", i)
	case graph.KindMap, graph.KindNode, graph.KindRelationship:
		switch i.Kind() {
		case graph.KindNull:
			return graph.Null, nil
		case graph.KindString:
			if v.Kind() == graph.KindMap {
				return v.AsMap().Get(i.AsString()), nil
			}
			return v.AsElement().Get(i.AsString()), nil
		}
		return graph.Null, failed(token.MapElementAccessByNonString, "a %s is indexed by strings, got %s %s", v.Kind(), article(i.Kind()), i.Kind())
	}
	return graph.Null, wrongType("only lists, maps, nodes and relationships have an index", v)
}

func (c *Compiler) slice(e *ast.Slice) Func {
	subject := c.compile(e.Subject)
	var from, to Func
	if e.From != nil {
		from = c.compile(e.From)
	}
	if e.To != nil {
		to = c.compile(e.To)
	}
	return func(env *Env) (graph.Value, error) {
		list, ok, err := items(subject, "a slice", env)
		if !ok {
			return graph.Null, err
		}
		first, firstOK, err := bound(from, env, 0, len(list))
		if err != nil {
			return graph.Null, err
		}
		last, lastOK, err := bound(to, env, len(list), len(list))
		switch {
		case err != nil || !firstOK || !lastOK:
			return graph.Null, err
		case first >= last:
			return graph.List(nil), nil
		}
		return graph.List(list[first:last:last]), nil
	}
}

// bound evaluates an end of a slice of a list of n items; ok is false if it is null.
func bound(f Func, env *Env, absent, n int) (at int, ok bool, err error) {
	if f == nil {
		return absent, true, nil
	}
	v, err := f(env)
	switch {
	case err != nil || v.IsNull():
		return 0, false, err
	case v.Kind() != graph.KindInt:
		return 0, false, wrongType("a slice wants integers", v)
	}
	i := v.AsInt()
	if i < 0 {
		i = max(i+int64(n), 0)
	}
	return int(min(i, int64(n))), true, nil
}

// caseOf is CASE. A subject is equal to null never, as anywhere.
func (c *Compiler) caseOf(e *ast.Case) Func {
	var subject Func
	if e.Subject != nil {
		subject = c.compile(e.Subject)
	}
	conditions, candidates := make([]Condition, len(e.Whens)), make([]Func, len(e.Whens))
	values := make([]Func, len(e.Whens))
	for i, w := range e.Whens {
		if subject == nil {
			conditions[i] = c.condition(w.Condition)
		} else {
			candidates[i] = c.compile(w.Condition)
		}
		values[i] = c.compile(w.Then)
	}
	otherwise := constant(graph.Null)
	if e.Else != nil {
		otherwise = c.compile(e.Else)
	}
	if subject == nil {
		return func(env *Env) (graph.Value, error) {
			for i, condition := range conditions {
				switch t, err := condition(env); {
				case err != nil:
					return graph.Null, err
				case t == True:
					return values[i](env)
				}
			}
			return otherwise(env)
		}
	}
	return func(env *Env) (graph.Value, error) {
		v, err := subject(env)
		if err != nil {
			return graph.Null, err
		}
		for i, candidate := range candidates {
			switch w, err := candidate(env); {
			case err != nil:
				return graph.Null, err
			case equal(v, w) == True:
				return values[i](env)
			}
		}
		return otherwise(env)
	}
}

// mapProjection is subject {.name, .*, key: value}. What comes later replaces what has the same key.
func (c *Compiler) mapProjection(e *ast.MapProjection) Func {
	subject := c.compile(e.Subject)
	values := make([]Func, len(e.Items))
	for i, item := range e.Items {
		if item.Value != nil {
			values[i] = c.compile(item.Value)
		}
	}
	return func(env *Env) (graph.Value, error) {
		v, err := subject(env)
		if err != nil || v.IsNull() {
			return graph.Null, err
		}
		all, ok := propertiesOf(v)
		if !ok {
			return graph.Null, wrongType("a map projection wants a node, a relationship or a map", v)
		}
		m := &graph.Map{}
		for i, item := range e.Items {
			switch {
			case item.All:
				for k, name := range all.Keys {
					put(m, name, all.Values[k])
				}
			case values[i] == nil:
				put(m, item.Key.Text, all.Get(item.Key.Text))
			default:
				value, err := values[i](env)
				if err != nil {
					return graph.Null, err
				}
				put(m, item.Key.Text, value)
			}
		}
		return graph.MapOf(m), nil
	}
}

// put sets a key of a map that is being made.
func put(m *graph.Map, key string, v graph.Value) {
	at, found := slices.BinarySearch(m.Keys, key)
	if found {
		m.Values[at] = v
		return
	}
	m.Keys = slices.Insert(m.Keys, at, key)
	m.Values = slices.Insert(m.Values, at, v)
}

// propertiesOf returns the entries of a map or the properties of an element, without those that are null.
func propertiesOf(v graph.Value) (*graph.Map, bool) {
	switch v.Kind() {
	case graph.KindMap:
		return v.AsMap(), true
	case graph.KindNode, graph.KindRelationship:
	default:
		return nil, false
	}
	e := v.AsElement()
	if e.Shape == nil {
		return &graph.Map{}, true
	}
	type entry struct {
		key   string
		value graph.Value
	}
	var list []entry
	for i, name := range e.Shape.Names() {
		if i < len(e.Values) && !e.Values[i].IsNull() {
			list = append(list, entry{name, e.Values[i]})
		}
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	m := &graph.Map{}
	for _, x := range list {
		m.Keys, m.Values = append(m.Keys, x.key), append(m.Values, x.value)
	}
	return m, true
}
