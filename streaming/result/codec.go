package result

import (
	"encoding/binary"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// messageVersion is the first byte of a message of a result log.
const messageVersion = 1

const (
	flagSnapshot = 1
	flagMore     = 2
)

// AppendMessage appends a message of a result log that holds these events, in this order.
func AppendMessage(dst []byte, events ...*Event) []byte {
	dst = append(dst, messageVersion)
	for _, e := range events {
		dst = AppendEvent(dst, e)
	}
	return dst
}

// BeginMessage appends the start of a message; events encoded by AppendEvent follow it back to back.
func BeginMessage(dst []byte) []byte { return append(dst, messageVersion) }

// DecodeMessage decodes what AppendMessage wrote. Strings of the events may share data.
func DecodeMessage(data []byte) ([]*Event, error) {
	if len(data) == 0 || data[0] != messageVersion {
		return nil, failure.BadRecord.Errorf("reading a result message: unknown version")
	}
	var events []*Event
	for rest := data[1:]; len(rest) > 0; {
		var e *Event
		var err error
		if e, rest, err = DecodeEvent(rest); err != nil {
			return nil, err
		}
		events = append(events, e)
	}
	return events, nil
}

// AppendEvent appends the encoding of e, which says itself where it ends.
func AppendEvent(dst []byte, e *Event) []byte {
	dst = binary.AppendUvarint(dst, e.Sequence)
	dst = appendString(dst, e.Source)
	dst = appendString(dst, string(e.Position))
	dst = binary.AppendVarint(dst, e.CommitTime.Unix())
	dst = binary.AppendUvarint(dst, uint64(e.CommitTime.Nanosecond()))
	var flags byte
	if e.Snapshot {
		flags |= flagSnapshot
	}
	if e.More {
		flags |= flagMore
	}
	dst = append(dst, flags)
	dst = binary.AppendUvarint(dst, uint64(len(e.Columns)))
	for _, c := range e.Columns {
		dst = appendString(dst, c)
	}
	dst = binary.AppendUvarint(dst, uint64(len(e.Diffs)))
	for i := range e.Diffs {
		d := &e.Diffs[i]
		dst = append(dst, byte(d.Op))
		dst = append(dst, d.Key[:]...)
		for _, v := range d.Before {
			dst = graph.AppendValue(dst, v)
		}
		for _, v := range d.After {
			dst = graph.AppendValue(dst, v)
		}
	}
	return dst
}

// DecodeEvent decodes what AppendEvent wrote and returns what follows it. Strings may share src.
func DecodeEvent(src []byte) (*Event, []byte, error) {
	d := decoder{src: src}
	e := &Event{Sequence: d.uvarint(), Source: d.string(), Position: graph.Position(d.string())}
	sec, ns := d.varint(), d.uvarint()
	if ns >= uint64(time.Second) {
		d.fail()
	} else {
		e.CommitTime = time.Unix(sec, int64(ns)).UTC()
	}
	flags := d.byte()
	e.Snapshot, e.More = flags&flagSnapshot != 0, flags&flagMore != 0
	for n := d.count(1); n > 0 && d.err == nil; n-- {
		e.Columns = append(e.Columns, d.string())
	}
	n := d.count(1 + len(RowKey{}))
	if d.err == nil {
		e.Diffs = make([]Diff, 0, n)
	}
	for ; n > 0 && d.err == nil; n-- {
		diff := Diff{Op: Op(d.byte())}
		copy(diff.Key[:], d.bytes(len(diff.Key)))
		switch diff.Op {
		case Added:
			diff.After = d.values(len(e.Columns))
		case Updated:
			diff.Before = d.values(len(e.Columns))
			diff.After = d.values(len(e.Columns))
		case Deleted:
			diff.Before = d.values(len(e.Columns))
		default:
			d.fail()
		}
		e.Diffs = append(e.Diffs, diff)
	}
	if d.err != nil {
		return nil, nil, d.err
	}
	return e, d.src, nil
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

// decoder reads from src until something does not fit; then err is set and everything reads as zero.
type decoder struct {
	src []byte
	err error
}

func (d *decoder) fail() {
	if d.err == nil {
		d.err = failure.BadRecord.Errorf("reading an event: it is cut short or malformed")
	}
	d.src = nil
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.src)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.src)
	if n <= 0 {
		d.fail()
		return 0
	}
	d.src = d.src[n:]
	return v
}

func (d *decoder) bytes(n int) []byte {
	if n > len(d.src) {
		d.fail()
		return nil
	}
	b := d.src[:n]
	d.src = d.src[n:]
	return b
}

func (d *decoder) byte() byte {
	if b := d.bytes(1); b != nil {
		return b[0]
	}
	return 0
}

// count reads the number of items that take at least size bytes each, so that a damaged count cannot ask for memory
// that the data could never fill.
func (d *decoder) count(size int) int {
	n := d.uvarint()
	if n > uint64(len(d.src)/size) {
		d.fail()
		return 0
	}
	return int(n)
}

func (d *decoder) string() string { return string(d.bytes(d.count(1))) }

func (d *decoder) values(n int) []graph.Value {
	if n > len(d.src) {
		d.fail()
		return nil
	}
	values := make([]graph.Value, n)
	for i := range values {
		if d.err != nil {
			return nil
		}
		v, rest, err := graph.DecodeValue(d.src)
		if err != nil {
			d.src, d.err = nil, err
			return nil
		}
		values[i], d.src = v, rest
	}
	return values
}
