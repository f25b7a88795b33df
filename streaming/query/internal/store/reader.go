package store

import (
	"encoding/binary"
	"unsafe"

	"github.com/perdure/perdure/streaming/graph"
)

// Reader decodes a record; after the first thing that does not fit Err is set and everything reads as zero.
type Reader struct {
	Src []byte
	Err error
}

func (r *Reader) fail() {
	if r.Err == nil {
		r.Err = corrupt("a record")
	}
	r.Src = nil
}

// Uvarint reads an unsigned number.
func (r *Reader) Uvarint() uint64 {
	v, n := binary.Uvarint(r.Src)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.Src = r.Src[n:]
	return v
}

// Varint reads a signed number.
func (r *Reader) Varint() int64 {
	v, n := binary.Varint(r.Src)
	if n <= 0 {
		r.fail()
		return 0
	}
	r.Src = r.Src[n:]
	return v
}

// Bytes reads bytes with their length in front; they share Src.
func (r *Reader) Bytes() []byte {
	n := r.Uvarint()
	if n > uint64(len(r.Src)) {
		r.fail()
		return nil
	}
	b := r.Src[:n:n]
	r.Src = r.Src[n:]
	return b
}

// Text reads a string with its length in front; it shares Src, which must not change afterwards.
func (r *Reader) Text() string {
	b := r.Bytes()
	return unsafe.String(unsafe.SliceData(b), len(b))
}

// Value reads a value, which may share Src.
func (r *Reader) Value() graph.Value {
	if r.Err != nil {
		return graph.Null
	}
	v, rest, err := graph.DecodeValue(r.Src)
	if err != nil {
		r.fail()
		return graph.Null
	}
	r.Src = rest
	return v
}

// AppendBytes appends bytes with their length in front.
func AppendBytes[T ~[]byte | ~string](dst []byte, b T) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(b))), b...)
}
