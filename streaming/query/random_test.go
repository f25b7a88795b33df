package query_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/query/reftest"
)

const (
	randomQueries = 2000
	randomBatches = 10 // of each query
)

// TestRandom holds random queries against the reference evaluator after every batch of random changes.
//
// The environment variable PERDURE_SOAK makes it run for a duration, such as 1h, with other queries each time.
func TestRandom(t *testing.T) {
	duration := time.Duration(0)
	if s := os.Getenv("PERDURE_SOAK"); s != "" {
		var err error
		duration, err = time.ParseDuration(s)
		require.NoError(t, err)
	} else {
		setFlag(t, "rapid.seed", "20") // the same queries each time
	}
	setFlag(t, "rapid.checks", strconv.Itoa(randomQueries))
	n := counts{dir: t.TempDir()}
	for start := time.Now(); ; {
		before := n
		rapid.Check(t, func(t *rapid.T) { checkRandom(t, &n) })
		if !testing.Short() {
			require.GreaterOrEqual(t, n.batches-before.batches, randomQueries*randomBatches)
		}
		if time.Since(start) >= duration {
			break
		}
	}
	t.Logf("%d batches, %d with rows; %d of %d queries refused; %d answers left open by the query; %d resyncs of some labels",
		n.batches, n.rows, n.refused, n.queries, n.open, n.partly)
	require.Positive(t, n.partly)
	require.Less(t, n.refused, n.queries/20, "too many random queries are refused")
	require.Less(t, n.open, n.batches/10, "too many answers are left open")
}

// setFlag sets a flag for one test.
func setFlag(t *testing.T, name, value string) {
	f := flag.Lookup(name)
	old := f.Value.String()
	t.Cleanup(func() { require.NoError(t, f.Value.Set(old)) })
	require.NoError(t, f.Value.Set(value))
}

// counts says what a run was worth.
type counts struct {
	queries, refused, batches int
	open                      int // answers that the query does not determine
	rows                      int // batches after which there were rows
	partly                    int // resyncs of some labels

	dir string // for stores
}

// trial is a query under random changes.
type trial struct {
	*rapid.T
	query   reftest.Query
	columns []string
	ref     *reftest.Reference
	world   *reftest.World
	session *querytest.Session
	counts  *counts
}

// Errorf fails with what is needed to make a script of the failure.
func (r *trial) Errorf(format string, args ...any) {
	r.T.Errorf("%s\n\nThe query:\n\n%s\n\nWhat happened:\n\n%s", fmt.Sprintf(format, args...), r.query.Text, r.world.Story())
}

func checkRandom(t *rapid.T, n *counts) {
	r := &trial{T: t, world: reftest.NewWorld(), counts: n}
	r.query, r.columns = acceptedQuery(t, n)
	var err error
	r.ref, err = reftest.New(r.query.Text, nil)
	require.NoError(t, err)
	r.session = querytest.NewSession(r, r.backend(), r.query.Text, nil)
	t.Cleanup(r.session.Close)
	if rapid.Bool().Draw(t, "load") {
		changes := r.world.Fill(t)
		r.world.Tell("load")
		r.session.Load(changes)
	} else {
		r.session.Begin()
	}
	r.check()
	for i := range randomBatches - 2 { // besides the first and the last
		before := maps.Clone(r.world.Elements)
		var transactions [][]graph.Change
		if i == 0 && len(r.world.Elements) == 0 {
			transactions = append(transactions, r.world.Fill(t))
			r.world.Tell("commit")
		}
		for range rapid.IntRange(1, 2).Draw(t, "transactions") {
			transactions = append(transactions, r.world.Transaction(t, 4))
			r.world.Tell("commit")
		}
		if rapid.IntRange(0, 4).Draw(t, "restart") == 4 {
			r.session.Reopen()
			r.world.Tell("restart")
		}
		switch rapid.IntRange(0, 9).Draw(t, "missed") {
		case 9:
			r.session.Resync(r.world.Inserts())
			r.world.Tell("none of them arrives; resync")
			require.Empty(t, r.session.Resync(r.world.Inserts()), "differences to the same")
		case 8:
			r.missLabels(before)
		default:
			r.session.Apply(transactions...)
			r.world.Tell("apply")
		}
		r.check()
	}
	r.session.Apply(r.world.Clear(t))
	r.check()
	r.requireNothingLeft()
}

// missLabels is what happens when the changes of elements with some labels do not arrive.
func (r *trial) missLabels(before map[graph.ElementID]*graph.Element) {
	labels := rapid.SliceOfDistinct(rapid.SampledFrom([]string{"A", "B", "C", "T", "U", "V"}), rapid.ID).Draw(r.T, "labels")
	missed := func(e *graph.Element) bool { return slices.ContainsFunc(labels, e.HasLabel) }
	snapshot := r.world.Inserts()
	changes := slices.Clone(snapshot)
	snapshot = slices.DeleteFunc(snapshot, func(c graph.Change) bool { return !missed(&c.Element) })
	changes = slices.DeleteFunc(changes, func(c graph.Change) bool { return missed(&c.Element) })
	for _, id := range slices.Sorted(maps.Keys(before)) {
		if r.world.Elements[id] == nil && !missed(before[id]) {
			changes = append(changes, graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: id, Labels: before[id].Labels}})
		}
	}
	r.world.Tell(fmt.Sprintf("those of elements with %v do not arrive; resync", labels))
	r.session.ResyncLabels(labels, snapshot, changes)
	require.Empty(r.T, r.session.ResyncLabels(labels, snapshot, nil), "differences to the same")
	r.counts.partly++
}

// backend returns one in memory or, at times, on disk, which may have room for few records only and fail now and then.
func (r *trial) backend() index.Backend {
	every := rapid.SampledFrom([]int{0, 0, 0, 2, 3}).Draw(r.T, "failing")
	if every == 0 {
		return r.sound()
	}
	commits := 0
	return querytest.Flaky(r.sound(), func() bool {
		commits++
		return commits%every == 0
	})
}

func (r *trial) sound() index.Backend {
	records := rapid.SampledFrom([]int{1 << 20, 1 << 20, 2000, 300}).Draw(r.T, "records")
	if rapid.IntRange(0, 99).Draw(r.T, "backend") < 99 {
		return memory.Sized(records)
	}
	dir, err := os.MkdirTemp(r.counts.dir, "")
	require.NoError(r, err)
	return pebble.New(pebble.Options{Dir: dir, CacheBytes: 1 << 20, RecordBytes: records})
}

// acceptedQuery draws queries until the engine accepts one.
func acceptedQuery(t *rapid.T, n *counts) (reftest.Query, []string) {
	for {
		q := reftest.NewQuery(t)
		n.queries++
		plan, err := query.Compile(q.Text, query.Options{})
		if err == nil {
			return q, plan.Columns()
		}
		n.refused++
		t.Logf("refused: %v", err)
	}
}

// check holds the view, which the session has held against the events, against the reference.
func (r *trial) check() {
	r.counts.batches++
	if r.session.Query.Stats().Rows > 0 {
		r.counts.rows++
	}
	answer := r.ref.Answer(r.world.Elements, r.columns)
	var rows [][]graph.Value
	for _, row := range r.session.Rows() {
		rows = append(rows, row.Values)
	}
	if problem := answer.Check(rows, r.query.UsesOrder); problem != "" {
		require.FailNow(r, problem)
	}
	if !answer.Determined(r.query.UsesOrder) {
		r.counts.open++
		r.requireFresh()
	}
}

// requireFresh compares the view with that of the same query on the graph as it is: where a query does not say which
// rows it wants, the engine still says so, whatever has been before.
func (r *trial) requireFresh() {
	fresh := querytest.NewSession(r, memory.New(), r.query.Text, nil)
	defer fresh.Close()
	fresh.Load(r.world.Inserts())
	require.Equal(r, fresh.View(), r.session.View(), "a query that just started answers something else")
}

// requireNothingLeft looks for state that belongs to what has been deleted.
func (r *trial) requireNothingLeft() {
	empty := querytest.NewSession(r, memory.New(), r.query.Text, nil)
	defer empty.Close()
	empty.Begin()
	want, got := empty.Query.Stats(), r.session.Query.Stats()
	require.Zero(r, got.Elements)
	require.Equal(r, want.FailedRows, got.FailedRows)
	failures, err := r.session.Query.Failures(1 << 20)
	require.NoError(r, err)
	require.Len(r, failures, int(want.FailedRows))
	state, err := empty.Query.Analyze()
	require.NoError(r, err)
	left, err := r.session.Query.Analyze()
	require.NoError(r, err)
	require.Equal(r, state, left, "state of each node")
}

func randomChange(t *rapid.T, world map[graph.ElementID]*graph.Element) graph.Change {
	w := reftest.World{Elements: world}
	return w.Change(t)
}

// randomQuery draws a query that the engine accepts.
func randomQuery(t *rapid.T) string {
	q, _ := acceptedQuery(t, &counts{})
	return q.Text
}
