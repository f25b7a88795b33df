package reftest

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
)

// Answer is what a query should answer, as far as the query determines it.
type Answer struct {
	columns []string
	rows    []row
	ordered bool
	// anyListOrder says that the order of the items of some list is not determined.
	anyListOrder bool
	// candidates are all rows among which a LIMIT without full order chooses those of the result.
	candidates []row
	// undetermined says that more depends on what the query does not say: which rows a LIMIT takes that are used further.
	undetermined bool
}

// Determined reports whether the answer says all about the rows, except for the order of lists. usesOrder says that the
// query looks into lists in an order-sensitive way.
func (a *Answer) Determined(usesOrder bool) bool {
	return !a.undetermined && a.candidates == nil && !(a.anyListOrder && usesOrder)
}

// Rows returns the rows, in an order that the query allows.
func (a *Answer) Rows() (rows [][]graph.Value) {
	slices.SortStableFunc(a.rows, func(x, y row) int { return compareOrder(x.order, y.order) })
	for _, in := range a.rows {
		rows = append(rows, values(in, a.columns))
	}
	return rows
}

// Check says what is wrong with the rows of a result, in their order; "" is nothing.
func (a *Answer) Check(result [][]graph.Value, usesOrder bool) string {
	switch {
	case a.undetermined || a.anyListOrder && usesOrder:
		return ""
	case a.candidates != nil:
		return a.checkWindow(result)
	}
	want, got := a.texts(a.rows), a.textsOf(result)
	if !a.ordered {
		slices.Sort(want)
		slices.Sort(got)
	} else {
		a.sortTies(want, got)
	}
	if slices.Equal(want, got) {
		return ""
	}
	if !a.ordered {
		want, got = without(want, got), without(got, want)
		return fmt.Sprintf("what is missing from the result:\n  %s\nwhat should not be there:\n  %s", strings.Join(want, "\n  "), strings.Join(got, "\n  "))
	}
	return fmt.Sprintf("the result is\n  %s\nand should be\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
}

// without returns the rows of a multiset that another one does not have.
func without(rows, others []string) (rest []string) {
	others = slices.Clone(others)
	for _, text := range rows {
		if i := slices.Index(others, text); i >= 0 {
			others = slices.Delete(others, i, i+1)
		} else {
			rest = append(rest, text)
		}
	}
	return rest
}

// sortTies sorts the rows within each run of rows that may come in any order.
func (a *Answer) sortTies(want, got []string) {
	slices.SortStableFunc(a.rows, func(x, y row) int { return compareOrder(x.order, y.order) })
	copy(want, a.texts(a.rows))
	for from := 0; from < len(a.rows); {
		to := from + 1
		for to < len(a.rows) && compareOrder(a.rows[from].order, a.rows[to].order) == 0 {
			to++
		}
		slices.Sort(want[from:to])
		slices.Sort(got[min(from, len(got)):min(to, len(got))])
		from = to
	}
}

// checkWindow looks whether as many rows are there as should be, and all of them among the candidates.
func (a *Answer) checkWindow(result [][]graph.Value) string {
	if len(result) != len(a.rows) {
		return fmt.Sprintf("the result has %d rows and should have %d", len(result), len(a.rows))
	}
	candidates := a.texts(a.candidates)
	if strange := without(a.textsOf(result), candidates); strange != nil {
		return fmt.Sprintf("what should not be there:\n  %s\nas there are\n  %s", strings.Join(strange, "\n  "), strings.Join(candidates, "\n  "))
	}
	return ""
}

func (a *Answer) texts(rows []row) []string {
	var list [][]graph.Value
	for _, in := range rows {
		list = append(list, values(in, a.columns))
	}
	return a.textsOf(list)
}

func (a *Answer) textsOf(rows [][]graph.Value) []string {
	list := make([]string, len(rows))
	for i, values := range rows {
		parts := make([]string, len(values))
		for j, v := range values {
			parts[j] = a.columns[j] + ": " + text(v, a.anyListOrder)
		}
		list[i] = "{" + strings.Join(parts, ", ") + "}"
	}
	return list
}

// text writes a value in one way: properties in order, elements with their ids, floats to a precision at which ways to
// compute them do not matter.
func text(v graph.Value, anyListOrder bool) string {
	switch v.Kind() {
	case graph.KindFloat:
		return strconv.FormatFloat(v.AsFloat()+0, 'g', 12, 64) + "f"
	case graph.KindList:
		var items []string
		for _, item := range v.AsList() {
			items = append(items, text(item, anyListOrder))
		}
		if anyListOrder {
			slices.Sort(items)
		}
		return "[" + strings.Join(items, ", ") + "]"
	case graph.KindMap:
		var parts []string
		for i, k := range v.AsMap().Keys {
			parts = append(parts, k+": "+text(v.AsMap().Values[i], anyListOrder))
		}
		return "{" + strings.Join(parts, ", ") + "}"
	case graph.KindNode, graph.KindRelationship:
		return elementText(v.AsElement())
	case graph.KindPath:
		p := v.AsPath()
		parts := []string{elementText(p.Nodes[0])}
		for i, r := range p.Relationships {
			parts = append(parts, elementText(r), elementText(p.Nodes[i+1]))
		}
		return "<" + strings.Join(parts, " ") + ">"
	}
	return v.String()
}

func elementText(e *graph.Element) string {
	var parts []string
	for i, v := range e.Values {
		if !v.IsNull() {
			parts = append(parts, e.Shape.Names()[i]+": "+text(v, false))
		}
	}
	slices.Sort(parts)
	labels := slices.Sorted(slices.Values(e.Labels))
	return fmt.Sprintf("(%s:%s {%s})", e.ID, strings.Join(labels, ":"), strings.Join(parts, ", "))
}
