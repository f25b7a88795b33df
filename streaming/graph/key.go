package graph

import (
	"encoding/binary"
	"math"
	"strconv"

	"github.com/cockroachdb/apd/v3"
)

// Bytes of AppendKey. Each value starts with its rank in the sort order, which is above keyEnd, so that a shorter list
// sorts before a longer one.
const (
	keyEnd  = 0x01
	keyRank = 0x10 // plus orderRank
)

// AppendKey appends a self-delimiting encoding whose bytes sort as Compare does; equivalent values have the same bytes.
// It serves as group key, as identity of distinct rows and as key of ordered multisets. It cannot be decoded.
func AppendKey(dst []byte, v Value) []byte {
	dst = append(dst, keyRank+orderRank[v.kind])
	switch v.kind {
	case KindNull, KindUnchanged:
	case KindBool:
		dst = append(dst, byte(v.num))
	case KindInt, KindFloat, KindDecimal:
		dst = appendNumberKey(dst, v)
	case KindString:
		dst = AppendKeyString(dst, v.AsString())
	case KindNode, KindRelationship:
		dst = AppendKeyString(dst, string(v.AsElement().ID))
	case KindList:
		for _, item := range v.AsList() {
			dst = AppendKey(dst, item)
		}
		dst = append(dst, keyEnd)
	case KindMap:
		m := v.AsMap()
		for i, k := range m.Keys {
			dst = AppendKeyString(append(dst, keyRank), k)
			dst = AppendKey(dst, m.Values[i])
		}
		dst = append(dst, keyEnd)
	case KindPath:
		p := v.AsPath()
		for i, n := range p.Nodes {
			dst = AppendKeyString(append(dst, keyRank), string(n.ID))
			if i < len(p.Relationships) {
				dst = AppendKeyString(append(dst, keyRank), string(p.Relationships[i].ID))
			}
		}
		dst = append(dst, keyEnd)
	case KindDate, KindLocalTime:
		dst = appendOrderedInt(dst, int64(v.num))
	case KindLocalDateTime:
		dst = binary.BigEndian.AppendUint32(appendOrderedInt(dst, int64(v.num)), v.aux)
	case KindTime:
		dst = appendOrderedInt(appendOrderedInt(dst, v.utcNanos()), int64(int32(v.aux)))
	case KindDateTime:
		dst = binary.BigEndian.AppendUint32(appendOrderedInt(dst, int64(v.num)), v.aux)
		dst = AppendKeyString(dst, v.zoneName())
	case KindDuration:
		dst = appendDurationKey(dst, v.AsDuration())
	}
	return dst
}

// AppendKeyString appends s so that encodings sort as strings do and none is a prefix of another.
func AppendKeyString(dst []byte, s string) []byte {
	for i := range len(s) {
		dst = append(dst, s[i])
		if s[i] == 0 {
			dst = append(dst, 0xff)
		}
	}
	return append(dst, 0, 1)
}

// DecodeKeyString reads what AppendKeyString wrote and returns what follows it; ok is false when src holds no such thing.
func DecodeKeyString(dst, src []byte) (s, rest []byte, ok bool) {
	for i := 0; i+1 < len(src); i++ {
		switch {
		case src[i] != 0:
			dst = append(dst, src[i])
		case src[i+1] == 1:
			return dst, src[i+2:], true
		default:
			dst = append(dst, 0)
			i++
		}
	}
	return nil, nil, false
}

func appendOrderedInt(dst []byte, i int64) []byte {
	return binary.BigEndian.AppendUint64(dst, uint64(i)^(1<<63))
}

func appendOrderedFloat(dst []byte, f float64) []byte {
	bits := math.Float64bits(f + 0) // -0 + 0 is 0
	if bits>>63 == 1 {
		bits = ^bits
	} else {
		bits |= 1 << 63
	}
	return binary.BigEndian.AppendUint64(dst, bits)
}

// How a number lies to the float that precedes it in a key.
const (
	keyBelow = 0x01
	keyExact = 0x02
	keyAbove = 0x03
)

// appendNumberKey appends the nearest float, whether the number is below, at or above what that counts as, and, unless it
// is at it, its exact digits. Rounding never changes the order of two numbers, so the floats decide unless they are the same.
func appendNumberKey(dst []byte, v Value) []byte {
	if isNaN(v) {
		return append(binary.BigEndian.AppendUint64(dst, math.MaxUint64), keyExact)
	}
	switch v.kind {
	case KindFloat:
		return append(appendOrderedFloat(dst, v.AsFloat()), keyExact)
	case KindInt:
		i := v.AsInt()
		f := float64(i)
		dst = appendOrderedFloat(dst, f)
		c := compareIntFloat(i, f)
		if c == 0 {
			return append(dst, keyExact)
		}
		text := strconv.FormatInt(i, 10)
		if i < 0 {
			text = text[1:]
		}
		return appendDigits(append(dst, keyExact+byte(c)), i < 0, text, len(text)-1)
	default:
		return appendDecimalKey(dst, v.AsDecimal())
	}
}

func appendDecimalKey(dst []byte, d *apd.Decimal) []byte {
	if d.Form == apd.Infinite {
		f := math.Inf(1)
		if d.Negative {
			f = -f
		}
		return append(appendOrderedFloat(dst, f), keyExact)
	}
	f, c := NearestFloat(d)
	dst = appendOrderedFloat(dst, f)
	if c == 0 {
		return append(dst, keyExact)
	}
	text := d.Coeff.String()
	return appendDigits(append(dst, keyExact+byte(c)), d.Negative, text, len(text)-1+int(d.Exponent))
}

// appendDigits appends a number that is not 0 by the power of ten of its first digit and its digits.
func appendDigits(dst []byte, negative bool, digits string, exponent int) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(int32(exponent))^(1<<31))
	end := len(digits)
	for end > 1 && digits[end-1] == '0' {
		end--
	}
	dst = append(append(dst, digits[:end]...), 0)
	if negative {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

// NearestFloat returns the float nearest to a finite decimal and the sign of what the decimal is more than it.
//
// A float with a fraction counts as the shortest decimal that reads as it: a price of 9.99 equals 9.99, whether a source
// stores it as a decimal or a float. A whole float counts as itself, for integers are compared with it exactly.
func NearestFloat(d *apd.Decimal) (f float64, rest int) {
	if d.IsZero() {
		return 0, 0
	}
	const (
		exactPowers = 22   // 10^22 is the largest power of ten that is a float
		exactDigits = 1e15 // no two decimals of 15 digits are nearest to the same float, so that it counts as d
	)
	if d.Exponent <= 0 && d.Exponent >= -exactPowers && d.Coeff.IsInt64() {
		if c := d.Coeff.Int64(); c < exactDigits {
			f = float64(c) / math.Pow10(int(-d.Exponent))
			if d.Negative {
				f = -f
			}
			return f, 0
		}
	}
	f, _ = strconv.ParseFloat(d.Text('E'), 64) // out of range gives ±Inf, which is what we want
	if math.IsInf(f, 0) || f == 0 {
		rest = 1
		if d.Negative != math.IsInf(f, 0) {
			rest = -1
		}
		return f, rest
	}
	text := strconv.FormatFloat(f, 'e', -1, 64)
	if f == math.Trunc(f) {
		text = strconv.FormatFloat(f, 'f', 0, 64)
	}
	counts, _, err := apd.NewFromString(text)
	if err != nil {
		panic(err) // the text of a finite float is a decimal
	}
	return f, d.Cmp(counts)
}

func appendDurationKey(dst []byte, d Duration) []byte {
	days := floorDiv(d.Seconds, secondsPerDay)
	dst = appendOrderedFloat(dst, float64(d.Months)*daysPerMonth+float64(d.Days)+float64(days))
	dst = appendOrderedInt(dst, d.Seconds-days*secondsPerDay)
	dst = appendOrderedInt(dst, int64(d.Nanoseconds))
	dst = appendOrderedInt(dst, d.Months)
	return appendOrderedInt(dst, d.Days)
}
