package query_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query/querytest"
)

// TestConsistency holds queries of all clauses, kept up to date through random changes, against the same queries
// evaluated once on the graph as it then is.
func TestConsistency(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := clauses(t)
		s := querytest.NewSession(t, memory.New(), text, nil)
		defer s.Close()
		world := make(map[graph.ElementID]*graph.Element)
		if rapid.Bool().Draw(t, "load") {
			var changes []graph.Change
			for range rapid.IntRange(0, 12).Draw(t, "elements") {
				changes = append(changes, randomChange(t, world))
			}
			s.Load(changes)
		} else {
			s.Begin()
		}
		for range rapid.IntRange(1, 8).Draw(t, "batches") {
			var transactions [][]graph.Change
			for range rapid.IntRange(1, 2).Draw(t, "transactions") {
				var changes []graph.Change
				for range rapid.IntRange(1, 4).Draw(t, "changes") {
					changes = append(changes, randomChange(t, world))
				}
				transactions = append(transactions, changes)
			}
			if rapid.IntRange(0, 4).Draw(t, "restart") == 0 {
				s.Reopen()
			}
			s.Apply(transactions...)
			requireFresh(t, s, text, world)
		}
		var all []graph.Change
		for _, id := range slices.Sorted(maps.Keys(world)) {
			all = append(all, graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: id, Labels: world[id].Labels}})
		}
		s.Apply(all)
		requireFresh(t, s, text, nil)
	})
}

// requireFresh compares a query with one that loads the graph.
func requireFresh(t querytest.T, s *querytest.Session, text string, world map[graph.ElementID]*graph.Element) {
	fresh := querytest.NewSession(t, memory.New(), text, nil)
	defer fresh.Close()
	var changes []graph.Change
	for _, id := range slices.Sorted(maps.Keys(world)) {
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: *world[id]})
	}
	fresh.Load(changes)
	require.Equal(t, fresh.View(), s.View(), text)
	require.Equal(t, fresh.Query.Stats().FailedRows, s.Query.Stats().FailedRows, text)
	if len(world) == 0 { // else versions of elements may differ in what nobody reads
		want, err := fresh.Query.Analyze()
		require.NoError(t, err)
		got, err := s.Query.Analyze()
		require.NoError(t, err)
		require.Equal(t, want, got, text) // no state is left behind
	}
}

// writer makes up a query, clause by clause.
type writer struct {
	t                *rapid.T
	nodes, relations []string // variables
	values, lists    []string
	made             int
	text             strings.Builder
}

func (w *writer) pick(name string, from ...string) string {
	return rapid.SampledFrom(from).Draw(w.t, name)
}

func (w *writer) chance(one, of int) bool { return rapid.IntRange(1, of).Draw(w.t, "chance") <= one }

func (w *writer) name(prefix string) string {
	w.made++
	return fmt.Sprintf("%s%d", prefix, w.made)
}

func clauses(t *rapid.T) string {
	w := &writer{t: t}
	if w.chance(1, 4) {
		w.unwind()
	}
	w.match("MATCH ")
	for range rapid.IntRange(0, 3).Draw(t, "clauses") {
		switch rapid.IntRange(0, 5).Draw(t, "clause") {
		case 0:
			w.match("MATCH ")
		case 1, 2:
			w.match("OPTIONAL MATCH ")
		case 3:
			w.unwind()
		default:
			w.with()
		}
	}
	if w.chance(1, 6) {
		first := "RETURN " + w.value() + " AS c"
		all := w.pick("all", " ALL", "")
		return w.text.String() + first + "\nUNION" + all + "\nMATCH (n:A)\nRETURN n.x AS c"
	}
	w.last()
	return w.text.String()
}

func (w *writer) line(parts ...string) { w.text.WriteString(strings.Join(parts, "") + "\n") }

// value is an expression of what is there.
func (w *writer) value() string {
	options := []string{"1"}
	for _, n := range append(slices.Clone(w.nodes), w.relations...) {
		options = append(options, n+".x", n+".y")
	}
	for _, v := range w.values {
		options = append(options, v, "coalesce("+v+", 0)")
	}
	for _, l := range w.lists {
		options = append(options, "size("+l+")")
	}
	if len(w.nodes) > 0 {
		n := w.pick("node", w.nodes...)
		options = append(options,
			"COUNT { ("+n+")-[:T]->(:B) }", "size([("+n+")--(k) WHERE k.x > 0 | k.y])", "CASE WHEN ("+n+")-->() THEN 1 ELSE "+n+".x END",
			"COUNT { MATCH ("+n+")-->(k) RETURN DISTINCT k.x }", "6 / "+n+".x")
	}
	return w.pick("value", options...)
}

func (w *writer) condition() string {
	options := []string{w.value() + " > " + w.value(), w.value() + " = " + w.value(), w.value() + " IS NULL", "NOT " + w.value() + " <> " + w.value()}
	if len(w.nodes) > 0 {
		n := w.pick("node", w.nodes...)
		options = append(options, "EXISTS { ("+n+")-[e]->(k) WHERE e.x = k.x }", "NOT ("+n+")-[:U]-()", n+":A",
			"EXISTS { MATCH ("+n+")--(k) WITH k, count(*) AS c WHERE c > 1 RETURN k }")
	}
	return w.pick("condition", options...)
}

func (w *writer) node() string {
	if len(w.nodes) > 0 && w.chance(1, 2) {
		return "(" + w.pick("bound", w.nodes...) + ")"
	}
	if w.chance(1, 4) {
		return "()"
	}
	n := w.name("n")
	label := w.pick("label", "", ":A", ":B", ":!A", ":A|C")
	if w.chance(1, 6) {
		label += " {x: " + w.value() + "}"
	}
	w.nodes = append(w.nodes, n)
	return "(" + n + label + ")"
}

func (w *writer) pattern() string {
	p := w.node()
	var lists, relations []string
	for range rapid.IntRange(0, 2).Draw(w.t, "hops") {
		inner := w.pick("type", "", ":T", ":T|U")
		switch {
		case w.chance(1, 3):
			length := w.pick("length", "*", "*0..1", "*1..2", "*2", "*0..", "*..3")
			if w.chance(1, 2) {
				lists = append(lists, w.name("l"))
				inner = lists[len(lists)-1] + inner
			}
			inner += length
			if w.chance(1, 4) {
				inner += " {x: 1}"
			}
		case w.chance(1, 2):
			relations = append(relations, w.name("r"))
			inner = relations[len(relations)-1] + inner
		}
		p += w.pick("arrow", "-[%s]->", "<-[%s]-", "-[%s]-")
		p = strings.Replace(p, "%s", inner, 1) + w.node()
	}
	if w.chance(1, 5) {
		path := w.name("p")
		w.lists = append(w.lists, "nodes("+path+")")
		w.values = append(w.values, "length("+path+")")
		p = path + " = " + p
	}
	w.lists = append(w.lists, lists...)
	w.relations = append(w.relations, relations...)
	return p
}

func (w *writer) match(keyword string) {
	text := keyword + w.pattern()
	if w.chance(1, 5) {
		text += ", " + w.pattern()
	}
	if w.chance(1, 2) {
		text += " WHERE " + w.condition()
	}
	w.line(text)
}

func (w *writer) unwind() {
	list := "[1, null, 2]"
	if len(w.lists) > 0 && w.chance(1, 2) {
		list = w.pick("list", w.lists...)
	}
	name := w.name("u")
	w.line("UNWIND ", list, " AS ", name)
	if list == "[1, null, 2]" {
		w.values = append(w.values, name)
	}
}

func (w *writer) aggregate() string {
	if w.chance(1, 5) {
		return "count(*)"
	}
	call := w.pick("aggregate", "count(%s)", "collect(%s)", "collect(DISTINCT %s)", "count(DISTINCT %s)", "min(%s)", "max(%s)")
	return fmt.Sprintf(call, w.value())
}

// with keeps some of the variables and adds values.
func (w *writer) with() {
	var items, nodes, relations, values []string
	for _, n := range w.nodes {
		if w.chance(1, 2) {
			items, nodes = append(items, n), append(nodes, n)
		}
	}
	for _, r := range w.relations {
		if w.chance(1, 3) {
			items, relations = append(items, r), append(relations, r)
		}
	}
	kind := rapid.IntRange(0, 3).Draw(w.t, "with")
	var lists []string
	for range rapid.IntRange(1, 2).Draw(w.t, "values") {
		name := w.name("v")
		expr := w.value()
		if kind == 1 {
			expr = w.aggregate()
		}
		if strings.HasPrefix(expr, "collect") {
			lists = append(lists, name)
		} else {
			values = append(values, name)
		}
		items = append(items, expr+" AS "+name)
	}
	text := "WITH "
	if kind == 2 {
		text += "DISTINCT "
	}
	text += strings.Join(items, ", ")
	w.nodes, w.relations, w.values, w.lists = nodes, relations, values, lists
	if kind == 3 {
		text += " ORDER BY " + w.value() + w.pick("direction", "", " DESC") + w.pick("window", "", " LIMIT 2", " SKIP 1", " SKIP 1 LIMIT 2")
	}
	if w.chance(1, 3) {
		text += " WHERE " + w.condition()
	}
	w.line(text)
}

func (w *writer) last() {
	var items []string
	aggregate := w.chance(1, 3)
	for i := range rapid.IntRange(1, 3).Draw(w.t, "columns") {
		expr := w.value()
		switch {
		case aggregate && w.chance(1, 2):
			expr = w.aggregate()
		case len(w.nodes) > 0 && w.chance(1, 3):
			expr = w.pick("whole", w.nodes...)
		case len(w.lists) > 0 && w.chance(1, 3):
			expr = w.pick("whole list", w.lists...)
		}
		items = append(items, fmt.Sprintf("%s AS c%d", expr, i))
	}
	text := "RETURN " + w.pick("distinct", "", "", "DISTINCT ") + strings.Join(items, ", ")
	if w.chance(1, 3) {
		text += " ORDER BY c0" + w.pick("direction", "", " DESC") + w.pick("window", "", " LIMIT 2", " SKIP 1 LIMIT 1")
	}
	w.line(text)
}
