package eval

import (
	"cmp"
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

// Truth is what a condition is.
type Truth int8

// The three truths, such that NOT changes the sign. A condition that is null is unknown.
const (
	False Truth = iota - 1
	Unknown
	True
)

func truth(b bool) Truth {
	var t Truth
	if b { // a form that is compiled without a jump, which rows would take at random
		t = 1
	}
	return 2*t - 1
}

// truthOf reads a value as a condition.
func truthOf(v graph.Value) (Truth, error) {
	switch v.Kind() {
	case graph.KindBool:
		return truth(v.AsBool()), nil
	case graph.KindNull:
		return Unknown, nil
	}
	return Unknown, wrongType("a condition wants a boolean", v)
}

// truth is f as a condition.
func (f Func) truth(env *Env) (Truth, error) {
	v, err := f(env)
	if err != nil {
		return Unknown, err
	}
	return truthOf(v)
}

// value is p as an expression that has a value.
func (p Condition) value(env *Env) (graph.Value, error) {
	t, err := p(env)
	if t == Unknown {
		return graph.Null, err
	}
	return graph.Bool(t == True), err
}

// condition compiles e as a condition.
func (c *Compiler) condition(e ast.Expr) Condition {
	if !c.replaced(e) {
		if p := c.predicate(e); p != nil {
			return p
		}
	}
	return c.compile(e).truth
}

// predicate compiles an expression whose value is a boolean or null; it returns nil for any other.
func (c *Compiler) predicate(e ast.Expr) Condition {
	switch e := e.(type) {
	case *ast.Binary:
		return c.binaryPredicate(e)
	case *ast.Comparison:
		return c.comparison(e)
	case *ast.LabelTest:
		return c.labelTest(e)
	case *ast.NullTest:
		f, not := c.compile(e.Operand), e.Not
		return func(env *Env) (Truth, error) {
			v, err := f(env)
			return truth(v.IsNull() != not), err
		}
	case *ast.Unary:
		if e.Op == "NOT" {
			f := c.condition(e.Operand)
			return func(env *Env) (Truth, error) {
				t, err := f(env)
				return -t, err
			}
		}
	}
	return nil
}

func article(k graph.Kind) string {
	if strings.ContainsRune("AEIOU", rune(k.String()[0])) {
		return "an"
	}
	return "a"
}

func (c *Compiler) unary(e *ast.Unary) Func {
	f := c.compile(e.Operand)
	if e.Op == "-" {
		return func(env *Env) (graph.Value, error) {
			v, err := f(env)
			if err != nil {
				return graph.Null, err
			}
			return negate(v)
		}
	}
	return func(env *Env) (graph.Value, error) {
		v, err := f(env)
		if err == nil && !v.IsNull() && !v.IsNumber() {
			err = wrongType("+ wants a number", v)
		}
		return v, err
	}
}

func (c *Compiler) binary(e *ast.Binary) Func {
	left, right := c.operand(e.Left), c.operand(e.Right)
	if e.Op == "+" { // the one operator that makes larger values of smaller ones
		c.spends = true
	}
	op := operators[e.Op]
	if op == nil {
		panic("eval: no rule for the operator " + e.Op)
	}
	return onBoth(left, right, op)
}

var operators = map[string]func(env *Env, a, b graph.Value) (graph.Value, error){
	"+": add, "-": subtract, "*": multiply, "/": divide, "%": modulo, "^": power,
}

func (c *Compiler) binaryPredicate(e *ast.Binary) Condition {
	switch e.Op {
	case "AND":
		return connective(c.condition(e.Left), c.condition(e.Right), False)
	case "OR":
		return connective(c.condition(e.Left), c.condition(e.Right), True)
	case "IN":
		v, list := c.operand(e.Left), c.operand(e.Right)
		if sorted := sortedItems(list); sorted != nil {
			return inSorted(v.eval, sorted)
		}
		return onBoth(v, list, in)
	}
	if test := tests[e.Op]; test != nil {
		return onBoth(c.operand(e.Left), c.operand(e.Right), test)
	}
	return nil
}

var tests = map[string]func(env *Env, a, b graph.Value) (Truth, error){
	"XOR": xor, "=~": (*Env).matches,
	"STARTS WITH": onStrings(strings.HasPrefix), "ENDS WITH": onStrings(strings.HasSuffix), "CONTAINS": onStrings(strings.Contains),
}

// onBoth applies op to the values of two expressions.
func onBoth[T any](left, right operand, op func(env *Env, a, b graph.Value) (T, error)) func(*Env) (T, error) {
	first, second := left.eval, right.eval
	if right.fixed { // the usual case, without a call
		b := right.value
		return func(env *Env) (t T, err error) {
			a, err := first(env)
			if err != nil {
				return t, err
			}
			return op(env, a, b)
		}
	}
	return func(env *Env) (t T, err error) {
		a, err := first(env)
		if err != nil {
			return t, err
		}
		b, err := second(env)
		if err != nil {
			return t, err
		}
		return op(env, a, b)
	}
}

// connective is AND (False is decisive) or OR (True is decisive). What is decisive wins over null and over an error on the
// other side, whichever side it is on: the order in which conditions are tried must not matter.
func connective(left, right Condition, decisive Truth) Condition {
	return func(env *Env) (Truth, error) {
		a, aErr := left(env)
		if a == decisive && aErr == nil {
			return decisive, nil
		}
		b, bErr := right(env)
		switch {
		case b == decisive && bErr == nil:
			return decisive, nil
		case aErr != nil:
			return Unknown, aErr
		case bErr != nil:
			return Unknown, bErr
		case a == Unknown || b == Unknown:
			return Unknown, nil
		}
		return -decisive, nil
	}
}

func xor(_ *Env, a, b graph.Value) (Truth, error) {
	x, err := truthOf(a)
	if err != nil {
		return Unknown, err
	}
	y, err := truthOf(b)
	return -x * y, err // true if they have different signs
}

func in(_ *Env, v, list graph.Value) (Truth, error) {
	switch list.Kind() {
	case graph.KindNull:
		return Unknown, nil
	case graph.KindList:
	default:
		return Unknown, wrongType("IN wants a list", list)
	}
	result := False
	for _, item := range list.AsList() {
		switch equal(v, item) {
		case True:
			return True, nil
		case Unknown:
			result = Unknown
		}
	}
	return result, nil
}

// sortedItems returns the items of a list in order if it is known and so long that it pays to search it. The items must
// be of kinds of which equivalent values are equal.
func sortedItems(list operand) []graph.Value {
	const long = 8
	if !list.fixed || list.value.Kind() != graph.KindList || len(list.value.AsList()) < long {
		return nil
	}
	items := slices.Clone(list.value.AsList())
	for _, item := range items {
		if k := item.Kind(); k != graph.KindInt && k != graph.KindString {
			return nil
		}
	}
	slices.SortFunc(items, graph.Compare)
	return items
}

func inSorted(f Func, items []graph.Value) Condition {
	return func(env *Env) (Truth, error) {
		v, err := f(env)
		if err != nil || v.IsNull() {
			return Unknown, err
		}
		_, found := slices.BinarySearchFunc(items, v, graph.Compare)
		return truth(found), nil
	}
}

func onStrings(test func(s, part string) bool) func(_ *Env, a, b graph.Value) (Truth, error) {
	return func(_ *Env, a, b graph.Value) (Truth, error) {
		if a.Kind() != graph.KindString || b.Kind() != graph.KindString {
			return Unknown, nil
		}
		return truth(test(a.AsString(), b.AsString())), nil
	}
}

func (c *Compiler) comparison(e *ast.Comparison) Condition {
	operands := c.operands(e.Operands)
	chain := compare(e.Ops[0], operands[0], operands[1])
	for i, op := range e.Ops[1:] {
		chain = connective(chain, compare(op, operands[i+1], operands[i+2]), False)
	}
	return chain
}

func compare(op string, left, right operand) Condition {
	switch op {
	case "=":
		return onBoth(left, right, func(_ *Env, a, b graph.Value) (Truth, error) { return equal(a, b), nil })
	case "<>":
		return onBoth(left, right, func(_ *Env, a, b graph.Value) (Truth, error) { return -equal(a, b), nil })
	}
	bySign := inequalities[op]
	return onBoth(left, right, func(_ *Env, a, b graph.Value) (Truth, error) {
		if areInts(a, b) {
			return bySign[cmp.Compare(a.AsInt(), b.AsInt())+1], nil
		}
		sign, compares, nan := graph.Order(a, b)
		switch {
		case !compares:
			return Unknown, nil
		case nan:
			return False, nil
		}
		return bySign[sign+1], nil
	})
}

func equal(a, b graph.Value) Truth {
	e := graph.Equal(a, b)
	if e.IsNull() {
		return Unknown
	}
	return truth(e.AsBool())
}

// inequalities says for each operator what it is when the left side is less, equal and greater.
var inequalities = map[string]*[3]Truth{
	"<":  {True, False, False},
	"<=": {True, True, False},
	">":  {False, False, True},
	">=": {False, True, True},
}
