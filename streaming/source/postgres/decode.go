package postgres

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"strconv"
	"unicode/utf8"

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
	// borrows lets text stay in the memory that it came in, because nobody keeps it longer than that is there.
	borrows bool
	// What the parser of json has not put together yet.
	jsonItems []graph.Value
	jsonKeys  []string
	// unchanged is set when a tuple has a column that was not sent because it did not change.
	unchanged bool
	// Space for keys of rows.
	keySpace, oldKeySpace []byte
	// rawText says that the database's encoding is SQL_ASCII: the server converts and checks no text.
	rawText bool
	// serverText asks the server for the text of a binary value of a type that we do not know.
	serverText func(oid uint32, src []byte) (string, error)
	// reload learns a type anew, which was altered; nil where nothing can be newer than the catalog that was read.
	reload func(oid uint32) error
}

// scalars are the types with a decoder of their own. The others are made of these, or the server is asked.
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
	pgtype.QCharOID:       decodeChar,
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
	pgtype.TIDOID:         decodeTID,
	pgtype.XID8OID:        decodeUint8,
	pgtype.XMLOID:         decodeText,
	pgtype.JSONPathOID:    decodeJSONPath,
	pgtype.PointOID:       decodePoint,
	pgtype.LineOID:        decodeLine,
	pgtype.LsegOID:        decodeLseg,
	pgtype.BoxOID:         decodeBox,
	pgtype.PathOID:        decodePath,
	pgtype.PolygonOID:     decodePolygon,
	pgtype.CircleOID:      decodeCircle,
	790 /* money */ :      decodeMoney,
	3220 /* pg_lsn */ :    decodeLSN,
	3614 /* tsvector */ :  decodeTSVector,
	// Types of the server's own catalogs, which it sends but does not read.
	194 /* pg_node_tree */ :                  decodeText,
	3361 /* pg_ndistinct */ :                 decodeBytes,
	3402 /* pg_dependencies */ :              decodeBytes,
	5017 /* pg_mcv_list */ :                  decodeBytes,
	4600 /* pg_brin_bloom_summary */ :        decodeBytes,
	4601 /* pg_brin_minmax_multi_summary */ : decodeBytes,
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

// decodeUint8 makes an exact decimal of what is too large for an integer.
func decodeUint8(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	n := binary.BigEndian.Uint64(src)
	if n <= math.MaxInt64 {
		return graph.Int(int64(n)), nil
	}
	number := d.newDecimal()
	number.Coeff.SetUint64(n)
	return graph.Decimal(number), nil
}

func decodeText(d *decoder, src []byte) (graph.Value, error) {
	if d.rawText && !utf8.Valid(src) {
		return graph.Null, errNotUTF8
	}
	if d.borrows {
		return graph.String(sealed(src)), nil
	}
	return graph.String(d.text(src)), nil
}

var errNotUTF8 = errors.New("the text is not UTF-8, and the database, whose encoding is SQL_ASCII, does not say what it is")

// decodeChar decodes the type "char", one byte: none at all when it is zero, in octal when it is not ASCII.
func decodeChar(d *decoder, src []byte) (graph.Value, error) {
	switch {
	case len(src) != 1:
		return graph.Null, sizeError(src, 1)
	case src[0] == 0:
		return graph.String(""), nil
	case src[0] >= 0x80:
		return graph.String(fmt.Sprintf(`\%o`, src[0])), nil
	}
	return graph.String(d.text(src)), nil
}

// decodePaddedText drops the blanks that char(n) is padded with and that have no meaning.
func decodePaddedText(d *decoder, src []byte) (graph.Value, error) {
	for len(src) > 0 && src[len(src)-1] == ' ' {
		src = src[:len(src)-1]
	}
	return decodeText(d, src)
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
	b := d.newBytes(48)
	if bytes.HasPrefix(src[4:], make([]byte, 12)) && len(src) == 20 && (src[16] != 0 || src[17] != 0) { // the server writes ::1.2.3.4
		b = netip.AddrFrom4([4]byte(src[16:])).AppendTo(append(b, "::"...))
	} else {
		b = addr.AppendTo(b)
	}
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

func decodeTID(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 6 {
		return graph.Null, sizeError(src, 6)
	}
	b := strconv.AppendUint(append(d.newBytes(18), '('), uint64(binary.BigEndian.Uint32(src)), 10)
	b = strconv.AppendUint(append(b, ','), uint64(binary.BigEndian.Uint16(src[4:])), 10)
	return graph.String(sealed(append(b, ')'))), nil
}

func decodeJSONPath(d *decoder, src []byte) (graph.Value, error) {
	if len(src) == 0 || src[0] != 1 {
		return graph.Null, errors.New("jsonpath of unknown version")
	}
	return decodeText(d, src[1:])
}

// decodeTSVector writes each lexeme with its positions and their weights, as the server does: 'cat':3B 'fat':2.
func decodeTSVector(d *decoder, src []byte) (graph.Value, error) {
	if len(src) < 4 {
		return graph.Null, sizeError(src, 4)
	}
	count, src := binary.BigEndian.Uint32(src), src[4:]
	b := make([]byte, 0, 2*len(src))
	for i := range count {
		lexeme, rest, ok := bytes.Cut(src, []byte{0})
		if !ok || len(rest) < 2 || len(rest) < 2+2*int(binary.BigEndian.Uint16(rest)) {
			return graph.Null, errors.New("tsvector ends early")
		}
		if i > 0 {
			b = append(b, ' ')
		}
		b = append(b, '\'')
		for _, c := range lexeme {
			if c == '\'' || c == '\\' {
				b = append(b, c)
			}
			b = append(b, c)
		}
		b = append(b, '\'')
		positions := int(binary.BigEndian.Uint16(rest))
		src = rest[2:]
		for n := range positions {
			position := binary.BigEndian.Uint16(src)
			b = append(b, ":,"[min(n, 1)])
			b = strconv.AppendUint(b, uint64(position&0x3FFF), 10)
			if weight := position >> 14; weight > 0 {
				b = append(b, "DCBA"[weight])
			}
			src = src[2:]
		}
	}
	return decodeText(d, b)
}
