package eval

import (
	"fmt"
	"math"
	"math/bits"
	"slices"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// quotientDigits is the precision of what division cannot express exactly, that of IEEE decimal128.
const quotientDigits = 34

// exact is the context in which decimals are added, subtracted and multiplied: nothing is rounded.
var exact = apd.BaseContext

func typeError(op string, a, b graph.Value) error {
	return failed(token.InvalidArgumentType, "%s does not work on %s %s and %s %s", op, article(a.Kind()), a.Kind(), article(b.Kind()), b.Kind())
}

func overflow(op string, a, b graph.Value) error {
	return failed(token.IntegerOverflow, "integer overflow in %s %s %s", a, op, b)
}

// areInts reports whether integers meet, which operators look at first: it is the usual case.
func areInts(a, b graph.Value) bool { return a.Kind() == graph.KindInt && b.Kind() == graph.KindInt }

// arithmetic applies an operator to two numbers that are not both integers: with floats as floats, else as decimals. A
// null operand gives null.
func arithmetic(op string, a, b graph.Value, floats func(x, y float64) float64,
	decimals func(d, x, y *apd.Decimal) (apd.Condition, error),
) (graph.Value, error) {
	switch {
	case a.Kind() == graph.KindFloat && b.Kind() == graph.KindFloat:
		return graph.Float(floats(a.AsFloat(), b.AsFloat())), nil
	case a.IsNull() || b.IsNull():
		return graph.Null, nil
	case !a.IsNumber() || !b.IsNumber():
		if v, ok, err := temporalArithmetic(op, a, b); ok {
			return v, err
		}
		return graph.Null, typeError(op, a, b)
	case a.Kind() == graph.KindFloat || b.Kind() == graph.KindFloat:
		return graph.Float(floats(ToFloat(a), ToFloat(b))), nil
	}
	d := new(apd.Decimal)
	if _, err := decimals(d, ToDecimal(a), ToDecimal(b)); err != nil {
		return graph.Null, fmt.Errorf("%w in %s %s %s", err, a, op, b)
	}
	d.Negative = d.Negative && !d.IsZero() // decimals know no -0
	return graph.Decimal(d), nil
}

// ToFloat returns a number as the nearest float.
func ToFloat(v graph.Value) float64 {
	switch v.Kind() {
	case graph.KindInt:
		return float64(v.AsInt())
	case graph.KindFloat:
		return v.AsFloat()
	}
	d := v.AsDecimal()
	switch d.Form {
	case apd.Finite:
		f, _ := graph.NearestFloat(d)
		return f
	case apd.Infinite:
		if d.Negative {
			return math.Inf(-1)
		}
		return math.Inf(1)
	}
	return math.NaN()
}

// ToDecimal returns an integer or decimal as a decimal, which must not be changed.
func ToDecimal(v graph.Value) *apd.Decimal {
	if v.Kind() == graph.KindInt {
		return apd.New(v.AsInt(), 0)
	}
	return v.AsDecimal()
}

// AddDecimal sets d to x + y without rounding.
func AddDecimal(d, x, y *apd.Decimal) error {
	_, err := exact.Add(d, x, y)
	return err
}

// DivideDecimal sets d to x / y with 34 significant digits.
func DivideDecimal(d, x, y *apd.Decimal) error {
	_, err := exact.WithPrecision(quotientDigits).Quo(d, x, y)
	return err
}

func add(env *Env, a, b graph.Value) (graph.Value, error) {
	if !areInts(a, b) {
		v, err := addOthers(a, b)
		if err == nil {
			err = env.made(v)
		}
		return v, err
	}
	x, y := a.AsInt(), b.AsInt()
	if sum := x + y; (sum > x) == (y > 0) {
		return graph.Int(sum), nil
	}
	return graph.Null, overflow("+", a, b)
}

func addOthers(a, b graph.Value) (graph.Value, error) {
	switch ka, kb := a.Kind(), b.Kind(); {
	case a.IsNull() || b.IsNull():
		return graph.Null, nil
	case ka == graph.KindList && kb == graph.KindList:
		return graph.List(slices.Concat(a.AsList(), b.AsList())), nil
	case ka == graph.KindList:
		return graph.List(append(slices.Clone(a.AsList()), b)), nil
	case kb == graph.KindList:
		return graph.List(append([]graph.Value{a}, b.AsList()...)), nil
	case ka == graph.KindString && kb == graph.KindString:
		return graph.String(a.AsString() + b.AsString()), nil
	case ka == graph.KindString && b.IsNumber():
		return graph.String(a.AsString() + b.String()), nil
	case a.IsNumber() && kb == graph.KindString:
		return graph.String(a.String() + b.AsString()), nil
	}
	return arithmetic("+", a, b, func(x, y float64) float64 { return x + y }, exact.Add)
}

func subtract(_ *Env, a, b graph.Value) (graph.Value, error) {
	if !areInts(a, b) {
		return arithmetic("-", a, b, func(x, y float64) float64 { return x - y }, exact.Sub)
	}
	x, y := a.AsInt(), b.AsInt()
	if diff := x - y; (diff < x) == (y > 0) {
		return graph.Int(diff), nil
	}
	return graph.Null, overflow("-", a, b)
}

func multiply(_ *Env, a, b graph.Value) (graph.Value, error) {
	if !areInts(a, b) {
		return arithmetic("*", a, b, func(x, y float64) float64 { return x * y }, exact.Mul)
	}
	if p, ok := multiplyInts(a.AsInt(), b.AsInt()); ok {
		return graph.Int(p), nil
	}
	return graph.Null, overflow("*", a, b)
}

func multiplyInts(x, y int64) (int64, bool) {
	negative := (x < 0) != (y < 0)
	hi, lo := bits.Mul64(magnitude(x), magnitude(y))
	switch {
	case hi != 0:
		return 0, false
	case negative:
		return -int64(lo), lo <= 1<<63
	}
	return int64(lo), lo < 1<<63
}

func magnitude(i int64) uint64 {
	if i < 0 {
		return -uint64(i)
	}
	return uint64(i)
}

func divide(_ *Env, a, b graph.Value) (graph.Value, error) {
	if !areInts(a, b) {
		return arithmetic("/", a, b, func(x, y float64) float64 { return x / y }, exact.WithPrecision(quotientDigits).Quo)
	}
	switch x, y := a.AsInt(), b.AsInt(); {
	case y == 0:
		return graph.Null, failed(token.DivisionByZero, "division by zero in %s / %s", a, b)
	case y == -1 && x == math.MinInt64:
		return graph.Null, overflow("/", a, b)
	default:
		return graph.Int(x / y), nil
	}
}

func modulo(_ *Env, a, b graph.Value) (graph.Value, error) {
	if !areInts(a, b) {
		return arithmetic("%", a, b, math.Mod, remainder)
	}
	if b.AsInt() == 0 {
		return graph.Null, failed(token.DivisionByZero, "division by zero in %s %% %s", a, b)
	}
	return graph.Int(a.AsInt() % b.AsInt()), nil
}

func remainder(d, x, y *apd.Decimal) (apd.Condition, error) {
	// The whole quotient must fit the precision.
	digits := x.NumDigits() + y.NumDigits() + int64(max(x.Exponent-y.Exponent, y.Exponent-x.Exponent))
	return exact.WithPrecision(uint32(digits)).Rem(d, x, y)
}

// power is always a float, as openCypher says.
func power(_ *Env, a, b graph.Value) (graph.Value, error) {
	switch {
	case a.IsNull() || b.IsNull():
		return graph.Null, nil
	case !a.IsNumber() || !b.IsNumber():
		return graph.Null, typeError("^", a, b)
	}
	return graph.Float(math.Pow(ToFloat(a), ToFloat(b))), nil
}

func negate(v graph.Value) (graph.Value, error) {
	switch v.Kind() {
	case graph.KindNull:
		return v, nil
	case graph.KindInt:
		if v.AsInt() == math.MinInt64 {
			return graph.Null, failed(token.IntegerOverflow, "integer overflow in -(%s)", v)
		}
		return graph.Int(-v.AsInt()), nil
	case graph.KindFloat:
		return graph.Float(-v.AsFloat()), nil
	case graph.KindDecimal:
		return graph.Decimal(new(apd.Decimal).Neg(v.AsDecimal())), nil
	}
	return graph.Null, wrongType("- wants a number", v)
}
