package operator

import (
	"encoding/binary"
	"math"
	"math/big"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

func toFloat(v graph.Value) float64 { return eval.ToFloat(v) }

// deviation is stDev or, of a whole population, stDevP. The sums of the numbers and of their squares are exact, so that
// taking a number out leaves what was there before it came in.
type deviation struct {
	name       string
	population bool
	count      int64
	special    int64 // numbers that are not finite
	sum        exactFloat
	squares    exactFloat
}

func (d *deviation) check(in *input) error { return wantNumber(d.name, in.value) }

func (d *deviation) add(_ index.Batch, in *input, weight int) error {
	if d.count += int64(weight); d.count < 0 {
		return errState
	}
	f := toFloat(in.value)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		d.special += int64(weight)
		return nil
	}
	d.sum.add(f, weight)
	d.squares.addSquare(f, weight)
	return nil
}

// value computes sqrt((n * squares - sum²) / (n * (n - 1))), in which only the last steps round.
func (d *deviation) value(index.Batch) (graph.Value, error) {
	degrees := d.count - 1
	if d.population {
		degrees = d.count
	}
	switch {
	case d.special > 0:
		return graph.Float(math.NaN()), nil
	case degrees <= 0:
		return graph.Float(0), nil
	}
	total := exactFloat{exponent: d.squares.exponent}
	total.mantissa.Mul(&d.squares.mantissa, big.NewInt(d.count))
	total.term.Mul(&d.sum.mantissa, &d.sum.mantissa)
	if total.term.Sign() != 0 {
		total.addTerm(2*d.sum.exponent, -1)
	}
	f := new(big.Float).SetInt(&total.mantissa)
	f.SetMantExp(f, total.exponent)
	f.Quo(f, new(big.Float).SetInt(new(big.Int).Mul(big.NewInt(d.count), big.NewInt(degrees))))
	root, _ := f.Sqrt(f).Float64()
	return graph.Float(root), nil
}

func (d *deviation) append(dst []byte) []byte {
	dst = binary.AppendUvarint(binary.AppendUvarint(dst, uint64(d.count)), uint64(d.special))
	return d.squares.append(d.sum.append(dst))
}

func (d *deviation) size() int { return 2 * accumulatorSize }

func (d *deviation) read(r *store.Reader) {
	d.count, d.special = int64(r.Uvarint()), int64(r.Uvarint())
	d.sum.read(r)
	d.squares.read(r)
}
