package query_test

import (
	"fmt"
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

// TestResyncGoesOnWhereItWasInterrupted takes over a state with events that are not published yet, in several batches of
// differences, every other one of which fails to commit, with restarts in between. As many differences as a batch takes
// is the case in which the last event has none.
func TestResyncGoesOnWhereItWasInterrupted(t *testing.T) {
	const perBatch = 16384
	for _, text := range []string{"MATCH (n:N) RETURN n.x", "MATCH (n:N) RETURN n.x ORDER BY n.x"} {
		for _, rows := range []int{100, perBatch, 2*perBatch + 10} {
			for name, backend := range map[string]index.Backend{
				"memory": memory.New(), "pebble": pebble.New(pebble.Options{Dir: t.TempDir()}),
			} {
				t.Run(fmt.Sprint(text, rows, name), func(t *testing.T) { resync(t, backend, text, rows) })
			}
		}
	}
}

func resync(t *testing.T, backend index.Backend, text string, rows int) {
	plan, err := query.Compile(text, query.Options{})
	require.NoError(t, err)
	open := func(b index.Backend, name string) *query.Query {
		s, err := b.Open(name)
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		return q
	}
	shape := graph.NewShape("x")
	nodes := func(from, to, add int) (changes []graph.Change) {
		for i := from; i < to; i++ {
			changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
				ID: graph.ElementID(fmt.Sprint(i)), Labels: []string{"N"}, Shape: shape, Values: []graph.Value{graph.Int(int64(i + add))},
			}})
		}
		return changes
	}
	replica := make(map[result.RowKey]graph.Value)
	var last *result.Event
	replay := func(q *query.Query, after uint64) (events int) {
		require.NoError(t, q.Outbox(after, func(_ uint64, encoded []byte) (bool, error) {
			var err error
			last, _, err = result.DecodeEvent(encoded)
			require.NoError(t, err)
			for _, d := range last.Diffs {
				old, there := replica[d.Key]
				require.Equal(t, d.Op != result.Added, there)
				if there {
					require.True(t, graph.Identical(old, d.Before[0]))
				}
				delete(replica, d.Key)
				if d.Op != result.Deleted {
					replica[d.Key] = d.After[0]
				}
			}
			events++
			return true, nil
		}))
		return events
	}

	old := open(backend, "old")
	require.NoError(t, old.Load("s", nil, nodes(0, rows, 0)))
	require.NoError(t, old.Seal(result.State{}, 1000))
	replay(old, 0)
	_, err = old.Apply(query.Batch{Source: "s", Offset: 1, Transactions: []graph.Transaction{{Changes: nodes(rows, rows+1, 0)}}})
	require.NoError(t, err)
	published := old.State().Sequence - 1 // the row that was added is not
	require.NoError(t, old.TrimOutbox(published))
	_, err = old.Apply(query.Batch{Source: "s", Offset: 2})
	require.NoError(t, err)

	commits := 0
	flaky := querytest.Flaky(backend, func() bool { commits++; return commits%2 == 0 })
	q := open(flaky, "new")
	require.NoError(t, q.Load("s", nil, nodes(1, rows, 7))) // the first is gone, the last, too, all others differ
	for {
		err := q.Resync(old, result.State{Offsets: map[string]uint64{"s": 9}})
		if err == nil {
			break
		}
		require.ErrorIs(t, err, querytest.ErrCommit)
		require.NoError(t, q.Close())
		if q = open(flaky, "new"); q.Phase() == query.Live {
			break
		}
	}
	require.Greater(t, commits, 3)
	replay(q, published)
	require.Len(t, replica, rows-1)
	require.False(t, last.More)
	require.Equal(t, q.State().Sequence, last.Sequence)
	require.EqualValues(t, 9, q.State().Offsets["s"])
	view, err := q.View()
	require.NoError(t, err)
	require.NoError(t, view.Scan(func(row result.Row) error {
		require.True(t, graph.Identical(row.Values[0], replica[row.Key]))
		return nil
	}))
	view.Close()
	require.NoError(t, old.Close())
	require.NoError(t, q.Close())
}

// TestResyncOfAnotherPlanIsRefused: rows of different plans have nothing in common.
func TestResyncOfAnotherPlanIsRefused(t *testing.T) {
	states := make([]*query.Query, 2)
	for i, text := range []string{"MATCH (n:N) RETURN n.x", "MATCH (n:N) RETURN n.y"} {
		plan, err := query.Compile(text, query.Options{})
		require.NoError(t, err)
		s, err := memory.New().Open("q")
		require.NoError(t, err)
		states[i], err = query.Open(plan, s)
		require.NoError(t, err)
		defer states[i].Close()
	}
	require.NoError(t, states[0].Begin(result.State{}))
	require.NoError(t, states[1].Load("s", nil, nil))
	require.ErrorIs(t, states[1].Resync(states[0], result.State{}), query.ErrFingerprint)
}
