package query_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/result"
)

// replica adds up events by key.
type replica map[result.RowKey][]graph.Value

func (r replica) take(t *testing.T, e *result.Event) {
	t.Helper()
	for _, d := range e.Diffs {
		was, there := r[d.Key]
		require.Equal(t, d.Op != result.Added, there, "event %d", e.Sequence)
		require.True(t, !there || slices.EqualFunc(was, d.Before, graph.Identical), "event %d", e.Sequence)
		delete(r, d.Key)
		if d.Op != result.Deleted {
			r[d.Key] = d.After
		}
	}
}

// texts returns the rows in a form that can be compared.
func (r replica) texts() map[result.RowKey]string {
	texts := make(map[result.RowKey]string, len(r))
	for key, values := range r {
		texts[key] = fmt.Sprint(values)
	}
	return texts
}

// twoSources makes changes of the sources a and b: each the same whatever the order in which they are taken.
type twoSources struct {
	random *rand.Rand
	size   int // elements of each
	offset map[string]uint64
}

func (s *twoSources) batch(source string) query.Batch {
	s.offset[source]++
	shape := graph.NewShape("x")
	b := query.Batch{Source: source, Offset: s.offset[source]}
	for range 1 + s.random.IntN(3) {
		var changes []graph.Change
		for range 1 + s.random.IntN(3) {
			c := graph.Change{Op: graph.OpInsert, Element: graph.Element{
				ID: graph.ElementID(fmt.Sprint(s.random.IntN(s.size))), Labels: []string{"N"}, Shape: shape, Values: []graph.Value{graph.Int(s.random.Int64N(40))},
			}}
			if s.random.IntN(3) == 0 {
				c.Op = graph.OpDelete
			}
			changes = append(changes, c)
		}
		b.Transactions = append(b.Transactions, graph.Transaction{Changes: changes})
	}
	return b
}

// shuffled puts the batches in another order, which keeps that of each source.
func (s *twoSources) shuffled(batches []query.Batch) []query.Batch {
	bySource := make(map[string][]query.Batch)
	order := make([]string, 0, len(batches))
	for _, b := range batches {
		bySource[b.Source] = append(bySource[b.Source], b)
		order = append(order, b.Source)
	}
	s.random.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
	again := make([]query.Batch, 0, len(batches))
	for _, source := range order {
		again = append(again, bySource[source][0])
		bySource[source] = bySource[source][1:]
	}
	return again
}

// TestRejoin sets a state back and has it take the changes since in another order: what it publishes then leads from what
// was published before, which may end anywhere, to the present result.
func TestRejoin(t *testing.T) {
	for _, text := range []string{
		"MATCH (n:N) WHERE n.x > 10 RETURN n.x AS x", "MATCH (n:N) RETURN n.x AS x, count(*) AS n", "MATCH (n:N) RETURN n.x AS x ORDER BY x LIMIT 5",
		"MATCH (n:N) RETURN collect(n.x) AS all", "MATCH (n:N) OPTIONAL MATCH (m:N) WHERE m.x = n.x + 1 RETURN n.x AS x, count(m) AS m",
	} {
		for name, backend := range map[string]index.Backend{"memory": memory.New(), "pebble": pebble.New(pebble.Options{Dir: t.TempDir()})} {
			t.Run(text+name, func(t *testing.T) {
				for seed := range uint64(20) {
					rejoin(t, backend, text, &twoSources{random: rand.New(rand.NewPCG(seed, 1)), size: 12, offset: make(map[string]uint64)}, 20)
				}
			})
		}
	}
	t.Run("many rows", func(t *testing.T) {
		s := &twoSources{random: rand.New(rand.NewPCG(1, 1)), size: 30_000, offset: make(map[string]uint64)}
		rejoin(t, memory.New(), "MATCH (n:N) RETURN n.x AS x", s, 15_000)
	})
}

func rejoin(t *testing.T, backend index.Backend, text string, s *twoSources, most int) {
	plan, err := query.Compile(text, query.Options{})
	require.NoError(t, err)
	fails := func() bool { return false }
	flaky := querytest.Flaky(backend, func() bool { return fails() })
	open := func(name string) *query.Query {
		require.NoError(t, backend.Remove(name))
		store, err := flaky.Open(name)
		require.NoError(t, err)
		q, err := query.Open(plan, store)
		require.NoError(t, err)
		require.NoError(t, q.Begin(result.State{}))
		return q
	}
	apply := func(q *query.Query, batches []query.Batch) (events []result.Event) {
		for _, b := range batches {
			made, err := q.Apply(b)
			require.NoError(t, err)
			events = append(events, made...)
		}
		return events
	}
	batches := func() (all []query.Batch) {
		for range s.random.IntN(most) {
			all = append(all, s.batch([]string{"a", "b"}[s.random.IntN(2)]))
		}
		return all
	}
	lost, q := open("lost"), open("copy")
	shared, since := batches(), batches()
	apply(lost, shared)
	known := make(replica)
	seen := uint64(0)
	take := func(q *query.Query, after uint64) {
		require.NoError(t, q.Outbox(after, func(_ uint64, encoded []byte) (bool, error) {
			e, _, err := result.DecodeEvent(encoded)
			require.NoError(t, err)
			require.Equal(t, seen+1, e.Sequence)
			seen = e.Sequence
			known.take(t, e)
			return true, nil
		}))
	}
	take(lost, 0)
	apply(q, shared)
	require.Equal(t, lost.State(), q.State())

	published := apply(lost, since)
	published = published[:s.random.IntN(len(published)+1)] // the others were lost with it
	for i := range published {
		seen = published[i].Sequence
		known.take(t, &published[i])
	}
	events := func(visit func(*result.Event) error) error {
		for i := range published {
			if err := visit(&published[i]); err != nil {
				return err
			}
		}
		return nil
	}
	before := rowsOf(t, q)
	failing := errors.New("the log cannot be read")
	_, err = q.Recall(func(visit func(*result.Event) error) error { return errors.Join(events(visit), failing) })
	require.ErrorIs(t, err, failing)
	require.Equal(t, before, rowsOf(t, q), "the result is as it was")
	recalled, err := q.Recall(events)
	require.NoError(t, err)
	require.Equal(t, before, rowsOf(t, q))
	require.Equal(t, seen, q.State().Sequence)
	others := s.shuffled(append(since, batches()...))
	if len(others) > 0 {
		fails = func() bool { return true }
		_, err := q.Apply(others[0])
		require.ErrorIs(t, err, querytest.ErrCommit)
		fails = func() bool { return false }
	}
	require.Empty(t, apply(q, others), "no events are made")
	require.Equal(t, seen, q.State().Sequence)
	state := q.State()
	require.NoError(t, q.Rejoin(recalled))
	recalled.Close()
	require.Equal(t, state.Offsets, q.State().Offsets)
	take(q, seen)
	require.Equal(t, rowsOf(t, q), known.texts())
	apply(q, batches())
	take(q, seen)
	require.Equal(t, rowsOf(t, q), known.texts(), "it goes on")
	require.NoError(t, lost.Close())
	require.NoError(t, q.Close())
}

func rowsOf(t *testing.T, q *query.Query) map[result.RowKey]string {
	t.Helper()
	view, err := q.View()
	require.NoError(t, err)
	defer view.Close()
	rows := make(replica)
	require.NoError(t, view.Scan(func(row result.Row) error {
		rows[row.Key] = row.Values
		return nil
	}))
	return rows.texts()
}
