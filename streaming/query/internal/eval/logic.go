package eval

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// MapKeys returns the keys of a map literal in ascending order and where each stands in the literal.
func MapKeys(e *ast.MapLiteral, errs *token.Errors) (keys []string, order []int) {
	for i := range e.Keys {
		order = append(order, i)
	}
	slices.SortStableFunc(order, func(a, b int) int { return strings.Compare(e.Keys[a].Text, e.Keys[b].Text) })
	for i, at := range order {
		k := e.Keys[at]
		if i > 0 && keys[i-1] == k.Text {
			errs.Report(token.ColumnNameConflict, k.Range, "the key %s is given twice", ast.FormatName(k.Text))
		}
		keys = append(keys, k.Text)
	}
	return keys, order
}

// Truth reads a condition's value: whether it is true and whether it is null.
func Truth(v graph.Value) (isTrue, isNull bool, err error) {
	switch v.Kind() {
	case graph.KindBool:
		return v.AsBool(), false, nil
	case graph.KindNull:
		return false, true, nil
	}
	return false, false, wrongType("a condition wants a boolean", v)
}

func article(k graph.Kind) string {
	if strings.ContainsRune("AEIOU", rune(k.String()[0])) {
		return "an"
	}
	return "a"
}

func (c *Compiler) unary(e *ast.Unary) Func {
	operand := c.compile(e.Operand)
	switch e.Op {
	case "NOT":
		return func(env *Env) (graph.Value, error) {
			v, err := operand(env)
			if err != nil {
				return graph.Null, err
			}
			isTrue, isNull, err := Truth(v)
			if err != nil || isNull {
				return graph.Null, err
			}
			return graph.Bool(!isTrue), nil
		}
	case "-":
		return func(env *Env) (graph.Value, error) {
			v, err := operand(env)
			if err != nil {
				return graph.Null, err
			}
			return negate(v)
		}
	}
	return func(env *Env) (graph.Value, error) {
		v, err := operand(env)
		if err == nil && !v.IsNull() && !v.IsNumber() {
			err = wrongType("+ wants a number", v)
		}
		return v, err
	}
}

func (c *Compiler) binary(e *ast.Binary) Func {
	left, right := c.compile(e.Left), c.compile(e.Right)
	switch e.Op {
	case "AND":
		return connective(left, right, false)
	case "OR":
		return connective(left, right, true)
	case "=~":
		return onBoth(left, right, (*Env).matches)
	case "+": // the one operator that makes larger values of smaller ones
		c.spends = true
		return onBoth(left, right, func(env *Env, a, b graph.Value) (graph.Value, error) {
			v, err := add(a, b)
			if err == nil {
				err = env.made(v)
			}
			return v, err
		})
	}
	op := operators[e.Op]
	if op == nil {
		panic("eval: no rule for the operator " + e.Op)
	}
	return onBoth(left, right, func(_ *Env, a, b graph.Value) (graph.Value, error) { return op(a, b) })
}

// onBoth applies op to the values of two expressions.
func onBoth(left, right Func, op func(env *Env, a, b graph.Value) (graph.Value, error)) Func {
	return func(env *Env) (graph.Value, error) {
		a, err := left(env)
		if err != nil {
			return graph.Null, err
		}
		b, err := right(env)
		if err != nil {
			return graph.Null, err
		}
		return op(env, a, b)
	}
}

var operators = map[string]func(a, b graph.Value) (graph.Value, error){
	"XOR": xor, "-": subtract, "*": multiply, "/": divide, "%": modulo, "^": power, "IN": in,
	"STARTS WITH": onStrings(strings.HasPrefix), "ENDS WITH": onStrings(strings.HasSuffix), "CONTAINS": onStrings(strings.Contains),
}

// connective is AND (decisive false) or OR (decisive true). The decisive value wins over null and over an error on the
// other side, whichever side it is on: the order in which conditions are tried must not matter.
func connective(left, right Func, decisive bool) Func {
	return func(env *Env) (graph.Value, error) {
		aTrue, aNull, aErr := truthOf(left, env)
		if aErr == nil && !aNull && aTrue == decisive {
			return graph.Bool(decisive), nil
		}
		bTrue, bNull, bErr := truthOf(right, env)
		switch {
		case bErr == nil && !bNull && bTrue == decisive:
			return graph.Bool(decisive), nil
		case aErr != nil:
			return graph.Null, aErr
		case bErr != nil:
			return graph.Null, bErr
		case aNull || bNull:
			return graph.Null, nil
		}
		return graph.Bool(!decisive), nil
	}
}

func truthOf(f Func, env *Env) (isTrue, isNull bool, err error) {
	v, err := f(env)
	if err != nil {
		return false, false, err
	}
	return Truth(v)
}

func xor(a, b graph.Value) (graph.Value, error) {
	aTrue, aNull, err := Truth(a)
	if err != nil {
		return graph.Null, err
	}
	bTrue, bNull, err := Truth(b)
	if err != nil || aNull || bNull {
		return graph.Null, err
	}
	return graph.Bool(aTrue != bTrue), nil
}

func in(v, list graph.Value) (graph.Value, error) {
	switch list.Kind() {
	case graph.KindNull:
		return graph.Null, nil
	case graph.KindList:
	default:
		return graph.Null, wrongType("IN wants a list", list)
	}
	result := graph.Bool(false)
	for _, item := range list.AsList() {
		switch e := graph.Equal(v, item); {
		case e.IsNull():
			result = graph.Null
		case e.AsBool():
			return e, nil
		}
	}
	return result, nil
}

func onStrings(test func(s, part string) bool) func(a, b graph.Value) (graph.Value, error) {
	return func(a, b graph.Value) (graph.Value, error) {
		if a.Kind() != graph.KindString || b.Kind() != graph.KindString {
			return graph.Null, nil
		}
		return graph.Bool(test(a.AsString(), b.AsString())), nil
	}
}

func (c *Compiler) comparison(e *ast.Comparison) Func {
	operands := make([]Func, len(e.Operands))
	for i, operand := range e.Operands {
		operands[i] = c.compile(operand)
	}
	chain := compare(e.Ops[0], operands[0], operands[1])
	for i, op := range e.Ops[1:] {
		chain = connective(chain, compare(op, operands[i+1], operands[i+2]), false)
	}
	return chain
}

func compare(op string, left, right Func) Func {
	test := comparisons[op]
	return onBoth(left, right, func(_ *Env, a, b graph.Value) (graph.Value, error) { return test(a, b), nil })
}

var comparisons = map[string]func(a, b graph.Value) graph.Value{
	"=": graph.Equal,
	"<>": func(a, b graph.Value) graph.Value {
		e := graph.Equal(a, b)
		if e.IsNull() {
			return e
		}
		return graph.Bool(!e.AsBool())
	},
	"<":  ordered(func(sign int) bool { return sign < 0 }),
	"<=": ordered(func(sign int) bool { return sign <= 0 }),
	">":  ordered(func(sign int) bool { return sign > 0 }),
	">=": ordered(func(sign int) bool { return sign >= 0 }),
}

func ordered(test func(sign int) bool) func(a, b graph.Value) graph.Value {
	return func(a, b graph.Value) graph.Value {
		sign, compares, nan := graph.Order(a, b)
		if !compares {
			return graph.Null
		}
		return graph.Bool(!nan && test(sign))
	}
}
