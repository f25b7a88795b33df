package graph

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
	"unsafe"

	"github.com/cockroachdb/apd/v3"
)

// Kind is the type of a Value.
type Kind uint8

// The kinds of values, those of openCypher plus exact decimals. KindUnchanged occurs in changes only: the source did
// not send the property because it did not change (a TOASTed column); it never reaches a stored element or a row.
const (
	KindNull Kind = iota
	KindBool
	KindInt
	KindFloat
	KindDecimal
	KindString
	KindList
	KindMap
	KindNode
	KindRelationship
	KindPath
	KindDate
	KindLocalTime
	KindTime
	KindLocalDateTime
	KindDateTime
	KindDuration
	KindUnchanged
)

var kindNames = [...]string{
	"NULL", "BOOLEAN", "INTEGER", "FLOAT", "DECIMAL", "STRING", "LIST", "MAP", "NODE", "RELATIONSHIP", "PATH",
	"DATE", "LOCAL TIME", "ZONED TIME", "LOCAL DATETIME", "ZONED DATETIME", "DURATION", "UNCHANGED",
}

// String returns the name of the kind as openCypher spells it.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("KIND %d", uint8(k))
}

// Value is one immutable openCypher value in 24 bytes, without boxing: scalars live in the struct, the rest behind one
// pointer. The zero Value is null. Values are compared with Equal and Compare, never with ==, which does not compile.
//
// What ref points to and what num and aux mean depends on kind; only this file and the codec look inside. A struct of
// more than four fields, or with such a part, would never be kept in registers, and everything be several times slower.
type Value struct {
	ref  ref
	num  uint64
	aux  uint32
	kind Kind
}

type ref struct {
	_ [0]func() // no ==
	p unsafe.Pointer
}

// Null is the null value, the zero Value.
var Null = Value{}

// Unchanged marks a property that the source did not send because it did not change.
var Unchanged = Value{kind: KindUnchanged}

// Map is the content of a map value: keys in ascending order, without duplicates, Values[i] belonging to Keys[i].
type Map struct {
	Keys   []string
	Values []Value
}

// NewMap returns a map value's content.
func NewMap(entries map[string]Value) *Map {
	m := &Map{Keys: slices.Sorted(maps.Keys(entries))}
	for _, k := range m.Keys {
		m.Values = append(m.Values, entries[k])
	}
	return m
}

// Get returns the value of a key, or null.
func (m *Map) Get(key string) Value {
	lo, hi := 0, len(m.Keys)
	for lo < hi {
		mid := int(uint(lo+hi) >> 1)
		if m.Keys[mid] < key {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo < len(m.Keys) && m.Keys[lo] == key {
		return m.Values[lo]
	}
	return Null
}

// Path is an alternating sequence: len(Nodes) == len(Relationships)+1.
type Path struct {
	Nodes         []*Element
	Relationships []*Element
}

// Duration is openCypher's duration: four parts that do not convert into each other, except nanoseconds, which stay
// below one second and have the sign of Seconds or are zero.
type Duration struct {
	Months, Days, Seconds int64
	Nanoseconds           int32
}

// Bool returns a boolean value.
func Bool(b bool) Value {
	v := Value{kind: KindBool}
	if b {
		v.num = 1
	}
	return v
}

// Int returns an integer value.
func Int(i int64) Value { return Value{kind: KindInt, num: uint64(i)} }

// Float returns a float value.
func Float(f float64) Value { return Value{kind: KindFloat, num: math.Float64bits(f)} }

// Decimal returns an exact decimal; d must not be changed afterwards. NaN and infinities are decimals too.
func Decimal(d *apd.Decimal) Value { return Value{kind: KindDecimal, ref: ref{p: unsafe.Pointer(d)}} }

// String returns a string value that shares s.
func String(s string) Value {
	return Value{kind: KindString, ref: ref{p: unsafe.Pointer(unsafe.StringData(s))}, num: uint64(len(s))}
}

// List returns a list that takes ownership of items.
func List(items []Value) Value {
	return Value{kind: KindList, ref: ref{p: unsafe.Pointer(unsafe.SliceData(items))}, num: uint64(len(items))}
}

// MapOf returns a map value that takes ownership of m, whose keys must be ascending.
func MapOf(m *Map) Value { return Value{kind: KindMap, ref: ref{p: unsafe.Pointer(m)}} }

// NodeOf returns a node value. The element must not be changed afterwards.
func NodeOf(e *Element) Value { return Value{kind: KindNode, ref: ref{p: unsafe.Pointer(e)}} }

// RelationshipOf returns a relationship value. The element must not be changed afterwards.
func RelationshipOf(e *Element) Value {
	return Value{kind: KindRelationship, ref: ref{p: unsafe.Pointer(e)}}
}

// ElementOf returns a node or relationship value, as e is one or the other.
func ElementOf(e *Element) Value {
	if e.IsRelationship() {
		return RelationshipOf(e)
	}
	return NodeOf(e)
}

// PathOf returns a path value.
func PathOf(p *Path) Value { return Value{kind: KindPath, ref: ref{p: unsafe.Pointer(p)}} }

// Date returns the day that is so many days after 1970-01-01.
func Date(days int64) Value { return Value{kind: KindDate, num: uint64(days)} }

// LocalTime returns a time of day in nanoseconds since midnight, 0 <= ns < 86400e9.
func LocalTime(ns int64) Value { return Value{kind: KindLocalTime, num: uint64(ns)} }

// Time returns a time of day (nanoseconds since local midnight) at an offset east of UTC in seconds.
func Time(ns int64, offset int32) Value {
	return Value{kind: KindTime, num: uint64(ns), aux: uint32(offset)}
}

// LocalDateTime returns a date and time without zone: seconds since 1970-01-01T00:00:00 on the same wall clock, and
// nanoseconds within the second.
func LocalDateTime(sec int64, ns int32) Value {
	return Value{kind: KindLocalDateTime, num: uint64(sec), aux: uint32(ns)}
}

// DateTime returns an instant (Unix seconds and nanoseconds within the second) shown in a zone; nil means UTC.
func DateTime(sec int64, ns int32, zone *time.Location) Value {
	if zone == time.UTC {
		zone = nil
	}
	return Value{kind: KindDateTime, num: uint64(sec), aux: uint32(ns), ref: ref{p: unsafe.Pointer(zone)}}
}

// DurationOf returns a duration value.
func DurationOf(d Duration) Value { return Value{kind: KindDuration, ref: ref{p: unsafe.Pointer(&d)}} }

// Kind returns the value's kind.
func (v Value) Kind() Kind { return v.kind }

// IsNull reports whether v is null.
func (v Value) IsNull() bool { return v.kind == KindNull }

// IsElement reports whether v is a node or a relationship.
func (v Value) IsElement() bool { return v.kind == KindNode || v.kind == KindRelationship }

func (v Value) want(k Kind) {
	if v.kind != k {
		refuse(v.kind, k)
	}
}

// refuse is apart so that want, and what calls it, can be inlined.
//
//go:noinline
func refuse(got, want Kind) { panic(fmt.Sprintf("graph: %s asked of a %s value", want, got)) }

// AsBool returns a KindBool value's content. Like all As methods it panics when the kind is another one.
func (v Value) AsBool() bool { v.want(KindBool); return v.num != 0 }

// AsInt returns a KindInt value's content.
func (v Value) AsInt() int64 { v.want(KindInt); return int64(v.num) }

// AsFloat returns a KindFloat value's content.
func (v Value) AsFloat() float64 { v.want(KindFloat); return math.Float64frombits(v.num) }

// AsDecimal returns a KindDecimal value's content, which must not be changed.
func (v Value) AsDecimal() *apd.Decimal { v.want(KindDecimal); return (*apd.Decimal)(v.ref.p) }

// AsString returns a KindString value's content.
func (v Value) AsString() string {
	v.want(KindString)
	return unsafe.String((*byte)(v.ref.p), int(v.num))
}

// AsList returns a KindList value's items, which must not be changed.
func (v Value) AsList() []Value { v.want(KindList); return unsafe.Slice((*Value)(v.ref.p), int(v.num)) }

// AsMap returns a KindMap value's content, which must not be changed.
func (v Value) AsMap() *Map { v.want(KindMap); return (*Map)(v.ref.p) }

// AsElement returns the element of a KindNode or KindRelationship value.
func (v Value) AsElement() *Element {
	if v.kind != KindRelationship {
		v.want(KindNode)
	}
	return (*Element)(v.ref.p)
}

// AsPath returns a KindPath value's content.
func (v Value) AsPath() *Path { v.want(KindPath); return (*Path)(v.ref.p) }

// AsDate returns a KindDate value's days since 1970-01-01.
func (v Value) AsDate() int64 { v.want(KindDate); return int64(v.num) }

// AsLocalTime returns a KindLocalTime value's nanoseconds since midnight.
func (v Value) AsLocalTime() int64 { v.want(KindLocalTime); return int64(v.num) }

// AsTime returns a KindTime value's nanoseconds since local midnight and its offset east of UTC in seconds.
func (v Value) AsTime() (ns int64, offset int32) { v.want(KindTime); return int64(v.num), int32(v.aux) }

// AsLocalDateTime returns a KindLocalDateTime value's wall-clock seconds since 1970 and nanoseconds.
func (v Value) AsLocalDateTime() (sec int64, ns int32) {
	v.want(KindLocalDateTime)
	return int64(v.num), int32(v.aux)
}

// AsDateTime returns a KindDateTime value's Unix seconds, nanoseconds and zone, which is never nil.
func (v Value) AsDateTime() (sec int64, ns int32, zone *time.Location) {
	v.want(KindDateTime)
	if v.ref.p == nil {
		return int64(v.num), int32(v.aux), time.UTC
	}
	return int64(v.num), int32(v.aux), (*time.Location)(v.ref.p)
}

// AsDuration returns a KindDuration value's content.
func (v Value) AsDuration() Duration { v.want(KindDuration); return *(*Duration)(v.ref.p) }
