package temporal

import (
	"fmt"

	"github.com/perdure/perdure/streaming/graph"
)

// Unit says in which parts a difference is given.
type Unit uint8

// The units of Between.
const (
	All Unit = iota // months, days and seconds
	Months
	Days
	Seconds
)

// Between returns the duration from a to b. Where one of them has no date, no time or no zone, it is that of the other,
// except that a missing time is midnight if the other has one; without a date on both sides there are only seconds.
func Between(a, b graph.Value, unit Unit) (graph.Value, error) {
	from, ok1 := momentOf(a)
	to, ok2 := momentOf(b)
	if !ok1 || !ok2 {
		return graph.Null, fmt.Errorf("there is no duration between a %s and a %s", a.Kind(), b.Kind())
	}
	dated := from.hasDate && to.hasDate
	switch {
	case !from.hasDate:
		from.day = to.day
	case !to.hasDate:
		to.day = from.day
	}
	switch {
	case !from.hasZone:
		from.zone = to.zone
	case !to.hasZone:
		to.zone = from.zone
	default:
		to.in(from.zone)
	}
	var d graph.Duration
	if dated && (unit == All || unit == Months) {
		d.Months = from.monthsUntil(&to)
	}
	if d.Months != 0 {
		from.exact = nil
		from.addMonths(d.Months)
	}
	if dated && (unit == All || unit == Days) {
		d.Days = from.daysUntil(&to)
	}
	if d.Days != 0 {
		from.exact = nil
		from.day += d.Days
	}
	if unit == All || unit == Seconds {
		d.Seconds, d.Nanoseconds = signed(to.instant()-from.instant(), to.ns%second-from.ns%second)
	}
	return graph.DurationOf(d), nil
}

// monthsUntil counts the whole months, by day of the month and time.
func (m *moment) monthsUntil(to *moment) int64 {
	y1, m1, d1 := m.date()
	y2, m2, d2 := to.date()
	months := (y2-y1)*12 + m2 - m1
	later := d2 > d1 || d2 == d1 && to.ns > m.ns
	earlier := d2 < d1 || d2 == d1 && to.ns < m.ns
	switch {
	case months > 0 && earlier:
		months--
	case months < 0 && later:
		months++
	}
	return months
}

// daysUntil counts the whole days.
func (m *moment) daysUntil(to *moment) int64 {
	days := to.day - m.day
	switch {
	case days > 0 && to.ns < m.ns:
		days--
	case days < 0 && to.ns > m.ns:
		days++
	}
	return days
}

// signed gives seconds and nanoseconds the same sign.
func signed(sec, ns int64) (int64, int32) {
	sec += floorDiv(ns, second)
	ns = mod(ns, second)
	if sec < 0 && ns > 0 {
		sec++
		ns -= second
	}
	return sec, int32(ns)
}
