package token

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Error is what is wrong with a part of a query.
type Error struct {
	Kind    Kind
	Range   Range
	Message string
}

// Errors is all that is wrong with a query, in the order of the text.
type Errors struct {
	Text string // of the query
	List []Error
}

// maxErrors is how many problems are told at once: a text with more is none that anybody will correct one by one.
const maxErrors = 25

// Add notes a problem that has no better kind than InvalidSyntax.
func (e *Errors) Add(r Range, format string, args ...any) {
	e.Report(InvalidSyntax, r, format, args...)
}

// Report notes a problem; of several at the same place only the first is kept, as the others follow from it.
func (e *Errors) Report(kind Kind, r Range, format string, args ...any) {
	if e.Full() {
		return
	}
	for _, other := range e.List {
		if other.Range.From == r.From {
			return
		}
	}
	e.List = append(e.List, Error{kind, r, fmt.Sprintf(format, args...)})
}

// Forget drops what was noted about a place, for one who knows better what is wrong there.
func (e *Errors) Forget(from int) {
	e.List = slices.DeleteFunc(e.List, func(other Error) bool { return other.Range.From == from })
}

// Full reports whether no more problems are taken.
func (e *Errors) Full() bool { return len(e.List) >= maxErrors }

// Err returns e with its problems in order, or nil when there are none.
func (e *Errors) Err() error {
	if len(e.List) == 0 {
		return nil
	}
	slices.SortStableFunc(e.List, func(a, b Error) int { return a.Range.From - b.Range.From })
	return e
}

// Error shows each problem as line:column, message, the line it is in and carets below what is meant.
func (e *Errors) Error() string {
	var b strings.Builder
	for i, problem := range e.List {
		if i > 0 {
			b.WriteByte('\n')
		}
		e.show(&b, problem)
	}
	return b.String()
}

func (e *Errors) show(b *strings.Builder, problem Error) {
	from := min(problem.Range.From, len(e.Text))
	start := strings.LastIndexByte(e.Text[:from], '\n') + 1
	end := len(e.Text)
	if i := strings.IndexByte(e.Text[from:], '\n'); i >= 0 {
		end = from + i
	}
	line := strings.Count(e.Text[:start], "\n") + 1
	column := utf8.RuneCountInString(e.Text[start:from]) + 1
	before, cutBefore := lastRunes(e.Text[start:from])
	after, cutAfter := firstRunes(strings.TrimRight(e.Text[from:end], "\r"))
	fmt.Fprintf(b, "%d:%d: %s\n  %s%s%s%s\n  ", line, column, problem.Message, cutBefore, before, after, cutAfter)
	for _, r := range cutBefore + before {
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	marked := after[:max(0, min(problem.Range.To-from, len(after)))]
	b.WriteString(strings.Repeat("^", max(1, utf8.RuneCountInString(marked))))
}

// maxBytes is how much of a line is shown on each side of a problem.
const maxBytes = 200

func lastRunes(s string) (rest, mark string) {
	if len(s) <= maxBytes {
		return s, ""
	}
	at := len(s) - maxBytes
	for !utf8.RuneStart(s[at]) && at < len(s)-1 {
		at++
	}
	return s[at:], "…"
}

func firstRunes(s string) (rest, mark string) {
	if len(s) <= maxBytes {
		return s, ""
	}
	at := maxBytes
	for !utf8.RuneStart(s[at]) && at > 0 {
		at--
	}
	return s[:at], "…"
}

// Shorten cuts what is long or has several lines, so that a message can name it.
func Shorten(s string) string {
	cut := 40
	if i := strings.IndexByte(s, '\n'); i >= 0 && i < cut {
		cut = i
	}
	if len(s) <= cut {
		return s
	}
	for !utf8.RuneStart(s[cut]) {
		cut--
	}
	return s[:cut] + "…"
}
