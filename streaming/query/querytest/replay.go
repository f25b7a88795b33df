package querytest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
)

// shuffles is in how many orders the elements of a story arrive.
const shuffles = 3

func replay(t *testing.T, s *story) {
	t.Run("restarts", func(t *testing.T) { restarts(t, s, memory.New()) })
	t.Run("pebble", func(t *testing.T) { restarts(t, s, pebble.New(pebble.Options{Dir: t.TempDir(), CacheBytes: 1 << 20})) })
	t.Run("oneByOne", func(t *testing.T) { oneByOne(t, s) })
	t.Run("split", func(t *testing.T) { split(t, s) })
	t.Run("merged", func(t *testing.T) { merged(t, s) })
}

func open(t *testing.T, s *story, backend index.Backend) *Session {
	q := NewSession(t, backend, s.text, s.parameters)
	t.Cleanup(q.Close)
	return q
}

func requireView(t *testing.T, s *story, q *Session, at int, text string) {
	t.Helper()
	require.Equal(t, s.views[at], q.View(), "%s\n%s, after batch %d", s.text, text, at)
}

// restarts closes and opens the query between any two batches.
func restarts(t *testing.T, s *story, backend index.Backend) {
	q := open(t, s, backend)
	q.Load(s.elements)
	for i, transactions := range s.batches {
		q.Reopen()
		requireView(t, s, q, i, "reopened")
		q.Apply(transactions...)
	}
	q.Reopen()
	requireView(t, s, q, len(s.batches), "reopened")
	deleteAll(t, s, q)
}

// oneByOne starts the query before there is data, which comes in transactions of one element in any order, with
// elements between that look like others and go away again.
func oneByOne(t *testing.T, s *story) {
	for seed := range uint64(shuffles) {
		random := rand.New(rand.NewPCG(seed, 0))
		q := open(t, s, memory.New())
		q.Begin()
		shuffled := slices.Clone(s.elements)
		noise := noiseOf(s.elements)
		all := append(shuffled, noise...)
		random.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		for _, c := range all {
			q.Apply([]graph.Change{c})
		}
		random.Shuffle(len(noise), func(i, j int) { noise[i], noise[j] = noise[j], noise[i] })
		for _, c := range noise {
			q.Apply([]graph.Change{{Op: graph.OpDelete, Element: graph.Element{ID: c.Element.ID, Labels: c.Element.Labels}}})
		}
		requireView(t, s, q, 0, fmt.Sprintf("one by one with seed %d", seed))
		for i, transactions := range s.batches {
			q.Apply(transactions...)
			requireView(t, s, q, i+1, "one by one")
		}
		deleteAll(t, s, q)
	}
}

// noiseOf returns elements that differ from the given ones in nothing but their ids.
func noiseOf(elements []graph.Change) []graph.Change {
	noise := slices.Clone(elements)
	for i := range noise {
		noise[i].Element.ID += "~noise"
		if i%2 == 0 && noise[i].Element.Start != "" {
			noise[i].Element.Start += "~noise"
		}
	}
	return noise
}

// split makes a transaction of each change, and a batch of each transaction. An element that one transaction creates
// and removes may then show up in between; the answer in the end is the same.
func split(t *testing.T, s *story) {
	q := open(t, s, memory.New())
	q.Load(s.elements)
	for i, transactions := range s.batches {
		for _, changes := range transactions {
			for _, c := range changes {
				q.Apply([]graph.Change{c})
			}
		}
		requireView(t, s, q, i+1, "split")
	}
}

// merged makes one transaction of everything.
func merged(t *testing.T, s *story) {
	q := open(t, s, memory.New())
	q.Begin()
	changes := slices.Clone(s.elements)
	for _, transactions := range s.batches {
		changes = append(changes, slices.Concat(transactions...)...)
	}
	q.Apply(changes)
	requireView(t, s, q, len(s.batches), "merged")
}

// deleteAll takes out every element that was ever there: what remains is the answer on an empty graph.
func deleteAll(t *testing.T, s *story, q *Session) {
	seen := make(map[graph.ElementID]bool)
	changes := slices.Clone(s.elements)
	for _, transactions := range s.batches {
		changes = append(changes, slices.Concat(transactions...)...)
	}
	for _, c := range changes {
		if id := c.Element.ID; id != "" && !seen[id] {
			seen[id] = true
			q.Apply([]graph.Change{{Op: graph.OpDelete, Element: graph.Element{ID: id, Labels: c.Element.Labels}}})
		}
	}
	empty := open(t, s, memory.New())
	empty.Begin()
	require.Equal(t, empty.View(), q.View(), "%s\nafter everything was deleted", s.text)
	stats := q.Query.Stats()
	require.Zero(t, stats.Elements)
	require.Equal(t, empty.Query.Stats().FailedRows, stats.FailedRows)
}
