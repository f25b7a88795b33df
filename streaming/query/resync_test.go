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

// TestResyncOfALabelGoesOnWhereItWasInterrupted takes over the elements of two sources but for one label of the first, in
// several batches, every other one of which fails to commit, with restarts in between.
func TestResyncOfALabelGoesOnWhereItWasInterrupted(t *testing.T) {
	plan, err := query.Compile("MATCH (n:N|M) RETURN n.x", query.Options{})
	require.NoError(t, err)
	open := func(b index.Backend, name string) *query.Query {
		s, err := b.Open(name)
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		return q
	}
	shape := graph.NewShape("x")
	nodes := func(label string, from, to int) (changes []graph.Change) {
		for i := from; i < to; i++ {
			changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
				ID: graph.ElementID(fmt.Sprint(label, i)), Labels: []string{label}, Shape: shape, Values: []graph.Value{graph.Int(int64(i))},
			}})
		}
		return changes
	}
	backend := pebble.New(pebble.Options{Dir: t.TempDir()})
	const rows = 10_000
	old := open(backend, "old")
	for _, source := range []string{"a", "b"} {
		require.NoError(t, old.Load(source, nil, nodes("N", 0, rows)))
		require.NoError(t, old.Load(source, nil, nodes("M", 0, 2)))
	}
	require.NoError(t, old.Seal(result.State{}, 1000))
	require.NoError(t, old.TrimOutbox(old.State().Sequence))
	published := old.State().Sequence

	commits := 0
	flaky := querytest.Flaky(backend, func() bool { commits++; return commits%2 == 0 })
	q := open(flaky, "new")
	again := func(do func() error) {
		t.Helper()
		for err := do(); err != nil; err = do() {
			require.ErrorIs(t, err, querytest.ErrCommit)
			require.NoError(t, q.Close())
			q = open(flaky, "new")
		}
	}
	again(func() error { return q.LoadFrom(old, "a", []byte("taken"), []string{"M"}) })
	again(func() error { return q.Load("a", []byte("read"), nodes("M", 1, 3)) })
	again(func() error { return q.LoadFrom(old, "b", []byte("taken"), nil) })
	require.Equal(t, "read", string(q.Token("a")))
	again(func() error {
		if q.Phase() == query.Live {
			return nil
		}
		return q.Resync(old, result.State{})
	})
	require.Greater(t, commits, 3*rows/4096)
	var diffs []string
	require.NoError(t, q.Outbox(published, func(_ uint64, encoded []byte) (bool, error) {
		e, _, err := result.DecodeEvent(encoded)
		require.NoError(t, err)
		require.False(t, e.Snapshot)
		for _, d := range e.Diffs {
			diffs = append(diffs, fmt.Sprint(d.Op, d.Before, d.After))
		}
		return true, nil
	}))
	require.ElementsMatch(t, []string{"deleted [0] []", "added [] [2]"}, diffs)
	require.EqualValues(t, 2*rows+4, q.Stats().Elements)
	require.NoError(t, old.Close())
	require.NoError(t, q.Close())
}

// TestResyncOfAnotherPlan has the result of another question take the place of one: the differences lead from one to the
// other. Elements of another plan, and a result with other columns, are refused.
func TestResyncOfAnotherPlan(t *testing.T) {
	texts := []string{
		"MATCH (n:N) WHERE n.x < 30 RETURN n.x AS x", "MATCH (n:N) WHERE n.x > 20 RETURN n.x AS x", "MATCH (n:N) RETURN n.x AS x ORDER BY x LIMIT 40",
		"MATCH (n:N) RETURN n.x % 7 AS x", "MATCH (n:N) RETURN max(n.x) AS x", "MATCH (n:N) RETURN n.x AS y",
	}
	open := func(text string) *query.Query {
		plan, err := query.Compile(text, query.Options{})
		require.NoError(t, err)
		s, err := memory.New().Open("q")
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		shape := graph.NewShape("x")
		var changes []graph.Change
		for i := range 60 {
			changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
				ID: graph.ElementID(fmt.Sprint(i)), Labels: []string{"N"}, Shape: shape, Values: []graph.Value{graph.Int(int64(i))},
			}})
		}
		require.NoError(t, q.Load("s", nil, changes))
		return q
	}
	shown := func(q *query.Query) map[result.RowKey]graph.Value {
		rows := make(map[result.RowKey]graph.Value)
		view, err := q.View()
		require.NoError(t, err)
		defer view.Close()
		require.NoError(t, view.Scan(func(row result.Row) error {
			rows[row.Key] = row.Values[0]
			return nil
		}))
		return rows
	}
	for i, from := range texts {
		for j, to := range texts {
			if i == j {
				continue
			}
			old, q := open(from), open(to)
			require.NoError(t, old.Seal(result.State{}, 1000))
			require.ErrorIs(t, q.LoadFrom(old, "s", nil, nil), query.ErrFingerprint)
			err := q.Resync(old, result.State{})
			if last := len(texts) - 1; i == last || j == last {
				require.ErrorContains(t, err, "columns")
				continue
			}
			require.NoError(t, err)
			rows := shown(old)
			require.NoError(t, q.Outbox(old.State().Sequence, func(_ uint64, encoded []byte) (bool, error) {
				e, _, err := result.DecodeEvent(encoded)
				require.NoError(t, err)
				for _, d := range e.Diffs {
					was, there := rows[d.Key]
					require.Equal(t, d.Op != result.Added, there)
					require.True(t, !there || graph.Identical(was, d.Before[0]))
					delete(rows, d.Key)
					if d.Op != result.Deleted {
						rows[d.Key] = d.After[0]
					}
				}
				return true, nil
			}))
			require.Equal(t, shown(q), rows, "%s takes the place of %s", to, from)
			require.NoError(t, old.Close())
			require.NoError(t, q.Close())
		}
	}
}
