package query_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/result"
)

// These are the traps that a script, which sorts rows and sees queries as lines, cannot show; the others are in
// testdata/traps-*.test.

// TestRowsHaveOneOrder brings the same elements in many orders: the rows come in one, also where ORDER BY leaves it open
// or is missing, and LIMIT and collect choose the same ones.
func TestRowsHaveOneOrder(t *testing.T) {
	var changes []graph.Change
	shape := graph.NewShape("x", "y")
	for i := range 20 {
		id := graph.ElementID(fmt.Sprintf("n%d", i))
		values := []graph.Value{graph.Int(int64(i % 3)), graph.Int(int64(i))}
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: id, Labels: []string{"N"}, Shape: shape, Values: values}})
	}
	for _, text := range []string{
		"MATCH (n:N) RETURN n.y",
		"MATCH (n:N) RETURN n.y ORDER BY n.x",
		"MATCH (n:N) RETURN n.x, n.y LIMIT 5",
		"MATCH (n:N) RETURN DISTINCT n.x",
		"MATCH (n:N) RETURN n.x, count(*)",
		"MATCH (n:N) RETURN n.x, collect(n.y)",
		"MATCH (n:N) WITH n ORDER BY n.x SKIP 3 LIMIT 9 RETURN collect(n.y)",
		"MATCH (n:N) RETURN n.y AS v UNION ALL MATCH (n:N) RETURN n.x AS v",
	} {
		var want []string
		for seed := range uint64(5) {
			for _, backend := range []index.Backend{memory.New(), pebble.New(pebble.Options{Dir: t.TempDir()})} {
				shuffled := slices.Clone(changes)
				rand.New(rand.NewPCG(seed, 0)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
				s := querytest.NewSession(t, backend, text, nil)
				s.Begin()
				for _, c := range shuffled {
					s.Apply([]graph.Change{c})
				}
				got := rows(t, s.Query)
				if want == nil {
					want = got
				}
				require.Equal(t, want, got, text)
				s.Close()
			}
		}
	}
}

// TestLayout goes on with another layout of the text where the first one stopped, with all that it had stored.
func TestLayout(t *testing.T) {
	backend := memory.New()
	open := func(text string) *query.Query {
		p, err := query.Compile(text, query.Options{})
		require.NoError(t, err)
		s, err := backend.Open("q")
		require.NoError(t, err)
		q, err := query.Open(p, s)
		require.NoError(t, err)
		return q
	}
	const text = "MATCH (a:A) WITH a.g AS g, count(*) AS n, collect(a.x) AS xs WHERE n > 1 RETURN g, n, xs ORDER BY n DESC LIMIT 3"
	q := open(text)
	require.NoError(t, q.Begin(result.State{}))
	_, err := change(t, q, time.Time{}, "+ (a:A {g: 1, x: 1})")
	require.NoError(t, err)
	require.NoError(t, q.Close())

	lines := strings.NewReplacer(" WITH", "\n// Groups\n  WITH", " WHERE", "\n\tWHERE", " RETURN", " /* those */ RETURN", "count(*)", "count( * )").Replace(text)
	for i, other := range []string{lines, strings.ReplaceAll(lines, "\n", "\r\n"), strings.ToLower(text[:6]) + text[6:] + " ;", text} {
		q = open(other)
		_, err = change(t, q, time.Time{}, fmt.Sprintf("+ (b%d:A {g: 1, x: %d})", i, i+2))
		require.NoError(t, err)
		require.Len(t, rows(t, q), 1)
		require.Contains(t, rows(t, q)[0], fmt.Sprintf("[1, %d, [", i+2))
		require.NoError(t, q.Close())
	}
}

// TestLineEnds reads texts whose lines end in \n, \r\n or \r: they are the same query, and problems are found in the same
// lines.
func TestLineEnds(t *testing.T) {
	const (
		text   = "MATCH (a:A) // all\nWHERE a.x > 1 /* or\nmore */\nRETURN a.x AS x,\n  'two\nlines' AS s\n"
		broken = "MATCH (a:A) // all\nWHERE a.x >\nRETURN b.x\n"
	)
	want, err := query.Compile(text, query.Options{})
	require.NoError(t, err)
	_, problem := query.Compile(broken, query.Options{})
	require.ErrorContains(t, problem, "3:1: expected an expression, found the keyword RETURN")
	crlf := func(text string) string { return strings.ReplaceAll(text, "\n", "\r\n") }
	got, err := query.Compile(strings.Replace(crlf(text), "two\r\n", "two\n", 1), query.Options{})
	require.NoError(t, err)
	require.Equal(t, want.Fingerprint(), got.Fingerprint())
	_, err = query.Compile(crlf(broken), query.Options{})
	require.EqualError(t, err, problem.Error())
	q := opened(t, crlf("MATCH (a:A)\nRETURN 'two\nlines' AS s"), query.Options{})
	_, err = change(t, q, time.Time{}, "+ (a:A)")
	require.NoError(t, err)
	require.Len(t, rows(t, q), 1) // a text is what it says
}

// TestBatchIsOneCommit applies batches of which every second fails at its commit. The result set, the outbox and how far
// the source is are of one moment, before the batch or behind it, for a query that is opened then too.
func TestBatchIsOneCommit(t *testing.T) {
	backend := memory.New()
	p, err := query.Compile("MATCH (a:A) OPTIONAL MATCH (a)-[:T]->(b) RETURN a.x AS x, count(b) AS n", query.Options{})
	require.NoError(t, err)
	commits, failing := 0, false
	fail := func() bool { commits++; return failing }
	open := func() *query.Query {
		s, err := querytest.Flaky(backend, fail).Open("q")
		require.NoError(t, err)
		q, err := query.Open(p, s)
		require.NoError(t, err)
		return q
	}
	moment := func(q *query.Query) string {
		events := 0
		require.NoError(t, q.Outbox(0, func(uint64, []byte) (bool, error) { events++; return true, nil }))
		return fmt.Sprint(rows(t, q), q.State(), q.Stats().Rows, q.Stats().Elements, events)
	}
	q := open()
	require.NoError(t, q.Begin(result.State{}))
	for i := range uint64(5) {
		transactions, err := querytest.ParseChanges(fmt.Sprintf("+ (n%d:A {x: %d})\ncommit\n+ (n%d)-[r%d:T]->(n0)", i, i, i, i))
		require.NoError(t, err)
		b := query.Batch{Source: "s", Offset: i + 1, Position: graph.Position(fmt.Sprint(i))}
		for _, changes := range transactions {
			b.Transactions = append(b.Transactions, graph.Transaction{Changes: changes})
		}
		before := moment(q)
		failing = true
		_, err = q.Apply(b)
		require.ErrorIs(t, err, querytest.ErrCommit)
		require.Equal(t, before, moment(q))
		require.NoError(t, q.Close())
		q = open()
		require.Equal(t, before, moment(q))

		commits, failing = 0, false
		events, err := q.Apply(b)
		require.NoError(t, err)
		require.Len(t, events, 2)
		require.Equal(t, 1, commits)
		behind := moment(q)
		require.NotEqual(t, before, behind)
		require.NoError(t, q.Close())
		q = open()
		require.Equal(t, behind, moment(q))
	}
	require.NoError(t, q.Close())
}
