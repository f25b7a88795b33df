package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// TestChunksCoverTheirScope: whatever the rates and whoever fails, the chunks have each place once.
func TestChunksCoverTheirScope(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &scopeRecord{Scope: source.Scope{Places: rapid.Int64Range(0, 10_000).Draw(t, "places"), Least: rapid.Int64Range(1, 500).Draw(t, "least")}}
		pace := source.Pace{Parallelism: rapid.IntRange(1, 64).Draw(t, "parallelism"), ChunkTime: 10 * time.Second}
		for !s.copied() {
			at := s.lease("worker", make(leases).of("", time.Now()), pace)
			require.GreaterOrEqual(t, at, 0)
			if rapid.Bool().Draw(t, "fails") {
				s.Chunks[at].Renewals = 0
				continue
			}
			s.Chunks[at].Copied = true
			s.Rate = rapid.Float64Range(0, 1e9).Draw(t, "rate")
		}
		from := int64(0)
		for i, c := range s.Chunks {
			require.Equal(t, from, s.from(i))
			require.GreaterOrEqual(t, c.To-from, min(s.Least, s.Places))
			from = c.To
		}
		require.Equal(t, s.Places, from)
	})
}

// TestChunksAreSizedByTime: they are as large as the rate allows, and smaller towards the end.
func TestChunksAreSizedByTime(t *testing.T) {
	s := &scopeRecord{Scope: source.Scope{Places: 10_000, Least: 10}}
	pace := source.Pace{Parallelism: 2, ChunkTime: 10 * time.Second}
	size := func(rate float64) int64 {
		at := s.lease("worker", make(leases).of("", time.Now()), pace)
		s.Chunks[at].Copied, s.Rate = true, rate
		return s.Chunks[at].To - s.from(at)
	}
	require.Equal(t, int64(10), size(50), "nothing is known yet")
	require.Equal(t, int64(500), size(20))
	require.Equal(t, int64(200), size(1e9))
	require.Equal(t, int64(10_000-710)/4, size(1e9), "two workers are to end together")
	for s.left() > 0 {
		require.GreaterOrEqual(t, size(1e9), int64(10))
	}
	require.Less(t, len(s.Chunks), 30)
}

// TestWorkersOnlyTakeWhatIsFree: of two workers each has its own chunk, and a third gets one whose lease has ended.
func TestWorkersOnlyTakeWhatIsFree(t *testing.T) {
	s := &scopeRecord{Scope: source.Scope{Places: 2, Least: 1}}
	now, pace := time.Now(), source.Pace{Parallelism: 2}
	seen := make(map[string]leases) // by worker: each goes by what it sees itself
	lease := func(worker string, after time.Duration) int {
		if seen[worker] == nil {
			seen[worker] = make(leases)
		}
		return s.lease(worker, seen[worker].of("", now.Add(after)), pace)
	}
	require.Equal(t, 0, lease("a", 0))
	require.Equal(t, 1, lease("b", time.Second))
	require.Equal(t, -1, lease("c", 2*time.Second))
	require.Equal(t, 0, lease("a", 3*time.Second), "a worker that comes back goes on with its own")
	s.Chunks[1].Renewals++
	require.Equal(t, -1, lease("c", 4*time.Second))
	require.Equal(t, -1, lease("c", 2*time.Second+leaseFor), "both were renewed")
	require.Equal(t, 0, lease("c", 4*time.Second+leaseFor))
	require.Equal(t, -1, lease("d", time.Hour), "who has not looked before knows of no end")
	s.Chunks[1].Renewals = 0
	require.Equal(t, 1, lease("d", time.Hour), "it was given back")
	require.Equal(t, []int{3, 2}, []int{s.Chunks[0].Attempt, s.Chunks[1].Attempt})
}

// TestRenewalLeavesRowsAlone: rows come while the lease is renewed, also when another worker has changed the record.
func TestRenewalLeavesRowsAlone(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	r.readySource()
	h, ctx := r.host(), t.Context()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(ctx, ref, r.query)
	require.NoError(t, err)
	r.hold(ref)
	_, err = h.PlanChunks(ctx, ref, shop, auto)
	require.NoError(t, err)
	w := &copier{host: h, ref: ref, worker: "worker"}
	w.bucket, w.record, err = h.current(ctx, ref)
	require.NoError(t, err)
	own, err := h.scopes(ctx, w.bucket, ref.key())
	require.NoError(t, err)
	require.NoError(t, own[0].update(ctx, w.bucket, func(s *scopeRecord) error {
		require.Equal(t, 0, s.lease(w.worker, make(leases).of("", time.Now()), *w.record.Pace))
		return nil
	}))
	another, err := h.scopes(ctx, w.bucket, ref.key())
	require.NoError(t, err)

	c := w.started(own[0], 0)
	c.open = &changes{}
	c.open.reset()
	c.open.encoder.Open(&graph.Transaction{})
	renewed := make(chan error, 1)
	go func() {
		for range 20 {
			err := another[0].update(ctx, w.bucket, func(s *scopeRecord) error { s.Rate++; return nil })
			if err == nil {
				err = c.update(ctx, func(_ *scopeRecord, own *chunkRecord) { own.Renewals++ })
			}
			if err != nil {
				renewed <- err
				return
			}
		}
		renewed <- nil
	}()
	row := graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: "Item:1", Labels: []string{"Item"}}}
	for rows := 1; ; rows++ {
		chunkSink{c, ctx}.Take(&row)
		require.Equal(t, rows, c.rows)
		select {
		case err := <-renewed:
			require.NoError(t, err)
			require.InDelta(t, 20, another[0].Rate, 0)
			return
		case <-time.After(100 * time.Microsecond): // between rows
		}
	}
}

// TestRestartedWorkerGoesOn: chunks that are copied are not read again by the next life of a worker.
func TestRestartedWorkerGoesOn(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	src := r.readySource()
	h := r.host()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	r.hold(ref)
	progress, err := h.CopiedSoFar(t.Context(), ref)
	require.NoError(t, err)
	require.Empty(t, progress, "there is no plan yet")
	_, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)
	progress, err = h.CopiedSoFar(t.Context(), ref)
	require.NoError(t, err)
	require.Equal(t, []ScopeProgress{{Name: "Item", State: Waiting, Estimate: 1000}}, progress)

	ctx, kill := context.WithCancel(t.Context())
	reads := make(map[int64]int)
	r.book.failChunk = func(c source.Chunk) error {
		if reads[c.From]++; c.From == 4*chunkRows && reads[c.From] == 1 {
			kill()
		}
		require.Equal(t, []string{"amount", "id", "name"}, c.Properties, "what the query reads")
		return nil
	}
	_, err = h.CopyChunks(ctx, ref, shop, "worker", func(CopyProgress) {})
	require.ErrorIs(t, err, context.Canceled)
	progress, err = h.CopiedSoFar(t.Context(), ref)
	require.NoError(t, err)
	require.Equal(t, int64(1000), progress[0].Estimate)
	require.GreaterOrEqual(t, progress[0].Rows, int64(400))

	copied, err := h.CopyChunks(t.Context(), ref, shop, "worker", func(CopyProgress) {})
	require.NoError(t, err)
	require.Equal(t, CopyProgress{Chunks: 6, Rows: 600}, copied)
	require.Len(t, reads, 10)
	for from, n := range reads {
		if from != 4*chunkRows {
			require.Equal(t, 1, n)
		}
	}
	progress, err = h.CopiedSoFar(t.Context(), ref)
	require.NoError(t, err)
	require.Equal(t, []ScopeProgress{{Name: "Item", State: Copied, Rows: 1000, Estimate: 1000}}, progress)
	src.drained()
}

// TestRateIsLimited: the rate that the source allows is divided among the workers.
func TestRateIsLimited(t *testing.T) {
	r := newRig(t)
	r.stock(1000)
	r.book.pace.RowsPerSecond = 1000
	src := r.readySource()
	h := r.host()
	ref := BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop", SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, r.query)
	require.NoError(t, err)
	r.hold(ref)
	_, err = h.PlanChunks(t.Context(), ref, shop, auto)
	require.NoError(t, err)

	b, record, err := h.current(t.Context(), ref)
	require.NoError(t, err)
	scopes, err := h.scopes(t.Context(), b, ref.key())
	require.NoError(t, err)
	c := &copying{copier: &copier{host: h, ref: ref, bucket: b, record: record}}
	for workers, pause := range []time.Duration{time.Millisecond, time.Millisecond, 2 * time.Millisecond, 3 * time.Millisecond} {
		if workers > 0 {
			require.NoError(t, scopes[0].update(t.Context(), b, func(s *scopeRecord) error {
				s.lease(fmt.Sprint("worker", workers), make(leases).of("", time.Now()), r.book.pace)
				return nil
			}))
		}
		require.NoError(t, c.share(t.Context()))
		require.Equal(t, pause, time.Duration(c.limit.pause.Load()))
	}
	require.NoError(t, scopes[0].update(t.Context(), b, func(s *scopeRecord) error {
		s.Chunks = nil
		return nil
	}))

	begin := time.Now()
	_, err = h.CopyChunks(t.Context(), ref, shop, "worker", func(CopyProgress) {})
	require.NoError(t, err)
	require.Greater(t, time.Since(begin), 900*time.Millisecond)
	src.drained()
}

// TestBootstrapDisturbsNobody: while rows are copied for one query, the others go on, and one that has what it needs goes live.
func TestBootstrapDisturbsNobody(t *testing.T) {
	r := newRig(t)
	src := r.readySource()
	r.bootstrap("first")
	query := r.startQuery(auto)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	r.stock(200)

	quick := auto
	quick.Name = "quick"
	var began atomic.Bool
	var live *run
	r.book.readRows = func() {
		if began.Swap(true) {
			return
		}
		// The copy does not go on before the other query has seen the change, and another one has come and is live.
		r.book.commit(item(graph.OpInsert, "Item", 5000, "in between", 20))
		r.settled("late")
		r.bootstrapAs(quick, BootstrapRef{ID: "quick"})
		live = r.startQuery(quick)
		r.settled("quick")
	}
	other := auto
	other.Name = "other"
	r.bootstrapAs(other, BootstrapRef{ID: "second"})
	require.NotNil(t, live)
	r.book.scribble(rand.New(rand.NewPCG(1, 1)), 20)
	second := r.startQuery(other)
	r.settled("other")
	r.settled("late")
	r.settled("quick")
	query.drained()
	live.drained()
	second.drained()
	src.drained()
}
