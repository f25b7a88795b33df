package postgres

import (
	"encoding/binary"
	"math"

	"github.com/perdure/perdure/streaming/graph"
)

const (
	epochDays    = 10957 // from 1970-01-01 to 2000-01-01, where Postgres counts from
	epochSeconds = epochDays * 86400
	microsPerDay = 86400 * 1_000_000
)

// Infinite dates, timestamps and intervals, and the time 24:00:00, which no kind of value can hold, are strings as
// Postgres spells them.
var (
	infinity      = graph.String("infinity")
	minusInfinity = graph.String("-infinity")
)

func decodeDate(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 4 {
		return graph.Null, sizeError(src, 4)
	}
	switch days := int32(binary.BigEndian.Uint32(src)); days {
	case math.MaxInt32:
		return infinity, nil
	case math.MinInt32:
		return minusInfinity, nil
	default:
		return graph.Date(int64(days) + epochDays), nil
	}
}

func decodeTime(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 8 {
		return graph.Null, sizeError(src, 8)
	}
	micros := int64(binary.BigEndian.Uint64(src))
	if micros == microsPerDay {
		return graph.String("24:00:00"), nil
	}
	return graph.LocalTime(micros * 1000), nil
}

func decodeTimeTZ(d *decoder, src []byte) (graph.Value, error) {
	if len(src) != 12 {
		return graph.Null, sizeError(src, 12)
	}
	micros := int64(binary.BigEndian.Uint64(src))
	east := -int32(binary.BigEndian.Uint32(src[8:]))
	if micros == microsPerDay {
		return graph.String(sealed(appendOffset(append(d.newBytes(17), "24:00:00"...), east))), nil
	}
	return graph.Time(micros*1000, east), nil
}

// appendOffset writes an offset as the server does: +02, -03:30, +00:19:32.
func appendOffset(b []byte, east int32) []byte {
	sign := byte('+')
	if east < 0 {
		sign, east = '-', -east
	}
	two := func(n int32) { b = append(b, byte('0'+n/10), byte('0'+n%10)) }
	b = append(b, sign)
	two(east / 3600)
	if east%3600 != 0 {
		b = append(b, ':')
		two(east / 60 % 60)
	}
	if east%60 != 0 {
		b = append(b, ':')
		two(east % 60)
	}
	return b
}

func decodeTimestamp(_ *decoder, src []byte) (graph.Value, error) {
	sec, ns, infinite, err := timestamp(src)
	if err != nil || !infinite.IsNull() {
		return infinite, err
	}
	return graph.LocalDateTime(sec, ns), nil
}

func decodeTimestampTZ(_ *decoder, src []byte) (graph.Value, error) {
	sec, ns, infinite, err := timestamp(src)
	if err != nil || !infinite.IsNull() {
		return infinite, err
	}
	return graph.DateTime(sec, ns, nil), nil
}

func timestamp(src []byte) (sec int64, ns int32, infinite graph.Value, err error) {
	if len(src) != 8 {
		return 0, 0, graph.Null, sizeError(src, 8)
	}
	micros := int64(binary.BigEndian.Uint64(src))
	switch micros {
	case math.MaxInt64:
		return 0, 0, infinity, nil
	case math.MinInt64:
		return 0, 0, minusInfinity, nil
	}
	sec, rest := micros/1_000_000, micros%1_000_000
	if rest < 0 {
		sec, rest = sec-1, rest+1_000_000
	}
	return sec + epochSeconds, int32(rest * 1000), graph.Null, nil
}

func decodeInterval(_ *decoder, src []byte) (graph.Value, error) {
	if len(src) != 16 {
		return graph.Null, sizeError(src, 16)
	}
	micros := int64(binary.BigEndian.Uint64(src))
	days := int32(binary.BigEndian.Uint32(src[8:]))
	months := int32(binary.BigEndian.Uint32(src[12:]))
	switch {
	case micros == math.MaxInt64 && days == math.MaxInt32 && months == math.MaxInt32:
		return infinity, nil
	case micros == math.MinInt64 && days == math.MinInt32 && months == math.MinInt32:
		return minusInfinity, nil
	}
	return graph.DurationOf(graph.Duration{
		Months:      int64(months),
		Days:        int64(days),
		Seconds:     micros / 1_000_000,
		Nanoseconds: int32(micros % 1_000_000 * 1000),
	}), nil
}
