package eval

import (
	"math"
	"math/big"
	"strconv"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

var conversionFunctions = conversions(map[string]func(graph.Value) (graph.Value, bool){
	"toInteger": toInteger,
	"toFloat":   toFloat,
	"toBoolean": toBoolean,
	"toString":  toString,
})

// conversions makes of each conversion also the one that turns what cannot be converted to null, and the one for lists.
// A conversion says false for a value of a kind that it does not convert, and gives null for one that it cannot read.
func conversions(table map[string]func(graph.Value) (graph.Value, bool)) map[string]function {
	all := make(map[string]function)
	for name, convert := range table {
		lower := strings.ToLower(name)
		all[lower] = function{least: 1, most: 1, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
			v, ok := convert(args[0])
			if !ok {
				return graph.Null, failed(token.InvalidArgumentValue, "%s does not convert %s %s", name, article(args[0].Kind()), args[0].Kind())
			}
			return v, nil
		}}
		all[lower+"ornull"] = function{least: 1, most: 1, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
			v, _ := convert(args[0])
			return v, nil
		}}
		all[lower+"list"] = function{least: 1, most: 1, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
			if args[0].Kind() != graph.KindList {
				return graph.Null, wrongType(name+"List wants a list", args[0])
			}
			list := make([]graph.Value, len(args[0].AsList()))
			for i, item := range args[0].AsList() {
				list[i], _ = convert(item)
			}
			return graph.List(list), nil
		}}
	}
	return all
}

func toInteger(v graph.Value) (graph.Value, bool) {
	switch v.Kind() {
	case graph.KindInt:
		return v, true
	case graph.KindFloat:
		return truncated(v.AsFloat()), true
	case graph.KindDecimal:
		return truncatedDecimal(v.AsDecimal()), true
	case graph.KindBool:
		if v.AsBool() {
			return graph.Int(1), true
		}
		return graph.Int(0), true
	case graph.KindString:
		s := strings.TrimSpace(v.AsString())
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			return graph.Int(i), true
		}
		if f, ok := parseFloat(s); ok {
			return truncated(f), true
		}
		return graph.Null, true
	}
	return graph.Null, false
}

func truncated(f float64) graph.Value {
	if f = math.Trunc(f); f >= -1<<63 && f < 1<<63 {
		return graph.Int(int64(f))
	}
	return graph.Null
}

func truncatedDecimal(d *apd.Decimal) graph.Value {
	if d.Form != apd.Finite || d.NumDigits()+int64(d.Exponent) > 20 {
		return graph.Null
	}
	q, err := quantized(d, 0, apd.RoundDown)
	if err != nil {
		return graph.Null
	}
	whole, ok := new(big.Int).SetString(q.AsDecimal().Text('f'), 10)
	if !ok || !whole.IsInt64() {
		return graph.Null
	}
	return graph.Int(whole.Int64())
}

// parseFloat reads what a query may contain as a number; Go's hexadecimal floats, underscores and names are none.
func parseFloat(s string) (float64, bool) {
	if strings.ContainsAny(s, "_xXpPnNiI") {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}

func toFloat(v graph.Value) (graph.Value, bool) {
	switch {
	case v.IsNumber():
		return graph.Float(ToFloat(v)), true
	case v.Kind() == graph.KindString:
		if f, ok := parseFloat(strings.TrimSpace(v.AsString())); ok {
			return graph.Float(f), true
		}
		return graph.Null, true
	}
	return graph.Null, false
}

func toBoolean(v graph.Value) (graph.Value, bool) {
	switch v.Kind() {
	case graph.KindBool:
		return v, true
	case graph.KindInt:
		return graph.Bool(v.AsInt() != 0), true
	case graph.KindString:
		switch strings.ToLower(strings.TrimSpace(v.AsString())) {
		case "true":
			return graph.Bool(true), true
		case "false":
			return graph.Bool(false), true
		}
		return graph.Null, true
	}
	return graph.Null, false
}

func toString(v graph.Value) (graph.Value, bool) {
	switch v.Kind() {
	case graph.KindString:
		return v, true
	case graph.KindBool, graph.KindInt, graph.KindFloat, graph.KindDecimal,
		graph.KindDate, graph.KindLocalTime, graph.KindTime, graph.KindLocalDateTime, graph.KindDateTime, graph.KindDuration:
		return graph.String(v.String()), true
	}
	return graph.Null, false
}
