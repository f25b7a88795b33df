package graph

import (
	"encoding/binary"
	"math"
	"math/bits"
	"time"

	"github.com/cockroachdb/apd/v3"
)

// The first byte of a value is its kind and, above it, three bits whose meaning depends on the kind.
const (
	kindBits = 5
	kindMask = 1<<kindBits - 1

	bitTrue = 1 << kindBits // of a boolean

	decimalForm     = 3 << kindBits // of a decimal: its apd.Form
	decimalNegative = 4 << kindBits

	zoneNamed = 1 << kindBits // of a datetime: a zone of the tz database; neither bit means UTC
	zoneFixed = 2 << kindBits // of a datetime: a constant offset
)

// AppendValue appends the encoding of v, which DecodeValue reads.
func AppendValue(dst []byte, v Value) []byte {
	tag := byte(v.kind)
	switch v.kind {
	case KindBool:
		if v.num != 0 {
			tag |= bitTrue
		}
		return append(dst, tag)
	case KindInt, KindDate, KindLocalTime:
		return binary.AppendVarint(append(dst, tag), int64(v.num))
	case KindFloat:
		return binary.LittleEndian.AppendUint64(append(dst, tag), v.num)
	case KindDecimal:
		return appendDecimal(dst, v.AsDecimal())
	case KindString:
		return appendString(append(dst, tag), v.AsString())
	case KindList:
		dst = binary.AppendUvarint(append(dst, tag), v.num)
		for _, item := range v.AsList() {
			dst = AppendValue(dst, item)
		}
		return dst
	case KindMap:
		m := v.AsMap()
		dst = binary.AppendUvarint(append(dst, tag), uint64(len(m.Keys)))
		for i, k := range m.Keys {
			dst = AppendValue(appendString(dst, k), m.Values[i])
		}
		return dst
	case KindNode, KindRelationship:
		return AppendElement(append(dst, tag), v.AsElement())
	case KindPath:
		p := v.AsPath()
		dst = binary.AppendUvarint(append(dst, tag), uint64(len(p.Relationships)))
		for i, n := range p.Nodes {
			dst = AppendElement(dst, n)
			if i < len(p.Relationships) {
				dst = AppendElement(dst, p.Relationships[i])
			}
		}
		return dst
	case KindTime:
		ns, offset := v.AsTime()
		return binary.AppendVarint(binary.AppendVarint(append(dst, tag), ns), int64(offset))
	case KindLocalDateTime:
		return binary.AppendUvarint(binary.AppendVarint(append(dst, tag), int64(v.num)), uint64(v.aux))
	case KindDateTime:
		return appendDateTime(dst, v)
	case KindDuration:
		d := (*Duration)(v.ref.p)
		dst = binary.AppendVarint(append(dst, tag), d.Months)
		dst = binary.AppendVarint(dst, d.Days)
		dst = binary.AppendVarint(dst, d.Seconds)
		return binary.AppendVarint(dst, int64(d.Nanoseconds))
	default: // null and unchanged
		return append(dst, tag)
	}
}

func appendDecimal(dst []byte, d *apd.Decimal) []byte {
	tag := byte(KindDecimal) | byte(d.Form)<<kindBits&decimalForm
	if d.Negative {
		tag |= decimalNegative
	}
	dst = append(dst, tag)
	if d.Form != apd.Finite {
		return dst
	}
	dst = binary.AppendVarint(dst, int64(d.Exponent))
	if d.Coeff.IsUint64() {
		u := d.Coeff.Uint64()
		n := (bits.Len64(u) + 7) / 8
		dst = binary.AppendUvarint(dst, uint64(n))
		for shift := (n - 1) * 8; shift >= 0; shift -= 8 {
			dst = append(dst, byte(u>>shift))
		}
		return dst
	}
	b := d.Coeff.Bytes()
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}

func appendDateTime(dst []byte, v Value) []byte {
	sec, ns, zone := v.AsDateTime()
	tag := byte(KindDateTime)
	if v.ref.p == nil {
		return binary.AppendUvarint(binary.AppendVarint(append(dst, tag), sec), uint64(uint32(ns)))
	}
	name := zone.String()
	_, offset := time.Unix(sec, 0).In(zone).Zone()
	named := isNamed(name, zone, sec, offset)
	if named {
		tag |= zoneNamed
	} else {
		tag |= zoneFixed
	}
	dst = binary.AppendUvarint(binary.AppendVarint(append(dst, tag), sec), uint64(uint32(ns)))
	dst = appendString(dst, name)
	if named {
		return dst
	}
	return binary.AppendVarint(dst, int64(offset))
}

// value decodes one value. Only the first error of a decoder counts, so that callers check once.
func (r *reader) value() Value {
	tag := r.byte()
	kind := Kind(tag & kindMask)
	switch kind {
	case KindNull, KindUnchanged:
		return Value{kind: kind}
	case KindBool:
		return Bool(tag&bitTrue != 0)
	case KindInt, KindDate, KindLocalTime:
		return Value{kind: kind, num: uint64(r.varint())}
	case KindFloat:
		b := r.bytes(8)
		if b == nil {
			return Null
		}
		return Value{kind: kind, num: binary.LittleEndian.Uint64(b)}
	case KindDecimal:
		return r.decimal(tag)
	case KindString:
		return String(r.string())
	case KindTime:
		ns := r.varint()
		return Time(ns, r.int32())
	case KindLocalDateTime:
		sec := r.varint()
		return LocalDateTime(sec, r.nanoseconds())
	case KindDateTime:
		return r.dateTime(tag)
	case KindDuration:
		return DurationOf(Duration{Months: r.varint(), Days: r.varint(), Seconds: r.varint(), Nanoseconds: r.int32()})
	case KindList, KindMap, KindNode, KindRelationship, KindPath:
		return r.nested(kind)
	}
	r.fail("unknown kind of value")
	return Null
}

// nested decodes a value that holds others, to a depth that no real value has and a stack bears.
func (r *reader) nested(kind Kind) Value {
	const deepest = 10_000
	if r.depth++; r.depth > deepest {
		r.fail("values nested too deeply")
		return Null
	}
	defer func() { r.depth-- }()
	switch kind {
	case KindList:
		items := make([]Value, r.count())
		for i := range items {
			items[i] = r.value()
		}
		return List(items)
	case KindMap:
		return r.mapValue()
	case KindPath:
		return r.path()
	}
	el := new(Element)
	r.element(el)
	if r.failure == "" && el.IsRelationship() != (kind == KindRelationship) {
		r.fail("an element of the other kind")
	}
	return Value{kind: kind, ref: NodeOf(el).ref}
}

func (r *reader) mapValue() Value {
	n := r.count()
	m := &Map{Keys: make([]string, n), Values: make([]Value, n)}
	for i := range m.Keys {
		m.Keys[i] = r.string()
		if i > 0 && m.Keys[i] <= m.Keys[i-1] {
			r.fail("map keys out of order")
			return Null
		}
		m.Values[i] = r.value()
	}
	return MapOf(m)
}

func (r *reader) path() Value {
	n := r.count()
	p := &Path{Nodes: make([]*Element, 0, n+1), Relationships: make([]*Element, 0, n)}
	for i := 0; i <= n && r.failure == ""; i++ {
		node := new(Element)
		r.element(node)
		p.Nodes = append(p.Nodes, node)
		if i < n {
			relationship := new(Element)
			r.element(relationship)
			p.Relationships = append(p.Relationships, relationship)
		}
	}
	return PathOf(p)
}

func (r *reader) decimal(tag byte) Value {
	if len(r.decimals) == 0 {
		r.decimals = make([]apd.Decimal, r.decimalChunk)
	}
	d := &r.decimals[0]
	r.decimals = r.decimals[1:]
	d.Form = apd.Form(tag & decimalForm >> kindBits)
	d.Negative = tag&decimalNegative != 0
	if d.Form != apd.Finite {
		return Decimal(d)
	}
	exponent := r.varint()
	if exponent != int64(int32(exponent)) {
		r.fail("exponent out of range")
		return Null
	}
	d.Exponent = int32(exponent)
	coefficient := r.bytes(r.uvarint())
	if len(coefficient) > 8 {
		d.Coeff.SetBytes(coefficient)
		return Decimal(d)
	}
	var u uint64
	for _, b := range coefficient {
		u = u<<8 | uint64(b)
	}
	d.Coeff.SetUint64(u)
	return Decimal(d)
}

func (r *reader) dateTime(tag byte) Value {
	sec, ns := r.varint(), r.nanoseconds()
	switch {
	case tag&zoneNamed != 0:
		zone, err := Zone(r.string())
		if err != nil {
			r.fail("unknown time zone")
			return Null
		}
		return DateTime(sec, ns, zone)
	case tag&zoneFixed != 0:
		name := r.string()
		return DateTime(sec, ns, r.fixedZone(name, r.int32()))
	}
	return DateTime(sec, ns, nil)
}

func (r *reader) nanoseconds() int32 {
	n := r.uvarint()
	if n >= uint64(time.Second) {
		r.fail("nanoseconds out of range")
		return 0
	}
	return int32(n)
}

func (r *reader) int32() int32 {
	n := r.varint()
	if n < math.MinInt32 || n > math.MaxInt32 {
		r.fail("number out of range")
		return 0
	}
	return int32(n)
}
