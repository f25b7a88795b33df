// Package temporal makes dates, times and durations of text and of parts, takes them apart, moves them and measures what
// lies between them, as openCypher does. The calendar is the proleptic Gregorian one, a day has 86,400 seconds.
package temporal

import (
	"fmt"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

const (
	second = int64(time.Second)
	day    = 24 * 60 * 60 * second
	// daySeconds is the length of a day in seconds.
	daySeconds = 24 * 60 * 60
)

// moment is any date or time, on the clock on the wall. What a kind does not have is zero.
type moment struct {
	hasDate, hasTime, hasZone bool

	day  int64 // since 1970-01-01
	ns   int64 // since midnight
	zone *time.Location
	// exact is the instant in Unix seconds where day, ns and zone stand for two of them and the text said which.
	exact *int64
}

// momentOf takes a value apart; ok is false if it is no date or time.
func momentOf(v graph.Value) (m moment, ok bool) {
	m.zone = time.UTC
	switch v.Kind() {
	case graph.KindDate:
		m.hasDate, m.day = true, v.AsDate()
	case graph.KindLocalTime:
		m.hasTime, m.ns = true, v.AsLocalTime()
	case graph.KindTime:
		ns, offset := v.AsTime()
		m.hasTime, m.hasZone, m.ns, m.zone = true, true, ns, fixed(int(offset))
	case graph.KindLocalDateTime:
		sec, ns := v.AsLocalDateTime()
		m.hasDate, m.hasTime = true, true
		m.setWall(sec, int64(ns))
	case graph.KindDateTime:
		sec, ns, zone := v.AsDateTime()
		m.hasDate, m.hasTime, m.hasZone = true, true, true
		m.setInstant(sec, int64(ns), zone)
	default:
		return moment{}, false
	}
	return m, true
}

// value puts a moment together as a value of a kind.
func (m *moment) value(kind graph.Kind) graph.Value {
	switch kind {
	case graph.KindDate:
		return graph.Date(m.day)
	case graph.KindLocalTime:
		return graph.LocalTime(m.ns)
	case graph.KindTime:
		return graph.Time(m.ns, int32(m.offset()))
	case graph.KindLocalDateTime:
		return graph.LocalDateTime(m.wall(), int32(m.ns%second))
	}
	return graph.DateTime(m.instant(), int32(m.ns%second), m.zone)
}

// wall returns the seconds since 1970 on the clock on the wall.
func (m *moment) wall() int64 { return m.day*daySeconds + m.ns/second }

func (m *moment) setWall(sec, ns int64) {
	m.day = floorDiv(sec, daySeconds)
	m.ns = (sec-m.day*daySeconds)*second + ns
	m.exact = nil
}

// setInstant sets the moment to what a clock in the zone shows.
func (m *moment) setInstant(sec, ns int64, zone *time.Location) {
	m.setWall(sec+int64(offsetAt(sec, zone)), ns)
	m.zone, m.exact = zone, &sec
}

func offsetAt(sec int64, zone *time.Location) int {
	_, offset := time.Unix(sec, 0).In(zone).Zone()
	return offset
}

// instant returns the Unix seconds. Where clocks are put back it is the first of two, where they are put forward the
// hour that is left out is added.
func (m *moment) instant() int64 {
	if m.exact != nil {
		return *m.exact
	}
	wall := m.wall()
	before := int64(offsetAt(wall-daySeconds, m.zone))
	if int64(offsetAt(wall-before, m.zone)) == before {
		return wall - before
	}
	after := int64(offsetAt(wall+daySeconds, m.zone))
	if int64(offsetAt(wall-after, m.zone)) == after {
		return wall - after
	}
	return wall - before
}

func (m *moment) offset() int { return int(m.wall() - m.instant()) }

// in moves the moment to what a clock in another zone shows at the same instant.
func (m *moment) in(zone *time.Location) {
	m.setInstant(m.instant(), m.ns%second, zone)
	m.hasZone = true
}

// fixed returns the zone of an offset in seconds.
func fixed(offset int) *time.Location {
	if offset == 0 {
		return time.UTC
	}
	return time.FixedZone("", offset)
}

// date returns year, month and day.
func (m *moment) date() (year, month, dayOfMonth int64) {
	y, mo, d := time.Unix(m.day*daySeconds, 0).UTC().Date()
	return int64(y), int64(mo), int64(d)
}

// setDate sets the day; one that the month does not have is an error.
func (m *moment) setDate(year, month, dayOfMonth int64) error {
	if month < 1 || month > 12 || dayOfMonth < 1 || dayOfMonth > daysIn(year, month) {
		return fmt.Errorf("there is no day %d-%02d-%02d", year, month, dayOfMonth)
	}
	m.day = dayNumber(year, month, dayOfMonth)
	return nil
}

// maxYear bounds years, as in ISO 8601 with nine digits.
const maxYear = 999_999_999

func dayNumber(year, month, dayOfMonth int64) int64 {
	return floorDiv(time.Date(int(year), time.Month(month), int(dayOfMonth), 0, 0, 0, 0, time.UTC).Unix(), daySeconds)
}

func daysIn(year, month int64) int64 {
	return dayNumber(year, month+1, 1) - dayNumber(year, month, 1)
}

// addMonths moves the date by months; a day that the month does not have becomes its last.
func (m *moment) addMonths(months int64) {
	year, month, dayOfMonth := m.date()
	total := year*12 + month - 1 + months
	year = floorDiv(total, 12)
	month = total - year*12 + 1
	m.day = dayNumber(year, month, min(dayOfMonth, daysIn(year, month)))
}

// isoWeek returns the year and week of ISO 8601 and the day of the week, 1 for Monday.
func (m *moment) isoWeek() (year, week, weekDay int64) {
	weekDay = m.weekDay()
	thursday := moment{day: m.day - weekDay + 4}
	year, _, _ = thursday.date()
	return year, (thursday.day-dayNumber(year, 1, 1))/7 + 1, weekDay
}

func (m *moment) weekDay() int64 { return mod(m.day+3, 7) + 1 } // 1970-01-01 was a Thursday

// firstOfWeekYear returns the Monday of the first week of a year.
func firstOfWeekYear(year int64) int64 {
	fourth := moment{day: dayNumber(year, 1, 4)}
	return fourth.day - fourth.weekDay() + 1
}

func weeksIn(year int64) int64 { return (firstOfWeekYear(year+1) - firstOfWeekYear(year)) / 7 }

func (m *moment) ordinalDay() int64 {
	year, _, _ := m.date()
	return m.day - dayNumber(year, 1, 1) + 1
}

func (m *moment) quarter() int64 {
	_, month, _ := m.date()
	return (month-1)/3 + 1
}

func (m *moment) dayOfQuarter() int64 {
	year, _, _ := m.date()
	return m.day - dayNumber(year, m.quarter()*3-2, 1) + 1
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b != 0 && (a < 0) != (b < 0) {
		q--
	}
	return q
}

func mod(a, b int64) int64 { return a - floorDiv(a, b)*b }
