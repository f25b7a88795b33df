package temporal

import (
	"math/big"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// Property returns a part of a date, time or duration; ok is false if it has no such part.
func Property(v graph.Value, name string) (part graph.Value, ok bool) {
	if v.Kind() == graph.KindDuration {
		return durationProperty(v.AsDuration(), name)
	}
	m, isMoment := momentOf(v)
	if !isMoment {
		return graph.Null, false
	}
	if m.hasDate {
		if n, ok := m.dateProperty(name); ok {
			return graph.Int(n), true
		}
	}
	if m.hasTime {
		if n, ok := m.clockProperty(name); ok {
			return graph.Int(n), true
		}
	}
	if m.hasZone {
		return m.zoneProperty(v, name)
	}
	return graph.Null, false
}

func (m *moment) dateProperty(name string) (int64, bool) {
	year, month, dayOfMonth := m.date()
	switch name {
	case "year":
		return year, true
	case "quarter":
		return m.quarter(), true
	case "month":
		return month, true
	case "week":
		_, week, _ := m.isoWeek()
		return week, true
	case "weekYear":
		weekYear, _, _ := m.isoWeek()
		return weekYear, true
	case "dayOfQuarter":
		return m.dayOfQuarter(), true
	case "day":
		return dayOfMonth, true
	case "ordinalDay":
		return m.ordinalDay(), true
	case "dayOfWeek", "weekDay":
		return m.weekDay(), true
	}
	return 0, false
}

func (m *moment) clockProperty(name string) (int64, bool) {
	sec, ns := m.ns/second, m.ns%second
	switch name {
	case "hour":
		return sec / 3600, true
	case "minute":
		return sec / 60 % 60, true
	case "second":
		return sec % 60, true
	case "millisecond":
		return ns / 1e6, true
	case "microsecond":
		return ns / 1e3, true
	case "nanosecond":
		return ns, true
	}
	return 0, false
}

func (m *moment) zoneProperty(v graph.Value, name string) (graph.Value, bool) {
	offset := m.offset()
	if v.Kind() == graph.KindDateTime {
		sec, _, _ := v.AsDateTime()
		offset = offsetAt(sec, m.zone)
		switch name {
		case "epochSeconds":
			return graph.Int(sec), true
		case "epochMillis":
			return graph.Int(sec*1000 + m.ns%second/1e6), true
		}
	}
	switch name {
	case "timezone":
		if named := m.zone.String(); strings.Contains(named, "/") {
			return graph.String(named), true
		}
		return graph.String(string(graph.AppendOffset(nil, offset))), true
	case "offset":
		return graph.String(string(graph.AppendOffset(nil, offset))), true
	case "offsetMinutes":
		return graph.Int(int64(offset / 60)), true
	case "offsetSeconds":
		return graph.Int(int64(offset)), true
	}
	return graph.Null, false
}

func durationProperty(d graph.Duration, name string) (graph.Value, bool) {
	sec, ns := d.Seconds, int64(d.Nanoseconds)
	if ns < 0 { // seconds are rounded down
		sec--
		ns += second
	}
	total := func(perSecond int64) (graph.Value, bool) {
		n := new(big.Int).Mul(big.NewInt(sec), big.NewInt(perSecond))
		n.Add(n, big.NewInt(ns/(second/perSecond)))
		if !n.IsInt64() {
			return graph.Null, true
		}
		return graph.Int(n.Int64()), true
	}
	switch name {
	case "milliseconds":
		return total(1e3)
	case "microseconds":
		return total(1e6)
	case "nanoseconds":
		return total(1e9)
	}
	n, ok := map[string]int64{
		"years": d.Months / 12, "quarters": d.Months / 3, "months": d.Months, "weeks": d.Days / 7, "days": d.Days,
		"hours": sec / 3600, "minutes": sec / 60, "seconds": sec,
		"quartersOfYear": d.Months / 3 % 4, "monthsOfQuarter": d.Months % 3, "monthsOfYear": d.Months % 12, "daysOfWeek": d.Days % 7,
		"minutesOfHour": sec / 60 % 60, "secondsOfMinute": sec % 60,
		"millisecondsOfSecond": ns / 1e6, "microsecondsOfSecond": ns / 1e3, "nanosecondsOfSecond": ns,
	}[name]
	return graph.Int(n), ok
}
