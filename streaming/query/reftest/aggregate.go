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

var errInput = errors.New("the aggregation does not take this value")

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
func (r *Reference) aggregate(c *ast.Call, g *group) graph.Value {
	if c.Star {
		return graph.Int(g.rows)
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
		return r.list(list)
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
		return graph.Int(int64(n))
	case "sum":
		return sumOf(inputs)
	case "stdev", "stdevp":
		return deviation(inputs, name == "stdevp")
	}
	if n == 0 {
		return graph.Null
	}
	switch name {
	case "min":
		return inputs[0].Value
	case "max": // of those that are equivalent the one of the smallest form
		i := slices.IndexFunc(inputs, func(x input) bool { return graph.Compare(x.Value, inputs[n-1].Value) == 0 })
		return inputs[i].Value
	case "avg":
		return graph.Float(toFloat(sumOf(inputs)) / float64(n))
	case "percentiledisc":
		return inputs[max(int(math.Ceil(share(inputs)*float64(n)))-1, 0)].Value
	case "percentilecont":
		at := share(inputs) * float64(n-1)
		low, part := math.Modf(at)
		v := toFloat(inputs[int(low)].Value)
		if part > 0 {
			v += part * (toFloat(inputs[int(low)+1].Value) - v)
		}
		return graph.Float(v)
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
		sum.Add(sum, f(new(big.Rat).SetFloat64(toFloat(x.Value))))
	}
	return sum
}

func itself(x *big.Rat) *big.Rat { return x }

func square(x *big.Rat) *big.Rat { return new(big.Rat).Mul(x, x) }

func sumOf(inputs []input) graph.Value {
	sum, _ := exact(inputs, itself).Float64()
	if slices.ContainsFunc(inputs, func(x input) bool { return x.Value.Kind() == graph.KindFloat }) {
		return graph.Float(sum)
	}
	return graph.Int(int64(sum))
}

// deviation is sqrt((squares - sum²/n) / (n - 1)).
func deviation(inputs []input, population bool) graph.Value {
	n, degrees := int64(len(inputs)), int64(len(inputs)-1)
	if population {
		degrees = n
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
