package querytest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/graph"
)

// literals reads the values of a script. It has nothing in common with the parser of queries, which it helps to test.
type literals struct {
	text string
	at   int
}

type syntaxError struct{ message string }

func (l *literals) fail(format string, args ...any) {
	panic(syntaxError{fmt.Sprintf(format, args...) + " in " + strconv.Quote(l.text)})
}

func (l *literals) space() {
	for l.at < len(l.text) && l.text[l.at] == ' ' {
		l.at++
	}
}

func (l *literals) accept(s string) bool {
	l.space()
	if strings.HasPrefix(l.text[l.at:], s) {
		l.at += len(s)
		return true
	}
	return false
}

func (l *literals) expect(s string) {
	if !l.accept(s) {
		l.fail("expected %q at %d", s, l.at)
	}
}

// word reads what consists of characters that satisfy ok.
func (l *literals) word(ok func(r rune) bool) string {
	start := l.at
	for i, r := range l.text[start:] {
		if !ok(r) {
			l.at = start + i
			return l.text[start:l.at]
		}
	}
	l.at = len(l.text)
	return l.text[start:]
}

func inName(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }

func (l *literals) name() string {
	l.space()
	n := l.word(inName)
	if n == "" {
		l.fail("expected a name at %d", l.at)
	}
	return n
}

func (l *literals) value() graph.Value {
	switch {
	case l.accept("["):
		items := []graph.Value{}
		for !l.accept("]") {
			if len(items) > 0 {
				l.expect(",")
			}
			items = append(items, l.value())
		}
		return graph.List(items)
	case l.accept("{"):
		names, values := l.properties()
		order := make([]int, len(names))
		for i := range order {
			order[i] = i
		}
		slices.SortFunc(order, func(a, b int) int { return strings.Compare(names[a], names[b]) })
		m := &graph.Map{}
		for _, i := range order {
			m.Keys, m.Values = append(m.Keys, names[i]), append(m.Values, values[i])
		}
		return graph.MapOf(m)
	case l.accept("'"):
		s := l.word(func(r rune) bool { return r != '\'' })
		l.expect("'")
		return graph.String(s)
	}
	return l.scalar(l.word(func(r rune) bool { return inName(r) || strings.ContainsRune("+-.", r) }))
}

func (l *literals) scalar(word string) graph.Value {
	switch word {
	case "null":
		return graph.Null
	case "unchanged":
		return graph.Unchanged
	case "true", "false":
		return graph.Bool(word == "true")
	}
	if i, err := strconv.ParseInt(word, 10, 64); err == nil {
		return graph.Int(i)
	}
	if number, ok := strings.CutSuffix(word, "d"); ok {
		if d, _, err := apd.NewFromString(number); err == nil {
			return graph.Decimal(d)
		}
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil {
		l.fail("%q is no value", word)
	}
	return graph.Float(f)
}

// properties reads what follows "{".
func (l *literals) properties() (names []string, values []graph.Value) {
	for !l.accept("}") {
		if len(names) > 0 {
			l.expect(",")
		}
		names = append(names, l.name())
		l.expect(":")
		values = append(values, l.value())
	}
	return names, values
}

// element reads (id:Label {k: v}) or (start)-[id:TYPE {k: v}]->(end).
func (l *literals) element() graph.Element {
	l.expect("(")
	e := l.inner(")")
	if !l.accept("-[") {
		return e
	}
	start := e.ID
	e = l.inner("]")
	e.Start = start
	l.expect("->(")
	e.End = l.inner(")").ID
	return e
}

func (l *literals) inner(end string) (e graph.Element) {
	l.space()
	e.ID = graph.ElementID(l.word(func(r rune) bool { return inName(r) || strings.ContainsRune("/#~", r) }))
	for l.accept(":") {
		e.Labels = append(e.Labels, l.name())
	}
	if l.accept("{") {
		names, values := l.properties()
		e.Shape, e.Values = graph.NewShape(names...), values
	}
	l.expect(end)
	return e
}

// ops are how a line of changes starts.
var ops = map[byte]graph.Op{'+': graph.OpInsert, '=': graph.OpUpdate, '~': graph.OpMerge, '-': graph.OpDelete}

// ParseChanges reads changes, one a line; "commit" ends a transaction.
func ParseChanges(input string) (transactions [][]graph.Change, err error) {
	defer func() {
		if r := recover(); r != nil {
			e, ours := r.(syntaxError)
			if !ours {
				panic(r)
			}
			err = fmt.Errorf("reading changes: %s", e.message)
		}
	}()
	var changes []graph.Change
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		l := &literals{text: line, at: 1}
		switch {
		case line == "":
		case line == "commit":
			transactions, changes = append(transactions, changes), nil
		case strings.HasPrefix(line, "truncate "):
			labels := strings.Fields(line)[1:]
			changes = append(changes, graph.Change{Op: graph.OpTruncate, Element: graph.Element{Labels: labels}})
		case ops[line[0]] != 0:
			changes = append(changes, graph.Change{Op: ops[line[0]], Element: l.element()})
		default:
			l.at = 0
			changes = append(changes, graph.Change{Op: graph.OpInsert, Element: l.element()})
		}
	}
	if changes != nil {
		transactions = append(transactions, changes)
	}
	return transactions, nil
}

// ParseParameters reads {name: value}.
func ParseParameters(text string) (parameters map[string]graph.Value, err error) {
	defer func() {
		if e, ours := recover().(syntaxError); ours {
			err = fmt.Errorf("reading parameters: %s", e.message)
		}
	}()
	l := &literals{text: text}
	l.expect("{")
	names, values := l.properties()
	parameters = make(map[string]graph.Value, len(names))
	for i, name := range names {
		parameters[name] = values[i]
	}
	return parameters, nil
}
