package temporal

import (
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// Parse reads a date or time of a kind from the forms of ISO 8601 that openCypher knows. now says which offset a named
// zone has where there is no date.
func Parse(kind graph.Kind, text string, now time.Time) (graph.Value, error) {
	m := moment{zone: time.UTC}
	fail := func(err error) (graph.Value, error) {
		return graph.Null, fmt.Errorf("%q is no %s: %w", text, kind, err)
	}
	date, clock := text, ""
	switch kind {
	case graph.KindDate:
	case graph.KindLocalTime, graph.KindTime:
		date, clock = "", strings.TrimPrefix(text, "T")
	default:
		date, clock, _ = strings.Cut(text, "T")
		if date == "" {
			return fail(errors.New("it has no date"))
		}
	}
	if date != "" || kind == graph.KindDate {
		if err := m.parseDate(date); err != nil {
			return fail(err)
		}
	}
	if kind == graph.KindDate {
		return m.value(kind), nil
	}
	clock, zone := cutZone(clock)
	if clock != "" || date == "" {
		if err := m.parseClock(clock); err != nil {
			return fail(err)
		}
	}
	switch {
	case zone == "":
	case kind != graph.KindTime && kind != graph.KindDateTime:
		return fail(fmt.Errorf("it has a zone"))
	default:
		if date == "" {
			m.day = now.Unix() / daySeconds
		}
		if err := m.parseZone(zone); err != nil {
			return fail(err)
		}
	}
	return m.value(kind), nil
}

var dateForms = []struct {
	form *regexp.Regexp
	set  func(m *moment, n []int64) error
}{
	{regexp.MustCompile(`^(\d{4})-?W(\d\d)(?:-?(\d))?$`), func(m *moment, n []int64) error { return m.setWeek(n[0], n[1], n[2]) }},
	{regexp.MustCompile(`^(\d{4})-?Q(\d)(?:-?(\d\d))?$`), func(m *moment, n []int64) error { return m.setQuarter(n[0], n[1], n[2]) }},
	{regexp.MustCompile(`^(\d{4})-?(\d{3})$`), func(m *moment, n []int64) error { return m.setOrdinal(n[0], n[1]) }},
	{regexp.MustCompile(`^(\d{4})(?:(\d\d)(\d\d)?)?$`), func(m *moment, n []int64) error { return m.setDate(n[0], n[1], n[2]) }},
	{regexp.MustCompile(`^(\d{4}|[+-]\d{1,9})(?:-(\d\d)(?:-(\d\d))?)?$`), func(m *moment, n []int64) error { return m.setDate(n[0], n[1], n[2]) }},
}

func (m *moment) parseDate(text string) error {
	for _, f := range dateForms {
		parts := f.form.FindStringSubmatch(text)
		if parts == nil {
			continue
		}
		n := []int64{0, 1, 1}
		for i, p := range parts[1:] {
			if p != "" {
				n[i], _ = strconv.ParseInt(p, 10, 64) // digits only, few
			}
		}
		return f.set(m, n)
	}
	return fmt.Errorf("the date %q has no known form, such as 2006-01-02", text)
}

var clockForm = regexp.MustCompile(`^(\d\d)(?::?(\d\d)(?::?(\d\d)(?:[.,](\d{1,9}))?)?)?$`)

func (m *moment) parseClock(text string) error {
	parts := clockForm.FindStringSubmatch(text)
	if parts == nil {
		return fmt.Errorf("the time %q has no known form, such as 15:04:05.123", text)
	}
	var n [3]int64
	for i := range n {
		n[i], _ = strconv.ParseInt("0"+parts[i+1], 10, 64)
	}
	fraction, _ := strconv.ParseInt((parts[4] + "000000000")[:9], 10, 64)
	return m.setClock(n[0], n[1], n[2], fraction)
}

// cutZone cuts an offset, a name in brackets, or both, off a time.
func cutZone(clock string) (rest, zone string) {
	if i := strings.IndexAny(clock, "Zz+-["); i >= 0 {
		return clock[:i], clock[i:]
	}
	return clock, ""
}

// parseZone sets the zone. Where a name allows two offsets, the one that is given decides.
func (m *moment) parseZone(text string) error {
	offset, name, named := strings.Cut(text, "[")
	var err error
	if !named {
		m.zone, err = Zone(offset)
		return err
	}
	name, ok := strings.CutSuffix(name, "]")
	if !ok {
		return fmt.Errorf("the zone %q has no closing bracket", text)
	}
	if m.zone, err = Zone(name); err != nil || offset == "" {
		return err
	}
	fixedZone, err := Zone(offset)
	if err != nil {
		return err
	}
	at := *m
	at.zone = fixedZone
	if sec := at.instant(); offsetAt(sec, m.zone) == offsetAt(sec, fixedZone) {
		m.exact = &sec
	}
	return nil
}

var offsetForm = regexp.MustCompile(`^([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?$`)

// Zone returns the zone that is named, such as Europe/Stockholm, or an offset such as Z, +01:00 or -0330.
func Zone(name string) (*time.Location, error) {
	if name == "Z" || name == "z" {
		return time.UTC, nil
	}
	if parts := offsetForm.FindStringSubmatch(name); parts != nil {
		offset := 0
		for i, unit := range []int{3600, 60, 1} {
			n, _ := strconv.Atoi("0" + parts[i+2])
			if i > 0 && n > 59 {
				return nil, fmt.Errorf("%q is no offset", name)
			}
			offset += n * unit
		}
		if offset > 18*3600 {
			return nil, fmt.Errorf("the offset %q is more than 18 hours", name)
		}
		if parts[1] == "-" {
			offset = -offset
		}
		return fixed(offset), nil
	}
	zone, err := graph.Zone(strings.ReplaceAll(name, " ", "_"))
	if err != nil {
		return nil, fmt.Errorf("%q is no zone", name)
	}
	return zone, nil
}
