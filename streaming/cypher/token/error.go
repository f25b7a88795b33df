package token

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Error is what is wrong with a part of a query.
type Error struct {
	Range   Range
	Message string
}

// Errors is all that is wrong with a query, in the order of the text.
type Errors struct {
	Text string // of the query
	List []Error
}

// Add notes a problem; of several at the same place only the first is kept, as the others follow from it.
func (e *Errors) Add(r Range, format string, args ...any) {
	for _, other := range e.List {
		if other.Range.From == r.From {
			return
		}
	}
	e.List = append(e.List, Error{r, fmt.Sprintf(format, args...)})
}

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
	fmt.Fprintf(b, "%d:%d: %s\n  %s\n  ", line, column, problem.Message, strings.TrimRight(e.Text[start:end], "\r"))
	for _, r := range e.Text[start:from] {
		if r != '\t' {
			r = ' '
		}
		b.WriteRune(r)
	}
	marked := e.Text[from:max(from, min(problem.Range.To, end))]
	b.WriteString(strings.Repeat("^", max(1, utf8.RuneCountInString(marked))))
}
