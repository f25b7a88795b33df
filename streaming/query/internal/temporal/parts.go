package temporal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// The parts that a map may give, by what they belong to.
var (
	dateParts  = []string{"year", "month", "day", "week", "dayOfWeek", "quarter", "dayOfQuarter", "ordinalDay"}
	clockParts = []string{"hour", "minute", "second", "millisecond", "microsecond", "nanosecond"}
)

// parts reads the entries of a map.
type parts struct {
	m   *graph.Map
	err error
}

func (p *parts) has(names ...string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return !p.m.Get(n).IsNull() })
}

// int returns a number, or what stands in for one that is missing.
func (p *parts) int(name string, missing int64) int64 {
	v := p.m.Get(name)
	switch v.Kind() {
	case graph.KindNull:
		return missing
	case graph.KindInt:
		return v.AsInt()
	}
	p.fail(fmt.Errorf("%s is %s, and should be an integer", name, v))
	return missing
}

func (p *parts) fail(err error) {
	if p.err == nil {
		p.err = err
	}
}

// whole reports a part without the larger ones that it is a part of.
func (p *parts) whole(names ...string) {
	for i, name := range names[1:] {
		if p.has(name) && !p.has(names[i]) {
			p.fail(fmt.Errorf("%s is given without %s", name, names[i]))
		}
	}
}

// moment returns the date or time under a name.
func (p *parts) moment(name string) moment {
	m, ok := momentOf(p.m.Get(name))
	if !ok {
		p.fail(fmt.Errorf("%s is %s, and should be a date or time", name, p.m.Get(name)))
	}
	return m
}

// zone returns the zone that the map names, or nil.
func (p *parts) zone() *time.Location {
	v := p.m.Get("timezone")
	switch v.Kind() {
	case graph.KindNull:
		return nil
	case graph.KindString:
		zone, err := Zone(v.AsString())
		if err != nil {
			p.fail(err)
		}
		return zone
	}
	p.fail(fmt.Errorf("timezone is %s, and should be a string", v))
	return nil
}

// FromMap makes a date or time of a kind of its parts. Another date or time among them gives what the map does not; if
// it has a zone, and the map names another one, it is moved there first.
func FromMap(kind graph.Kind, m *graph.Map, now time.Time) (graph.Value, error) {
	p := &parts{m: m}
	v, err := p.make(kind, now)
	if p.err != nil {
		err = p.err
	}
	if err != nil {
		return graph.Null, fmt.Errorf("making a %s: %w", kind, err)
	}
	return v, nil
}

func (p *parts) make(kind graph.Kind, now time.Time) (graph.Value, error) {
	wantsDate := kind == graph.KindDate || kind == graph.KindLocalDateTime || kind == graph.KindDateTime
	wantsTime := kind != graph.KindDate
	wantsZone := kind == graph.KindTime || kind == graph.KindDateTime
	if err := p.known(wantsDate, wantsTime, wantsZone); err != nil {
		return graph.Null, err
	}
	base := moment{zone: time.UTC}
	if wantsZone && !wantsDate {
		base.day = now.Unix() / daySeconds
	}
	if p.has("epochSeconds", "epochMillis") && kind == graph.KindDateTime {
		return p.epoch()
	}
	zone := p.zone()
	p.base(&base, wantsDate, wantsTime)
	if p.err != nil {
		return graph.Null, p.err
	}
	if wantsDate {
		if !base.hasDate && !p.has("year") {
			return graph.Null, errors.New("year is missing")
		}
		if !base.hasDate {
			p.whole("month", "day")
			p.whole("week", "dayOfWeek")
			p.whole("quarter", "dayOfQuarter")
		}
		if err := base.setParts(p); err != nil {
			return graph.Null, err
		}
	}
	// Which offset a zone has is a matter of the date.
	switch {
	case zone != nil && base.hasZone:
		base.in(zone)
	case zone != nil:
		base.zone = zone
	}
	if wantsTime {
		if !base.hasTime && !wantsDate && !p.has("hour") {
			return graph.Null, errors.New("hour is missing")
		}
		if !base.hasTime {
			for _, fraction := range []string{"millisecond", "microsecond", "nanosecond"} {
				p.whole("hour", "minute", "second", fraction)
			}
		}
		if err := base.setClockParts(p); err != nil {
			return graph.Null, err
		}
	}
	return base.value(kind), p.err
}

// base takes what date, time and datetime give.
func (p *parts) base(m *moment, wantsDate, wantsTime bool) {
	if p.has("datetime") {
		*m = p.moment("datetime")
		if p.err == nil && !m.hasDate {
			p.fail(fmt.Errorf("datetime is %s, which has no date", p.m.Get("datetime")))
		}
		return
	}
	if wantsDate && p.has("date") {
		d := p.moment("date")
		if p.err == nil && !d.hasDate {
			p.fail(fmt.Errorf("date is %s, which has no date", p.m.Get("date")))
		}
		m.hasDate, m.day = true, d.day
	}
	if wantsTime && p.has("time") {
		t := p.moment("time")
		if p.err == nil && !t.hasTime {
			p.fail(fmt.Errorf("time is %s, which has no time", p.m.Get("time")))
		}
		offset := t.offset()
		m.hasTime, m.ns, m.hasZone = true, t.ns, t.hasZone
		if t.hasZone {
			m.zone = t.zone
			if !wantsDate { // a time has an offset only: that of its date
				m.zone = fixed(offset)
			}
		}
	}
}

// epoch makes an instant of the time since 1970.
func (p *parts) epoch() (graph.Value, error) {
	zone := p.zone()
	if p.err != nil {
		return graph.Null, p.err
	}
	sec, ns := p.int("epochSeconds", 0), p.int("nanosecond", 0)
	if p.has("epochMillis") {
		ms := p.int("epochMillis", 0)
		sec, ns = floorDiv(ms, 1000), mod(ms, 1000)*1e6+ns
	}
	return Instant(sec, ns, zone)
}

// Instant returns a time of so many seconds and nanoseconds since 1970.
func Instant(sec, ns int64, zone *time.Location) (graph.Value, error) {
	sec += floorDiv(ns, second)
	if sec > maxYear*366*daySeconds || sec < -maxYear*366*daySeconds {
		return graph.Null, fmt.Errorf("%d seconds are too far from 1970", sec)
	}
	return graph.DateTime(sec, int32(mod(ns, second)), zone), nil
}

// known reports parts that mean nothing for the kind.
func (p *parts) known(wantsDate, wantsTime, wantsZone bool) error {
	var known []string
	if wantsDate {
		known = append(append(known, dateParts...), "date")
	}
	if wantsTime {
		known = append(append(known, clockParts...), "time")
	}
	if wantsZone {
		known = append(known, "timezone")
	}
	if wantsDate && wantsTime {
		known = append(known, "datetime")
	}
	if wantsDate && wantsZone {
		known = append(known, "epochSeconds", "epochMillis")
	}
	for _, k := range p.m.Keys {
		if !slices.Contains(known, k) {
			return fmt.Errorf("there is no part %s; known are %s", k, strings.Join(known, ", "))
		}
	}
	return nil
}

// setParts sets the date by year and month, week, quarter or day of the year, whichever is given; what is missing comes
// from the date as it is, or is the first.
func (m *moment) setParts(p *parts) error {
	or := func(f func() int64) int64 {
		if m.hasDate {
			return f()
		}
		return 1
	}
	m.exact = nil
	year, month, dayOfMonth := m.date()
	if y := p.int("year", year); y < -maxYear || y > maxYear {
		return fmt.Errorf("the year %d has more than nine digits", y)
	}
	switch {
	case p.has("week", "dayOfWeek"):
		weekYear, week, weekDay := m.isoWeek()
		return m.setWeek(p.int("year", weekYear), p.int("week", or(func() int64 { return week })), p.int("dayOfWeek", or(func() int64 { return weekDay })))
	case p.has("ordinalDay"):
		return m.setOrdinal(p.int("year", year), p.int("ordinalDay", 1))
	case p.has("quarter", "dayOfQuarter") && !p.has("month", "day") && (p.has("dayOfQuarter") || !m.hasDate):
		return m.setQuarter(p.int("year", year), p.int("quarter", or(m.quarter)), p.int("dayOfQuarter", or(m.dayOfQuarter)))
	case p.has("quarter"): // keeps the month of the quarter and the day
		q := p.int("quarter", 1)
		if q < 1 || q > 4 {
			return fmt.Errorf("there is no quarter %d", q)
		}
		month = (q-1)*3 + (month-1)%3 + 1
	}
	if !m.hasDate {
		month, dayOfMonth = 1, 1
	}
	year, month = p.int("year", year), p.int("month", month)
	if month < 1 || month > 12 {
		return fmt.Errorf("there is no month %d", month)
	}
	if !p.has("day") {
		dayOfMonth = min(dayOfMonth, daysIn(year, month))
	}
	return m.setDate(year, month, p.int("day", dayOfMonth))
}

func (m *moment) setWeek(year, week, weekDay int64) error {
	if week < 1 || week > weeksIn(year) || weekDay < 1 || weekDay > 7 {
		return fmt.Errorf("there is no day %d in week %d of %d", weekDay, week, year)
	}
	m.day = firstOfWeekYear(year) + (week-1)*7 + weekDay - 1
	return nil
}

func (m *moment) setOrdinal(year, n int64) error {
	if n < 1 || n > dayNumber(year+1, 1, 1)-dayNumber(year, 1, 1) {
		return fmt.Errorf("there is no day %d in the year %d", n, year)
	}
	m.day = dayNumber(year, 1, 1) + n - 1
	return nil
}

func (m *moment) setQuarter(year, quarter, n int64) error {
	first := dayNumber(year, quarter*3-2, 1)
	if quarter < 1 || quarter > 4 || n < 1 || n > dayNumber(year, quarter*3+1, 1)-first {
		return fmt.Errorf("there is no day %d in quarter %d of %d", n, quarter, year)
	}
	m.day = first + n - 1
	return nil
}

// setClockParts sets the time of day; what is missing comes from the time as it is.
func (m *moment) setClockParts(p *parts) error {
	ns := m.ns % second
	if p.has("millisecond", "microsecond", "nanosecond") {
		ns = 0
		bound := int64(1_000_000_000)
		for _, part := range []struct {
			name string
			unit int64
		}{{"millisecond", 1_000_000}, {"microsecond", 1_000}, {"nanosecond", 1}} {
			if !p.has(part.name) {
				continue
			}
			n := p.int(part.name, 0)
			if n < 0 || n >= bound/part.unit {
				return fmt.Errorf("%s is %d, and should be from 0 to %d", part.name, n, bound/part.unit-1)
			}
			ns += n * part.unit
			bound = part.unit
		}
	}
	seconds := m.ns / second
	return m.setClock(p.int("hour", seconds/3600), p.int("minute", seconds/60%60), p.int("second", seconds%60), ns)
}

func (m *moment) setClock(hour, minute, sec, ns int64) error {
	if hour < 0 || hour > 23 || minute < 0 || minute > 59 || sec < 0 || sec > 59 {
		return fmt.Errorf("there is no time %02d:%02d:%02d", hour, minute, sec)
	}
	m.ns = ((hour*60+minute)*60+sec)*second + ns
	m.exact = nil
	return nil
}

// Convert makes a date or time of a kind of another one, which must have what the kind needs; a zone that is missing is
// UTC.
func Convert(kind graph.Kind, v graph.Value) (graph.Value, error) {
	m, ok := momentOf(v)
	needsDate := kind == graph.KindDate || kind == graph.KindLocalDateTime || kind == graph.KindDateTime
	needsTime := kind == graph.KindLocalTime || kind == graph.KindTime
	if !ok || needsDate && !m.hasDate || needsTime && !m.hasTime {
		return graph.Null, fmt.Errorf("a %s cannot be made of a %s", kind, v.Kind())
	}
	return m.value(kind), nil
}

// Now returns the time as a value of a kind, in a zone; nil is UTC.
func Now(kind graph.Kind, now time.Time, zone *time.Location) graph.Value {
	if zone == nil {
		zone = time.UTC
	}
	m := moment{}
	m.setInstant(now.Unix(), int64(now.Nanosecond()), zone)
	return m.value(kind)
}
