package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"

	"github.com/perdure/perdure/streaming/graph"
)

// Geometric values are the text that the server shows.

func decodePoint(d *decoder, src []byte) (graph.Value, error) { return d.floats(src, "(%,%)") }

func decodeLine(d *decoder, src []byte) (graph.Value, error) { return d.floats(src, "{%,%,%}") }

func decodeLseg(d *decoder, src []byte) (graph.Value, error) { return d.floats(src, "[(%,%),(%,%)]") }

func decodeBox(d *decoder, src []byte) (graph.Value, error) { return d.floats(src, "(%,%),(%,%)") }

func decodeCircle(d *decoder, src []byte) (graph.Value, error) { return d.floats(src, "<(%,%),%>") }

func decodePolygon(d *decoder, src []byte) (graph.Value, error) { return d.points(src, '(', ')') }

// decodePath decodes a closed path, in parentheses, or an open one, in brackets.
func decodePath(d *decoder, src []byte) (graph.Value, error) {
	switch {
	case len(src) == 0:
		return graph.Null, sizeError(src, 1)
	case src[0] != 0:
		return d.points(src[1:], '(', ')')
	}
	return d.points(src[1:], '[', ']')
}

// points writes points with their number before them.
func (d *decoder) points(src []byte, begin, end byte) (graph.Value, error) {
	if len(src) < 4 {
		return graph.Null, sizeError(src, 4)
	}
	count, src := binary.BigEndian.Uint32(src), src[4:]
	if uint64(len(src)) != 16*uint64(count) {
		return graph.Null, fmt.Errorf("%d points have %d bytes", count, len(src))
	}
	b := []byte{begin}
	for i := range count {
		if i > 0 {
			b = append(b, ',')
		}
		b, src = appendFloats(b, src, "(%,%)")
	}
	return graph.String(d.text(append(b, end))), nil
}

// floats writes floats in the places that a pattern has for them.
func (d *decoder) floats(src []byte, pattern string) (graph.Value, error) {
	if want := 8 * count(pattern); len(src) != want {
		return graph.Null, sizeError(src, want)
	}
	var space [128]byte
	b, _ := appendFloats(space[:0], src, pattern)
	return graph.String(d.text(b)), nil
}

func count(pattern string) (n int) {
	for i := range len(pattern) {
		if pattern[i] == '%' {
			n++
		}
	}
	return n
}

func appendFloats(b, src []byte, pattern string) (text, rest []byte) {
	for i := range len(pattern) {
		if pattern[i] != '%' {
			b = append(b, pattern[i])
			continue
		}
		b = appendFloat(b, math.Float64frombits(binary.BigEndian.Uint64(src)))
		src = src[8:]
	}
	return b, src
}

// appendFloat writes the shortest text that names a float, with an exponent where the server writes one.
func appendFloat(b []byte, f float64) []byte {
	switch {
	case math.IsInf(f, 1):
		return append(b, "Infinity"...)
	case math.IsInf(f, -1):
		return append(b, "-Infinity"...)
	case f != 0 && (math.Abs(f) < 1e-4 || math.Abs(f) >= 1e15):
		return strconv.AppendFloat(b, f, 'e', -1, 64)
	}
	return strconv.AppendFloat(b, f, 'f', -1, 64)
}
