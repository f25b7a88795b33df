package postgres

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/perdure/perdure/streaming/graph"
)

// decodeArray makes lists, nested ones of arrays with several dimensions. Lower bounds other than one are dropped.
func decodeArray(d *decoder, src []byte) (graph.Value, error) {
	if len(src) < 12 {
		return graph.Null, sizeError(src, 12)
	}
	dimensions := int(binary.BigEndian.Uint32(src))
	decode := d.types.decoder(binary.BigEndian.Uint32(src[8:]))
	src = src[12:]
	if dimensions == 0 {
		return graph.List(nil), nil
	}
	if dimensions < 0 || dimensions > 6 || len(src) < 8*dimensions { // 6 is the server's limit
		return graph.Null, fmt.Errorf("array has %d dimensions", dimensions)
	}
	lengths := make([]int, dimensions)
	total := 1 // elements, each of which has at least its length
	for i := range lengths {
		lengths[i] = int(binary.BigEndian.Uint32(src[8*i:]))
		if total *= lengths[i]; total <= 0 || 4*total > len(src) {
			return graph.Null, fmt.Errorf("array of %d elements has %d bytes", total, len(src))
		}
	}
	v, _, err := d.list(lengths, src[8*dimensions:], decode)
	return v, err
}

func (d *decoder) list(lengths []int, src []byte, decode decodeFunc) (graph.Value, []byte, error) {
	items := d.newValues(lengths[0])
	for i := range items {
		var err error
		if len(lengths) > 1 {
			items[i], src, err = d.list(lengths[1:], src, decode)
		} else {
			items[i], src, err = d.field(src, decode)
		}
		if err != nil {
			return graph.Null, nil, err
		}
	}
	return graph.List(items), src, nil
}

// field decodes a value that its length precedes, -1 for null.
func (d *decoder) field(src []byte, decode decodeFunc) (graph.Value, []byte, error) {
	if len(src) < 4 {
		return graph.Null, nil, sizeError(src, 4)
	}
	n := int32(binary.BigEndian.Uint32(src))
	src = src[4:]
	if n == -1 {
		return graph.Null, src, nil
	}
	if n < 0 || int(n) > len(src) {
		return graph.Null, nil, sizeError(src, int(n))
	}
	v, err := decode(d, src[:n])
	return v, src[n:], err
}

// decodeComposite makes maps of the attributes by their names.
func decodeComposite(oid uint32) decodeFunc {
	return func(d *decoder, src []byte) (graph.Value, error) {
		v, err := d.composite(d.types.known[oid], src)
		if errors.Is(err, errAttributes) && d.reload != nil {
			if err := d.reload(oid); err != nil {
				return graph.Null, err
			}
			v, err = d.composite(d.types.known[oid], src)
		}
		return v, err
	}
}

var errAttributes = errors.New("the attributes of the composite type are others by now")

func (d *decoder) composite(t *typeInfo, src []byte) (graph.Value, error) {
	if len(src) < 4 {
		return graph.Null, sizeError(src, 4)
	}
	if int(binary.BigEndian.Uint32(src)) != len(t.attributes) {
		return graph.Null, errAttributes
	}
	src = src[4:]
	values := d.newValues(len(t.attributes)) // in the type's order
	for i, attribute := range t.attributes {
		if len(src) < 4 {
			return graph.Null, sizeError(src, 4)
		}
		if binary.BigEndian.Uint32(src) != attribute.oid {
			return graph.Null, errAttributes
		}
		var err error
		if values[i], src, err = d.field(src[4:], d.types.decoder(attribute.oid)); err != nil {
			return graph.Null, fmt.Errorf("attribute %s: %w", attribute.name, err)
		}
	}
	sorted := d.newValues(len(values))
	for i, at := range t.order {
		sorted[i] = values[at]
	}
	return graph.MapOf(&graph.Map{Keys: t.keys, Values: sorted}), nil
}

// Flags of a range's binary form.
const (
	rangeEmpty     = 1
	rangeLowerInc  = 2
	rangeUpperInc  = 4
	rangeUnbounded = 8 // below; shifted by one: above
)

var rangeKeys = []string{"empty", "lower", "lowerInc", "upper", "upperInc"}

// decodeRange makes a map {lower, upper, lowerInc, upperInc, empty}; a bound that is null is none.
func decodeRange(part uint32) decodeFunc {
	return func(d *decoder, src []byte) (graph.Value, error) {
		if len(src) < 1 {
			return graph.Null, sizeError(src, 1)
		}
		flags, src := src[0], src[1:]
		values := d.newValues(len(rangeKeys))
		values[0] = graph.Bool(flags&rangeEmpty != 0)
		values[2] = graph.Bool(flags&rangeLowerInc != 0)
		values[4] = graph.Bool(flags&rangeUpperInc != 0)
		for i, unbounded := range [...]byte{rangeUnbounded, rangeUnbounded << 1} {
			if flags&(rangeEmpty|unbounded) != 0 {
				continue
			}
			var err error
			if values[1+2*i], src, err = d.field(src, d.types.decoder(part)); err != nil {
				return graph.Null, err
			}
		}
		return graph.MapOf(&graph.Map{Keys: rangeKeys, Values: values}), nil
	}
}

// decodeMultirange makes a list of ranges.
func decodeMultirange(decode decodeFunc) decodeFunc {
	return func(d *decoder, src []byte) (graph.Value, error) {
		if len(src) < 4 {
			return graph.Null, sizeError(src, 4)
		}
		count := int(binary.BigEndian.Uint32(src))
		src = src[4:]
		if count < 0 || 5*count > len(src) { // a length and flags at least
			return graph.Null, fmt.Errorf("multirange of %d ranges has %d bytes", count, len(src))
		}
		items := d.newValues(count)
		for i := range items {
			var err error
			if items[i], src, err = d.field(src, decode); err != nil {
				return graph.Null, err
			}
		}
		return graph.List(items), nil
	}
}
