package graph

import (
	"encoding/binary"
	"time"
	"unsafe"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/failure"
)

// Decoder reads messages and elements. It returns the same *Shape and the same label slice for the same names again
// and again, so that a plan resolves names once. The zero Decoder is ready; it is not safe for concurrent use.
//
// What a Decoder returns shares memory with the bytes it was given, which must not change while the result is in use;
// one element kept keeps its whole message. [DecodeElement] and [DecodeValue] copy instead.
type Decoder struct {
	shapes map[string]*Shape
	labels map[string][]string

	shapeTable []*Shape // of the message being read, by reference - 1
	labelTable [][]string
}

// mostInterned bounds what a decoder remembers of shapes and of label sets: beyond, it forgets all and starts again.
const mostInterned = 4096

// Decode decodes one message. It returns failure.BadRecord for anything that is not one, never panics, and allocates
// in proportion to the length of data whatever data claims.
func (d *Decoder) Decode(data []byte) (Message, error) {
	r := reader{src: data, budget: len(data), names: d, share: true, decimalChunk: 64}
	m := d.message(&r)
	if r.failure == "" && len(r.src) > r.pos {
		r.fail("bytes after the end")
	}
	if r.failure != "" {
		return Message{}, r.error("message")
	}
	return m, nil
}

// Element decodes what AppendElement wrote, as DecodeElement does, but shares memory with src and interns names.
func (d *Decoder) Element(src []byte) (*Element, []byte, error) {
	return decodeElement(reader{src: src, budget: len(src), names: d, share: true, decimalChunk: 1})
}

// DecodeElement decodes what AppendElement wrote and returns the bytes after it. The element owns its memory.
func DecodeElement(src []byte) (*Element, []byte, error) {
	return decodeElement(reader{src: src, budget: len(src), decimalChunk: 1})
}

// Value decodes what AppendValue wrote, as DecodeValue does, but shares memory with src and interns names.
func (d *Decoder) Value(src []byte) (Value, []byte, error) {
	return decodeValue(reader{src: src, budget: len(src), names: d, share: true, decimalChunk: 1})
}

// DecodeValue decodes what AppendValue wrote and returns the bytes after it. The value owns its memory.
func DecodeValue(src []byte) (Value, []byte, error) {
	return decodeValue(reader{src: src, budget: len(src), decimalChunk: 1})
}

func decodeValue(r reader) (Value, []byte, error) {
	v := r.value()
	if r.failure != "" {
		return Null, nil, r.error("value")
	}
	return v, r.src[r.pos:], nil
}

func decodeElement(r reader) (*Element, []byte, error) {
	el := new(Element)
	r.element(el)
	if r.failure != "" {
		return nil, nil, r.error("element")
	}
	return el, r.src[r.pos:], nil
}

func (d *Decoder) message(r *reader) Message {
	header := r.bytes(headerSize)
	if header == nil || header[0] < codecVersion || header[0] > codecVersionStaged {
		r.fail("unknown version")
		return Message{}
	}
	// A transaction takes five bytes at least, a change two, a value one.
	transactions := r.total(header[1:], 5)
	changes := make([]Change, r.total(header[5:], 2))
	r.values = make([]Value, r.total(header[9:], 1))
	d.shapeTable, d.labelTable = d.shapeTable[:0], d.labelTable[:0]

	var m Message
	if transactions > 0 {
		m.Transactions = make([]FragmentedTransaction, 0, transactions)
	}
	var last origin
	for r.failure == "" {
		tag := r.byte()
		if tag == tagEnd {
			m.Position = Position(r.string())
			return m
		}
		if len(m.Transactions) == transactions {
			r.fail("more transactions than announced")
			return m
		}
		m.Transactions = append(m.Transactions, FragmentedTransaction{})
		tx := &m.Transactions[len(m.Transactions)-1]
		changes = d.transaction(r, tag, tx, changes, &last)
	}
	return m
}

// origin is what changes in a row have in common.
type origin struct {
	labels []string
	shape  *Shape
}

// transaction decodes into tx, taking changes from the front of free, and returns the rest of free.
func (d *Decoder) transaction(r *reader, tag byte, tx *FragmentedTransaction, free []Change, last *origin) []Change {
	schema := tag&tagSchema != 0
	if tag &^= tagSchema; tag == tagEnd || tag > tagStaged || tag == tagStaged && schema {
		r.fail("unknown kind of transaction")
		return free
	}
	tx.Last = tag == tagWhole || tag == tagLastFragment
	tx.Position = Position(r.string())
	sec := r.varint()
	tx.CommitTime = time.Unix(sec, int64(r.nanoseconds())).UTC()
	switch tag {
	case tagStaged:
		tx.Staged = &Staged{Key: string(r.bytes(r.uvarint()))}
		for _, n := range []*uint64{&tx.Staged.From, &tx.Staged.To, &tx.Staged.Messages, &tx.Staged.Bytes} {
			*n = r.uvarint()
		}
		return free
	case tagFragment, tagLastFragment:
		n := r.uvarint()
		if n > 1<<31 {
			r.fail("fragment number out of range")
		}
		tx.Fragment = int(n)
	}
	n := r.uvarint()
	if n > uint64(len(free)) {
		r.fail("more changes than announced")
		return free
	}
	if n > 0 {
		tx.Changes = free[:n:n]
	}
	for i := range tx.Changes {
		if r.failure != "" {
			break
		}
		d.change(r, &tx.Changes[i], last)
	}
	if schema && !tx.Last {
		r.fail("changes of the schema before the end of a transaction")
	} else if schema {
		tx.Schema = r.schema()
	}
	return free[n:]
}

// schema decodes changes of the schema into memory of their own: they are few, and kept for long.
func (r *reader) schema() []SchemaChange {
	var changes []SchemaChange
	for n := r.count(); n > 0 && r.failure == ""; n-- {
		c := SchemaChange{Op: SchemaOp(r.byte())}
		if c.Op < SchemaAdded || c.Op > SchemaSupplied {
			r.fail("unknown change of the schema")
		}
		c.Labels = splitStrings(r.stringsBytes())
		for _, text := range []*string{&c.Table, &c.Property, &c.From, &c.To, &c.State} {
			*text = string(r.bytes(r.uvarint()))
		}
		changes = append(changes, c)
	}
	return changes
}

func (d *Decoder) change(r *reader, c *Change, last *origin) {
	flags := r.byte()
	c.Op = Op(flags & flagOp)
	if c.Op < OpInsert || c.Op > OpTruncate {
		r.fail("unknown operation")
		return
	}
	if flags&flagRepeat == 0 {
		last.labels, last.shape = d.labelReference(r), nil
		if flags&flagShape != 0 {
			last.shape = d.shapeReference(r)
		}
	}
	el := &c.Element
	el.Labels, el.Shape = last.labels, last.shape
	r.identity(el, flags)
	r.properties(el, flags)
}

func (d *Decoder) labelReference(r *reader) []string {
	switch n := r.uvarint(); {
	case n == 0:
		labels := d.internLabels(r.stringsBytes())
		d.labelTable = append(d.labelTable, labels)
		return labels
	case n <= uint64(len(d.labelTable)):
		return d.labelTable[n-1]
	}
	r.fail("unknown label set")
	return nil
}

func (d *Decoder) shapeReference(r *reader) *Shape {
	switch n := r.uvarint(); {
	case n == 0:
		shape := d.internShape(r)
		d.shapeTable = append(d.shapeTable, shape)
		return shape
	case n <= uint64(len(d.shapeTable)):
		return d.shapeTable[n-1]
	}
	r.fail("unknown shape")
	return nil
}

// internLabels returns the label set with this encoding.
func (d *Decoder) internLabels(encoded []byte) []string {
	if d == nil {
		return splitStrings(encoded)
	}
	if labels, ok := d.labels[string(encoded)]; ok {
		return labels
	}
	if len(d.labels) >= mostInterned || d.labels == nil {
		d.labels = make(map[string][]string)
	}
	labels := splitStrings(encoded)
	d.labels[string(encoded)] = labels
	return labels
}

// internShape returns the shape whose encoding r has next, nil when it is none.
func (d *Decoder) internShape(r *reader) *Shape {
	encoded := r.stringsBytes()
	if d == nil {
		return r.newShape(encoded)
	}
	if shape, ok := d.shapes[string(encoded)]; ok {
		return shape
	}
	shape := r.newShape(encoded)
	if shape == nil {
		return nil
	}
	if len(d.shapes) >= mostInterned || d.shapes == nil {
		d.shapes = make(map[string]*Shape)
	}
	d.shapes[string(encoded)] = shape
	return shape
}

func (r *reader) newShape(encoded []byte) *Shape {
	if r.failure != "" {
		return nil
	}
	shape := NewShape(splitStrings(encoded)...)
	if len(shape.slots) != len(shape.names) {
		r.fail("a shape that names a property twice")
		return nil
	}
	return shape
}

// splitStrings decodes what stringsBytes found well-formed, into memory of its own.
func splitStrings(encoded []byte) []string {
	r := reader{src: encoded, budget: len(encoded)}
	n := r.count()
	if n == 0 {
		return nil
	}
	ss := make([]string, n)
	for i := range ss {
		ss[i] = r.string()
	}
	return ss
}

// reader reads the primitive parts of the format. After a failure every method returns zero values, so that callers
// check once at the end.
type reader struct {
	src     []byte
	pos     int
	failure string // what is wrong at pos, "" when nothing

	// budget is how many more items may be announced: every item takes a byte at least, so that announcements that are
	// true never exceed the length of src, and false ones cannot make us allocate out of proportion, nested or not.
	budget int
	depth  int
	share  bool     // strings may share memory with src
	names  *Decoder // interns; nil: names are decoded anew

	values       []Value // arena of property values
	decimals     []apd.Decimal
	decimalChunk int
	zone         *time.Location
	zoneOffset   int32
}

func (r *reader) fail(what string) {
	if r.failure == "" {
		r.failure = what
		r.budget = 0
	}
}

func (r *reader) error(what string) error {
	return failure.BadRecord.Errorf("decoding %s: %s at byte %d of %d", what, r.failure, r.pos, len(r.src))
}

func (r *reader) byte() byte {
	if r.pos >= len(r.src) || r.failure != "" {
		r.fail("truncated")
		return 0
	}
	b := r.src[r.pos]
	r.pos++
	return b
}

func (r *reader) uvarint() uint64 {
	if r.pos < len(r.src) && r.src[r.pos] < 0x80 && r.failure == "" { // most are small
		r.pos++
		return uint64(r.src[r.pos-1])
	}
	if r.failure != "" {
		return 0
	}
	u, n := binary.Uvarint(r.src[r.pos:])
	if n <= 0 {
		r.fail("bad number")
		return 0
	}
	r.pos += n
	return u
}

func (r *reader) varint() int64 {
	u := r.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// bytes returns the next n bytes, or nil.
func (r *reader) bytes(n uint64) []byte {
	if r.failure != "" || n > uint64(len(r.src)-r.pos) {
		r.fail("truncated")
		return nil
	}
	b := r.src[r.pos : r.pos+int(n)]
	r.pos += int(n)
	return b
}

func (r *reader) string() string {
	b := r.bytes(r.uvarint())
	if r.share {
		return unsafe.String(unsafe.SliceData(b), len(b))
	}
	return string(b)
}

// count reads how many items follow.
func (r *reader) count() int {
	n := r.uvarint()
	if n > uint64(r.budget) {
		r.fail("more items than bytes")
		return 0
	}
	r.budget -= int(n)
	return int(n)
}

// total reads one of the totals of a message's header, whose items take so many bytes at least.
func (r *reader) total(b []byte, size int) int {
	n := binary.LittleEndian.Uint32(b)
	if uint64(n) > uint64(len(r.src)/size) {
		r.fail("more items than bytes")
		return 0
	}
	return int(n)
}

// stringsBytes checks a list of strings and returns it undecoded.
func (r *reader) stringsBytes() []byte {
	start := r.pos
	for n := r.count(); n > 0 && r.failure == ""; n-- {
		r.bytes(r.uvarint())
	}
	if r.failure != "" {
		return nil
	}
	return r.src[start:r.pos]
}

// element decodes a self-contained element.
func (r *reader) element(el *Element) {
	flags := r.byte()
	r.identity(el, flags)
	if labels := r.stringsBytes(); r.failure == "" {
		el.Labels = r.names.internLabels(labels)
	}
	if flags&flagShape != 0 && r.failure == "" {
		el.Shape = r.names.internShape(r)
	}
	r.properties(el, flags)
}

func (r *reader) identity(el *Element, flags byte) {
	el.ID = ElementID(r.string())
	if flags&flagRelationship != 0 {
		el.Start, el.End = ElementID(r.string()), ElementID(r.string())
		if r.failure == "" && !el.IsRelationship() {
			r.fail("a relationship between nothing")
		}
	}
}

func (r *reader) properties(el *Element, flags byte) {
	if flags&flagValues == 0 {
		return
	}
	n := r.count()
	if el.Shape == nil || n > len(el.Shape.names) {
		r.fail("more values than names")
		return
	}
	if n <= len(r.values) {
		el.Values, r.values = r.values[:n:n], r.values[n:]
	} else { // elements inside of values are not part of a message's total
		el.Values = make([]Value, n)
	}
	for i := range el.Values {
		el.Values[i] = r.value()
	}
}
