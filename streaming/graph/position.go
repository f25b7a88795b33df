package graph

import (
	"cmp"
	"strings"
)

// Position is a place in a source, in the source's own notation: a Postgres LSN "16/B374D848", a Redis stream id
// "1692632086370-0", a plain counter "17". It is a sequence of numbers joined by '/', '-' or ':', most significant
// first, each written without leading zeros and in upper case where it is hexadecimal, so that positions of one source
// compare without knowing the notation. The empty position comes before all others.
type Position string

// Compare orders two positions of the same source: -1, 0 or +1.
func (p Position) Compare(q Position) int {
	a, b := string(p), string(q)
	for a != "" && b != "" {
		var x, y string
		x, a = nextNumber(a)
		y, b = nextNumber(b)
		if c := cmp.Compare(len(x), len(y)); c != 0 {
			return c
		}
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(a), len(b))
}

func nextNumber(s string) (number, rest string) {
	if i := strings.IndexAny(s, "/-:"); i >= 0 {
		return s[:i], s[i+1:]
	}
	return s, ""
}
