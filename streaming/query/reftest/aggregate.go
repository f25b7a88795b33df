package reftest

import (
	"cmp"
	"errors"
	"math"
	"math/big"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
)

var (
	errInput    = errors.New("the aggregation does not take this value")
	errOverflow = errors.New("the sum is no integer")
)

// fit says what is wrong with what a row gives to an aggregation.
func fit(c *ast.Call, x input) error {
	switch strings.ToLower(c.Name) {
	case "sum", "avg", "stdev", "stdevp":
		if !x.Value.IsNumber() {
			return errInput
		}
	case "percentilecont", "percentiledisc":
		if !x.Value.IsNumber() || !x.extra.IsNumber() || !(toFloat(x.extra) >= 0 && toFloat(x.extra) <= 1) {
			return errInput
		}
	}
	return nil
}

func toFloat(v graph.Value) float64 {
	if v.Kind() == graph.KindInt {
		return float64(v.AsInt())
	}
	return v.AsFloat()
}

// aggregate computes an aggregation from all its inputs. Sums are exact before they are rounded.
func (r *Reference) aggregate(c *ast.Call, g *group) (graph.Value, error) {
	if c.Star {
		return graph.Int(g.rows), nil
	}
	inputs := slices.Clone(g.inputs[c])
	name := strings.ToLower(c.Name)
	if name == "collect" {
		var list []ordered
		for _, x := range inputs {
			list = append(list, x.ordered)
		}
		if c.Distinct {
			list = r.firstOfEach(list)
		}
		return r.list(list), nil
	}
	slices.SortStableFunc(inputs, func(a, b input) int {
		return cmp.Or(graph.Compare(a.Value, b.Value), cmp.Compare(form(a.Value), form(b.Value)))
	})
	if c.Distinct {
		inputs = slices.CompactFunc(inputs, func(a, b input) bool { return graph.Compare(a.Value, b.Value) == 0 })
	}
	n := len(inputs)
	switch name {
	case "count":
		return graph.Int(int64(n)), nil
	case "sum":
		return sumOf(inputs)
	case "avg":
		if n > 0 {
			return graph.Float(total(inputs) / float64(n)), nil
		}
	case "stdev", "stdevp":
		return deviation(inputs, name == "stdevp"), nil
	}
	if n == 0 {
		return graph.Null, nil
	}
	switch name {
	case "min":
		return inputs[0].Value, nil
	case "max": // of those that are equivalent the one of the smallest form
		i := slices.IndexFunc(inputs, func(x input) bool { return graph.Compare(x.Value, inputs[n-1].Value) == 0 })
		return inputs[i].Value, nil
	case "percentiledisc":
		return inputs[max(int(math.Ceil(share(inputs)*float64(n)))-1, 0)].Value, nil
	case "percentilecont":
		at := share(inputs) * float64(n-1)
		low, part := math.Modf(at)
		v := toFloat(inputs[int(low)].Value)
		if part > 0 {
			v = v*(1-part) + toFloat(inputs[int(low)+1].Value)*part
		}
		return graph.Float(v), nil
	}
	panic("reftest: no aggregation " + c.Name)
}

// share returns the percentile that is asked for; of several the smallest.
func share(inputs []input) float64 {
	least := 1.0
	for _, x := range inputs {
		least = min(least, toFloat(x.extra))
	}
	return least
}

// exact adds up f of all numbers without rounding.
func exact(inputs []input, f func(*big.Rat) *big.Rat) *big.Rat {
	sum := new(big.Rat)
	for _, x := range inputs {
		number := new(big.Rat)
		if x.Value.Kind() == graph.KindInt {
			number.SetInt64(x.Value.AsInt())
		} else {
			number.SetFloat64(x.Value.AsFloat())
		}
		sum.Add(sum, f(number))
	}
	return sum
}

func itself(x *big.Rat) *big.Rat { return x }

func square(x *big.Rat) *big.Rat { return new(big.Rat).Mul(x, x) }

// total is the sum as a float, rounded once.
func total(inputs []input) float64 {
	if special, ok := notFinite(inputs); ok {
		return special
	}
	sum, _ := exact(inputs, itself).Float64()
	return sum
}

// notFinite returns the sum of the numbers that are not finite, if there are any.
func notFinite(inputs []input) (sum float64, ok bool) {
	for _, x := range inputs {
		if f := toFloat(x.Value); math.IsInf(f, 0) || math.IsNaN(f) {
			sum, ok = sum+f, true
		}
	}
	return sum, ok
}

func sumOf(inputs []input) (graph.Value, error) {
	if slices.ContainsFunc(inputs, func(x input) bool { return x.Value.Kind() == graph.KindFloat }) {
		return graph.Float(total(inputs)), nil
	}
	sum := exact(inputs, itself).Num()
	if !sum.IsInt64() {
		return graph.Null, errOverflow
	}
	return graph.Int(sum.Int64()), nil
}

// deviation is sqrt((squares - sum²/n) / (n - 1)).
func deviation(inputs []input, population bool) graph.Value {
	n, degrees := int64(len(inputs)), int64(len(inputs)-1)
	if population {
		degrees = n
	}
	if _, ok := notFinite(inputs); ok {
		return graph.Float(math.NaN())
	}
	if degrees <= 0 {
		return graph.Float(0)
	}
	mean := new(big.Rat).Quo(square(exact(inputs, itself)), big.NewRat(n, 1))
	variance := new(big.Rat).Sub(exact(inputs, square), mean)
	f, _ := variance.Quo(variance, big.NewRat(degrees, 1)).Float64()
	return graph.Float(math.Sqrt(f))
}

// ordered is a value with the order of the row that gave it.
type ordered struct {
	Value graph.Value
	order []sortValue
}

// list makes a list of values in the order of their rows, and notes when that does not say everything.
func (r *Reference) list(list []ordered) graph.Value {
	slices.SortStableFunc(list, func(a, b ordered) int { return compareOrder(a.order, b.order) })
	items := make([]graph.Value, len(list))
	for i, x := range list {
		items[i] = x.Value
		if i > 0 && compareOrder(x.order, list[i-1].order) == 0 && !graph.Identical(x.Value, list[i-1].Value) {
			r.answer.anyListOrder = true
		}
	}
	return graph.List(items)
}

// firstOfEach returns the first of equivalent values.
func (r *Reference) firstOfEach(list []ordered) (kept []ordered) {
	slices.SortStableFunc(list, func(a, b ordered) int { return compareOrder(a.order, b.order) })
	for _, x := range list {
		i := slices.IndexFunc(kept, func(k ordered) bool { return graph.Compare(k.Value, x.Value) == 0 })
		switch {
		case i < 0:
			kept = append(kept, x)
		case compareOrder(kept[i].order, x.order) == 0 && form(kept[i].Value) != form(x.Value):
			r.answer.undetermined = true // 1 or 1.0, whichever row comes first
		}
	}
	return kept
}
