package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

var auto = component.QuerySpec{
	Name: "late", Sources: []string{"shop"}, Query: late.Query, Parameters: late.Parameters,
}

// holder is a snapshot that is being held.
type holder struct {
	position graph.Position
	cancel   context.CancelFunc
	done     chan error
}

func (r *rig) hold(ref BootstrapRef) *holder {
	ctx, cancel := context.WithCancel(context.Background())
	h := &holder{cancel: cancel, done: make(chan error, 1)}
	ready := make(chan graph.Position, 1)
	host := r.host()
	go func() {
		h.done <- host.HoldSnapshot(ctx, ref, r.source, func(p graph.Position) error { ready <- p; return nil }, func() {})
	}()
	select {
	case h.position = <-ready:
	case <-time.After(10 * time.Second):
		r.t.Fatal("no snapshot")
	}
	r.t.Cleanup(cancel)
	return h
}

func (h *holder) release(t testing.TB) {
	h.cancel()
	require.NoError(t, <-h.done)
}

// copyAll runs so many workers until all chunks are copied.
func (r *rig) copyAll(ref BootstrapRef, workers int) {
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			_, err := r.host().CopyChunks(r.t.Context(), ref, r.source, fmt.Sprint("worker", i), func(CopyProgress) {})
			if err != nil {
				r.t.Error(err)
			}
		})
	}
	wg.Wait()
}

// bootstrap does all of it.
func (r *rig) bootstrap(id string) {
	r.t.Helper()
	r.bootstrapAs(r.query, BootstrapRef{ID: id})
}

// bootstrapAs does it for a query, with what a ref says beside names.
func (r *rig) bootstrapAs(query component.QuerySpec, ref BootstrapRef) {
	r.t.Helper()
	h := r.host()
	ref.Instance, ref.Query, ref.Source, ref.SnapshotGeneration = "default", query.Name, "shop", 1
	_, err := h.Subscribe(r.t.Context(), ref, query)
	require.NoError(r.t, err)
	snapshot := r.hold(ref)
	_, err = h.PlanChunks(r.t.Context(), ref, r.source, query)
	require.NoError(r.t, err)
	r.copyAll(ref, 3)
	require.NoError(r.t, h.VerifyBootstrap(r.t.Context(), ref, r.source, func() {}))
	position, _, err := h.SealBootstrap(r.t.Context(), ref)
	require.NoError(r.t, err)
	require.Equal(r.t, snapshot.position, position)
	snapshot.release(r.t)
}

// busy keeps writing until the returned function is called.
func (r *rig) busy() (stop func()) {
	random := rand.New(rand.NewPCG(7, 8))
	return busily(func() { r.book.scribble(random, 2) })
}

// busily writes again and again until it is stopped.
func busily(write func()) (stop func()) {
	done := make(chan struct{})
	var writer sync.WaitGroup
	writer.Go(func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(200 * time.Microsecond):
				write()
			}
		}
	})
	return func() {
		close(done)
		writer.Wait()
	}
}

// stock fills the book with rows that were there before anybody looked.
func (r *rig) stock(rows int) {
	for i := range rows {
		r.book.commit(item(graph.OpInsert, "Item", i, fmt.Sprint("n", i%5), i%25), item(graph.OpInsert, "Other", i, "o", 1))
	}
}

func (r *rig) readySource() *run {
	running := r.startSource()
	eventually(r.t, func() bool { return r.host().SourceReady(r.t.Context(), "default", "shop") == nil }, "the source has a log")
	return running
}

func TestBootstrapWhileChangesGoOn(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	src := r.readySource()
	stop := r.busy()
	r.book.readRows = func() { time.Sleep(time.Millisecond) } // so that changes come in between
	r.bootstrap("first")
	query := r.startQuery(auto)
	r.following(query)
	stop()
	r.settled("late")
	query.drained()

	// Nothing is left of it, and the state needs no other.
	_, err := r.conn.OpenLog(t.Context(), bootstrapLog("default", "late", "shop"))
	require.ErrorIs(t, err, stream.ErrMissing)
	b, err := r.host().bucket(t.Context(), bootstrapBucket)
	require.NoError(t, err)
	keys, err := b.Keys(t.Context(), "default.late.")
	require.NoError(t, err)
	require.Equal(t, []string{"default.late.shop"}, keys)
	subscriptions, err := r.host().bucket(t.Context(), subscriptionsBucket)
	require.NoError(t, err)
	keys, err = subscriptions.Keys(t.Context(), "default.shop.")
	require.NoError(t, err)
	require.Equal(t, []string{"default.shop.late"}, keys)
	query = r.startQuery(auto)
	r.following(query)
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 20)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestBootstrapBeginsWithSnapshotEvents(t *testing.T) {
	r, src := newReading(t, 200)
	query := r.startQuery(auto)
	r.settled("late")
	var events []*result.Event
	err := NewResults(r.conn, "").Follow(t.Context(), "late", 0, func(e *result.Event) error {
		events = append(events, e)
		return errLoaded
	}, nil)
	require.ErrorIs(t, err, errLoaded)
	require.True(t, events[0].Snapshot)
	require.Len(t, events[0].Diffs, len(r.book.wanted()))
	query.drained()
	src.drained()
}

func TestBootstrapOfNothing(t *testing.T) {
	r := newRig(t)
	src := r.readySource()
	r.bootstrap("first")
	query := r.startQuery(auto)
	r.following(query)
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 20)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestRebootstrapGoesOnWithTheSequences(t *testing.T) {
	r, src := newReading(t, 300)
	query := r.startQuery(auto)
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 50)
	r.settled("late")
	query.drained()
	_, before := r.replayed("late")

	// The workflow was asked to read all rows again; the state of before is still there.
	r.ran("second")
	_, after := r.replayed("late")
	require.Equal(t, before, after, "nothing differs")

	r.bootstrapAs(auto, BootstrapRef{ID: "anew", Rebuild: true})
	query = r.startQuery(auto)
	r.following(query)
	r.settled("late")
	query.drained()
	_, after = r.replayed("late")
	require.Equal(t, before+rebuiltAfter+1, after, "an event that says so, and one with all rows")

	// The state is lost: a bootstrap is needed, whatever is on record.
	r.index = newRig(t).index
	outcome, err := r.host().RunQuery(t.Context(), r.attempt(late.ID()), auto)
	require.NoError(t, err)
	require.Equal(t, NeedsBootstrap, outcome)
	r.ran("third")
	src.drained()
}

// TestResyncPublishesWhatDiffers misses changes and has the state built anew beside the old one, which is interrupted at
// any time, also by another bootstrap. Who follows sees no more than what is different, in one transaction.
func TestResyncPublishesWhatDiffers(t *testing.T) {
	r, src := newReading(t, 500)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	random := rand.New(rand.NewPCG(5, 5))
	for round := range 3 {
		_, before := r.replayed("late")
		r.book.miss(
			item(graph.OpInsert, "Item", 5000+round, "new", 20), item(graph.OpDelete, "Item", 24+25*round, "", 0),
			item(graph.OpUpdate, "Item", 23+25*round, "renamed", 23), item(graph.OpUpdate, "Item", 20+25*round, "out", 1),
		)
		for i := range 1 + round {
			r.bootstrap(fmt.Sprint("round", round, i))
			for range random.IntN(6) {
				cut := r.startQuery(auto)
				phases := []string{"", "loading", "sealing", "following"}
				far := random.IntN(len(phases))
				eventually(t, func() bool { return slices.Index(phases, cut.status.Snapshot().Phase) >= far }, "the query is "+phases[far])
				cut.cancel()
				_ = cut.result()
			}
		}
		query = r.startQuery(auto)
		r.following(query)
		r.settled("late")
		_, after := r.replayed("late")
		require.Equal(t, before+1, after)
		r.book.scribble(random, 20)
		r.settled("late")
		query.drained()
	}
	var record queryRecord
	b, err := r.host().bucket(t.Context(), queriesBucket)
	require.NoError(t, err)
	_, _, err = read(t.Context(), b, "default.late", &record)
	require.NoError(t, err)
	require.Empty(t, record.Previous)
	src.drained()
}

// TestLostChangesAreResynced has a source tell that changes are lost: the query ends before that, asking for what the
// source wants, and after a bootstrap has what was missed.
func TestLostChangesAreResynced(t *testing.T) {
	r, src := newReading(t, 300)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	for i, what := range []string{graph.MissedDiff, graph.MissedRebuild} {
		_, before := r.replayed("late")
		r.book.commit(item(graph.OpUpdate, "Item", 24, fmt.Sprint("told", i), 24))
		r.book.miss(item(graph.OpUpdate, "Item", 23, fmt.Sprint("missed", i), 23))
		r.book.tell(what)
		r.book.commit(item(graph.OpUpdate, "Item", 22, fmt.Sprint("later", i), 22))
		eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "the source is durable")
		outcome, err := r.host().RunQuery(t.Context(), r.attempt(late.ID()), auto)
		require.NoError(t, err)
		require.Equal(t, map[string]Outcome{graph.MissedDiff: NeedsResync, graph.MissedRebuild: NeedsRebuild}[what], outcome)
		r.bootstrapAs(auto, BootstrapRef{ID: "again" + what, Rebuild: outcome == NeedsRebuild})
		query = r.startQuery(auto)
		r.settled("late")
		query.drained()
		if _, after := r.replayed("late"); what == graph.MissedRebuild {
			require.Greater(t, after, before+rebuiltAfter)
		} else {
			require.LessOrEqual(t, after, before+2, "what was told, perhaps, and what differs")
		}
	}
	src.drained()
}

func TestLostChangesOfAQueryThatMayNotReadTheSource(t *testing.T) {
	r := newRig(t)
	src := r.readySource()
	query := r.startQuery(late)
	r.following(query)
	r.book.tell(graph.MissedDiff)
	require.Equal(t, failure.ChangesLost, failure.CodeOf(query.result()))
	src.drained()
}

// TestLateWorkerOfAnotherBootstrap has a message of an earlier bootstrap come into the log of a later one, where the same
// chunk of the same attempt is copied.
func TestLateWorkerOfAnotherBootstrap(t *testing.T) {
	r, src := newReading(t, 200)
	log, err := r.conn.OpenLog(t.Context(), bootstrapLog("default", "late", "shop"))
	require.NoError(t, err)
	late, err := log.Next(t.Context(), 0)
	require.NoError(t, err)
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 200)

	var once sync.Once
	r.book.readRows = func() {
		once.Do(func() {
			log, err := r.conn.OpenLog(t.Context(), bootstrapLog("default", "late", "shop"))
			require.NoError(t, err)
			_, err = log.NewSharedWriter().Append(t.Context(), late.ID, late.Data)
			require.NoError(t, err)
		})
	}
	r.ran("second")
	src.drained()
}

// TestWhatWasCopiedIsGone removes what a sealed bootstrap has copied: the query asks for another one, and does not go live
// without it.
func TestWhatWasCopiedIsGone(t *testing.T) {
	for name, remove := range map[string]func(r *rig) error{
		"scopes": func(r *rig) error {
			b, err := r.host().bucket(t.Context(), bootstrapBucket)
			require.NoError(t, err)
			return removeKeys(t.Context(), b, bootstrapKey("default", "late", "shop")+".scope")
		},
		"rows": func(r *rig) error { return r.conn.DeleteLog(t.Context(), bootstrapLog("default", "late", "shop")) },
	} {
		t.Run(name, func(t *testing.T) {
			r, src := newReading(t, 200)
			require.NoError(t, remove(r))
			outcome, err := r.host().RunQuery(t.Context(), r.attempt(auto.ID()), auto)
			require.NoError(t, err)
			require.Equal(t, NeedsResync, outcome)
			r.ran("second")
			src.drained()
		})
	}
}

func TestLoadingGoesOnAfterBeingCutOff(t *testing.T) {
	r := newRig(t)
	r.stock(2000)
	src := r.readySource()
	stop := r.busy()
	r.bootstrap("first")
	stop()
	random := rand.New(rand.NewPCG(9, 9))
	for range 15 {
		running := r.startQuery(auto)
		time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond)
		running.kill()
	}
	loading := r.startQuery(auto)
	eventually(t, func() bool { return loading.status.Snapshot().Phase != "" }, "the query loads")
	loading.kill()
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestChunksAreCopiedAgainByOthers(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	src := r.readySource()
	h := r.host()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	from, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	again, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	require.Equal(t, from, again)
	snapshot := r.hold(ref)
	plan, err := h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	require.Equal(t, Plan{Tables: 1, Chunks: 10, Rows: 1000, Parallelism: 3}, plan, "only the label that the query reads")
	plan, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	require.Equal(t, 10, plan.Chunks)

	// Chunks fail in the middle, having written rows already.
	var failures atomic.Int64
	r.book.readRows = func() {
		if failures.Add(1)%5 == 0 {
			panic("in the middle of a chunk")
		}
	}
	failed := 0
	for {
		if _, err := h.CopyChunks(t.Context(), ref, shop, "worker", func(CopyProgress) {}); err == nil {
			break
		}
		failed++
	}
	require.Positive(t, failed)

	// A worker whose lease ended finds that another one was quicker.
	b, err := h.bucket(t.Context(), bootstrapBucket)
	require.NoError(t, err)
	scopes, err := h.scopes(t.Context(), b, ref.key())
	require.NoError(t, err)
	scope := scopes[0]
	require.Len(t, scope.Chunks, 10)
	require.NoError(t, scope.update(t.Context(), b, func(s *scopeRecord) error {
		s.Chunks[0].Copied = false
		require.Equal(t, 0, s.lease("slow", make(leases).of("", time.Now()), r.book.pace))
		s.Chunks[0].Renewals = 0
		return nil
	}))
	slow := &copying{copier: &copier{bucket: b, worker: "slow"}, scope: scope, attempt: scope.Chunks[0].Attempt}
	r.book.readRows = nil
	r.copyAll(ref, 2)
	require.ErrorContains(t, slow.finish(t.Context()), "another worker took over")

	require.NoError(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}))
	_, rows, err := h.SealBootstrap(t.Context(), ref)
	require.NoError(t, err)
	require.Equal(t, int64(1000), rows)
	snapshot.release(t)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestSnapshotLostHalfWay(t *testing.T) {
	r := newRig(t)
	r.stock(500)
	src := r.readySource()
	h := r.host()
	both := auto
	both.Query = "MATCH (i) WHERE i:Item AND i.amount > $least RETURN i.id AS id, i.name AS name, i.amount AS amount"
	if h.ValidateQuery(t.Context(), both) != nil {
		both = auto
	}
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	snapshot := r.hold(ref)
	_, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	r.book.failChunk = func(c source.Chunk) error {
		if c.From == 3*chunkRows {
			r.book.lose()
		}
		return nil
	}
	_, err = h.CopyChunks(t.Context(), ref, shop, "worker", func(CopyProgress) {})
	require.Equal(t, failure.SnapshotLost, failure.CodeOf(err))
	require.Equal(t, failure.SnapshotLost, failure.CodeOf(<-snapshot.done))
	r.book.failChunk = nil
	r.book.scribble(rand.New(rand.NewPCG(2, 2)), 100)

	ref.SnapshotGeneration = 2
	_, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.Equal(t, failure.SnapshotLost, failure.CodeOf(err), "the new one is not there yet")
	snapshot = r.hold(ref)
	r.book.scribble(rand.New(rand.NewPCG(3, 3)), 100)
	plan, err := h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	require.Zero(t, plan.Kept, "no table was copied completely")
	r.copyAll(ref, 2)
	require.NoError(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}))

	// It is lost once more, after it was verified: what was found holds for that one only.
	r.book.lose()
	require.Equal(t, failure.SnapshotLost, failure.CodeOf(<-snapshot.done))
	r.book.scribble(rand.New(rand.NewPCG(4, 4)), 100)
	ref.SnapshotGeneration = 3
	snapshot = r.hold(ref)
	_, _, err = h.SealBootstrap(t.Context(), ref)
	require.Error(t, err)
	plan, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	require.Positive(t, plan.Kept, "the one of snapshot 2 is")
	r.copyAll(ref, 2)
	require.NoError(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}))
	_, _, err = h.SealBootstrap(t.Context(), ref)
	require.NoError(t, err)
	snapshot.release(t)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	src.drained()
}

// What was copied is worth nothing when changes after it are lost, be it from the present snapshot or an earlier one.
func TestLostChangesVoidWhatWasCopied(t *testing.T) {
	r := newRig(t)
	r.stock(500)
	src := r.readySource()
	h := r.host()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, auto)
	require.NoError(t, err)
	var snapshot *holder
	var kept map[string]graph.Position
	again := func() {
		r.book.scribble(rand.New(rand.NewPCG(uint64(ref.SnapshotGeneration), 0)), 50)
		if snapshot != nil {
			snapshot.release(t)
			ref.SnapshotGeneration++
		}
		snapshot = r.hold(ref)
		_, err := h.PlanChunks(t.Context(), ref, shop, auto)
		require.NoError(t, err)
		r.copyAll(ref, 2)
		_, record, err := h.current(t.Context(), ref)
		require.NoError(t, err)
		kept = record.Labels
	}
	verify := func() *failure.Code { return failure.CodeOf(h.VerifyBootstrap(t.Context(), ref, shop, func() {})) }

	again()
	r.book.renewed = snapshot.position + "0" // later
	require.Equal(t, failure.SnapshotLost, verify())
	r.book.renewed = ""
	again()
	require.Empty(t, kept, "none from before the loss")

	again()
	require.NotEmpty(t, kept)
	r.book.renewed = snapshot.position
	require.Equal(t, failure.SnapshotLost, verify(), "the rows that were kept are older")
	again()
	require.Empty(t, kept, "none from before the loss")
	require.NoError(t, h.VerifyBootstrap(t.Context(), ref, shop, func() {}))
	_, _, err = h.SealBootstrap(t.Context(), ref)
	require.NoError(t, err)
	snapshot.release(t)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
	src.drained()
}

func TestCompleteLabelsOutliveTheirSnapshot(t *testing.T) {
	scope := func(generation, number int, copied bool, labels ...string) *storedScope {
		return &storedScope{
			scopeRecord: scopeRecord{Scope: source.Scope{Places: 1, Labels: labels}, Position: "5", Chunks: []chunkRecord{{To: 1, Copied: copied}}},
			generation:  generation, number: number,
		}
	}
	numbers := func(scopes []*storedScope) (n []int) {
		for _, s := range scopes {
			n = append(n, s.number)
		}
		return n
	}
	kept, dropped := divide([]*storedScope{
		scope(1, 0, true, "A"),
		scope(1, 1, true, "B"), scope(1, 2, false, "B"),
		scope(1, 3, true, "C", "D"), scope(1, 4, true, "D", "B"), // D hangs together with B, C with D
		scope(1, 5, true, "E"), scope(2, 6, true, "F"),
	}, 2, true)
	require.Equal(t, []int{0, 5}, numbers(kept))
	require.Equal(t, []int{1, 2, 3, 4, 6}, numbers(dropped))
	require.Equal(t, map[string]graph.Position{"A": "5", "E": "5"}, keptLabels(kept, 2))

	record := bootstrapRecord{Snapshot: &source.Snapshot{Position: "9"}, Labels: keptLabels(kept, 2)}
	require.Equal(t, graph.Position("5"), record.position([]string{"A"}))
	require.Equal(t, graph.Position("9"), record.position([]string{"B"}))
}

func TestAbandonedBootstrapLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.stock(300)
	src := r.readySource()
	h := r.host()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	snapshot := r.hold(ref)
	_, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	r.copyAll(ref, 1)
	for range 2 {
		require.NoError(t, h.AbandonBootstrap(t.Context(), ref))
	}
	snapshot.release(t)
	for _, name := range []string{bootstrapBucket, subscriptionsBucket} {
		b, err := h.bucket(t.Context(), name)
		require.NoError(t, err)
		keys, err := b.Keys(t.Context(), "default.")
		require.NoError(t, err)
		require.Empty(t, keys)
	}
	_, err = h.CopyChunks(t.Context(), ref, shop, "worker", func(CopyProgress) {})
	require.ErrorIs(t, err, errNoBootstrap)
	src.drained()
}
