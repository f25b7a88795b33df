package eval

import (
	"math"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

var mathFunctions = map[string]function{
	"abs":     {least: 1, most: 1, call: abs},
	"sign":    {least: 1, most: 1, call: sign},
	"ceil":    {least: 1, most: 1, call: rounded("ceil", math.Ceil, apd.RoundCeiling)},
	"floor":   {least: 1, most: 1, call: rounded("floor", math.Floor, apd.RoundFloor)},
	"round":   {least: 1, most: 3, call: round},
	"isnan":   {least: 1, most: 1, call: isNaN},
	"e":       {call: func(*Env, []graph.Value) (graph.Value, error) { return graph.Float(math.E), nil }},
	"pi":      {call: func(*Env, []graph.Value) (graph.Value, error) { return graph.Float(math.Pi), nil }},
	"sqrt":    onFloat("sqrt", math.Sqrt),
	"cbrt":    onFloat("cbrt", math.Cbrt),
	"exp":     onFloat("exp", math.Exp),
	"log":     onFloat("log", math.Log),
	"ln":      onFloat("ln", math.Log),
	"log10":   onFloat("log10", math.Log10),
	"sin":     onFloat("sin", math.Sin),
	"cos":     onFloat("cos", math.Cos),
	"tan":     onFloat("tan", math.Tan),
	"cot":     onFloat("cot", func(x float64) float64 { return 1 / math.Tan(x) }),
	"asin":    onFloat("asin", math.Asin),
	"acos":    onFloat("acos", math.Acos),
	"atan":    onFloat("atan", math.Atan),
	"sinh":    onFloat("sinh", math.Sinh),
	"cosh":    onFloat("cosh", math.Cosh),
	"tanh":    onFloat("tanh", math.Tanh),
	"coth":    onFloat("coth", func(x float64) float64 { return 1 / math.Tanh(x) }),
	"degrees": onFloat("degrees", func(x float64) float64 { return x * 180 / math.Pi }),
	"radians": onFloat("radians", func(x float64) float64 { return x * math.Pi / 180 }),
	"haversin": onFloat("haversin", func(x float64) float64 {
		s := math.Sin(x / 2)
		return s * s
	}),
	"atan2": {least: 2, most: 2, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
		for _, v := range args {
			if !v.IsNumber() {
				return graph.Null, wrongType("atan2 wants numbers", v)
			}
		}
		return graph.Float(math.Atan2(ToFloat(args[0]), ToFloat(args[1]))), nil
	}},
}

func onFloat(name string, f func(float64) float64) function {
	return function{least: 1, most: 1, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
		if !args[0].IsNumber() {
			return graph.Null, wrongType(name+" wants a number", args[0])
		}
		return graph.Float(f(ToFloat(args[0]))), nil
	}}
}

func abs(_ *Env, args []graph.Value) (graph.Value, error) {
	switch v := args[0]; v.Kind() {
	case graph.KindInt:
		if v.AsInt() < 0 {
			return negate(v)
		}
		return v, nil
	case graph.KindFloat:
		return graph.Float(math.Abs(v.AsFloat())), nil
	case graph.KindDecimal:
		return graph.Decimal(new(apd.Decimal).Abs(v.AsDecimal())), nil
	}
	return graph.Null, wrongType("abs wants a number", args[0])
}

func sign(_ *Env, args []graph.Value) (graph.Value, error) {
	if !args[0].IsNumber() {
		return graph.Null, wrongType("sign wants a number", args[0])
	}
	switch f := ToFloat(args[0]); {
	case f > 0:
		return graph.Int(1), nil
	case f < 0:
		return graph.Int(-1), nil
	}
	return graph.Int(0), nil
}

func isNaN(_ *Env, args []graph.Value) (graph.Value, error) {
	if !args[0].IsNumber() {
		return graph.Null, wrongType("isNaN wants a number", args[0])
	}
	return graph.Bool(math.IsNaN(ToFloat(args[0]))), nil
}

// rounded makes a whole number: of a decimal a decimal, of any other number a float.
func rounded(name string, f func(float64) float64, mode apd.Rounder) func(*Env, []graph.Value) (graph.Value, error) {
	return func(_ *Env, args []graph.Value) (graph.Value, error) {
		switch {
		case !args[0].IsNumber():
			return graph.Null, wrongType(name+" wants a number", args[0])
		case args[0].Kind() == graph.KindDecimal:
			return quantized(args[0].AsDecimal(), 0, mode)
		}
		return graph.Float(f(ToFloat(args[0]))), nil
	}
}

func quantized(d *apd.Decimal, digits int32, mode apd.Rounder) (graph.Value, error) {
	if d.Form != apd.Finite || d.Exponent >= -digits {
		return graph.Decimal(d), nil
	}
	ctx := exact.WithPrecision(uint32(d.NumDigits()) + 1)
	ctx.Rounding = mode
	q := new(apd.Decimal)
	if _, err := ctx.Quantize(q, d, -digits); err != nil {
		return graph.Null, err
	}
	return graph.Decimal(q), nil
}

var roundingModes = map[string]apd.Rounder{
	"UP": apd.RoundUp, "DOWN": apd.RoundDown, "CEILING": apd.RoundCeiling, "FLOOR": apd.RoundFloor,
	"HALF_UP": apd.RoundHalfUp, "HALF_DOWN": apd.RoundHalfDown, "HALF_EVEN": apd.RoundHalfEven,
}

// maxDigits bounds how many digits behind the point round may keep: no float has more.
const maxDigits = 324

// round(x), round(x, digits) and round(x, digits, mode). Without a mode ties go up when there are no digits to keep, as
// round always did, and away from zero otherwise.
func round(_ *Env, args []graph.Value) (graph.Value, error) {
	v := args[0]
	if !v.IsNumber() {
		return graph.Null, wrongType("round wants a number", v)
	}
	digits, mode := int64(0), apd.RoundHalfUp
	if len(args) > 1 {
		if args[1].Kind() != graph.KindInt {
			return graph.Null, wrongType("round wants its digits as an integer", args[1])
		}
		if digits = args[1].AsInt(); digits < 0 || digits > maxDigits {
			return graph.Null, failed(token.NumberOutOfRange, "round keeps 0 to %d digits, not %d", maxDigits, digits)
		}
	}
	if len(args) > 2 {
		var ok bool
		if args[2].Kind() == graph.KindString {
			mode, ok = roundingModes[args[2].AsString()]
		}
		if !ok {
			return graph.Null, failed(token.InvalidArgumentValue, "round has the modes UP, DOWN, CEILING, FLOOR, HALF_UP, HALF_DOWN and HALF_EVEN, not %s", args[2])
		}
	}
	switch v.Kind() {
	case graph.KindDecimal:
		return quantized(v.AsDecimal(), int32(digits), mode)
	case graph.KindInt:
		return graph.Float(float64(v.AsInt())), nil
	}
	f := v.AsFloat()
	switch {
	case math.IsNaN(f) || math.IsInf(f, 0):
		return v, nil
	case digits == 0 && len(args) < 3:
		if r := math.Floor(f); f-r >= 0.5 {
			return graph.Float(r + 1), nil
		}
		return graph.Float(math.Floor(f)), nil
	}
	d, err := new(apd.Decimal).SetFloat64(f)
	if err != nil {
		return graph.Null, err
	}
	q, err := quantized(d, int32(digits), mode)
	if err != nil {
		return graph.Null, err
	}
	return graph.Float(ToFloat(q)), nil
}
