package store_test

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// wants is what a plan might want: elements labelled A are found by scan 0 and by x, those labelled B by scan 1, C is of
// no use, and all relationships are.
func wants(labels []string, relationship bool) store.Relevance {
	r := store.Relevance{Positions: []uint64{0}, Properties: []string{"x"}}
	switch {
	case relationship:
		r.Positions[0] = 4
	case slices.Contains(labels, "A"):
		r.Scans = append(r.Scans, 0)
		r.Positions[0] |= 1
	}
	if slices.Contains(labels, "B") && !relationship {
		r.Scans = append(r.Scans, 1)
		r.Positions[0] |= 2
		r.All = true
	}
	return r
}

// TestElements puts, replaces and removes elements at random and compares everything that can be asked with a plain map,
// through the caches, through caches too small for anything, and after a restart.
func TestElements(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		backend := memory.Sized(rapid.SampledFrom([]int{1 << 20, 0}).Draw(t, "records"))
		s, err := backend.Open("test")
		require.NoError(t, err)
		open := func(count int64) *store.Elements {
			e := store.NewElements(wants, []store.Index{{Scan: 0, Property: "x"}}, rapid.SampledFrom([]int{1 << 20, 0}).Draw(t, "cache"))
			require.NoError(t, e.Load(s, count))
			return e
		}
		elements := open(0)
		world := make(map[graph.ElementID]*graph.Element)
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			b := s.NewBatch()
			e := anyElement(t)
			old, err := elements.Get(b, e.ID)
			require.NoError(t, err)
			var now *store.Element
			if rapid.IntRange(0, 3).Draw(t, "delete") > 0 {
				now, err = elements.Prune(b, e, nil, false)
				require.NoError(t, err)
			}
			if old != nil || now != nil {
				require.NoError(t, elements.Put(b, old, now))
			}
			if rapid.IntRange(0, 5).Draw(t, "discard") == 0 {
				elements.Get(b, e.ID) //nolint:errcheck // what it finds must not outlive the batch
				b.Discard()
				require.NoError(t, elements.Load(s, int64(len(world))))
			} else {
				require.NoError(t, b.Commit())
				b.Discard()
				delete(world, e.ID)
				if now != nil {
					world[e.ID] = e
				}
			}
			if rapid.IntRange(0, 5).Draw(t, "restart") == 0 {
				require.NoError(t, s.Close())
				s, err = backend.Open("test")
				require.NoError(t, err)
				elements = open(elements.Count())
			}
			b = s.NewBatch()
			compare(t, b, elements, world)
			b.Discard()
		}
	})
}

func anyElement(t *rapid.T) *graph.Element {
	e := &graph.Element{Shape: graph.NewShape("x", "y"), Values: []graph.Value{
		rapid.SampledFrom([]graph.Value{graph.Null, graph.Int(1), graph.Float(1), graph.String("s")}).Draw(t, "x"), graph.Int(7),
	}}
	if rapid.Bool().Draw(t, "node") {
		e.ID = graph.ElementID(fmt.Sprint("n", rapid.IntRange(0, 3).Draw(t, "id")))
		e.Labels = rapid.SampledFrom([][]string{{"A"}, {"B"}, {"A", "B"}, {"C"}, nil}).Draw(t, "labels")
		return e
	}
	end := func(name string) graph.ElementID {
		return graph.ElementID(fmt.Sprint("n", rapid.IntRange(0, 3).Draw(t, name)))
	}
	e.ID = graph.ElementID(fmt.Sprint("r", rapid.IntRange(0, 3).Draw(t, "id")))
	e.Labels, e.Start, e.End = []string{rapid.SampledFrom([]string{"T", "U"}).Draw(t, "type")}, end("start"), end("end")
	return e
}

func compare(t *rapid.T, r index.Batch, elements *store.Elements, world map[graph.ElementID]*graph.Element) {
	require.EqualValues(t, len(world), elements.Count())
	var ids, a, b, ones []graph.ElementID
	out, in := make(map[graph.ElementID][]string), make(map[graph.ElementID][]string)
	for _, id := range slices.Sorted(maps.Keys(world)) {
		e := world[id]
		got, err := elements.Get(r, id)
		require.NoError(t, err)
		require.Equal(t, e.Labels, got.Labels)
		require.True(t, graph.Identical(e.Get("x"), got.Get("x")))
		require.Equal(t, got.Relevance().All, !got.Get("y").IsNull(), "what is not wanted is not kept")
		ids = append(ids, id)
		if e.IsRelationship() {
			out[e.Start] = append(out[e.Start], fmt.Sprint(e.Labels[0], id, e.End))
			in[e.End] = append(in[e.End], fmt.Sprint(e.Labels[0], id, e.Start))
			continue
		}
		if e.HasLabel("A") {
			a = append(a, id)
			if same := graph.Equal(e.Get("x"), graph.Int(1)); !same.IsNull() && same.AsBool() {
				ones = append(ones, id)
			}
		}
		if e.HasLabel("B") {
			b = append(b, id)
		}
	}
	var scanned []graph.ElementID
	require.NoError(t, elements.Scan(r, "", func(e *store.Element) (bool, error) {
		scanned = append(scanned, e.ID)
		return true, nil
	}))
	require.Equal(t, ids, scanned)
	for scan, want := range [][]graph.ElementID{a, b} {
		got, err := elements.Class(r, scan)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	found, err := elements.Find(r, 0, graph.Float(1))
	require.NoError(t, err)
	require.Equal(t, ones, found)
	found, err = elements.Find(r, 0, graph.Null)
	require.NoError(t, err)
	require.Empty(t, found)
	for i := range 4 {
		id := graph.ElementID(fmt.Sprint("n", i))
		node, err := elements.Get(r, id)
		require.NoError(t, err)
		if node == nil {
			continue
		}
		for direction, want := range []map[graph.ElementID][]string{store.Outgoing: out, store.Incoming: in} {
			list, err := elements.Neighbours(r, node, byte(direction))
			require.NoError(t, err)
			var got []string
			for i, n := range list {
				got = append(got, fmt.Sprint(elements.TypeName(n.Type), n.Relationship, n.Node))
				there, err := elements.Neighbour(r, &list[i])
				require.NoError(t, err)
				if world[n.Node] == nil {
					require.Nil(t, there)
				} else {
					require.Equal(t, world[n.Node].Labels, there.Labels)
				}
				require.EqualValues(t, 4, elements.TypeRelevance(n.Type).Positions[0])
			}
			slices.Sort(got)
			slices.Sort(want[id])
			require.Equal(t, want[id], got)
		}
	}
}
