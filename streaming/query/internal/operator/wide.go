package operator

import (
	"encoding/binary"
	"math/big"
	"math/bits"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/query/internal/temporal"
)

// wide is an integer of 128 bits: the sum of 2^63 integers fits.
type wide struct {
	high int64
	low  uint64
}

func (w *wide) add(i int64, weight int) {
	high := i >> 63 // sign extension
	var carry uint64
	if weight > 0 {
		w.low, carry = bits.Add64(w.low, uint64(i), 0)
		w.high += high + int64(carry)
		return
	}
	w.low, carry = bits.Sub64(w.low, uint64(i), 0)
	w.high -= high + int64(carry)
}

// int64 returns the integer if it has that many bits.
func (w *wide) int64() (i int64, ok bool) { return int64(w.low), w.high == int64(w.low)>>63 }

func (w *wide) big() *big.Int {
	if i, ok := w.int64(); ok {
		return big.NewInt(i)
	}
	i := big.NewInt(w.high)
	return i.Lsh(i, 64).Add(i, new(big.Int).SetUint64(w.low))
}

func (w *wide) append(dst []byte) []byte {
	return binary.AppendUvarint(binary.AppendVarint(dst, w.high), w.low)
}

func (w *wide) read(r *store.Reader) { w.high, w.low = r.Varint(), r.Uvarint() }

// durations adds up durations, each of their parts apart.
type durations struct {
	count int64
	parts [4]wide // months, days, seconds, nanoseconds
}

func (d *durations) add(v graph.Duration, weight int) error {
	if d.count += int64(weight); d.count < 0 {
		return errState
	}
	for i, part := range [...]int64{v.Months, v.Days, v.Seconds, int64(v.Nanoseconds)} {
		d.parts[i].add(part, weight)
	}
	return nil
}

func (d *durations) value(average bool) (graph.Value, error) {
	const second = 1_000_000_000
	nanoseconds, ok := d.parts[3].int64()
	d.parts[2].add(nanoseconds/second, 1)
	seconds, fits := d.parts[2].int64()
	d.parts[2].add(nanoseconds/second, -1)
	months, monthsFit := d.parts[0].int64()
	days, daysFit := d.parts[1].int64()
	if !ok || !fits || !monthsFit || !daysFit {
		return graph.Null, errSumOverflow
	}
	whole := graph.Duration{Months: months, Days: days, Seconds: seconds, Nanoseconds: int32(nanoseconds % second)}
	v, cause := temporal.AddDurations(graph.Duration{}, whole, 1)
	if cause == nil && average {
		v, cause = temporal.Scale(v.AsDuration(), graph.Int(d.count), true)
	}
	if cause != nil {
		return graph.Null, &groupError{cause}
	}
	return v, nil
}

func (d *durations) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(d.count))
	if d.count > 0 {
		for i := range d.parts {
			dst = d.parts[i].append(dst)
		}
	}
	return dst
}

func (d *durations) read(r *store.Reader) {
	if d.count = int64(r.Uvarint()); d.count > 0 {
		for i := range d.parts {
			d.parts[i].read(r)
		}
	}
}
