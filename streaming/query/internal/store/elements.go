package store

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/cache"
)

// Relevance says what a plan wants to know of elements with given labels.
type Relevance struct {
	// Positions are by Match.Number: a bit for each position of that Match where such an element may stand. At a
	// variable-length relationship with room for inner nodes every node may stand too. Without any position or scan an
	// element is not stored.
	Positions []uint64
	// Scans are the numbers of the scans that find such an element, ascending. Property indexes follow from them.
	Scans []int
	// Properties are those that are kept, ascending, those of property indexes included; All keeps every one.
	Properties []string
	All        bool

	indexes []int
}

// wanted reports whether such elements are stored.
func (r *Relevance) wanted() bool {
	for _, p := range r.Positions {
		if p != 0 {
			return true
		}
	}
	return len(r.Scans) > 0
}

// Index is a property index: it finds elements of a scan by the value of a property.
type Index struct {
	Scan     int
	Property string
}

// Element is a stored element. It is immutable, but for what is known of its neighbours.
type Element struct {
	graph.Element
	kind  *kind
	links [2]*neighbours // by direction, of a node; nil: not asked for yet
	size  uint32         // in memory, about
	stale bool           // no longer what the store has, or another copy of it
}

// Relevance returns what the plan wants of elements with these labels.
func (e *Element) Relevance() *Relevance { return &e.kind.relevance }

// May reports whether the element may stand at a position of a Match.
func (e *Element) May(match, position int) bool {
	return e.kind.relevance.Positions[match]&(1<<position) != 0
}

// AppendTo appends the element's record.
func (e *Element) AppendTo(dst []byte) []byte {
	dst = append(dst, e.kind.headOf(e.Shape)...)
	dst = append(binary.AppendUvarint(dst, uint64(len(e.Start))), e.Start...)
	dst = append(binary.AppendUvarint(dst, uint64(len(e.End))), e.End...)
	for _, v := range e.Values {
		dst = graph.AppendValue(dst, v)
	}
	return dst
}

// Size returns about what the element takes in memory.
func (e *Element) Size() int { return int(e.size) }

func (e *Element) measure() {
	const fixed = 176 // structs and the key
	size := fixed + len(e.ID) + len(e.Start) + len(e.End) + graph.SizeOfAll(e.Values)
	e.size = uint32(min(size, math.MaxUint32))
}

// Forgotten makes whoever remembers the element ask for it again.
func (e *Element) Forgotten() { e.stale = true }

// Elements is the graph store: elements by id, adjacency by node, scans by class, property indexes.
type Elements struct {
	relevance func(labels []string, relationship bool) Relevance
	indexes   []Index
	names     names
	adjacent  *cache.Cache[side, *neighbours]
	read      func(record []byte) (index.Record, error) // the element of s.key
	kinds     map[string]*kind
	lastKind  *kind
	types     []*Relevance // of relationships, by number of their type; nil: not asked for yet
	key, buf  []byte
	expected  [][]byte // scratch: keys
	count     int64
}

// kind is what elements with the same labels have in common.
type kind struct {
	relevance    Relevance
	names        *names
	labels       []string
	relationship bool
	shape        *graph.Shape // of Properties, made when first needed
	from         map[*graph.Shape][]int
	lastFrom     *graph.Shape
	last         []int // of lastFrom
	heads        map[*graph.Shape][]byte
	lastShape    *graph.Shape
	lastHead     []byte // of lastShape
}

// maxShapes bounds how many foreign shapes a kind remembers, as a source might make a new one for each element.
const maxShapes = 256

// NewElements returns the store for a plan that wants these indexes. The neighbours of nodes are cached up to so many
// bytes.
func NewElements(relevance func(labels []string, relationship bool) Relevance, indexes []Index, cacheBytes int) *Elements {
	s := &Elements{relevance: relevance, indexes: indexes, kinds: make(map[string]*kind)}
	s.adjacent = cache.New[side](cacheBytes, sizeOfNeighbours, func(n *neighbours) { n.forgotten = true })
	s.read = func(record []byte) (index.Record, error) { return s.decode(graph.ElementID(s.key[1:]), record) }
	return s
}

// Load forgets everything that is not stored and reads the interned names.
func (s *Elements) Load(r index.Reader, count int64) error {
	s.adjacent.Clear()
	for _, k := range s.kinds {
		clear(k.heads) // what a batch that came to nothing has numbered has no number
		k.shape, k.lastShape, k.lastHead = nil, nil, nil
	}
	s.types, s.count = nil, count
	return s.names.load(r)
}

// Count returns the number of stored elements.
func (s *Elements) Count() int64 { return s.count }

func (s *Elements) kind(labels []string, relationship bool) *kind {
	if k := s.lastKind; k != nil && k.relationship == relationship && slices.Equal(k.labels, labels) {
		return k
	}
	name := joinNames(labels)
	if relationship {
		name += "\xff"
	}
	k, ok := s.kinds[name]
	if !ok {
		own := make([]string, len(labels))
		for i, l := range labels {
			own[i] = strings.Clone(l)
		}
		k = &kind{
			relevance: s.relevance(own, relationship), names: &s.names, labels: own, relationship: relationship,
			from: make(map[*graph.Shape][]int), heads: make(map[*graph.Shape][]byte),
		}
		for i, index := range s.indexes {
			if slices.Contains(k.relevance.Scans, index.Scan) {
				k.relevance.indexes = append(k.relevance.indexes, i)
			}
		}
		s.kinds[name] = k
	}
	s.lastKind = k
	return k
}

// Get returns a stored element, or nil.
func (s *Elements) Get(b index.Batch, id graph.ElementID) (*Element, error) {
	s.key = appendElementKey(s.key[:0], id)
	r, err := b.Record(s.key, s.read)
	if err != nil || r == nil {
		return nil, err
	}
	e := r.(*Element)
	e.stale = false // a batch that came to nothing may have said so
	return e, nil
}

// Expect says which elements Get will be asked for next.
func (s *Elements) Expect(b index.Batch, ids []graph.ElementID) {
	s.buf, s.expected = s.buf[:0], s.expected[:0]
	for _, id := range ids {
		s.buf = appendElementKey(s.buf, id)
	}
	rest := s.buf
	for _, id := range ids {
		n := 1 + len(id)
		s.expected, rest = append(s.expected, rest[:n:n]), rest[n:]
	}
	b.Expect(s.expected, true)
}

// Prune returns what is stored of an element, or nil when that is nothing. Unchanged values come from old, which may be
// nil; with partial all properties that e does not give do. The element shares nothing with the message that e came in.
func (s *Elements) Prune(b index.Batch, e *graph.Element, old *Element, partial bool) (*Element, error) {
	k := s.kind(e.Labels, e.IsRelationship())
	if !k.relevance.wanted() {
		return nil, nil
	}
	shape, from, err := s.shapeOf(b, k, e, old, partial)
	if err != nil {
		return nil, err
	}
	stored := newElement(k, shape)
	if old != nil {
		stored.ID, stored.Start, stored.End = old.ID, ownID(e.Start, old.Start), ownID(e.End, old.End)
		stored.links = old.links
	} else {
		stored.ID, stored.Start, stored.End = ownID(e.ID, ""), ownID(e.Start, ""), ownID(e.End, "")
	}
	for i := range stored.Values {
		was := graph.Null
		switch {
		case old == nil:
		case old.Shape == stored.Shape:
			was = old.Values[i]
		default:
			was = old.Get(stored.Shape.Names()[i])
		}
		given := from[i] >= 0 && from[i] < len(e.Values)
		switch {
		case given && e.Values[from[i]].Kind() != graph.KindUnchanged:
			stored.Values[i] = own(e.Values[from[i]], was)
		case given || partial && from[i] < 0:
			stored.Values[i] = was
		}
	}
	stored.measure()
	return stored, nil
}

// newElement returns an element with room for the values of its shape. The values of most lie behind it, as one piece of
// memory costs less than two.
func newElement(k *kind, shape *graph.Shape) *Element {
	var e *Element
	switch n := len(shape.Names()); {
	case n == 0:
		e = new(Element)
	case n == 1:
		piece := new(struct {
			Element
			values [1]graph.Value
		})
		e, piece.Values = &piece.Element, piece.values[:n:n]
	case n <= 3:
		piece := new(struct {
			Element
			values [3]graph.Value
		})
		e, piece.Values = &piece.Element, piece.values[:n:n]
	case n <= 6:
		piece := new(struct {
			Element
			values [6]graph.Value
		})
		e, piece.Values = &piece.Element, piece.values[:n:n]
	default:
		e = &Element{Element: graph.Element{Values: make([]graph.Value, n)}}
	}
	e.Labels, e.Shape, e.kind = k.labels, shape, k
	return e
}

// own returns v without sharing memory with a message; if it is what was, then that.
func own(v, was graph.Value) graph.Value {
	switch v.Kind() {
	case graph.KindNull, graph.KindBool, graph.KindInt, graph.KindFloat:
		return v
	case graph.KindString:
		if was.Kind() == graph.KindString && was.AsString() == v.AsString() {
			return was
		}
		return graph.String(strings.Clone(v.AsString()))
	}
	if graph.Identical(v, was) {
		return was
	}
	return graph.Clone(v)
}

func ownID(id, was graph.ElementID) graph.ElementID {
	if id == was {
		return was
	}
	return graph.ElementID(strings.Clone(string(id)))
}

// shapeOf returns the shape that e is stored with and for each of its slots the slot of e, or -1.
func (s *Elements) shapeOf(b index.Batch, k *kind, e *graph.Element, old *Element, partial bool) (shape *graph.Shape, from []int, err error) {
	var props []string
	switch {
	case !k.relevance.All:
		if k.shape == nil {
			if k.shape, err = s.names.shape(b, k.relevance.Properties); err != nil {
				return nil, nil, err
			}
		}
		shape = k.shape
	default:
		if e.Shape != nil {
			props = slices.Clone(e.Shape.Names())
		}
		if partial && old != nil {
			props = append(props, old.Shape.Names()...)
		}
		slices.Sort(props)
		if shape, err = s.names.shape(b, slices.Compact(props)); err != nil {
			return nil, nil, err
		}
	}
	cacheable := !partial
	if cacheable {
		if k.lastFrom == e.Shape && k.last != nil {
			return shape, k.last, nil
		}
		if from, ok := k.from[e.Shape]; ok {
			k.lastFrom, k.last = e.Shape, from
			return shape, from, nil
		}
	}
	from = make([]int, len(shape.Names()))
	for i, name := range shape.Names() {
		if from[i] = -1; e.Shape != nil {
			from[i] = e.Shape.Slot(name)
		}
	}
	if cacheable {
		if len(k.from) >= maxShapes {
			clear(k.from)
		}
		k.from[e.Shape] = from
	}
	return shape, from, nil
}

// Put stores e, which Prune made, in place of old; either may be nil, otherwise both ids are the same.
func (s *Elements) Put(b index.Batch, old, e *Element) error {
	if e == nil {
		s.count--
		return s.remove(b, old)
	}
	if old == nil {
		s.count++
	}
	if err := e.kind.number(b, e.Shape); err != nil {
		return err
	}
	s.key = appendElementKey(s.key[:0], e.ID)
	if err := b.Put(s.key, e); err != nil {
		return err
	}
	return s.link(b, old, e)
}

// Write is Put for loading in bulk: nothing is cached or counted.
func (s *Elements) Write(b index.Batch, old, e *Element) error {
	if e == nil {
		return s.remove(b, old)
	}
	if err := e.kind.number(b, e.Shape); err != nil {
		return err
	}
	s.key = appendElementKey(s.key[:0], e.ID)
	s.buf = e.AppendTo(s.buf[:0])
	if err := b.Set(s.key, s.buf); err != nil {
		return err
	}
	return s.link(b, old, e)
}

func (s *Elements) remove(b index.Batch, old *Element) error {
	s.key = appendElementKey(s.key[:0], old.ID)
	if err := b.Delete(s.key); err != nil {
		return err
	}
	if !old.IsRelationship() { // its neighbours would only take the room of those that are asked for
		s.adjacent.Delete(side{old.ID, Outgoing})
		s.adjacent.Delete(side{old.ID, Incoming})
	}
	return s.link(b, old, nil)
}

// SetCount sets the number of stored elements, which loading in bulk does not keep.
func (s *Elements) SetCount(n int64) { s.count = n }

// number gives numbers to the labels and the shape of an element, which its record starts with.
func (k *kind) number(b index.Batch, shape *graph.Shape) error {
	if k.lastShape == shape && k.lastHead != nil {
		return nil
	}
	for _, l := range k.labels {
		if _, err := k.names.label(b, l); err != nil {
			return err
		}
	}
	k.lastShape, k.lastHead = shape, k.headOf(shape)
	return nil
}

// headOf returns what the records of elements with a shape start with. All names have numbers.
func (k *kind) headOf(shape *graph.Shape) []byte {
	if k.lastShape == shape && k.lastHead != nil {
		return k.lastHead
	}
	head, ok := k.heads[shape]
	if !ok {
		head = binary.AppendUvarint(nil, uint64(k.names.byPointer[shape]))
		head = binary.AppendUvarint(head, uint64(len(k.labels)))
		for _, l := range k.labels {
			head = binary.AppendUvarint(head, uint64(k.names.labelNumber[l]))
		}
		k.heads[shape] = head
	}
	return head
}

// decode reads a record, which the element keeps.
func (s *Elements) decode(id graph.ElementID, record []byte) (*Element, error) {
	r := Reader{Src: record}
	number := r.Uvarint()
	if number >= uint64(len(s.names.shapes)) {
		return nil, corrupt("an element")
	}
	var labels [8]string
	list := labels[:0]
	for n := r.Uvarint(); n > 0 && r.Err == nil; n-- {
		number := r.Uvarint()
		if number >= uint64(len(s.names.labels)) {
			return nil, corrupt("an element")
		}
		list = append(list, s.names.labels[number])
	}
	start, end := graph.ElementID(r.Text()), graph.ElementID(r.Text())
	if r.Err != nil {
		return nil, r.Err
	}
	e := newElement(s.kind(list, start != "" || end != ""), s.names.shapes[number])
	e.ID, e.Start, e.End = id, start, end
	for i := range e.Values {
		e.Values[i] = r.Value()
	}
	e.measure()
	return e, r.Err
}
