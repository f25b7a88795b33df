package eval

import (
	"slices"
	"unicode/utf8"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// MaxList is how many items a list may have that a function makes.
const MaxList = 2_000_000

var listFunctions = map[string]function{
	"size":    {least: 1, most: 1, call: size},
	"isempty": {least: 1, most: 1, call: isEmpty},
	"head":    {least: 1, most: 1, call: onList("head", func(l []graph.Value) graph.Value { return at(l, 0) })},
	"last":    {least: 1, most: 1, call: onList("last", func(l []graph.Value) graph.Value { return at(l, len(l)-1) })},
	"tail":    {least: 1, most: 1, call: onList("tail", tail)},
	"reverse": {least: 1, most: 1, call: reverse},
	"range":   {least: 2, most: 3, call: rangeOf},
}

func at(l []graph.Value, i int) graph.Value {
	if i < 0 || i >= len(l) {
		return graph.Null
	}
	return l[i]
}

func tail(l []graph.Value) graph.Value {
	if len(l) == 0 {
		return graph.List(nil)
	}
	return graph.List(l[1:])
}

func onList(name string, f func([]graph.Value) graph.Value) func(*Env, []graph.Value) (graph.Value, error) {
	return func(_ *Env, args []graph.Value) (graph.Value, error) {
		if args[0].Kind() != graph.KindList {
			return graph.Null, wrongType(name+" wants a list", args[0])
		}
		return f(args[0].AsList()), nil
	}
}

func size(_ *Env, args []graph.Value) (graph.Value, error) {
	switch args[0].Kind() {
	case graph.KindList:
		return graph.Int(int64(len(args[0].AsList()))), nil
	case graph.KindString:
		return graph.Int(int64(utf8.RuneCountInString(args[0].AsString()))), nil
	case graph.KindMap:
		return graph.Int(int64(len(args[0].AsMap().Keys))), nil
	}
	return graph.Null, wrongType("size wants a list, a string or a map", args[0])
}

func isEmpty(env *Env, args []graph.Value) (graph.Value, error) {
	n, err := size(env, args)
	if err != nil {
		return graph.Null, wrongType("isEmpty wants a list, a string or a map", args[0])
	}
	return graph.Bool(n.AsInt() == 0), nil
}

func reverse(_ *Env, args []graph.Value) (graph.Value, error) {
	switch args[0].Kind() {
	case graph.KindList:
		list := slices.Clone(args[0].AsList())
		slices.Reverse(list)
		return graph.List(list), nil
	case graph.KindString:
		runes := []rune(args[0].AsString())
		slices.Reverse(runes)
		return graph.String(string(runes)), nil
	}
	return graph.Null, wrongType("reverse wants a list or a string", args[0])
}

func rangeOf(_ *Env, args []graph.Value) (graph.Value, error) {
	for _, v := range args {
		if v.Kind() != graph.KindInt {
			return graph.Null, wrongType("range wants integers", v)
		}
	}
	from, to, step := args[0].AsInt(), args[1].AsInt(), int64(1)
	if len(args) == 3 {
		step = args[2].AsInt()
	}
	switch {
	case step == 0:
		return graph.Null, failed(token.NumberOutOfRange, "the step of range is 0")
	case step > 0 && from > to || step < 0 && from < to:
		return graph.List(nil), nil
	}
	// Distances and steps are unsigned, as the whole range of integers does not fit an integer.
	distance, stride := uint64(to)-uint64(from), uint64(step)
	if step < 0 {
		distance, stride = uint64(from)-uint64(to), -uint64(step)
	}
	if distance/stride >= MaxList {
		return graph.Null, failed(token.NumberOutOfRange, "range(%d, %d, %d) has more than %d items", from, to, step, MaxList)
	}
	list := make([]graph.Value, distance/stride+1)
	for i := range list {
		list[i] = graph.Int(from + int64(i)*step)
	}
	return graph.List(list), nil
}
