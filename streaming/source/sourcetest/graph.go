package sourcetest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// Graph is the elements of a source by their ids.
type Graph map[graph.ElementID]graph.Element

// Apply changes the graph as a query would.
func (g Graph) Apply(c *graph.Change) {
	e := c.Element
	switch c.Op {
	case graph.OpDelete:
		delete(g, e.ID)
	case graph.OpTruncate:
		maps.DeleteFunc(g, func(_ graph.ElementID, old graph.Element) bool { return old.HasLabel(e.Labels[0]) })
	case graph.OpInsert:
		g[e.ID] = e
	case graph.OpUpdate, graph.OpMerge:
		if e.Shape == nil {
			g[e.ID] = e
			return
		}
		old := g[e.ID]
		e.Values = slices.Clone(e.Values)
		for i, v := range e.Values {
			if v.Kind() == graph.KindUnchanged {
				e.Values[i] = old.Get(e.Shape.Names()[i])
			}
		}
		g[e.ID] = e
	}
}

// Texts returns each element as one line, by its id.
func (g Graph) Texts() map[graph.ElementID]string {
	texts := make(map[graph.ElementID]string, len(g))
	for id := range g {
		e := g[id]
		texts[id] = Text(&e)
	}
	return texts
}

// Text shows an element: its labels, ends and properties that are not null, by name.
func Text(e *graph.Element) string {
	var b strings.Builder
	b.WriteString(strings.Join(e.Labels, ":"))
	if e.IsRelationship() {
		fmt.Fprintf(&b, " (%s)->(%s)", e.Start, e.End)
	}
	if e.Shape == nil {
		return b.String()
	}
	names := slices.Clone(e.Shape.Names())
	slices.Sort(names)
	for _, name := range names {
		if v := e.Get(name); !v.IsNull() {
			fmt.Fprintf(&b, " %s=%s", name, ValueText(v))
		}
	}
	return b.String()
}

// ValueText shows a value such that different values, also of different kinds, look different.
func ValueText(v graph.Value) string {
	switch v.Kind() {
	case graph.KindNull:
		return "null"
	case graph.KindUnchanged:
		return "unchanged"
	case graph.KindBool:
		return strconv.FormatBool(v.AsBool())
	case graph.KindInt:
		return strconv.FormatInt(v.AsInt(), 10)
	case graph.KindFloat:
		return "float " + strconv.FormatFloat(v.AsFloat(), 'g', -1, 64)
	case graph.KindDecimal:
		return "decimal " + v.AsDecimal().Text('f')
	case graph.KindString:
		quoted, _ := json.Marshal(v.AsString()) // strings always marshal
		return string(quoted)
	case graph.KindList:
		items := make([]string, len(v.AsList()))
		for i, item := range v.AsList() {
			items[i] = ValueText(item)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case graph.KindMap:
		m := v.AsMap()
		items := make([]string, len(m.Keys))
		for i, key := range m.Keys {
			items[i] = key + ": " + ValueText(m.Values[i])
		}
		return "{" + strings.Join(items, ", ") + "}"
	}
	return v.Kind().String() + " " + timeText(v)
}

func timeText(v graph.Value) string {
	switch v.Kind() {
	case graph.KindDate:
		return time.Unix(v.AsDate()*86400, 0).UTC().Format(time.DateOnly)
	case graph.KindLocalTime:
		return time.Unix(0, v.AsLocalTime()).UTC().Format("15:04:05.999999999")
	case graph.KindTime:
		ns, offset := v.AsTime()
		return time.Unix(0, ns).UTC().Format("15:04:05.999999999") + fmt.Sprintf("%+ds", offset)
	case graph.KindLocalDateTime:
		sec, ns := v.AsLocalDateTime()
		return time.Unix(sec, int64(ns)).UTC().Format("2006-01-02T15:04:05.999999999")
	case graph.KindDateTime:
		sec, ns, zone := v.AsDateTime()
		return time.Unix(sec, int64(ns)).In(zone).Format(time.RFC3339Nano)
	case graph.KindDuration:
		d := v.AsDuration()
		return fmt.Sprintf("P%dM%dDT%dS%dN", d.Months, d.Days, d.Seconds, d.Nanoseconds)
	}
	return "?"
}
