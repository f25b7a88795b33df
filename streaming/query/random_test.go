package query_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query/querytest"
)

// TestRandom holds random queries against the reference evaluator after every batch of random changes.
func TestRandom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := randomQuery(t)
		ref := newReference(text)
		s := querytest.NewSession(t, memory.New(), text, nil)
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
			require.Equal(t, ref.answer(world), s.View(), text)
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
		}
		require.Equal(t, ref.answer(world), s.View(), text)
	})
}

func randomQuery(t *rapid.T) string {
	var variables []string
	label := func(names ...string) string {
		switch rapid.IntRange(0, 3).Draw(t, "label") {
		case 0:
			return ""
		case 1:
			return ":" + strings.Join(names, "|")
		case 2:
			return ":!" + names[0]
		}
		return ":" + rapid.SampledFrom(names).Draw(t, "name")
	}
	node := func() string {
		name := rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "node")
		if name != "" {
			variables = append(variables, name)
		}
		inline := ""
		if rapid.IntRange(0, 5).Draw(t, "inline") == 0 {
			inline = " {x: 1}"
		}
		return "(" + name + label("A", "B") + inline + ")"
	}
	relationships := 0
	pattern := func(most int) string {
		p := node()
		for range rapid.IntRange(0, most).Draw(t, "hops") {
			name := ""
			if rapid.Bool().Draw(t, "named") {
				name = fmt.Sprintf("r%d", relationships)
				relationships++
				variables = append(variables, name)
			}
			inner := "[" + name + label("T", "U") + "]"
			p += rapid.SampledFrom([]string{"-" + inner + "->", "<-" + inner + "-", "-" + inner + "-"}).Draw(t, "arrow") + node()
		}
		return p
	}
	text := "MATCH " + pattern(2)
	if rapid.IntRange(0, 3).Draw(t, "more") == 0 {
		text += rapid.SampledFrom([]string{", ", "\nMATCH "}).Draw(t, "join") + pattern(1)
	}
	if len(variables) == 0 {
		return text + "\nRETURN count(*), 1 AS one"
	}
	property := func() string {
		return rapid.SampledFrom(variables).Draw(t, "variable") + "." + rapid.SampledFrom([]string{"x", "y"}).Draw(t, "property")
	}
	if rapid.Bool().Draw(t, "where") {
		text += "\nWHERE " + randomCondition(t, property, 2)
	}
	text += "\nRETURN "
	var items []string
	switch rapid.IntRange(0, 3).Draw(t, "return") {
	case 0:
		items = append(items, property(), rapid.SampledFrom(variables).Draw(t, "whole")+" AS whole", "10 / "+property()+" AS quotient")
	case 1:
		text += "DISTINCT "
		items = append(items, property(), property()+" < "+property())
	default:
		if rapid.Bool().Draw(t, "key") {
			items = append(items, property()+" AS key")
		}
		if rapid.IntRange(0, 3).Draw(t, "element key") == 0 {
			items = append(items, rapid.SampledFrom(variables).Draw(t, "whole"))
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "aggregates") {
			call := rapid.SampledFrom([]string{"count(*)", "count(%s)", "sum(%s)", "avg(%s)", "min(%s)", "max(%s)", "count(DISTINCT %s)", "sum(DISTINCT %s)"}).Draw(t, "call")
			if strings.Contains(call, "%s") {
				call = fmt.Sprintf(call, property())
			}
			items = append(items, fmt.Sprintf("%s AS a%d", call, i))
		}
	}
	for i, item := range items {
		if !strings.Contains(item, " AS ") {
			items[i] = fmt.Sprintf("%s AS c%d", item, i)
		}
	}
	return text + strings.Join(items, ", ")
}

func randomCondition(t *rapid.T, property func() string, depth int) string {
	if depth > 0 && rapid.Bool().Draw(t, "deeper") {
		op := rapid.SampledFrom([]string{" AND ", " OR ", " XOR "}).Draw(t, "connective")
		return "(" + randomCondition(t, property, depth-1) + op + "NOT " + randomCondition(t, property, depth-1) + ")"
	}
	switch rapid.IntRange(0, 4).Draw(t, "condition") {
	case 0:
		return property() + " IS NULL"
	case 1:
		return property() + " IN [1, 'a', null]"
	case 2:
		return property() + " = " + property()
	case 3:
		return "6 / " + property() + " > 2"
	}
	op := rapid.SampledFrom([]string{"<", "<=", ">", ">=", "<>"}).Draw(t, "comparison")
	return property() + " " + op + " 1"
}

// randomChange draws a change and applies it to the world.
func randomChange(t *rapid.T, world map[graph.ElementID]*graph.Element) graph.Change {
	e := graph.Element{}
	if rapid.IntRange(0, 2).Draw(t, "kind") < 2 {
		e.ID = graph.ElementID(fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(t, "id")))
		e.Labels = rapid.SampledFrom([][]string{{"A"}, {"B"}, {"A", "B"}, {"C"}}).Draw(t, "labels")
	} else {
		e.ID = graph.ElementID(fmt.Sprintf("r%d", rapid.IntRange(0, 4).Draw(t, "id")))
		e.Labels = []string{rapid.SampledFrom([]string{"T", "U", "V"}).Draw(t, "type")}
		e.Start = graph.ElementID(fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(t, "start")))
		e.End = graph.ElementID(fmt.Sprintf("n%d", rapid.IntRange(0, 4).Draw(t, "end")))
	}
	value := func() graph.Value {
		return rapid.SampledFrom([]graph.Value{
			graph.Null, graph.Int(0), graph.Int(1), graph.Int(2), graph.Int(3), graph.Float(1.25), graph.Float(2.75), graph.String("a"),
		}).Draw(t, "value")
	}
	switch rapid.IntRange(0, 5).Draw(t, "op") {
	case 0:
		delete(world, e.ID)
		return graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: e.ID, Labels: e.Labels}}
	case 1:
		if world[e.ID] == nil {
			break
		}
		old := world[e.ID]
		e.Labels, e.Start, e.End = old.Labels, old.Start, old.End
		e.Shape, e.Values = graph.NewShape("x", "y"), []graph.Value{value(), old.Get("y")}
		world[e.ID] = &e
		sent := e
		sent.Values = []graph.Value{e.Values[0], graph.Unchanged}
		return graph.Change{Op: graph.OpUpdate, Element: sent}
	case 2:
		if world[e.ID] == nil {
			break
		}
		old := world[e.ID]
		merged := *old
		merged.Values = []graph.Value{old.Get("x"), value()}
		merged.Shape = graph.NewShape("x", "y")
		world[e.ID] = &merged
		sent := merged
		sent.Shape, sent.Values = graph.NewShape("y"), merged.Values[1:]
		return graph.Change{Op: graph.OpMerge, Element: sent}
	case 3:
		if rapid.IntRange(0, 9).Draw(t, "truncate") == 0 {
			label := e.Labels[0]
			for id, other := range world {
				if other.HasLabel(label) {
					delete(world, id)
				}
			}
			return graph.Change{Op: graph.OpTruncate, Element: graph.Element{Labels: []string{label}}}
		}
	}
	e.Shape, e.Values = graph.NewShape("x", "y"), []graph.Value{value(), value()}
	world[e.ID] = &e
	return graph.Change{Op: graph.OpInsert, Element: e}
}
