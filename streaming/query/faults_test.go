package query_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const faultsText = "MATCH (a:A)-[:T]->(b:A) RETURN a.x % 7 AS k, count(*), max(b.x), sum(b.x)"

// live loads a graph, seals and applies batches while commits fail in a pattern; after a failure the step is tried
// again, on the same query or on a reopened one. It returns all events, encoded.
func live(t *testing.T, backend index.Backend, every int, reopen bool) (events []string) {
	plan, err := query.Compile(faultsText, query.Options{})
	require.NoError(t, err)
	commits := 0
	fail := func() bool {
		commits++
		return every > 0 && commits%every != 0
	}
	open := func() *query.Query {
		s, err := querytest.Flaky(backend, fail).Open("q")
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		return q
	}
	q := open()
	try := func(step func() error) {
		for err := step(); err != nil; err = step() {
			require.ErrorIs(t, err, querytest.ErrCommit)
			if reopen {
				require.NoError(t, q.Close())
				q = open()
			}
		}
	}
	var changes []graph.Change
	shape := graph.NewShape("x")
	for i := range 5000 {
		id := graph.ElementID(fmt.Sprintf("n%d", i))
		changes = append(changes,
			graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: id, Labels: []string{"A"}, Shape: shape, Values: []graph.Value{graph.Int(int64(i))}}},
			graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: "r" + id, Labels: []string{"T"}, Start: id, End: graph.ElementID(fmt.Sprintf("n%d", i*7%5000))}})
	}
	try(func() error { return q.Load("s", []byte("token"), changes) })
	state := result.State{Positions: map[string]graph.Position{"s": "5"}, Offsets: map[string]uint64{"s": 9}}
	try(func() error {
		if q.Phase() == query.Live { // the last commit of Seal was the one that failed to be reported
			return nil
		}
		return q.Seal(state, 3)
	})
	require.Equal(t, graph.Position("5"), q.State().Positions["s"])
	for i := range uint64(20) {
		b := query.Batch{Source: "s", Offset: 10 + i, Transactions: []graph.Transaction{
			{Changes: []graph.Change{updated(changes[i*26]), changes[i*14], {Op: graph.OpDelete, Element: graph.Element{ID: changes[i*22].Element.ID, Labels: []string{"A"}}}}},
			{Changes: []graph.Change{{Op: graph.OpDelete, Element: graph.Element{ID: changes[i*30+1].Element.ID, Labels: []string{"T"}}}}},
		}}
		try(func() error { _, err := q.Apply(b); return err })
	}
	require.EqualValues(t, 29, q.State().Offsets["s"])
	require.NoError(t, q.Outbox(0, func(_ uint64, encoded []byte) (bool, error) {
		events = append(events, string(encoded))
		return true, nil
	}))
	require.NoError(t, q.Close())
	return events
}

// updated gives an element another value.
func updated(c graph.Change) graph.Change {
	c.Op, c.Element.Values = graph.OpUpdate, []graph.Value{graph.Int(c.Element.Values[0].AsInt() + 10_000)}
	return c
}

// TestFailedCommits holds the events of a life with failing commits and restarts against those of an untroubled one.
func TestFailedCommits(t *testing.T) {
	want := live(t, memory.New(), 0, false)
	require.Greater(t, len(want), 20)
	for name, backend := range map[string]func() index.Backend{
		"memory":      memory.New,
		"few records": func() index.Backend { return memory.Sized(5000) },
		"pebble":      func() index.Backend { return pebble.New(pebble.Options{Dir: t.TempDir()}) },
	} {
		require.Equal(t, want, live(t, backend(), 3, false), name)
		require.Equal(t, want, live(t, backend(), 2, true), name)
	}
}

// TestViewWhileApplying reads views in another goroutine: each is the answer at one moment.
func TestViewWhileApplying(t *testing.T) {
	for _, backend := range []index.Backend{memory.New(), pebble.New(pebble.Options{Dir: t.TempDir()})} {
		plan, err := query.Compile("MATCH (n:N) RETURN n.x", query.Options{})
		require.NoError(t, err)
		s, err := backend.Open("q")
		require.NoError(t, err)
		q, err := query.Open(plan, s)
		require.NoError(t, err)
		require.NoError(t, q.Begin(result.State{}))
		done := make(chan error)
		go func() { // joined below
			var err error
			for last := uint64(0); err == nil && last < 200; {
				var v *query.View
				if v, err = q.View(); err != nil {
					break
				}
				rows := uint64(0)
				err = v.Scan(func(result.Row) error { rows++; return nil })
				if last = v.State().Sequence; err == nil && rows != last {
					err = fmt.Errorf("%d rows after event %d", rows, last)
				}
				v.Close()
			}
			done <- err
		}()
		for i := range uint64(200) {
			e := graph.Element{ID: graph.ElementID(fmt.Sprint(i)), Labels: []string{"N"}}
			_, err := q.Apply(query.Batch{Source: "s", Offset: i + 1, Transactions: []graph.Transaction{{Changes: []graph.Change{{Op: graph.OpInsert, Element: e}}}}})
			require.NoError(t, err)
		}
		require.NoError(t, <-done)
		require.NoError(t, q.Close())
	}
}

func TestFingerprint(t *testing.T) {
	backend := memory.New()
	compile := func(text string, parameters map[string]graph.Value) *query.Plan {
		p, err := query.Compile(text, query.Options{Parameters: parameters})
		require.NoError(t, err)
		return p
	}
	p := compile("MATCH (n:N) WHERE n.x > $min RETURN n.x AS x", map[string]graph.Value{"min": graph.Int(1)})
	s, err := backend.Open("q")
	require.NoError(t, err)
	q, err := query.Open(p, s)
	require.NoError(t, err)
	require.NoError(t, q.Begin(result.State{}))
	for _, other := range []*query.Plan{
		compile("MATCH (n:N) WHERE n.x > $min RETURN n.x AS x", map[string]graph.Value{"min": graph.Float(1)}),
		compile("MATCH (n:N) WHERE n.x > 1 RETURN n.x AS x", nil),
		compile("MATCH (n:N) WHERE n.x > $min RETURN n.x", map[string]graph.Value{"min": graph.Int(1)}),
	} {
		_, err := query.Open(other, s)
		require.ErrorIs(t, err, query.ErrFingerprint)
	}
	const inside = "MATCH (n:N) WHERE EXISTS { (n)-->(m) WHERE COUNT { (m)-->({x: $min}) } > 1 } RETURN n.x"
	one, two := map[string]graph.Value{"min": graph.Int(1)}, map[string]graph.Value{"min": graph.Int(2)}
	require.NotEqual(t, compile(inside, one).Fingerprint(), compile(inside, two).Fingerprint())
	_, err = query.Open(compile("match (n:N)\nwhere n.x > $min // same\nreturn n.x as x", map[string]graph.Value{"min": graph.Int(1), "unused": graph.Null}), s)
	require.NoError(t, err)
	require.NoError(t, q.Close())
}

func TestNeeds(t *testing.T) {
	needs := func(text string) map[string][]string {
		p, err := query.Compile(text, query.Options{})
		require.NoError(t, err)
		return p.Needs()
	}
	n := needs("MATCH (a:A|B)-[r:T]->(c:C&D) WHERE a.x > 1 AND a.x < c.z RETURN a.y, r")
	require.Equal(t, map[string][]string{"A": {"x", "y"}, "B": {"x", "y"}, "T": {"*"}, "C": {"z"}}, n)
	n = needs("MATCH (a:A)-->(b) RETURN count(b), a.x")
	require.Equal(t, map[string][]string{"": {}, "A": {"x"}}, n)
}

// TestSources keeps elements of two sources with the same id apart.
func TestSources(t *testing.T) {
	plan, err := query.Compile("MATCH (a:A), (b:B) WHERE a.k = b.k RETURN a.v, b.v", query.Options{})
	require.NoError(t, err)
	s, err := memory.New().Open("q")
	require.NoError(t, err)
	q, err := query.Open(plan, s)
	require.NoError(t, err)
	require.NoError(t, q.Begin(result.State{}))
	shape := graph.NewShape("k", "v")
	apply := func(source string, op graph.Op, label, v string) []result.Event {
		e := graph.Element{ID: "1", Labels: []string{label}, Shape: shape, Values: []graph.Value{graph.Int(7), graph.String(v)}}
		events, err := q.Apply(query.Batch{Source: source, Transactions: []graph.Transaction{{Changes: []graph.Change{{Op: op, Element: e}}}}})
		require.NoError(t, err)
		return events
	}
	require.Empty(t, apply("one", graph.OpInsert, "A", "a"))
	events := apply("two", graph.OpInsert, "B", "b")
	require.Len(t, events, 1)
	require.Equal(t, "'b'", events[0].Diffs[0].After[1].String())
	require.Empty(t, apply("two", graph.OpTruncate, "A", ""))
	require.Len(t, apply("two", graph.OpTruncate, "B", ""), 1)
	require.EqualValues(t, 1, q.Stats().Elements)
	_, err = q.Apply(query.Batch{Source: "one", Transactions: []graph.Transaction{{Changes: []graph.Change{{Op: 99}}}}})
	require.Equal(t, failure.BadRecord, failure.CodeOf(err))
	require.EqualValues(t, 1, q.Stats().Elements)
	require.NoError(t, q.Close())
}

func TestTrimOutbox(t *testing.T) {
	plan, err := query.Compile("MATCH (n:N) RETURN n.x", query.Options{})
	require.NoError(t, err)
	s, err := memory.New().Open("q")
	require.NoError(t, err)
	q, err := query.Open(plan, s)
	require.NoError(t, err)
	require.NoError(t, q.Begin(result.State{}))
	insert := func(i int) {
		e := graph.Element{ID: graph.ElementID(fmt.Sprint(i)), Labels: []string{"N"}}
		_, err := q.Apply(query.Batch{Source: "s", Transactions: []graph.Transaction{{Changes: []graph.Change{{Op: graph.OpInsert, Element: e}}}}})
		require.NoError(t, err)
	}
	left := func() (list []uint64) {
		require.NoError(t, q.Outbox(0, func(sequence uint64, _ []byte) (bool, error) {
			list = append(list, sequence)
			return true, nil
		}))
		return list
	}
	for i := range 5 {
		insert(i)
	}
	require.Equal(t, []uint64{1, 2, 3, 4, 5}, left())
	require.NoError(t, q.TrimOutbox(3))
	require.Equal(t, []uint64{4, 5}, left())
	insert(5)
	require.Equal(t, []uint64{4, 5, 6}, left())
	require.NoError(t, q.TrimOutbox(99))
	require.Empty(t, left())
	insert(6)
	require.Equal(t, []uint64{7}, left())
	require.NoError(t, q.Close())
}

// TestLargeEvents has a transaction that makes more than fits into one event.
func TestLargeEvents(t *testing.T) {
	s := querytest.NewSession(t, memory.New(), "MATCH (a:A) RETURN a.x AS x", nil)
	defer s.Close()
	s.Begin()
	var changes []graph.Change
	for i := range 100 {
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
			ID: graph.ElementID(fmt.Sprint("n", i)), Labels: []string{"A"}, Shape: graph.NewShape("x"),
			Values: []graph.Value{graph.String(strings.Repeat(fmt.Sprint(i%10), 100_000))},
		}})
	}
	events := s.Apply(changes)
	require.Greater(t, len(events), 4)
	rows := 0
	for i := range events {
		rows += len(events[i].Diffs)
		require.Equal(t, i+1 < len(events), events[i].More)
	}
	require.Equal(t, len(changes), rows)
}
