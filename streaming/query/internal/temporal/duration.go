package temporal

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"regexp"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// secondsPerMonth is how long a month is on average: a fraction of a month is that part of it.
const secondsPerMonth = 2629746

var errDurationRange = errors.New("the duration is too long")

// amount is a duration with fractions.
type amount struct{ months, days, seconds big.Rat }

// duration makes whole parts: what is left of a month becomes days, what is left of a day becomes seconds.
func (a *amount) duration() (graph.Value, error) {
	var d graph.Duration
	var rest big.Rat
	var ok1, ok2, ok3 bool
	d.Months, ok1 = whole(&a.months, &rest)
	rest.Mul(&rest, big.NewRat(secondsPerMonth, daySeconds))
	a.days.Add(&a.days, &rest)
	d.Days, ok2 = whole(&a.days, &rest)
	rest.Mul(&rest, big.NewRat(daySeconds, 1))
	a.seconds.Add(&a.seconds, &rest)
	d.Seconds, ok3 = whole(&a.seconds, &rest)
	if !ok1 || !ok2 || !ok3 {
		return graph.Null, errDurationRange
	}
	ns, _ := whole(rest.Mul(&rest, big.NewRat(second, 1)), new(big.Rat))
	d.Nanoseconds = int32(ns)
	return graph.DurationOf(d), nil
}

// whole cuts a number off towards zero and leaves the rest.
func whole(r, rest *big.Rat) (n int64, ok bool) {
	q := new(big.Int).Quo(r.Num(), r.Denom())
	rest.Sub(r, new(big.Rat).SetInt(q))
	return q.Int64(), q.IsInt64()
}

// add adds n units of a part.
func (a *amount) add(part string, n *big.Rat) bool {
	units := map[string]struct {
		to         *big.Rat
		num, denom int64
	}{
		"years": {&a.months, 12, 1}, "quarters": {&a.months, 3, 1}, "months": {&a.months, 1, 1},
		"weeks": {&a.days, 7, 1}, "days": {&a.days, 1, 1},
		"hours": {&a.seconds, 3600, 1}, "minutes": {&a.seconds, 60, 1}, "seconds": {&a.seconds, 1, 1},
		"milliseconds": {&a.seconds, 1, 1e3}, "microseconds": {&a.seconds, 1, 1e6}, "nanoseconds": {&a.seconds, 1, 1e9},
	}
	u, ok := units[part]
	if ok {
		u.to.Add(u.to, new(big.Rat).Mul(n, big.NewRat(u.num, u.denom)))
	}
	return ok
}

// DurationFromMap makes a duration of its parts, which may be fractions.
func DurationFromMap(m *graph.Map) (graph.Value, error) {
	var a amount
	for i, part := range m.Keys {
		if m.Values[i].IsNull() {
			continue
		}
		n, ok := rational(m.Values[i])
		if !ok {
			return graph.Null, fmt.Errorf("making a duration: %s is %s, and should be a number", part, m.Values[i])
		}
		if !a.add(part, n) {
			return graph.Null, fmt.Errorf("making a duration: there is no part %s", part)
		}
	}
	return a.duration()
}

// rational returns a number as people read it: 0.1 is a tenth.
func rational(v graph.Value) (*big.Rat, bool) {
	switch v.Kind() {
	case graph.KindInt:
		return new(big.Rat).SetInt64(v.AsInt()), true
	case graph.KindFloat:
		if f := v.AsFloat(); math.IsNaN(f) || math.IsInf(f, 0) {
			return nil, false
		}
		return new(big.Rat).SetString(fmt.Sprint(v.AsFloat()))
	case graph.KindDecimal:
		if e := v.AsDecimal().Exponent; e > 1000 || e < -1000 {
			return nil, false
		}
		return new(big.Rat).SetString(v.AsDecimal().Text('f'))
	}
	return nil, false
}

const numberForm = `([+-]?\d{1,18}(?:[.,]\d{1,18})?)`

var (
	durationForm = regexp.MustCompile(`^([+-]?)P` + optional("Y") + optional("M") + optional("W") + optional("D") +
		`(T` + optional("H") + optional("M") + optional("S") + `)?$`)
	calendarForm = regexp.MustCompile(`^P(\d{4})-?(\d\d)-?(\d\d)(?:T(\d\d)(?::?(\d\d)(?::?(\d\d(?:[.,]\d{1,9})?))?)?)?$`)
)

func optional(unit string) string { return `(?:` + numberForm + unit + `)?` }

// ParseDuration reads P1Y2M3W4DT5H6M7.8S, or the form P2012-02-02T14:37:21.545.
func ParseDuration(text string) (graph.Value, error) {
	var a amount
	set := func(units []string, parts []string, negative bool) {
		for i, part := range parts {
			if part == "" || units[i] == "" {
				continue
			}
			n, _ := new(big.Rat).SetString(strings.ReplaceAll(part, ",", ".")) // digits, as the form says
			if negative {
				n.Neg(n)
			}
			a.add(units[i], n)
		}
	}
	if parts := calendarForm.FindStringSubmatch(text); parts != nil {
		set([]string{"years", "months", "days", "hours", "minutes", "seconds"}, parts[1:], false)
		return a.duration()
	}
	parts := durationForm.FindStringSubmatch(text)
	if parts == nil || strings.HasSuffix(text, "P") || strings.HasSuffix(text, "T") {
		return graph.Null, fmt.Errorf("%q is no duration, such as P1DT12H", text)
	}
	set([]string{"years", "months", "weeks", "days", "", "hours", "minutes", "seconds"}, parts[2:], parts[1] == "-")
	return a.duration()
}

func amountOf(d graph.Duration) *amount {
	var a amount
	a.months.SetInt64(d.Months)
	a.days.SetInt64(d.Days)
	a.seconds.SetInt64(d.Seconds)
	a.seconds.Add(&a.seconds, big.NewRat(int64(d.Nanoseconds), second))
	return &a
}

// AddDurations returns a + sign*b.
func AddDurations(a, b graph.Duration, sign int64) (graph.Value, error) {
	x, y := amountOf(a), amountOf(b)
	s := new(big.Rat).SetInt64(sign)
	for _, p := range []struct{ to, from *big.Rat }{{&x.months, &y.months}, {&x.days, &y.days}, {&x.seconds, &y.seconds}} {
		p.to.Add(p.to, p.from.Mul(p.from, s))
	}
	return x.duration()
}

// Scale returns d * n, or d / n.
func Scale(d graph.Duration, n graph.Value, divide bool) (graph.Value, error) {
	r, ok := rational(n)
	if !ok {
		return graph.Null, fmt.Errorf("a duration is not multiplied with or divided by %s", n)
	}
	if divide {
		if r.Sign() == 0 {
			return graph.Null, errors.New("a duration is divided by zero")
		}
		r.Inv(r)
	}
	a := amountOf(d)
	for _, p := range []*big.Rat{&a.months, &a.days, &a.seconds} {
		p.Mul(p, r)
	}
	return a.duration()
}

// Add moves a date or time by sign*d: first by months, then by days, then by seconds, each as far as it has them. A time
// of day starts again after 24 hours; a date moves by the whole days of the seconds.
func Add(v graph.Value, d graph.Duration, sign int64) (graph.Value, error) {
	m, ok := momentOf(v)
	if !ok {
		return graph.Null, fmt.Errorf("a duration cannot be added to a %s", v.Kind())
	}
	const most = maxYear * 12
	if d.Months > most || d.Months < -most || d.Days > most*31 || d.Days < -most*31 || d.Seconds > most*31*daySeconds || d.Seconds < -most*31*daySeconds {
		return graph.Null, errDurationRange
	}
	sec, ns := sign*d.Seconds, sign*int64(d.Nanoseconds)
	if !m.hasDate {
		m.ns = mod(m.ns+sec%daySeconds*second+ns, day)
		return m.value(v.Kind()), nil
	}
	if d.Months != 0 || d.Days != 0 {
		m.exact = nil
		m.addMonths(sign * d.Months)
		m.day += sign * d.Days
	}
	if !m.hasTime {
		m.day += sec / daySeconds
		return m.value(v.Kind()), nil
	}
	ns += m.ns % second
	m.setInstant(m.instant()+sec+floorDiv(ns, second), mod(ns, second), m.zone)
	return m.value(v.Kind()), nil
}
