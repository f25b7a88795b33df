package postgres

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/graph"
)

const (
	numericNegative = 0x4000
	numericNaN      = 0xC000
	numericInfinity = 0xD000
	numericMinusInf = 0xF000
)

// decodeNumeric keeps every digit, the scale included: 1.50 stays 1.50. The binary form is a number in base 10000: its
// digits, the weight of the first one, the sign and how many decimal digits stand behind the point.
func decodeNumeric(d *decoder, src []byte) (graph.Value, error) {
	if len(src) < 8 {
		return graph.Null, sizeError(src, 8)
	}
	count := int(binary.BigEndian.Uint16(src))
	weight := int(int16(binary.BigEndian.Uint16(src[2:])))
	sign := binary.BigEndian.Uint16(src[4:])
	scale := int(binary.BigEndian.Uint16(src[6:]))
	digits := src[8:]
	if len(digits) != 2*count {
		return graph.Null, sizeError(src, 8+2*count)
	}
	number := d.newDecimal()
	switch sign {
	case 0:
	case numericNegative:
		number.Negative = true
	case numericNaN:
		number.Form = apd.NaN
		return graph.Decimal(number), nil
	case numericInfinity, numericMinusInf:
		number.Form = apd.Infinite
		number.Negative = sign == numericMinusInf
		return graph.Decimal(number), nil
	default:
		return graph.Null, fmt.Errorf("numeric has sign %#x", sign)
	}
	number.Exponent = -int32(scale)
	shift := 4*(weight-count+1) + scale // decimal places between the last base-10000 digit and the last decimal one
	if count <= 4 && shift <= 2 {       // below 10^18
		number.Coeff.SetUint64(smallCoefficient(digits, shift))
		return graph.Decimal(number), nil
	}
	return graph.Decimal(number), largeCoefficient(number, digits, shift)
}

// decodeMoney makes an exact decimal with two places behind the point, whatever the currency: the binary form is a
// whole number, and how many places it has depends on the lc_monetary of whoever looks at it.
func decodeMoney(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	n := int64(binary.BigEndian.Uint64(src))
	number := d.newDecimal()
	number.Exponent = -2
	if number.Negative = n < 0; number.Negative {
		n = -n // that of the smallest number is itself, which as unsigned is right
	}
	number.Coeff.SetUint64(uint64(n))
	return graph.Decimal(number), nil
}

func smallCoefficient(digits []byte, shift int) uint64 {
	var n uint64
	for i := 0; i < len(digits); i += 2 {
		n = n*10000 + uint64(binary.BigEndian.Uint16(digits[i:]))
	}
	for ; shift > 0; shift-- {
		n *= 10
	}
	for ; shift < 0 && n > 0; shift++ {
		n /= 10 // the digits behind the scale are zero
	}
	return n
}

func largeCoefficient(number *apd.Decimal, digits []byte, shift int) error {
	text := make([]byte, 0, 2*len(digits)+max(shift, 0)+1)
	text = append(text, '0')
	for i := 0; i < len(digits); i += 2 {
		n := binary.BigEndian.Uint16(digits[i:])
		text = append(text, byte('0'+n/1000%10), byte('0'+n/100%10), byte('0'+n/10%10), byte('0'+n%10))
	}
	if shift > 0 {
		text = append(text, strings.Repeat("0", shift)...)
	} else {
		text = text[:max(1, len(text)+shift)]
	}
	if _, ok := number.Coeff.SetString(sealed(text), 10); !ok {
		return fmt.Errorf("numeric has digits %q", text)
	}
	return nil
}
