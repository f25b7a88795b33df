package graph

import (
	"strconv"
	"strings"
	"time"
)

const (
	nanosPerSecond = int64(time.Second)
	secondsPerDay  = 24 * 60 * 60
	daysPerMonth   = 2629746.0 / secondsPerDay // of 365.2425 days a year
)

// AppendTemporal appends a date, time or duration in ISO 8601 form, as openCypher prints it: seconds and fractions are
// left out when they are zero, a named zone follows in brackets.
func AppendTemporal(dst []byte, v Value) []byte {
	switch v.kind {
	case KindDate:
		return appendDate(dst, v.AsDate())
	case KindLocalTime:
		return appendClock(dst, v.AsLocalTime())
	case KindTime:
		ns, offset := v.AsTime()
		return AppendOffset(appendClock(dst, ns), int(offset))
	case KindLocalDateTime:
		sec, ns := v.AsLocalDateTime()
		return appendWall(dst, sec, ns)
	case KindDateTime:
		sec, ns, zone := v.AsDateTime()
		_, offset := time.Unix(sec, 0).In(zone).Zone()
		dst = AppendOffset(appendWall(dst, sec+int64(offset), ns), offset)
		if name := zone.String(); strings.Contains(name, "/") {
			dst = append(dst, '[')
			dst = append(dst, name...)
			dst = append(dst, ']')
		}
		return dst
	case KindDuration:
		return appendDuration(dst, v.AsDuration())
	}
	panic("graph: " + v.kind.String() + " is not temporal")
}

func appendWall(dst []byte, sec int64, ns int32) []byte {
	days := floorDiv(sec, secondsPerDay)
	dst = append(appendDate(dst, days), 'T')
	return appendClock(dst, (sec-days*secondsPerDay)*nanosPerSecond+int64(ns))
}

func floorDiv(a, b int64) int64 {
	q := a / b
	if a%b < 0 {
		q--
	}
	return q
}

func appendDate(dst []byte, days int64) []byte {
	y, m, d := time.Unix(days*secondsPerDay, 0).UTC().Date()
	switch {
	case y < 0:
		dst = append(dst, '-')
		y = -y
	case y > 9999:
		dst = append(dst, '+')
	}
	dst = appendPadded(dst, y, 4)
	dst = appendPadded(append(dst, '-'), int(m), 2)
	return appendPadded(append(dst, '-'), d, 2)
}

func appendClock(dst []byte, ns int64) []byte {
	sec := ns / nanosPerSecond
	frac := ns % nanosPerSecond
	dst = appendPadded(dst, int(sec/3600), 2)
	dst = appendPadded(append(dst, ':'), int(sec/60%60), 2)
	if sec%60 == 0 && frac == 0 {
		return dst
	}
	dst = appendPadded(append(dst, ':'), int(sec%60), 2)
	return appendFraction(dst, frac)
}

func appendFraction(dst []byte, ns int64) []byte {
	if ns == 0 {
		return dst
	}
	dst = appendPadded(append(dst, '.'), int(ns), 9)
	for dst[len(dst)-1] == '0' {
		dst = dst[:len(dst)-1]
	}
	return dst
}

// AppendOffset appends an offset from UTC in seconds in ISO 8601 form: Z, +01:00 or, where it has seconds, +00:53:28.
func AppendOffset(dst []byte, offset int) []byte {
	if offset == 0 {
		return append(dst, 'Z')
	}
	sign := byte('+')
	if offset < 0 {
		sign, offset = '-', -offset
	}
	dst = appendPadded(append(dst, sign), offset/3600, 2)
	dst = appendPadded(append(dst, ':'), offset/60%60, 2)
	if offset%60 != 0 {
		dst = appendPadded(append(dst, ':'), offset%60, 2)
	}
	return dst
}

func appendPadded(dst []byte, n, width int) []byte {
	text := strconv.Itoa(n)
	for range width - len(text) {
		dst = append(dst, '0')
	}
	return append(dst, text...)
}

func appendDuration(dst []byte, d Duration) []byte {
	dst = append(dst, 'P')
	start := len(dst)
	dst = appendPart(dst, d.Months/12, 'Y')
	dst = appendPart(dst, d.Months%12, 'M')
	dst = appendPart(dst, d.Days, 'D')
	if d.Seconds != 0 || d.Nanoseconds != 0 {
		dst = append(dst, 'T')
		dst = appendPart(dst, d.Seconds/3600, 'H')
		dst = appendPart(dst, d.Seconds/60%60, 'M')
		if rest, ns := d.Seconds%60, int64(d.Nanoseconds); rest != 0 || ns != 0 {
			if rest < 0 || ns < 0 {
				dst = append(dst, '-')
				rest, ns = -rest, -ns
			}
			dst = strconv.AppendInt(dst, rest, 10)
			dst = append(appendFraction(dst, ns), 'S')
		}
	}
	if len(dst) == start {
		return append(dst, "T0S"...)
	}
	return dst
}

func appendPart(dst []byte, n int64, unit byte) []byte {
	if n == 0 {
		return dst
	}
	return append(strconv.AppendInt(dst, n, 10), unit)
}
