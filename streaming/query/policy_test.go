package query_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/result"
)

// opened is a live query on an empty graph.
func opened(t *testing.T, text string, o query.Options) *query.Query {
	p, err := query.Compile(text, o)
	require.NoError(t, err)
	s, err := memory.New().Open("q")
	require.NoError(t, err)
	q, err := query.Open(p, s)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, q.Close()) })
	require.NoError(t, q.Begin(result.State{}))
	return q
}

// change applies changes in the notation of the scripts, at a time.
func change(t *testing.T, q *query.Query, at time.Time, text string) ([]result.Event, error) {
	transactions, err := querytest.ParseChanges(text)
	require.NoError(t, err)
	b := query.Batch{Source: "s"}
	for _, changes := range transactions {
		b.Transactions = append(b.Transactions, graph.Transaction{CommitTime: at, Changes: changes})
	}
	return q.Apply(b)
}

func rows(t *testing.T, q *query.Query) (list []string) {
	v, err := q.View()
	require.NoError(t, err)
	defer v.Close()
	require.NoError(t, v.Scan(func(row result.Row) error {
		list = append(list, graph.List(row.Values).String())
		return nil
	}))
	return list
}

// TestMalformedChanges sends what no element can be: the batch is refused with the element and nothing has happened.
func TestMalformedChanges(t *testing.T) {
	q := opened(t, "MATCH (a:A) OPTIONAL MATCH (a)-[r:T]->(b) RETURN a.x, r.x", query.Options{})
	_, err := change(t, q, time.Time{}, "+ (n:A {x: 1})\n+ (n)-[r:T {x: 2}]->(n)")
	require.NoError(t, err)
	element := func(op graph.Op, e graph.Element) graph.Change { return graph.Change{Op: op, Element: e} }
	shape := graph.NewShape("x")
	for cause, c := range map[string]graph.Change{
		"both ends":         element(graph.OpInsert, graph.Element{ID: "s", Labels: []string{"T"}, Start: "n"}),
		"a node at both":    element(graph.OpMerge, graph.Element{ID: "r", End: "n"}),
		"one type, not 0":   element(graph.OpUpdate, graph.Element{ID: "s", Start: "n", End: "n"}),
		"one type, not 2":   element(graph.OpInsert, graph.Element{ID: "s", Labels: []string{"T", "U"}, Start: "n", End: "n"}),
		"become a node":     element(graph.OpUpdate, graph.Element{ID: "r", Labels: []string{"A"}}),
		"become a relation": element(graph.OpInsert, graph.Element{ID: "n", Labels: []string{"T"}, Start: "n", End: "n"}),
		"without an id":     element(graph.OpDelete, graph.Element{Labels: []string{"A"}}),
		"more values than":  element(graph.OpInsert, graph.Element{ID: "m", Labels: []string{"A"}, Shape: shape, Values: make([]graph.Value, 2)}),
		"unknown operation": element(99, graph.Element{ID: "m", Labels: []string{"A"}}),
	} {
		before := rows(t, q)
		fine := element(graph.OpInsert, graph.Element{ID: "other", Labels: []string{"A"}})
		_, err := q.Apply(query.Batch{Source: "s", Transactions: []graph.Transaction{{Changes: []graph.Change{fine, c}}}})
		require.ErrorContains(t, err, cause)
		require.Equal(t, failure.BadRecord, failure.CodeOf(err), cause)
		require.Equal(t, before, rows(t, q), cause)
		require.EqualValues(t, 2, q.Stats().Elements)
	}
	_, err = change(t, q, time.Time{}, "- (r:T)\n+ (r:A {x: 3})") // another life
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"[1, null]", "[3, null]"}, rows(t, q))
}

func TestErrorPolicies(t *testing.T) {
	const text = "MATCH (n:N) RETURN n.x AS x, 6 / n.x AS share"
	graphs := []string{"+ (a:N {x: 2})", "+ (b:N {x: 0})"}
	for policy, want := range map[query.ErrorPolicy][]string{
		query.SkipRows: {"[2, 3]"}, query.NullRows: {"[2, 3]", "[0, null]"},
	} {
		q := opened(t, text, query.Options{OnError: policy})
		for _, g := range graphs {
			_, err := change(t, q, time.Time{}, g)
			require.NoError(t, err)
		}
		require.ElementsMatch(t, want, rows(t, q))
		require.EqualValues(t, 1, q.Stats().FailedRows)
		_, err := change(t, q, time.Time{}, "~ (b:N {x: 3})")
		require.NoError(t, err)
		require.ElementsMatch(t, []string{"[2, 3]", "[3, 2]"}, rows(t, q))
		require.Zero(t, q.Stats().FailedRows)
	}
	q := opened(t, text, query.Options{OnError: query.StopQuery})
	_, err := change(t, q, time.Time{}, graphs[0])
	require.NoError(t, err)
	_, err = change(t, q, time.Time{}, graphs[1])
	require.Equal(t, failure.RowFailed, failure.CodeOf(err))
	require.ErrorContains(t, err, "row of b")
	require.Equal(t, []string{"[2, 3]"}, rows(t, q))
	_, err = query.Compile(text, query.Options{OnError: "ignore"})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
}

// TestUnboundedPattern follows all ways through a dense graph, which are too many to follow.
func TestUnboundedPattern(t *testing.T) {
	q := opened(t, "MATCH (a:A)-[*]->(b) RETURN count(*)", query.Options{MaxPathSteps: 10_000})
	dense := ""
	for i := range 8 {
		dense += fmt.Sprintf("+ (n%d:A)\n", i)
	}
	_, err := change(t, q, time.Time{}, dense)
	require.NoError(t, err)
	for i := range 8 {
		for j := range 8 {
			if _, err = change(t, q, time.Time{}, fmt.Sprintf("+ (n%d)-[r%d%d:T]->(n%d)", i, i, j, j)); err != nil {
				require.Equal(t, failure.PatternUnbounded, failure.CodeOf(err))
				require.ErrorContains(t, err, "more than 10000 relationships")
				require.Greater(t, i, 0)
				return
			}
		}
	}
	t.Fatal("all ways were followed")
}

// TestTooManyRows asks for all combinations of what is not connected.
func TestTooManyRows(t *testing.T) {
	for _, text := range []string{
		"MATCH (a:A), (b:A), (c:A) RETURN count(*)",
		"MATCH (a:A) UNWIND range(1, 1000) AS x UNWIND range(1, 1000) AS y RETURN count(*)",
		"MATCH (a:A) WITH collect(a) AS all UNWIND all AS a UNWIND range(1, 2000) AS x RETURN count(*)",
	} {
		q := opened(t, text, query.Options{MaxRows: 1000})
		var err error
		for i := 0; i < 100 && err == nil; i++ {
			_, err = change(t, q, time.Time{}, fmt.Sprintf("+ (n%d:A)", i))
		}
		require.Equal(t, failure.TooManyRows, failure.CodeOf(err), text)
		require.ErrorContains(t, err, "more than 1000 rows")
	}
}

// TestClock evaluates now at the latest commit time, and retracts what it was evaluated to.
func TestClock(t *testing.T) {
	at := time.Date(2024, 5, 1, 12, 0, 0, 0, time.UTC)
	start := func() time.Time { return at }
	q := opened(t, "MATCH (n:N) RETURN n.x AS x, toString(datetime()) AS seen, rand() < 1 AS lucky", query.Options{Now: start})
	_, err := change(t, q, at.Add(time.Hour), "+ (a:N {x: 1})\n+ (b:N {x: 2})")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"[1, '2024-05-01T13:00Z', true]", "[2, '2024-05-01T13:00Z', true]"}, rows(t, q))
	events, err := change(t, q, at, "~ (a:N {x: 3})") // the clock does not go back
	require.NoError(t, err)
	require.Equal(t, "[1, '2024-05-01T13:00Z', true]", graph.List(events[0].Diffs[0].Before).String())
	events, err = change(t, q, at.Add(2*time.Hour), "- (b:N)")
	require.NoError(t, err)
	require.Equal(t, "[2, '2024-05-01T13:00Z', true]", graph.List(events[0].Diffs[0].Before).String())
	events, err = change(t, q, at, "~ (a:N {x: 4})")
	require.NoError(t, err)
	require.Equal(t, "[4, '2024-05-01T14:00Z', true]", graph.List(events[0].Diffs[0].After).String())
}

func TestExplainAnalyze(t *testing.T) {
	const text = "MATCH (n:N) WHERE n.x > 1 WITH n.y AS y, max(n.x) AS top RETURN y, top"
	q := opened(t, text, query.Options{Analyze: true})
	for i := range 10 {
		_, err := change(t, q, time.Time{}, fmt.Sprintf("+ (n%d:N {x: %d, y: %d})", i, i, i%3))
		require.NoError(t, err)
	}
	a, err := q.Analyze()
	require.NoError(t, err)
	by := make(map[string]query.NodeAnalysis)
	for _, n := range a.Nodes {
		by[n.Kind] = n
	}
	require.EqualValues(t, 8, by["Match"].Out)
	require.EqualValues(t, 8, by["Aggregate"].In)
	require.Positive(t, by["Aggregate"].Time)
	require.Positive(t, by["Aggregate"].State)
	require.Zero(t, by["Project"].State)
	plain, err := q.ExplainAnalyze()
	require.NoError(t, err)
	require.Contains(t, plain, "rows in")
	encoded, err := q.ExplainAnalyzeJSON()
	require.NoError(t, err)
	var decoded struct {
		Plan  struct{ Columns []string }
		Nodes []query.NodeAnalysis
	}
	require.NoError(t, json.Unmarshal(encoded, &decoded))
	require.Equal(t, []string{"y", "top"}, decoded.Plan.Columns)
	require.Equal(t, a.Nodes, decoded.Nodes)
}

// TestApplyingTellsThatItGetsOn: whoever watches a query hears of it while a transaction is applied, each part of it and
// each element.
func TestApplyingTellsThatItGetsOn(t *testing.T) {
	q := opened(t, "MATCH (a:A) RETURN count(*) AS n", query.Options{})
	heard := 0
	q.Watch(func() { heard++ })
	const parts, each = 5, 10
	_, err := q.Apply(query.Batch{Source: "s", Transactions: []graph.Transaction{{}}, Parts: func(yield func([]graph.Change) error) error {
		for part := range parts {
			require.Equal(t, part*each, heard)
			var changes []graph.Change
			for i := range each {
				id := graph.ElementID(fmt.Sprint("A:", part*each+i))
				changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: id, Labels: []string{"A"}, Shape: graph.NewShape()}})
			}
			if err := yield(changes); err != nil {
				return err
			}
		}
		return nil
	}})
	require.NoError(t, err)
	require.Equal(t, parts*each, heard)
	require.Equal(t, []string{"[50]"}, rows(t, q))
}
