package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

var late = component.QuerySpec{
	Name: "late", Sources: []string{"shop"}, Bootstrap: "none",
	Query:      "MATCH (i:Item) WHERE i.amount > $least RETURN i.id AS id, i.name AS name, i.amount AS amount",
	Parameters: map[string]json.RawMessage{"least": json.RawMessage("10")},
}

// wanted is the answer to the query late on the book as it is now.
func (b *book) wanted() map[string]string { return b.wantedAbove(10) }

func (b *book) wantedAbove(least int64) map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	rows := make(map[string]string)
	for _, e := range b.elements {
		if e.HasLabel("Item") && e.Get("amount").AsInt() > least {
			rows[fmt.Sprint(e.Get("id").AsInt())] = fmt.Sprintf(`{"id":%d,"name":"%s","amount":%d}`,
				e.Get("id").AsInt(), e.Get("name").AsString(), e.Get("amount").AsInt())
		}
	}
	return rows
}

// shown reads the query's view.
func (r *rig) shown(query string) (map[string]string, result.State, error) {
	rows := make(map[string]string)
	var columns []string
	var state result.State
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	err := NewResults(r.conn, "").Snapshot(ctx, query, func(c []string, s result.State) error {
		columns, state = c, s
		return nil
	}, func(row result.Row) error {
		text := string(result.RowJSON(columns, row))
		rows[fmt.Sprint(row.Values[0].AsInt())] = text
		return nil
	})
	return rows, state, err
}

// replayed adds up the result log: sequences without gap or repetition, each difference fitting the rows before it.
func (r *rig) replayed(query string) (map[string]string, uint64) {
	r.t.Helper()
	log, err := r.conn.OpenLog(r.t.Context(), resultLog("default", query))
	require.NoError(r.t, err)
	last, err := log.Last(r.t.Context())
	require.NoError(r.t, err)
	rows := make(map[string]string)
	if last == nil {
		return rows, 0
	}
	reader, err := log.Read(r.t.Context(), 0)
	require.NoError(r.t, err)
	defer reader.Close()
	var sequence uint64
	for {
		m, err := reader.Next(r.t.Context())
		require.NoError(r.t, err)
		events, err := result.DecodeMessage(m.Data)
		require.NoError(r.t, err)
		for _, e := range events {
			if isAnew(e) {
				require.Greater(r.t, e.Sequence, sequence)
				clear(rows)
			} else {
				require.Equal(r.t, sequence+1, e.Sequence)
			}
			sequence = e.Sequence
			text := func(values []graph.Value) string {
				return string(result.RowJSON(e.Columns, result.Row{Values: values}))
			}
			for _, d := range e.Diffs { // in no order: what comes may look like what goes
				if d.Before != nil {
					id := fmt.Sprint(d.Before[0].AsInt())
					require.Equal(r.t, rows[id], text(d.Before), "event %d", sequence)
					delete(rows, id)
				}
			}
			for _, d := range e.Diffs {
				if d.After != nil {
					id := fmt.Sprint(d.After[0].AsInt())
					require.Empty(r.t, rows[id], "event %d", sequence)
					rows[id] = text(d.After)
				}
			}
		}
		if m.Sequence >= last.Sequence {
			return rows, sequence
		}
	}
}

// caughtUp waits until the query has seen everything in the book and its results are in the log. It returns the sequence
// of the last one.
func (r *rig) caughtUp(query string) uint64 {
	r.t.Helper()
	return r.caughtUpWith(query, r.book.end())
}

// caughtUpWith waits until the query has seen everything up to a position of its source.
func (r *rig) caughtUpWith(query string, end graph.Position) uint64 {
	r.t.Helper()
	var sequence uint64
	eventually(r.t, func() bool {
		_, state, err := r.shown(query)
		sequence = state.Sequence
		return err == nil && state.Positions["shop"].Compare(end) >= 0
	}, "the query has seen everything")
	eventually(r.t, func() bool {
		log, err := r.conn.OpenLog(r.t.Context(), resultLog("default", query))
		require.NoError(r.t, err)
		last, err := lastSequence(r.t.Context(), log)
		require.NoError(r.t, err)
		return last == sequence
	}, "the last result is published")
	return sequence
}

// settled waits until the query has caught up, and checks view and result log against the model.
func (r *rig) settled(query string) {
	r.t.Helper()
	r.settledAt(query, r.book.end(), r.book.wanted())
}

// settledAt waits until the query has seen everything up to a position of its source, and checks view and result log
// against the rows that are wanted then.
func (r *rig) settledAt(query string, end graph.Position, wanted map[string]string) {
	r.t.Helper()
	r.caughtUpWith(query, end)
	rows, state, err := r.shown(query)
	require.NoError(r.t, err)
	require.Equal(r.t, wanted, rows)
	replayed, sequence := r.replayed(query)
	require.Equal(r.t, wanted, replayed)
	require.Equal(r.t, state.Sequence, sequence)
}

// scribble commits so many random transactions.
func (b *book) scribble(random *rand.Rand, transactions int) {
	for range transactions {
		var changes []graph.Change
		for range 1 + random.IntN(3) {
			id := random.IntN(60)
			op := graph.OpInsert
			switch random.IntN(6) {
			case 0:
				op = graph.OpDelete
			case 1, 2:
				op = graph.OpUpdate
			}
			changes = append(changes, item(op, "Item", id, fmt.Sprint("n", random.IntN(5)), random.IntN(25)))
		}
		b.commit(changes...)
	}
}

func TestQueryEndToEnd(t *testing.T) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.book.commit(item(graph.OpInsert, "Item", 1, "a", 20), item(graph.OpInsert, "Item", 2, "b", 5))
	r.book.commit(item(graph.OpUpdate, "Item", 2, "b", 11))
	r.book.commit(item(graph.OpDelete, "Item", 1, "", 0))
	r.settled("late")
	_, state, err := r.shown("late")
	require.NoError(t, err)
	require.Equal(t, uint64(3), state.Sequence)
	query.drained()
	source.drained()
	require.WithinDuration(t, time.Now(), query.status.LastTick(), 10*time.Second)
}

func TestQuerySurvivesBeingCutOffAnywhere(t *testing.T) {
	for _, backend := range []string{"memory", "pebble"} {
		t.Run(backend, func(t *testing.T) {
			r := newRig(t)
			if backend == "pebble" {
				r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
			}
			source := r.startSource()
			eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
			first := r.startQuery(late)
			eventually(t, func() bool { return first.status.Snapshot().Phase == "following" }, "the query runs")
			random := rand.New(rand.NewPCG(3, 4))
			stop := make(chan struct{})
			var writer sync.WaitGroup
			writer.Go(func() {
				for {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						r.book.scribble(random, 5)
					}
				}
			})
			first.kill()
			pauses := rand.New(rand.NewPCG(5, 6))
			for range 20 {
				running := r.startQuery(late)
				time.Sleep(time.Duration(pauses.IntN(60)) * time.Millisecond)
				if pauses.IntN(4) == 0 {
					source.kill()
					source = r.startSource()
				}
				running.kill()
			}
			close(stop)
			writer.Wait()
			last := r.startQuery(late)
			r.settled("late")
			last.drained()
			source.drained()
		})
	}
}

func TestQueryResumesAfterDrainWithoutDoingAnythingAgain(t *testing.T) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 100)
	r.settled("late")
	query.drained()
	_, before := r.replayed("late")
	query = r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.settled("late")
	query.drained()
	_, after := r.replayed("late")
	require.Equal(t, before, after)
	source.drained()
}

func TestOldAttemptOfQueryIsFencedOff(t *testing.T) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	old := r.startQuery(late)
	eventually(t, func() bool { return old.status.Snapshot().Phase == "following" }, "the first attempt works")
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 50)
	require.NoError(t, r.conn.BumpFence(t.Context(), late.ID().String(), stream.Epoch{Generation: 1000}))
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.result()))
	r.attempts.Store(1001)
	young := r.startQuery(late)
	r.settled("late")
	young.drained()
	source.drained()
}

// TestOldAttemptLeavesTheRecordAlone has an attempt that was frozen go on with the record as it knew it.
func TestOldAttemptLeavesTheRecordAlone(t *testing.T) {
	r := newRig(t)
	src := r.readySource()
	query := r.startQuery(late)
	r.settled("late")
	query.drained()

	h := r.host()
	records, err := h.bucket(t.Context(), queriesBucket)
	require.NoError(t, err)
	old, young := &queryRun{host: h, id: late.ID(), attempt: r.attempt(late.ID())}, &queryRun{host: h, id: late.ID(), attempt: r.attempt(late.ID())}
	known, err := old.claim(t.Context(), records)
	require.NoError(t, err)
	record, err := young.claim(t.Context(), records)
	require.NoError(t, err)
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.setNext(t.Context(), records, &known, "default/late/old")), "before the newer one has written")
	require.NoError(t, young.setNext(t.Context(), records, &record, "default/late/young"))
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.put(t.Context(), records, known)))
	_, err = old.claim(t.Context(), records)
	require.Equal(t, failure.FencedOff, failure.CodeOf(err))
	require.Equal(t, record, r.record())

	require.NoError(t, young.setNext(t.Context(), records, &record, ""))
	query = r.startQuery(late)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestQueryPutsLargeTransactionsTogether(t *testing.T) {
	t.Run("held", func(t *testing.T) { together(t, 300, "short", 1) })
	t.Run("read again", func(t *testing.T) { together(t, 1200, "short", 1) })
	t.Run("in several events", func(t *testing.T) { together(t, 1200, strings.Repeat("y", 10_000), 8) })
}

// together commits a transaction that creates items with long names and renames them.
func together(t *testing.T, items int, name string, events uint64) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	text := strings.Repeat("x", 10_000)
	var changes []graph.Change
	for i := range items {
		changes = append(changes, item(graph.OpInsert, "Item", i, text, i))
	}
	for i := range items {
		changes = append(changes, item(graph.OpUpdate, "Item", i, name, i+1))
	}
	r.book.commit(changes...)
	r.settled("late")
	_, state, err := r.shown("late")
	require.NoError(t, err)
	require.Equal(t, events, state.Sequence, "one transaction, one event, unless that is too large")
	query.drained()
	source.drained()
}

func TestViewsWhileBatchesGoOn(t *testing.T) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	// Transactions move one unit between two items: a view between two transactions would show another sum.
	r.book.commit(item(graph.OpInsert, "Item", 1, "a", 1000), item(graph.OpInsert, "Item", 2, "b", 1000))
	r.settled("late")
	stop := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for i := 0; ; i = (i + 1) % 500 {
			select {
			case <-stop:
				return
			default:
				r.book.commit(item(graph.OpUpdate, "Item", 1, "a", 1000+i), item(graph.OpUpdate, "Item", 2, "b", 1000-i))
				time.Sleep(100 * time.Microsecond)
			}
		}
	})
	var sequence uint64
	for range 50 {
		sum := int64(0)
		err := NewResults(r.conn, "").Snapshot(t.Context(), "late", func(_ []string, s result.State) error {
			require.GreaterOrEqual(t, s.Sequence, sequence)
			sequence = s.Sequence
			return nil
		}, func(row result.Row) error {
			sum += row.Values[2].AsInt()
			return nil
		})
		require.NoError(t, err)
		require.Equal(t, int64(2000), sum)
	}
	close(stop)
	writer.Wait()
	query.drained()
	source.drained()
}

func TestQueryRefusals(t *testing.T) {
	r := newRig(t)
	h := r.host()
	a := r.attempt(late.ID())
	_, err := h.RunQuery(t.Context(), a, late)
	require.Equal(t, failure.SourceMissing, failure.CodeOf(err))
	bad := late
	bad.Query = "MATCH (i:Item RETURN i"
	require.Equal(t, failure.QueryInvalid, failure.CodeOf(h.ValidateQuery(t.Context(), bad)))
	require.NoError(t, h.ValidateQuery(t.Context(), late))
	require.NoError(t, h.ProvisionSource(t.Context(), shop))
	auto := late
	auto.Bootstrap = "auto"
	outcome, err := h.RunQuery(t.Context(), r.attempt(late.ID()), auto)
	require.NoError(t, err)
	require.Equal(t, NeedsBootstrap, outcome)
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(h.ValidateSource(t.Context(), component.SourceSpec{Name: "x", Kind: "nothing"})))
	require.NoError(t, h.TeardownQuery(t.Context(), late))
}

// age drops all that a log holds, as its bound of time does while nothing comes.
func (r *rig) age(log string) {
	js, err := jetstream.New(r.conn.NATS())
	require.NoError(r.t, err)
	s, err := js.Stream(r.t.Context(), log)
	require.NoError(r.t, err)
	require.NoError(r.t, s.Purge(r.t.Context()))
}

// TestEmptyResultLogIsNoNewBeginning lets the events of a query that was built anew age out of its result log.
func TestEmptyResultLogIsNoNewBeginning(t *testing.T) {
	r, source := newReading(t, 20)
	query := r.startQuery(auto)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	random := rand.New(rand.NewPCG(1, 2))
	r.book.scribble(random, 20)
	r.caughtUp("late")
	query.drained()
	r.bootstrapAs(auto, BootstrapRef{ID: "again", Rebuild: true})
	query = r.startQuery(auto)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	w := r.watch()
	var before uint64
	for range 5 { // commits, of which all but the last are no longer in the outbox
		r.book.scribble(random, 20)
		before = r.caughtUp("late")
	}
	query.drained()
	require.Greater(t, before, uint64(rebuiltAfter))
	eventually(t, func() bool { return w.seen() == before }, "all is seen")

	r.age(resultLog("default", "late"))
	query = r.startQuery(auto)
	eventually(t, func() bool { return len(query.done) > 0 || query.status.Snapshot().Phase == "following" }, "the query runs")
	require.Empty(t, query.done, "the query ended")
	r.book.scribble(random, 20)
	after := r.caughtUp("late")
	require.Greater(t, after, before)
	query.drained()
	for sequence, encoded := range r.published() {
		event, _, err := result.DecodeEvent([]byte(encoded))
		require.NoError(t, err)
		require.False(t, isAnew(event), "event %d", sequence)
	}
	eventually(t, func() bool { return len(w.done) > 0 || w.seen() == after }, "all is seen")
	require.Empty(t, w.done, "the series ended")
	source.drained()
}

// TestAlternatingSourcesLeaveTimeForTheRest keeps two sources busy in turns, so that no two messages fit one commit.
func TestAlternatingSourcesLeaveTimeForTheRest(t *testing.T) {
	r := newRig(t)
	spec := late
	spec.Sources = []string{"shop", "store"}
	plan, err := compile(spec)
	require.NoError(t, err)
	for round := range 20 { // one of two ready channels may be the one to drain at once
		store, err := r.index.Open(fmt.Sprint("alternating", round))
		require.NoError(t, err)
		q, err := query.Open(plan, store)
		require.NoError(t, err)
		require.NoError(t, q.Begin(result.State{Offsets: map[string]uint64{"shop": 0, "store": 0}}))
		const each = 100
		batches := make(chan message, 2*each)
		for offset := uint64(1); offset <= each; offset++ {
			for _, source := range spec.Sources {
				batches <- message{Batch: query.Batch{Source: source, Offset: offset}}
			}
		}
		drain := make(chan struct{})
		close(drain)
		run := &queryRun{
			attempt: Attempt{Drain: drain, Progress: &Progress{}}, spec: spec, plan: plan, query: q,
			out: newOutlet(func() *events { return &events{} }, nil, nil), metrics: telemetry.NewMetrics("").Query("default", "late"),
		}
		err = run.apply(t.Context(), batches, nil, make(chan result.State, 1), func() {})
		require.ErrorIs(t, err, errDrained)
		require.NotEmpty(t, batches, "it drained before it had taken everything")

		// Each source was taken in order and without a gap, whatever waited elsewhere.
		offsets := q.State().Offsets
		require.LessOrEqual(t, offsets["store"], offsets["shop"])
		require.LessOrEqual(t, offsets["shop"], offsets["store"]+1)
		require.NoError(t, q.Close())
	}
}

// TestWhatCouldNotBeToldIsToldAgain takes the bucket away in which an idle query says what it no longer needs.
func TestWhatCouldNotBeToldIsToldAgain(t *testing.T) {
	r := newRig(t)
	h := r.host()
	_, err := h.bucket(t.Context(), subscriptionsBucket)
	require.NoError(t, err)
	fence, err := r.conn.Acquire(t.Context(), late.ID().String(), stream.Epoch{Generation: 1}, "me")
	require.NoError(t, err)
	js, err := jetstream.New(r.conn.NATS())
	require.NoError(t, err)
	require.NoError(t, js.DeleteKeyValue(t.Context(), subscriptionsBucket))

	run := &queryRun{host: h, id: late.ID(), fence: fence, logs: map[string]*stream.Log{"shop": nil}}
	synced := make(chan result.State)
	g := newGroup(t.Context())
	g.run(func(ctx context.Context) error { return run.keep(ctx, synced) })
	defer g.stop()
	synced <- result.State{Offsets: map[string]uint64{"shop": 7}}
	require.Error(t, run.tell(t.Context(), result.State{}, map[string]subscription{}), "there is no bucket")
	_, err = r.conn.Bucket(t.Context(), stream.BucketOptions{Name: subscriptionsBucket})
	require.NoError(t, err)
	eventually(t, func() bool { return r.subscribed().Offset == 7 }, "it is told")
}

// TestBeginningWithoutRowsHoldsOnToChanges looks at what is on record once a query without bootstrap has its beginning.
func TestBeginningWithoutRowsHoldsOnToChanges(t *testing.T) {
	r := newRig(t)
	source := r.readySource()
	position := r.book.commit(item(graph.OpInsert, "Item", 1, "x", 20))
	eventually(t, func() bool { return r.book.confirmedAt() == position }, "it is durable")
	log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
	require.NoError(t, err)
	plan, err := compile(late)
	require.NoError(t, err)
	run := &queryRun{
		host: r.host(), attempt: r.attempt(late.ID()), spec: late, id: late.ID(), plan: plan, logs: map[string]*stream.Log{"shop": log},
	}
	open, err := run.open(t.Context())
	require.NoError(t, err)
	require.True(t, open)
	defer run.query.Close()
	offset := run.query.State().Offsets["shop"]
	require.NotZero(t, offset)
	require.Equal(t, offset, r.subscribed().Offset)
	source.drained()
}

// TestAnotherSourceIsNoNewBeginning changes the source of a query whose events have aged out of its result log.
func TestAnotherSourceIsNoNewBeginning(t *testing.T) {
	r := newRig(t)
	source := r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	b, err := r.host().bucket(t.Context(), subscriptionsBucket)
	require.NoError(t, err)
	query.drained()
	const many = 5 * rebuiltAfter
	_, err = write(t.Context(), b, subscriptionKey("default", "shop", "late"), subscription{Offset: 1, Sequence: many})
	require.NoError(t, err)
	r.age(resultLog("default", "late"))

	other := late
	other.Sources = []string{"store"}
	other.Query = "MATCH (i:Item) WHERE i.amount > $least RETURN i.id AS id"
	h := r.host()
	store := component.SourceSpec{Name: "store", Kind: "book"}
	second := r.start(store.ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, store) })
	eventually(t, func() bool { return h.SourceReady(t.Context(), "default", "store") == nil }, "the source has a log")
	query = r.startQuery(other)
	eventually(t, func() bool { return query.status.Snapshot().Sequence > many }, "its numbers go on")
	keys, err := b.Keys(t.Context(), "default.shop.")
	require.NoError(t, err)
	require.Empty(t, keys)
	query.drained()
	second.drained()
	source.drained()
}

// TestStateOfOtherSourcesIsNotTaken changes nothing but the source of a query that has state.
func TestStateOfOtherSourcesIsNotTaken(t *testing.T) {
	r := newRig(t)
	source := r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.book.commit(item(graph.OpInsert, "Item", 1, "x", 20))
	r.settled("late")
	query.drained()

	other := late
	other.Sources = []string{"store"}
	h := r.host()
	require.NoError(t, h.ProvisionSource(t.Context(), component.SourceSpec{Name: "store", Kind: "book"}))
	query = r.startQuery(other)
	eventually(t, func() bool {
		rows, state, err := r.shown("late")
		return err == nil && len(rows) == 0 && state.Sequence > rebuiltAfter
	}, "rows of the former source are gone")
	query.drained()
	source.drained()
}
