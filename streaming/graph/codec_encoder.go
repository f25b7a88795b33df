package graph

import (
	"encoding/binary"
	"slices"
	"time"
)

// Encoder writes messages. It is reusable and not safe for concurrent use.
//
// A message is made by Begin, any number of Add, AddFragment, AddStaged and Open with its Appends, and Finish.
type Encoder struct {
	buf                           []byte
	transactions, changes, values uint32

	shapes     map[*Shape]uint64 // by pointer, to be quick
	shapeNames map[string]uint64 // by content, so that equal shapes of different makers are written once
	labels     map[string]uint64
	key        []byte

	lastShape  *Shape
	lastLabels []string
	repeatable bool // there is a change before in this message

	open     int    // where the number of changes of the open transaction belongs, 0: none is
	appended uint32 // to it so far
}

// Begin starts a message.
func (e *Encoder) Begin() {
	if e.shapes == nil {
		e.shapes, e.shapeNames, e.labels = make(map[*Shape]uint64), make(map[string]uint64), make(map[string]uint64)
	}
	clear(e.shapes)
	clear(e.shapeNames)
	clear(e.labels)
	e.lastShape, e.lastLabels, e.repeatable = nil, nil, false
	e.transactions, e.changes, e.values, e.open = 0, 0, 0, 0
	e.buf = append(e.buf[:0], codecVersion)
	e.buf = append(e.buf, make([]byte, headerSize-1)...)
}

// Grow makes room for a message of n bytes, so that it does not grow piece by piece.
func (e *Encoder) Grow(n int) {
	if n > cap(e.buf) {
		e.buf = make([]byte, 0, n)
	}
}

// Add appends a whole transaction.
func (e *Encoder) Add(tx *Transaction) { e.add(tx, tx.Changes, tx.Schema, tagWhole, 0) }

// AddFragment appends one part of a large transaction: these of its changes, and with the last one its changes of the
// schema. Parts are numbered from 0.
func (e *Encoder) AddFragment(tx *Transaction, changes []Change, number int, last bool) {
	if last {
		e.add(tx, changes, tx.Schema, tagLastFragment, number)
		return
	}
	e.add(tx, changes, nil, tagFragment, number)
}

// AddStaged appends the first part of a large transaction as the place where its changes are.
func (e *Encoder) AddStaged(tx *Transaction, staged *Staged) {
	e.buf[0] = codecVersionStaged
	e.transaction(tx, tagStaged, 0)
	e.buf = appendString(e.buf, staged.Key)
	for _, n := range []uint64{staged.From, staged.To, staged.Messages, staged.Bytes} {
		e.buf = binary.AppendUvarint(e.buf, n)
	}
}

// Open begins a whole transaction whose changes come one by one, by Append; those that tx has are not looked at.
func (e *Encoder) Open(tx *Transaction) {
	e.transaction(tx, tagWhole, 0)
	e.open, e.appended = len(e.buf), 0
	e.buf = append(e.buf, make([]byte, openCount)...)
}

// Append adds a change to the transaction that was opened last. It keeps nothing of the change.
func (e *Encoder) Append(c *Change) {
	e.appended++
	e.change(c)
}

// openCount is the length of the number of changes in an open transaction, which is known at its end only: a varint of
// always so many bytes.
const openCount = 5

// close ends the transaction that was opened, if one is.
func (e *Encoder) close() {
	if e.open == 0 {
		return
	}
	e.changes += e.appended
	for i := range openCount {
		b := byte(e.appended>>(7*i)) & 0x7f
		if i < openCount-1 {
			b |= 0x80
		}
		e.buf[e.open+i] = b
	}
	e.open = 0
}

// Size returns how many bytes the message has so far, without its end.
func (e *Encoder) Size() int { return len(e.buf) }

// Finish ends the message. The position says how far the source is after it, at or beyond the last transaction's. The
// bytes are valid until the next Begin.
func (e *Encoder) Finish(position Position) []byte {
	e.close()
	e.buf = append(e.buf, tagEnd)
	e.buf = appendString(e.buf, string(position))
	binary.LittleEndian.PutUint32(e.buf[1:], e.transactions)
	binary.LittleEndian.PutUint32(e.buf[5:], e.changes)
	binary.LittleEndian.PutUint32(e.buf[9:], e.values)
	return e.buf
}

func (e *Encoder) add(tx *Transaction, changes []Change, schema []SchemaChange, tag byte, fragment int) {
	if len(schema) > 0 {
		tag |= tagSchema
	}
	e.transaction(tx, tag, fragment)
	e.changes += uint32(len(changes))
	e.buf = binary.AppendUvarint(e.buf, uint64(len(changes)))
	for i := range changes {
		e.change(&changes[i])
	}
	if len(schema) == 0 {
		return
	}
	e.buf[0] = max(e.buf[0], codecVersionSchema)
	e.buf = binary.AppendUvarint(e.buf, uint64(len(schema)))
	for i := range schema {
		c := &schema[i]
		e.buf = appendStrings(append(e.buf, byte(c.Op)), c.Labels)
		for _, text := range []string{c.Table, c.Property, c.From, c.To, c.State} {
			e.buf = appendString(e.buf, text)
		}
	}
}

func (e *Encoder) transaction(tx *Transaction, tag byte, fragment int) {
	e.close()
	e.transactions++
	e.buf = append(e.buf, tag)
	e.buf = appendString(e.buf, string(tx.Position))
	e.buf = appendTime(e.buf, tx.CommitTime)
	if tag &^= tagSchema; tag == tagFragment || tag == tagLastFragment {
		e.buf = binary.AppendUvarint(e.buf, uint64(fragment))
	}
}

func (e *Encoder) change(c *Change) {
	el := &c.Element
	flags := elementFlags(el) | byte(c.Op)&flagOp
	repeat := e.repeatable && el.Shape == e.lastShape && sameLabels(el.Labels, e.lastLabels)
	if repeat {
		flags |= flagRepeat
	}
	e.buf = append(e.buf, flags)
	if !repeat {
		e.writeLabels(el.Labels)
		if el.Shape != nil {
			e.writeShape(el.Shape)
		}
		e.lastShape, e.lastLabels, e.repeatable = el.Shape, el.Labels, true
	}
	e.values += uint32(len(el.Values))
	e.buf = appendIdentity(e.buf, el)
	e.buf = appendValues(e.buf, el)
}

func (e *Encoder) writeLabels(labels []string) {
	e.key = appendStrings(e.key[:0], labels)
	if n, ok := e.labels[string(e.key)]; ok {
		e.buf = binary.AppendUvarint(e.buf, n)
		return
	}
	e.labels[string(e.key)] = uint64(len(e.labels) + 1)
	e.buf = append(append(e.buf, 0), e.key...)
}

func (e *Encoder) writeShape(s *Shape) {
	if n, ok := e.shapes[s]; ok {
		e.buf = binary.AppendUvarint(e.buf, n)
		return
	}
	e.key = appendStrings(e.key[:0], s.names)
	if n, ok := e.shapeNames[string(e.key)]; ok {
		e.shapes[s] = n
		e.buf = binary.AppendUvarint(e.buf, n)
		return
	}
	n := uint64(len(e.shapeNames) + 1)
	e.shapes[s], e.shapeNames[string(e.key)] = n, n
	e.buf = append(append(e.buf, 0), e.key...)
}

// AppendElement appends the self-contained encoding of el.
func AppendElement(dst []byte, el *Element) []byte {
	dst = append(dst, elementFlags(el))
	dst = appendIdentity(dst, el)
	dst = appendStrings(dst, el.Labels)
	if el.Shape != nil {
		dst = appendStrings(dst, el.Shape.names)
	}
	return appendValues(dst, el)
}

func elementFlags(el *Element) byte {
	var flags byte
	if el.IsRelationship() {
		flags |= flagRelationship
	}
	if el.Shape != nil {
		flags |= flagShape
	}
	if len(el.Values) > 0 {
		flags |= flagValues
	}
	return flags
}

func appendIdentity(dst []byte, el *Element) []byte {
	dst = appendString(dst, string(el.ID))
	if el.IsRelationship() {
		dst = appendString(dst, string(el.Start))
		dst = appendString(dst, string(el.End))
	}
	return dst
}

func appendValues(dst []byte, el *Element) []byte {
	if len(el.Values) == 0 {
		return dst
	}
	dst = binary.AppendUvarint(dst, uint64(len(el.Values)))
	for _, v := range el.Values {
		dst = AppendValue(dst, v)
	}
	return dst
}

// Weight is about how many bytes the change takes in a message, a little more rather than less.
func (c *Change) Weight() int {
	el := &c.Element
	n := 8 + len(el.ID) + len(el.Start) + len(el.End)
	for i := range el.Values {
		n += el.Values[i].weight()
	}
	return n
}

func (v *Value) weight() int {
	if v.kind == KindString {
		return 4 + int(v.num)
	}
	if v.kind != KindList && v.kind != KindMap {
		return 9
	}
	return v.nestedWeight()
}

func (v *Value) nestedWeight() int {
	n := 4
	if v.kind == KindList {
		items := v.AsList()
		for i := range items {
			n += items[i].weight()
		}
		return n
	}
	m := v.AsMap()
	for i := range m.Values {
		n += len(m.Keys[i]) + m.Values[i].weight()
	}
	return n
}

func appendString(dst []byte, s string) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(s))), s...)
}

func appendStrings(dst []byte, ss []string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(ss)))
	for _, s := range ss {
		dst = appendString(dst, s)
	}
	return dst
}

func appendTime(dst []byte, t time.Time) []byte {
	dst = binary.AppendVarint(dst, t.Unix())
	return binary.AppendUvarint(dst, uint64(t.Nanosecond()))
}

// sameLabels is slices.Equal that is quick where both are the same slice, as with elements of one origin.
func sameLabels(a, b []string) bool {
	if len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) {
		return true
	}
	return slices.Equal(a, b)
}
