package graph

import (
	"bytes"
	"cmp"
	"math"
	"strings"

	"github.com/cockroachdb/apd/v3"
)

// Equal is openCypher's "=": true, false, or null when a null takes part. NaN equals nothing; 1 = 1.0; elements are
// equal when their ids are.
func Equal(a, b Value) Value {
	switch {
	case a.kind == KindNull || b.kind == KindNull:
		return Null
	case a.IsNumber() && b.IsNumber():
		if a.kind == KindInt && b.kind == KindInt {
			return Bool(a.num == b.num)
		}
		c, ordered := compareNumbers(a, b)
		return Bool(ordered && c == 0)
	case a.kind != b.kind:
		return Bool(false)
	}
	switch a.kind {
	case KindString:
		return Bool(a.AsString() == b.AsString())
	case KindList:
		return equalLists(a.AsList(), b.AsList())
	case KindMap:
		return equalMaps(a.AsMap(), b.AsMap())
	}
	return Bool(Compare(a, b) == 0)
}

func equalLists(a, b []Value) Value {
	if len(a) != len(b) {
		return Bool(false)
	}
	result := Bool(true)
	for i := range a {
		switch e := Equal(a[i], b[i]); {
		case e.IsNull():
			result = Null
		case !e.AsBool():
			return e
		}
	}
	return result
}

func equalMaps(a, b *Map) Value {
	if len(a.Keys) != len(b.Keys) {
		return Bool(false)
	}
	for i := range a.Keys {
		if a.Keys[i] != b.Keys[i] {
			return Bool(false)
		}
	}
	return equalLists(a.Values, b.Values)
}

// Order is openCypher's comparability, what "<" and its kin see: the sign of a - b, and whether the two compare at all.
// Values that do not compare give null; NaN compares with numbers, but is neither less nor greater.
func Order(a, b Value) (sign int, compares, nan bool) {
	switch {
	case a.IsNumber() && b.IsNumber():
		c, ordered := compareNumbers(a, b)
		return c, true, !ordered
	case a.kind != b.kind:
		return 0, false, false
	}
	switch a.kind {
	case KindString, KindBool, KindDate, KindLocalTime, KindTime, KindLocalDateTime, KindDateTime:
		return Compare(a, b), true, false
	case KindList:
		return orderLists(a.AsList(), b.AsList())
	}
	return 0, false, false
}

func orderLists(a, b []Value) (sign int, compares, nan bool) {
	for i := range min(len(a), len(b)) {
		switch e := Equal(a[i], b[i]); {
		case e.IsNull():
			return 0, false, false
		case !e.AsBool():
			return Order(a[i], b[i])
		}
	}
	return cmp.Compare(len(a), len(b)), true, false
}

// IsNumber reports whether v is an integer, a float or a decimal.
func (v Value) IsNumber() bool { return v.kind >= KindInt && v.kind <= KindDecimal }

// orderRank is the place of each kind in openCypher's global sort order, ascending.
var orderRank = [...]uint8{
	KindMap: 1, KindNode: 2, KindRelationship: 3, KindList: 4, KindPath: 5, KindDateTime: 6, KindLocalDateTime: 7,
	KindDate: 8, KindTime: 9, KindLocalTime: 10, KindDuration: 11, KindString: 12, KindBool: 13,
	KindInt: 14, KindFloat: 14, KindDecimal: 14, KindNull: 15, KindUnchanged: 16,
}

// Compare is openCypher's orderability: a total order over all values, the one of ORDER BY, min and max. Values that
// compare as 0 are equivalent: they group together. NaN is equivalent to itself and the largest number, null the
// largest value. AppendKey writes bytes in this very order.
func Compare(a, b Value) int {
	if c := cmp.Compare(orderRank[a.kind], orderRank[b.kind]); c != 0 {
		return c
	}
	switch a.kind {
	case KindNull, KindUnchanged:
		return 0
	case KindBool:
		return cmp.Compare(a.num, b.num)
	case KindInt, KindFloat, KindDecimal:
		if c, ordered := compareNumbers(a, b); ordered {
			return c
		}
		return compareBools(isNaN(a), isNaN(b))
	case KindString:
		return cmp.Compare(a.AsString(), b.AsString())
	case KindNode, KindRelationship:
		return cmp.Compare(a.AsElement().ID, b.AsElement().ID)
	case KindList:
		return compareLists(a.AsList(), b.AsList())
	case KindMap:
		return compareMaps(a.AsMap(), b.AsMap())
	case KindPath:
		return bytes.Compare(AppendKey(nil, a), AppendKey(nil, b))
	case KindDate, KindLocalTime:
		return cmp.Compare(int64(a.num), int64(b.num))
	case KindLocalDateTime:
		return cmp.Or(cmp.Compare(int64(a.num), int64(b.num)), cmp.Compare(a.aux, b.aux))
	case KindTime:
		return cmp.Or(cmp.Compare(a.utcNanos(), b.utcNanos()), cmp.Compare(int32(a.aux), int32(b.aux)))
	case KindDateTime:
		if c := cmp.Or(cmp.Compare(int64(a.num), int64(b.num)), cmp.Compare(a.aux, b.aux)); c != 0 || a.ref.p == b.ref.p {
			return c
		}
		return strings.Compare(a.zoneName(), b.zoneName())
	default:
		return compareDurations(a.AsDuration(), b.AsDuration())
	}
}

func (v Value) utcNanos() int64 {
	ns, offset := v.AsTime()
	return ns - int64(offset)*nanosPerSecond
}

func (v Value) zoneName() string {
	_, _, zone := v.AsDateTime()
	return zone.String()
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

func compareLists(a, b []Value) int {
	for i := range min(len(a), len(b)) {
		if c := Compare(a[i], b[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func compareMaps(a, b *Map) int {
	for i := range min(len(a.Keys), len(b.Keys)) {
		if c := cmp.Compare(a.Keys[i], b.Keys[i]); c != 0 {
			return c
		}
		if c := Compare(a.Values[i], b.Values[i]); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a.Keys), len(b.Keys))
}

// compareDurations orders by average length, months being a twelfth of 365.2425 days.
func compareDurations(a, b Duration) int {
	days := func(d Duration) int64 { return floorDiv(d.Seconds, secondsPerDay) }
	// Whole days first, so that nothing overflows before the lengths are far apart.
	la := float64(a.Months)*daysPerMonth + float64(a.Days) + float64(days(a))
	lb := float64(b.Months)*daysPerMonth + float64(b.Days) + float64(days(b))
	return cmp.Or(cmp.Compare(la, lb),
		cmp.Compare(a.Seconds-days(a)*secondsPerDay, b.Seconds-days(b)*secondsPerDay),
		cmp.Compare(a.Nanoseconds, b.Nanoseconds), cmp.Compare(a.Months, b.Months), cmp.Compare(a.Days, b.Days))
}

func isNaN(v Value) bool {
	switch v.kind {
	case KindFloat:
		return math.IsNaN(v.AsFloat())
	case KindDecimal:
		d := v.AsDecimal()
		return d.Form == apd.NaN || d.Form == apd.NaNSignaling
	}
	return false
}

// compareNumbers compares by value, whatever the kinds, without rounding; see NearestFloat for floats and decimals.
// ordered is false when one is NaN.
func compareNumbers(a, b Value) (c int, ordered bool) {
	switch {
	case a.kind == KindInt && b.kind == KindInt:
		return cmp.Compare(int64(a.num), int64(b.num)), true
	case a.kind == KindFloat && b.kind == KindFloat:
		x, y := a.AsFloat(), b.AsFloat()
		return cmp.Compare(x, y), !math.IsNaN(x) && !math.IsNaN(y)
	case isNaN(a) || isNaN(b):
		return 0, false
	case a.kind == KindDecimal && b.kind == KindDecimal:
		return a.AsDecimal().Cmp(b.AsDecimal()), true
	case a.kind == KindInt && b.kind == KindFloat:
		return compareIntFloat(a.AsInt(), b.AsFloat()), true
	case a.kind == KindFloat && b.kind == KindInt:
		return -compareIntFloat(b.AsInt(), a.AsFloat()), true
	}
	return bytes.Compare(appendNumberKey(nil, a), appendNumberKey(nil, b)), true
}

// compareIntFloat compares an integer with a float that is not NaN, without rounding either.
func compareIntFloat(i int64, f float64) int {
	switch {
	case f >= 1<<63:
		return -1
	case f < -1<<63:
		return 1
	}
	whole := math.Trunc(f)
	return cmp.Or(cmp.Compare(i, int64(whole)), cmp.Compare(0, f-whole))
}

// Identical reports whether a and b are the same in every visible respect: kind, digits, and all of an element.
func Identical(a, b Value) bool {
	if a.kind != b.kind {
		return false
	}
	switch a.kind {
	case KindFloat:
		return a.num == b.num || isNaN(a) && isNaN(b)
	case KindDecimal:
		x, y := a.AsDecimal(), b.AsDecimal()
		return x == y || x.Form == y.Form && x.Exponent == y.Exponent && x.Cmp(y) == 0
	case KindList:
		return identicalLists(a.AsList(), b.AsList())
	case KindMap:
		x, y := a.AsMap(), b.AsMap()
		return Compare(a, b) == 0 && identicalLists(x.Values, y.Values)
	case KindNode, KindRelationship:
		return identicalElements(a.AsElement(), b.AsElement())
	case KindPath:
		x, y := a.AsPath(), b.AsPath()
		return identicalParts(x.Nodes, y.Nodes) && identicalParts(x.Relationships, y.Relationships)
	}
	return Compare(a, b) == 0
}

func identicalLists(a, b []Value) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !Identical(a[i], b[i]) {
			return false
		}
	}
	return true
}

func identicalParts(a, b []*Element) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if !identicalElements(a[i], b[i]) {
			return false
		}
	}
	return true
}

func identicalElements(a, b *Element) bool {
	if a == b {
		return true
	}
	if a.ID != b.ID || a.Start != b.Start || a.End != b.End || len(a.Labels) != len(b.Labels) {
		return false
	}
	for i := range a.Labels {
		if a.Labels[i] != b.Labels[i] {
			return false
		}
	}
	return hasAll(a, b) && hasAll(b, a)
}

// hasAll reports whether every property of b is the same in a.
func hasAll(a, b *Element) bool {
	if a.Shape == b.Shape {
		return identicalLists(a.Values, b.Values)
	}
	for i, v := range b.Values {
		if !Identical(a.Get(b.Shape.names[i]), v) {
			return false
		}
	}
	return true
}
