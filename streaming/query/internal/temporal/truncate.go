package temporal

import (
	"fmt"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// dateUnits cut a date down to the first day of a unit.
var dateUnits = map[string]func(m *moment){
	"millennium": func(m *moment) { m.firstOfYears(1000) },
	"century":    func(m *moment) { m.firstOfYears(100) },
	"decade":     func(m *moment) { m.firstOfYears(10) },
	"year":       func(m *moment) { m.firstOfYears(1) },
	"weekyear":   func(m *moment) { year, _, _ := m.isoWeek(); m.day = firstOfWeekYear(year) },
	"quarter":    func(m *moment) { m.day -= m.dayOfQuarter() - 1 },
	"month":      func(m *moment) { _, _, d := m.date(); m.day -= d - 1 },
	"week":       func(m *moment) { m.day -= m.weekDay() - 1 },
	"day":        func(*moment) {},
}

// clockUnits are the lengths of the units of a time, in nanoseconds.
var clockUnits = map[string]int64{
	"hour": 3600 * second, "minute": 60 * second, "second": second, "millisecond": 1e6, "microsecond": 1e3,
}

func (m *moment) firstOfYears(n int64) {
	year, _, _ := m.date()
	m.day = dayNumber(floorDiv(year, n)*n, 1, 1)
}

// Truncate cuts a date or time down to a unit and makes a value of a kind of it, in which the entries of a map replace
// what was cut off. The units are those of the tables above.
func Truncate(kind graph.Kind, unit string, v graph.Value, m *graph.Map, now time.Time) (graph.Value, error) {
	at, ok := momentOf(v)
	if !ok {
		return graph.Null, fmt.Errorf("%s cannot be truncated", v.Kind())
	}
	name := strings.ToLower(unit)
	cut, ofDate := dateUnits[name]
	length, ofTime := clockUnits[name]
	needsDate := kind == graph.KindDate || kind == graph.KindLocalDateTime || kind == graph.KindDateTime
	hasTime := kind != graph.KindDate
	switch {
	case !ofDate && !ofTime || ofTime && !hasTime || ofDate && name != "day" && !needsDate:
		return graph.Null, fmt.Errorf("a %s is not truncated to %q", kind, unit)
	case needsDate && !at.hasDate || !needsDate && !at.hasTime:
		return graph.Null, fmt.Errorf("a %s cannot be made of a %s", kind, v.Kind())
	case ofTime && !at.hasTime && needsDate:
		at.ns = 0
	}
	at.exact = nil
	if ofDate {
		cut(&at)
		at.ns = 0
	} else {
		at.ns -= at.ns % length
	}
	if m == nil || len(m.Keys) == 0 {
		return at.value(kind), nil
	}
	at.hasDate, at.hasTime = true, true
	p := &parts{m: subseconds(m, name, at.ns)}
	if err := p.known(needsDate, hasTime, kind == graph.KindTime || kind == graph.KindDateTime); err != nil {
		return graph.Null, err
	}
	if zone := p.zone(); zone != nil {
		at.zone = zone // what the clock shows stays
	}
	if needsDate {
		if err := at.setParts(p); err != nil {
			return graph.Null, err
		}
	}
	if hasTime {
		if err := at.setClockParts(p); err != nil {
			return graph.Null, err
		}
	}
	return at.value(kind), p.err
}

// subseconds adds to a map the larger parts of the second that were not cut off, which the smaller ones would replace
// otherwise.
func subseconds(m *graph.Map, unit string, ns int64) *graph.Map {
	if m.Get("microsecond").IsNull() && m.Get("nanosecond").IsNull() || unit != "millisecond" && unit != "microsecond" {
		return m
	}
	all := map[string]graph.Value{"millisecond": graph.Int(ns % second / 1e6)}
	if unit == "microsecond" {
		all["microsecond"] = graph.Int(ns % 1e6 / 1e3)
	}
	for i, k := range m.Keys {
		all[k] = m.Values[i]
	}
	return graph.NewMap(all)
}
