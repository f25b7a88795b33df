package reftest

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
)

// World is a graph that changes, as plainly as can be: what a change does to it is written down once more here.
type World struct {
	Elements map[graph.ElementID]*graph.Element
	story    strings.Builder
}

// NewWorld returns an empty graph.
func NewWorld() *World { return &World{Elements: make(map[graph.ElementID]*graph.Element)} }

// Story returns all changes drawn so far, in the language of scripts.
func (w *World) Story() string { return w.story.String() }

// Inserts returns changes that make the graph as it is now.
func (w *World) Inserts() (changes []graph.Change) {
	for _, id := range slices.Sorted(maps.Keys(w.Elements)) {
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: *w.Elements[id]})
	}
	return changes
}

// Tell adds a line to the story.
func (w *World) Tell(line string) { fmt.Fprintln(&w.story, line) }

// Transaction draws changes that belong together and applies them.
func (w *World) Transaction(t *rapid.T, most int) (changes []graph.Change) {
	for range rapid.IntRange(1, most).Draw(t, "changes") {
		c := w.Change(t)
		changes = append(changes, c)
		w.Tell(changeText(&c))
	}
	return changes
}

// Fill draws changes that insert most of the elements that there may be.
func (w *World) Fill(t *rapid.T) (changes []graph.Change) {
	for i := range nodes + relationships {
		if once(t, 5) {
			continue
		}
		e := w.relationship(t, i-nodes)
		if i < nodes {
			e = w.node(t, i)
		}
		w.Elements[e.ID] = &e
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: e})
		w.Tell(changeText(&changes[len(changes)-1]))
	}
	return changes
}

// Clear deletes all elements, in any order, and some that are not there.
func (w *World) Clear(t *rapid.T) (changes []graph.Change) {
	ids := slices.Sorted(maps.Keys(w.Elements))
	for _, id := range rapid.Permutation(append(ids, "n0", "r0")).Draw(t, "deletions") {
		c := graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: id, Labels: []string{"A"}}}
		delete(w.Elements, id)
		changes = append(changes, c)
		w.Tell(changeText(&c))
	}
	return changes
}

const (
	nodes         = 4
	relationships = 6
)

func pick[E any](t *rapid.T, list ...E) E { return rapid.SampledFrom(list).Draw(t, "pick") }

// once is true once in n times; when an example is made smaller it becomes false.
func once(t *rapid.T, n int) bool { return rapid.IntRange(0, n-1).Draw(t, "once") == n-1 }

func nodeID(t *rapid.T) graph.ElementID {
	return graph.ElementID(fmt.Sprintf("n%d", rapid.IntRange(0, nodes-1).Draw(t, "node")))
}

// value draws one of few values, so that equal ones meet.
func value(t *rapid.T) graph.Value {
	return pick(t, graph.Int(1), graph.Int(1), graph.Int(2), graph.Int(2), graph.Int(0), graph.Int(3), graph.Float(1), graph.Float(2.5),
		graph.String("a"), graph.Null, graph.Bool(true))
}

var (
	shape      = graph.NewShape("x", "y")
	otherShape = graph.NewShape("z", "y", "x")
)

func (w *World) node(t *rapid.T, number int) graph.Element {
	e := graph.Element{
		ID: graph.ElementID(fmt.Sprintf("n%d", number)), Shape: shape, Values: []graph.Value{value(t), value(t)},
		Labels: pick(t, []string{"A"}, []string{"A", "B"}, []string{"B"}, []string{"C"}, nil),
	}
	switch {
	case once(t, 10):
		e.Shape, e.Values = otherShape, append([]graph.Value{value(t)}, e.Values...)
	case once(t, 20):
		e.Shape, e.Values = nil, nil
	}
	return e
}

func (w *World) relationship(t *rapid.T, number int) graph.Element {
	return graph.Element{
		ID: graph.ElementID(fmt.Sprintf("r%d", number)), Shape: shape, Values: []graph.Value{value(t), value(t)},
		Labels: []string{pick(t, "T", "T", "U", "U", "V")}, Start: nodeID(t), End: nodeID(t),
	}
}

// Change draws a change and applies it.
func (w *World) Change(t *rapid.T) graph.Change {
	e := w.relationship(t, rapid.IntRange(0, relationships-1).Draw(t, "relationship"))
	if once(t, 2) {
		e = w.node(t, rapid.IntRange(0, nodes-1).Draw(t, "node"))
	}
	old := w.Elements[e.ID]
	switch op := pick(t, 9, 8, 7, 6, 5, 4, 3, 2, 1); {
	case op == 1:
		delete(w.Elements, e.ID)
		return graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: e.ID, Labels: e.Labels}}
	case op == 2 && once(t, 6) && len(e.Labels) > 0:
		maps.DeleteFunc(w.Elements, func(_ graph.ElementID, other *graph.Element) bool { return other.HasLabel(e.Labels[0]) })
		return graph.Change{Op: graph.OpTruncate, Element: graph.Element{Labels: e.Labels[:1]}}
	case op < 5 && old != nil:
		return w.partly(t, old, e)
	case op == 5:
		w.Elements[e.ID] = &e
		return graph.Change{Op: graph.OpUpdate, Element: e}
	}
	w.Elements[e.ID] = &e
	return graph.Change{Op: graph.OpInsert, Element: e}
}

// partly changes one property of an element that is there, and may move a relationship. Labels stay: of elements whose
// labels no query asks for nothing is stored, so that a source has to send them whole when their labels change.
func (w *World) partly(t *rapid.T, old *graph.Element, e graph.Element) graph.Change {
	e.Labels = old.Labels
	if !once(t, 3) {
		e.Start, e.End = old.Start, old.End
	}
	x := value(t)
	now, sent := e, e
	w.Elements[e.ID] = &now
	if rapid.Bool().Draw(t, "merge") { // what is not sent stays
		now.Shape, now.Values = otherShape, []graph.Value{old.Get("z"), old.Get("y"), x}
		sent.Shape, sent.Values = graph.NewShape("x"), []graph.Value{x}
		return graph.Change{Op: graph.OpMerge, Element: sent}
	}
	now.Shape, now.Values = shape, []graph.Value{x, old.Get("y")}
	sent.Shape, sent.Values = shape, []graph.Value{x, graph.Unchanged}
	return graph.Change{Op: graph.OpUpdate, Element: sent}
}

var signs = map[graph.Op]string{graph.OpInsert: "+", graph.OpUpdate: "=", graph.OpMerge: "~", graph.OpDelete: "-"}

// changeText writes a change as scripts do.
func changeText(c *graph.Change) string {
	e := &c.Element
	if c.Op == graph.OpTruncate {
		return "truncate " + strings.Join(e.Labels, " ")
	}
	inner := string(e.ID)
	for _, l := range e.Labels {
		inner += ":" + l
	}
	var properties []string
	for i, v := range e.Values {
		properties = append(properties, e.Shape.Names()[i]+": "+v.String())
	}
	if len(properties) > 0 {
		inner += " {" + strings.Join(properties, ", ") + "}"
	}
	if e.IsRelationship() {
		return fmt.Sprintf("%s (%s)-[%s]->(%s)", signs[c.Op], e.Start, inner, e.End)
	}
	return fmt.Sprintf("%s (%s)", signs[c.Op], inner)
}
