package operator

import (
	"encoding/binary"
	"math"
	"math/big"

	"github.com/perdure/perdure/streaming/query/internal/store"
)

// exactFloat is a sum of floats without rounding: mantissa * 2^exponent. It takes as many bits as lie between the
// largest and the smallest number added, about 2100 at the very most.
type exactFloat struct {
	mantissa big.Int
	exponent int
	term     big.Int // scratch
}

const mantissaBits = 53

func (x *exactFloat) add(f float64, weight int) {
	if f == 0 {
		return
	}
	fraction, exponent := math.Frexp(f)
	x.term.SetInt64(int64(math.Ldexp(fraction, mantissaBits)))
	x.addTerm(exponent-mantissaBits, weight)
}

// addSquare adds weight * f².
func (x *exactFloat) addSquare(f float64, weight int) {
	if f == 0 {
		return
	}
	fraction, exponent := math.Frexp(f)
	x.term.SetInt64(int64(math.Ldexp(fraction, mantissaBits)))
	x.term.Mul(&x.term, &x.term)
	x.addTerm(2*(exponent-mantissaBits), weight)
}

// addTerm adds weight * term * 2^exponent.
func (x *exactFloat) addTerm(exponent, weight int) {
	if x.mantissa.Sign() == 0 {
		x.exponent = exponent
	}
	switch shift := exponent - x.exponent; {
	case shift > 0:
		x.term.Lsh(&x.term, uint(shift))
	case shift < 0:
		x.mantissa.Lsh(&x.mantissa, uint(-shift))
		x.exponent = exponent
	}
	if weight > 0 {
		x.mantissa.Add(&x.mantissa, &x.term)
	} else {
		x.mantissa.Sub(&x.mantissa, &x.term)
	}
}

// plus returns the float nearest to x + i.
func (x *exactFloat) plus(i *big.Int) float64 {
	const noRounding = 900 // powers of two by which any integer can be multiplied
	if i.Sign() == 0 && x.mantissa.IsInt64() && -noRounding < x.exponent && x.exponent < noRounding {
		return math.Ldexp(float64(x.mantissa.Int64()), x.exponent)
	}
	total := exactFloat{exponent: x.exponent}
	total.mantissa.Set(&x.mantissa)
	if i.Sign() != 0 {
		total.term.Set(i)
		total.addTerm(0, 1)
	}
	if total.mantissa.Sign() == 0 {
		return 0
	}
	f := new(big.Float).SetInt(&total.mantissa)
	nearest, _ := f.SetMantExp(f, total.exponent).Float64()
	return nearest
}

// append writes the canonical form, whose mantissa is odd, so that equal sums have equal bytes.
func (x *exactFloat) append(dst []byte) []byte {
	var m big.Int
	exponent := 0
	if x.mantissa.Sign() != 0 {
		zeros := x.mantissa.TrailingZeroBits()
		m.Rsh(&x.mantissa, zeros)
		exponent = x.exponent + int(zeros)
	}
	dst = binary.AppendVarint(dst, int64(exponent))
	sign := byte(0)
	if m.Sign() < 0 {
		sign = 1
	}
	return store.AppendBytes(append(dst, sign), m.Bytes())
}

func (x *exactFloat) read(r *store.Reader) {
	x.exponent = int(r.Varint())
	negative := r.Uvarint() == 1
	x.mantissa.SetBytes(r.Bytes())
	if negative {
		x.mantissa.Neg(&x.mantissa)
	}
}
