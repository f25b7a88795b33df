package tcktest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// Text writes a value in the one way that Normal writes a value of the TCK: labels and properties in order, elements
// without their ids. With anyListOrder the items of lists are in order too.
func Text(v graph.Value, anyListOrder bool) string {
	switch v.Kind() {
	case graph.KindList:
		var items []string
		for _, item := range v.AsList() {
			items = append(items, Text(item, anyListOrder))
		}
		return list(items, anyListOrder)
	case graph.KindMap:
		return properties(v.AsMap().Keys, v.AsMap().Values, anyListOrder)
	case graph.KindNode, graph.KindRelationship:
		return element(v.AsElement(), anyListOrder)
	case graph.KindPath:
		return pathText(v.AsPath(), anyListOrder)
	case graph.KindFloat:
		return number(v.AsFloat())
	case graph.KindString:
		return strconv.Quote(v.AsString())
	case graph.KindDate, graph.KindLocalTime, graph.KindTime, graph.KindLocalDateTime, graph.KindDateTime, graph.KindDuration:
		return strconv.Quote(v.String())
	}
	return v.String()
}

func number(f float64) string {
	s := strconv.FormatFloat(f+0, 'g', -1, 64) // -0.0 is 0.0
	if !strings.ContainsAny(s, ".eNI") {
		s += ".0"
	}
	return strings.TrimPrefix(s, "+")
}

func list(items []string, anyOrder bool) string {
	if anyOrder {
		slices.Sort(items)
	}
	return "[" + strings.Join(items, ", ") + "]"
}

func properties(keys []string, values []graph.Value, anyListOrder bool) string {
	var parts []string
	for i, k := range keys {
		parts = append(parts, k+": "+Text(values[i], anyListOrder))
	}
	return mapText(parts)
}

func mapText(parts []string) string {
	slices.Sort(parts)
	return "{" + strings.Join(parts, ", ") + "}"
}

func element(e *graph.Element, anyListOrder bool) string {
	var keys []string
	var values []graph.Value
	if e.Shape != nil {
		for i, name := range e.Shape.Names() {
			if !e.Values[i].IsNull() {
				keys, values = append(keys, name), append(values, e.Values[i])
			}
		}
	}
	open, end := "(", ")"
	if e.IsRelationship() {
		open, end = "[", "]"
	}
	return inner(open, e.Labels, properties(keys, values, anyListOrder), end)
}

func inner(open string, labels []string, properties, end string) string {
	labels = slices.Clone(labels)
	slices.Sort(labels)
	text := ""
	for _, l := range labels {
		text += ":" + l
	}
	if properties != "{}" {
		text = strings.TrimPrefix(text+" "+properties, " ")
	}
	return open + text + end
}

func pathText(p *graph.Path, anyListOrder bool) string {
	text := "<" + element(p.Nodes[0], anyListOrder)
	for i, r := range p.Relationships {
		left, right := "-", "->"
		if r.Start != p.Nodes[i].ID {
			left, right = "<-", "-"
		}
		text += left + element(r, anyListOrder) + right + element(p.Nodes[i+1], anyListOrder)
	}
	return text + ">"
}

// reader reads a value of a table of results.
type reader struct {
	text         string
	at           int
	anyListOrder bool
}

// Normal writes a value of a table of results as Text does.
func Normal(cell string, anyListOrder bool) (text string, err error) {
	r := &reader{text: cell, anyListOrder: anyListOrder}
	defer func() {
		if problem, ours := recover().(string); ours {
			err = fmt.Errorf("reading the value %q: %s", cell, problem)
		}
	}()
	text = r.value()
	if r.space(); r.at < len(r.text) {
		panic("there is something behind it")
	}
	return text, nil
}

func (r *reader) space() {
	for r.at < len(r.text) && strings.ContainsRune(" \t\n", rune(r.text[r.at])) {
		r.at++
	}
}

func (r *reader) accept(s string) bool {
	r.space()
	if strings.HasPrefix(r.text[r.at:], s) {
		r.at += len(s)
		return true
	}
	return false
}

func (r *reader) expect(s string) {
	if !r.accept(s) {
		panic(fmt.Sprintf("expected %q at %d", s, r.at))
	}
}

func (r *reader) word(stop string) string {
	r.space()
	end := strings.IndexAny(r.text[r.at:], stop)
	if end < 0 {
		end = len(r.text) - r.at
	}
	w := r.text[r.at : r.at+end]
	r.at += end
	return strings.TrimSpace(w)
}

func (r *reader) value() string {
	switch {
	case r.accept("[:"):
		r.at--
		return r.inner("[", "]")
	case r.accept("["):
		var items []string
		for !r.accept("]") {
			if len(items) > 0 {
				r.expect(",")
			}
			items = append(items, r.value())
		}
		return list(items, r.anyListOrder)
	case r.accept("{"):
		return r.properties()
	case r.accept("("):
		return r.inner("(", ")")
	case r.accept("<"):
		return r.path()
	case r.accept("'"):
		return r.quoted()
	}
	return r.scalar(r.word(",]}"))
}

func (r *reader) quoted() string {
	var b strings.Builder
	for ; r.at < len(r.text) && r.text[r.at] != '\''; r.at++ {
		if r.text[r.at] == '\\' && r.at+1 < len(r.text) && strings.ContainsRune(`'\`, rune(r.text[r.at+1])) {
			r.at++
		}
		b.WriteByte(r.text[r.at])
	}
	r.expect("'")
	return strconv.Quote(b.String())
}

func (r *reader) scalar(word string) string {
	if word == "" {
		panic("there is no value")
	}
	switch word {
	case "null", "true", "false", "NaN":
		return word
	case "Inf", "-Inf":
		return word
	}
	if _, err := strconv.ParseInt(word, 10, 64); err == nil {
		return word
	}
	f, err := strconv.ParseFloat(word, 64)
	if err != nil {
		panic(word + " is no value")
	}
	return number(f)
}

func (r *reader) properties() string {
	var parts []string
	for !r.accept("}") {
		if len(parts) > 0 {
			r.expect(",")
		}
		key := strings.Trim(r.word(":"), "`")
		r.expect(":")
		parts = append(parts, key+": "+r.value())
	}
	return mapText(parts)
}

func (r *reader) inner(open, end string) string {
	var labels []string
	for r.accept(":") {
		labels = append(labels, r.word(": {"+end))
	}
	props := "{}"
	if r.accept("{") {
		props = r.properties()
	}
	r.expect(end)
	return inner(open, labels, props, end)
}

func (r *reader) path() string {
	r.expect("(")
	text := "<" + r.inner("(", ")")
	for !r.accept(">") {
		left := "-"
		if r.accept("<-") {
			left = "<-"
		} else {
			r.expect("-")
		}
		r.expect("[")
		text += left + r.inner("[", "]")
		if r.accept("->") {
			text += "->"
		} else {
			r.expect("-")
			text += "-"
		}
		r.expect("(")
		text += r.inner("(", ")")
	}
	return text + ">"
}
