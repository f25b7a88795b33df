package postgres

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/perdure/perdure/streaming/graph"
)

// decodeFunc turns a column's binary form into a value; src is only valid during the call. The same functions decode
// the stream and snapshots, so that a value does not depend on the way it came.
type decodeFunc func(d *decoder, src []byte) (graph.Value, error)

// decoder is what decoding functions need beside the bytes. It is not safe for concurrent use.
type decoder struct {
	arena
	types *typeMap
	// serverText asks the server for the text of a binary value of a type that we do not know.
	serverText func(oid uint32, src []byte) (string, error)
}

// scalars are the types with a decoder of their own. Everything else is an array, an enum or a domain, or goes through
// pgx's type map or, at last, the server.
var scalars = map[uint32]decodeFunc{
	pgtype.BoolOID:        decodeBool,
	pgtype.Int2OID:        decodeInt2,
	pgtype.Int4OID:        decodeInt4,
	pgtype.Int8OID:        decodeInt8,
	pgtype.OIDOID:         decodeUint4,
	pgtype.XIDOID:         decodeUint4,
	pgtype.CIDOID:         decodeUint4,
	pgtype.Float4OID:      decodeFloat4,
	pgtype.Float8OID:      decodeFloat8,
	pgtype.NumericOID:     decodeNumeric,
	pgtype.TextOID:        decodeText,
	pgtype.VarcharOID:     decodeText,
	pgtype.NameOID:        decodeText,
	pgtype.UnknownOID:     decodeText,
	pgtype.QCharOID:       decodeText,
	pgtype.BPCharOID:      decodePaddedText,
	pgtype.ByteaOID:       decodeBytes,
	pgtype.UUIDOID:        decodeUUID,
	pgtype.DateOID:        decodeDate,
	pgtype.TimeOID:        decodeTime,
	pgtype.TimetzOID:      decodeTimeTZ,
	pgtype.TimestampOID:   decodeTimestamp,
	pgtype.TimestamptzOID: decodeTimestampTZ,
	pgtype.IntervalOID:    decodeInterval,
	pgtype.JSONOID:        decodeJSON,
	pgtype.JSONBOID:       decodeJSONB,
	pgtype.InetOID:        decodeNetwork,
	pgtype.CIDROID:        decodeNetwork,
	pgtype.MacaddrOID:     decodeMAC,
	pgtype.Macaddr8OID:    decodeMAC,
	pgtype.BitOID:         decodeBits,
	pgtype.VarbitOID:      decodeBits,
	3220 /* pg_lsn */ :    decodeLSN,
}

func sizeError(src []byte, want int) error {
	return fmt.Errorf("value has %d bytes instead of %d", len(src), want)
}

func decodeBool(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 1 {
		return graph.Null, sizeError(src, 1)
	}
	return graph.Bool(src[0] != 0), nil
}

func decodeInt2(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 2 {
		return graph.Null, sizeError(src, 2)
	}
	return graph.Int(int64(int16(binary.BigEndian.Uint16(src)))), nil
}

func decodeInt4(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 4 {
		return graph.Null, sizeError(src, 4)
	}
	return graph.Int(int64(int32(binary.BigEndian.Uint32(src)))), nil
}

func decodeUint4(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 4 {
		return graph.Null, sizeError(src, 4)
	}
	return graph.Int(int64(binary.BigEndian.Uint32(src))), nil
}

func decodeInt8(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	return graph.Int(int64(binary.BigEndian.Uint64(src))), nil
}

// decodeFloat4 takes the shortest decimal that names the float, as the server prints it: 0.1::real is 0.1 and not
// 0.10000000149011612.
func decodeFloat4(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 4 {
		return graph.Null, sizeError(src, 4)
	}
	f := math.Float32frombits(binary.BigEndian.Uint32(src))
	if f == float32(int32(f)) { // also saves the common case the way through text
		return graph.Float(float64(f)), nil
	}
	var text [32]byte
	exact, err := strconv.ParseFloat(sealed(strconv.AppendFloat(text[:0], float64(f), 'g', -1, 32)), 64)
	if err != nil {
		return graph.Null, err
	}
	return graph.Float(exact), nil
}

func decodeFloat8(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	return graph.Float(math.Float64frombits(binary.BigEndian.Uint64(src))), nil
}

func decodeText(d *decoder, src []byte) (graph.Value, error) { return graph.String(d.text(src)), nil }

// decodePaddedText drops the blanks that char(n) is padded with and that have no meaning.
func decodePaddedText(d *decoder, src []byte) (graph.Value, error) {
	for len(src) > 0 && src[len(src)-1] == ' ' {
		src = src[:len(src)-1]
	}
	return graph.String(d.text(src)), nil
}

func decodeBytes(d *decoder, src []byte) (graph.Value, error) {
	return graph.String(sealed(base64.StdEncoding.AppendEncode(d.newBytes(base64.StdEncoding.EncodedLen(len(src))), src))), nil
}

func decodeUUID(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 16 {
		return graph.Null, sizeError(src, 16)
	}
	b := d.newBytes(36)
	for i, end := range [...]int{4, 6, 8, 10, 16} {
		begin := [...]int{0, 4, 6, 8, 10}[i]
		if i > 0 {
			b = append(b, '-')
		}
		b = hex.AppendEncode(b, src[begin:end])
	}
	return graph.String(sealed(b)), nil
}

func decodeNetwork(d *decoder, src []byte) (graph.Value, error) {
	if len(src) < 4 || len(src) != 4+int(src[3]) {
		return graph.Null, sizeError(src, 4)
	}
	addr, ok := netip.AddrFromSlice(src[4:])
	if !ok {
		return graph.Null, sizeError(src[4:], 4)
	}
	b := addr.AppendTo(d.newBytes(48))
	if bits, isCIDR := int(src[1]), src[2] != 0; isCIDR || bits != addr.BitLen() {
		b = strconv.AppendInt(append(b, '/'), int64(bits), 10)
	}
	return graph.String(sealed(b)), nil
}

func decodeMAC(d *decoder, src []byte) (graph.Value, error) {
	return graph.String(d.text([]byte(net.HardwareAddr(src).String()))), nil
}

func decodeBits(d *decoder, src []byte) (graph.Value, error) {
	if len(src) < 4 {
		return graph.Null, sizeError(src, 4)
	}
	n := int(binary.BigEndian.Uint32(src))
	if n < 0 || (n+7)/8 != len(src)-4 {
		return graph.Null, sizeError(src, 4+(n+7)/8)
	}
	b := d.newBytes(n)
	for i := range n {
		b = append(b, '0'+src[4+i/8]>>(7-i%8)&1)
	}
	return graph.String(sealed(b)), nil
}

func decodeLSN(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	return graph.String(string(position(binary.BigEndian.Uint64(src)))), nil
}

// decodeArray makes lists, nested ones of arrays with several dimensions. Lower bounds other than one are dropped.
func decodeArray(element func(oid uint32) decodeFunc) decodeFunc {
	return func(d *decoder, src []byte) (graph.Value, error) {
		if len(src) < 12 {
			return graph.Null, sizeError(src, 12)
		}
		dimensions := int(binary.BigEndian.Uint32(src))
		decode := element(binary.BigEndian.Uint32(src[8:]))
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
		src = src[8*dimensions:]
		v, _, err := d.list(lengths, src, decode)
		return v, err
	}
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
