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
)

// arena hands out memory for the parts of changes from larger pieces, so that a row costs no allocation of its own.
// Nothing is ever reused: the garbage collector takes a piece back when no transaction refers to it any more.
type arena struct {
	values   []graph.Value
	bytes    []byte
	decimals []apd.Decimal
}

// newValues returns n null values.
func (a *arena) newValues(n int) []graph.Value {
	if n > len(a.values) {
		a.values = make([]graph.Value, max(n, valueChunk))
	}
	v := a.values[:n:n]
	a.values = a.values[n:]
	return v
}

// newDecimal returns a zero decimal.
func (a *arena) newDecimal() *apd.Decimal {
	if len(a.decimals) == 0 {
		a.decimals = make([]apd.Decimal, decimalChunk)
	}
	d := &a.decimals[0]
	a.decimals = a.decimals[1:]
	return d
}

// newBytes returns an empty slice with room for n bytes, which the caller fills and turns into a string with sealed.
func (a *arena) newBytes(n int) []byte {
	if n > len(a.bytes) {
		if n > byteChunk/8 {
			return make([]byte, 0, n) // large ones stand alone, so that they do not waste the rest of a piece
		}
		a.bytes = make([]byte, byteChunk)
	}
	b := a.bytes[:0:n]
	a.bytes = a.bytes[n:]
	return b
}

// text returns a string with the content of b.
func (a *arena) text(b []byte) string { return sealed(append(a.newBytes(len(b)), b...)) }

// sealed turns bytes that will not change any more into a string without copying them.
func sealed(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
