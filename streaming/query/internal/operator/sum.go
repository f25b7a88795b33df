package operator

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// sum is sum or avg, of numbers or of durations. Integers, decimals and floats are added up apart and without any rounding, so that taking a number
// out leaves exactly what was there before it came in, whatever came between.
type sum struct {
	average                  bool
	ints, decimals, floats   int64 // how many of each, those that are not finite included
	nans, positive, negative int64 // floats and decimals that are not finite
	int                      wide
	decimal                  apd.Decimal
	scales                   []scale
	float                    exactFloat
	durations                durations
}

// scale counts the finite decimals that are written with the same number of digits behind the point. A sum has as many
// digits as the longest of them, as in SQL, whatever came and went before.
type scale struct {
	exponent int32 // ascending
	count    int64
}

func (s *sum) name() string {
	if s.average {
		return "avg"
	}
	return "sum"
}

func (s *sum) check(in *input) error {
	if in.value.IsNumber() || in.value.Kind() == graph.KindDuration {
		return nil
	}
	return fmt.Errorf("%s wants numbers or durations, got %s", s.name(), in.value.Kind())
}

func (s *sum) add(_ index.Batch, in *input, weight int) error {
	v := in.value
	switch v.Kind() {
	case graph.KindInt:
		s.ints += int64(weight)
		s.int.add(v.AsInt(), weight)
	case graph.KindFloat:
		s.floats += int64(weight)
		if f := v.AsFloat(); math.IsNaN(f) || math.IsInf(f, 0) {
			s.addSpecial(f, weight)
		} else {
			s.float.add(f, weight)
		}
	case graph.KindDuration:
		return s.durations.add(v.AsDuration(), weight)
	default:
		s.decimals += int64(weight)
		d := v.AsDecimal()
		if d.Form != apd.Finite {
			s.addSpecial(eval.ToFloat(v), weight)
			break
		}
		s.addScale(d.Exponent, weight)
		if weight < 0 {
			d = new(apd.Decimal).Neg(d)
		}
		if err := eval.AddDecimal(&s.decimal, &s.decimal, d); err != nil {
			return err
		}
	}
	if s.ints < 0 || s.floats < 0 || s.decimals < 0 {
		return errState
	}
	return nil
}

func (s *sum) addScale(exponent int32, weight int) {
	i, found := slices.BinarySearchFunc(s.scales, exponent, func(e scale, exponent int32) int { return cmp.Compare(e.exponent, exponent) })
	if !found {
		s.scales = slices.Insert(s.scales, i, scale{exponent: exponent})
	}
	if s.scales[i].count += int64(weight); s.scales[i].count == 0 {
		s.scales = slices.Delete(s.scales, i, i+1)
	}
}

func (s *sum) addSpecial(f float64, weight int) {
	switch {
	case math.IsNaN(f):
		s.nans += int64(weight)
	case f > 0:
		s.positive += int64(weight)
	default:
		s.negative += int64(weight)
	}
}

var errSumOverflow = &groupError{&eval.Error{Kind: token.IntegerOverflow, Message: "integer overflow in sum"}}

func (s *sum) value(index.Batch) (graph.Value, error) {
	n := s.ints + s.floats + s.decimals
	switch {
	case s.durations.count > 0 && n > 0:
		return graph.Null, &groupError{fmt.Errorf("%s cannot add numbers and durations", s.name())}
	case s.durations.count > 0:
		return s.durations.value(s.average)
	case n == 0 && s.average:
		return graph.Null, nil
	case s.nans+s.positive+s.negative > 0:
		return s.special(), nil
	case s.floats > 0:
		f := s.float.plus(s.int.big())
		if s.decimals > 0 {
			f += eval.ToFloat(graph.Decimal(&s.decimal))
		}
		if s.average {
			f /= float64(n)
		}
		return graph.Float(f), nil
	case s.decimals > 0:
		return s.decimalValue(n)
	}
	switch i, ok := s.int.int64(); {
	case ok && s.average:
		return graph.Float(float64(i) / float64(n)), nil
	case ok:
		return graph.Int(i), nil
	case s.average:
		f, _ := new(big.Float).SetInt(s.int.big()).Float64()
		return graph.Float(f / float64(n)), nil
	}
	return graph.Null, errSumOverflow
}

func (s *sum) special() graph.Value {
	f := math.NaN()
	switch {
	case s.nans > 0 || s.positive > 0 && s.negative > 0:
	case s.positive > 0:
		f = math.Inf(1)
	default:
		f = math.Inf(-1)
	}
	if s.floats > 0 {
		return graph.Float(f)
	}
	d := &apd.Decimal{Form: apd.NaN}
	if !math.IsNaN(f) {
		d.Form, d.Negative = apd.Infinite, f < 0
	}
	return graph.Decimal(d)
}

func (s *sum) decimalValue(n int64) (graph.Value, error) {
	d := new(apd.Decimal)
	whole := apd.NewWithBigInt(new(apd.BigInt).SetMathBigInt(s.int.big()), 0)
	if err := eval.AddDecimal(d, &s.decimal, whole); err != nil {
		return graph.Null, err
	}
	if s.average {
		if err := eval.DivideDecimal(d, d, apd.New(n, 0)); err != nil {
			return graph.Null, err
		}
		return graph.Decimal(reduce(d)), nil
	}
	digits := int32(0)
	if len(s.scales) > 0 {
		digits = min(0, s.scales[0].exponent)
	}
	return graph.Decimal(extend(reduce(d), digits)), nil
}

// extend writes d with the digits down to an exponent, which adds zeros only.
func extend(d *apd.Decimal, exponent int32) *apd.Decimal {
	if d.Exponent > exponent {
		zeros := new(apd.BigInt).Exp(apd.NewBigInt(10), apd.NewBigInt(int64(d.Exponent-exponent)), nil)
		d.Coeff.Mul(&d.Coeff, zeros)
		d.Exponent = exponent
	}
	return d
}

func reduce(d *apd.Decimal) *apd.Decimal {
	d.Reduce(d)
	if d.Exponent < 400 {
		return extend(d, 0) // 1E+2 is 100 in a column of amounts
	}
	return d
}

func (s *sum) append(dst []byte) []byte {
	for _, n := range [...]int64{s.ints, s.decimals, s.floats, s.nans, s.positive, s.negative} {
		dst = binary.AppendUvarint(dst, uint64(n))
	}
	dst = s.int.append(dst)
	if s.decimals > 0 {
		dst = graph.AppendValue(dst, graph.Decimal(reduce(new(apd.Decimal).Set(&s.decimal))))
		dst = binary.AppendUvarint(dst, uint64(len(s.scales)))
		for _, e := range s.scales {
			dst = binary.AppendUvarint(binary.AppendVarint(dst, int64(e.exponent)), uint64(e.count))
		}
	}
	if s.floats > 0 {
		dst = s.float.append(dst)
	}
	return s.durations.append(dst)
}

func (s *sum) size() int { return 2 * accumulatorSize }

func (s *sum) read(r *store.Reader) {
	for _, n := range [...]*int64{&s.ints, &s.decimals, &s.floats, &s.nans, &s.positive, &s.negative} {
		*n = int64(r.Uvarint())
	}
	s.int.read(r)
	if s.decimals > 0 {
		if v := r.Value(); v.Kind() == graph.KindDecimal {
			s.decimal.Set(v.AsDecimal())
		}
		s.scales = s.scales[:0]
		for n := r.Uvarint(); n > 0 && r.Err == nil; n-- {
			e := scale{exponent: int32(r.Varint())}
			e.count = int64(r.Uvarint())
			s.scales = append(s.scales, e)
		}
	}
	if s.floats > 0 {
		s.float.read(r)
	}
	s.durations.read(r)
}
