package postgres

import (
	"unsafe"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/graph"
)

const (
	valueChunk   = 1024
	byteChunk    = 32 << 10
	decimalChunk = 64
	mapChunk     = 64
)

// arena hands out memory for the parts of changes from larger pieces, so that a row costs no allocation of its own.
// Unless recycle is called nothing is ever reused: the garbage collector takes a piece back when no transaction refers
// to it any more.
type arena struct {
	values   pieces[graph.Value]
	bytes    pieces[byte]
	decimals pieces[apd.Decimal]
	names    pieces[string]
	maps     pieces[graph.Map]
}

// recycle makes the arena hand out the same memory again. Whoever calls it is done with all that came of it.
func (a *arena) recycle() {
	a.values.used, a.bytes.used, a.decimals.used, a.names.used, a.maps.used = 0, 0, 0, 0, 0
}

// pieces hands out parts of slices, one piece after the other.
type pieces[T any] struct {
	piece []T
	used  int
}

func (p *pieces[T]) take(n, usual int) []T {
	if n > len(p.piece)-p.used {
		p.piece, p.used = make([]T, max(n, usual)), 0
	}
	from := p.used
	p.used += n
	return p.piece[from:p.used:p.used]
}

// newValues returns n null values.
func (a *arena) newValues(n int) []graph.Value {
	values := a.values.take(n, valueChunk)
	clear(values)
	return values
}

// newMap returns a map with copies of keys and values.
func (a *arena) newMap(keys []string, values []graph.Value) *graph.Map {
	m := &a.maps.take(1, mapChunk)[0]
	m.Keys, m.Values = a.names.take(len(keys), valueChunk), a.newValues(len(values))
	copy(m.Keys, keys)
	copy(m.Values, values)
	return m
}

// newDecimal returns a zero decimal.
func (a *arena) newDecimal() *apd.Decimal {
	d := &a.decimals.take(1, decimalChunk)[0]
	*d = apd.Decimal{}
	return d
}

// newBytes returns an empty slice with room for n bytes, which the caller fills and turns into a string with sealed.
func (a *arena) newBytes(n int) []byte {
	if n > byteChunk/8 {
		return make([]byte, 0, n) // large ones stand alone, so that they do not waste the rest of a piece
	}
	return a.bytes.take(n, byteChunk)[:0]
}

// text returns a string with the content of b.
func (a *arena) text(b []byte) string { return sealed(append(a.newBytes(len(b)), b...)) }

// sealed turns bytes that will not change any more into a string without copying them.
func sealed(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
