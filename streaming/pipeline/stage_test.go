package pipeline

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/stream"
)

// staging takes over what is staged for a new attempt, and publishes until the test ends.
func (r *rig) staging(h *Host, end uint64) *staging {
	r.t.Helper()
	fence, err := r.conn.Acquire(r.t.Context(), shop.ID().String(), stream.Epoch{Generation: r.attempts.Add(1), Started: time.Now().UnixNano()}, "host")
	require.NoError(r.t, err)
	positions, err := h.bucket(r.t.Context(), positionsBucket)
	require.NoError(r.t, err)
	s, err := h.newStaging(r.t.Context(), r.source, fence, positions, end)
	require.NoError(r.t, err)
	g := newGroup(context.Background())
	g.run(s.out.run)
	r.t.Cleanup(g.stop)
	return s
}

// stageMessages stages a transaction as so many messages.
func (r *rig) stageMessages(s *staging, transaction uint64, n int) {
	r.t.Helper()
	text := strings.Repeat("x", maxStaged)
	for i := range n {
		require.NoError(r.t, s.stage(r.t.Context(), transaction, []graph.Change{item(graph.OpInsert, "Item", i, text, i)}))
	}
	require.NoError(r.t, s.out.flush(r.t.Context()))
}

// stagedMessages returns the keys of the transactions of which something is still staged, in order.
func (r *rig) stagedMessages(s *staging) (keys []string) {
	r.t.Helper()
	last, err := s.log.Last(r.t.Context())
	require.NoError(r.t, err)
	reader, err := s.log.Read(r.t.Context(), 0)
	require.NoError(r.t, err)
	defer reader.Close()
	for at := uint64(0); at < last.Sequence; {
		m, err := reader.Next(r.t.Context())
		require.NoError(r.t, err)
		at = m.Sequence
		key, _, _ := strings.Cut(m.ID, ":")
		keys = append(keys, key)
	}
	return slices.Compact(keys)
}

// TestWhatIsStagedIsKeptAsLongAsItIsNeeded trims as references are read, over attempts that know where these are in the change
// log, or do not.
func TestWhatIsStagedIsKeptAsLongAsItIsNeeded(t *testing.T) {
	r := newRig(t)
	h := r.host()
	trim := func(s *staging, from uint64) {
		t.Helper()
		require.NoError(t, s.trim(t.Context(), from))
	}
	first := r.staging(h, 0)
	trim(first, 1) // there is no log yet
	r.stageMessages(first, 1, 2)
	r.stageMessages(first, 2, 2)
	one, held, err := first.refer(t.Context(), 1)
	require.NoError(t, err)
	trim(first, 10)
	first.referred(held, 10)
	trim(first, 10)
	two := first.of(2)
	require.Equal(t, []string{one.key, two.key}, r.stagedMessages(first))
	trim(first, 11)
	require.Equal(t, []string{two.key}, r.stagedMessages(first), "message 10 was read, and the other one is in progress")
	_, held, err = first.refer(t.Context(), 2)
	require.NoError(t, err)
	first.referred(held, 12)
	trim(first, 12)
	r.stageMessages(first, 3, 1)
	three, _, err := first.refer(t.Context(), 3)
	require.NoError(t, err)
	r.stageMessages(first, 4, 1)

	// The next attempt knows that message 12 refers to one, and of the other that it is at the end of the change log at most.
	second := r.staging(h, 20)
	require.Equal(t, []reference{{two.from, 12}, {three.from, 20}}, second.needed())
	trim(second, 12)
	left := r.stagedMessages(second)
	require.Equal(t, []string{two.key, three.key}, left[:2])
	trim(second, 13)
	require.Equal(t, three.key, r.stagedMessages(second)[0])
	trim(second, 20)
	require.Equal(t, three.key, r.stagedMessages(second)[0])
	r.stageMessages(second, 4, 1)
	four := second.of(4)
	trim(second, 21)
	require.Equal(t, []string{four.key}, r.stagedMessages(second), "what the first attempt had in progress is void")
	require.NotContains(t, left, four.key)
	second.drop(4)
	r.stageMessages(second, 5, 1)
	five := second.of(5)
	trim(second, 21)
	require.Equal(t, []string{five.key}, r.stagedMessages(second), "what was rolled back is void")

	r.stageMessages(second, 6, 1)
	require.Equal(t, failure.FencedOff, failure.CodeOf(first.record(t.Context())), "an attempt whose place was taken")
	_, _, err = second.refer(t.Context(), 7)
	require.Equal(t, failure.Panic, failure.CodeOf(err), "nothing was staged")
	r.age(stagedLog("default", "shop"))
	_, _, err = second.refer(t.Context(), 6)
	require.Equal(t, failure.StagedLost, failure.CodeOf(err))
}

// TestCondensedReferencesKeepNoLess makes few of many.
func TestCondensedReferencesKeepNoLess(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var all []*reference
		offset := uint64(0)
		for range rapid.IntRange(0, 3*mostReferences).Draw(t, "references") {
			offset += rapid.Uint64Range(1, 3).Draw(t, "distance")
			all = append(all, &reference{From: rapid.Uint64Range(1, 1000).Draw(t, "from"), Offset: offset})
		}
		unknown := rapid.IntRange(0, 2).Draw(t, "unknown")
		for i := range min(unknown, len(all)) {
			all[len(all)-1-i].Offset = 0
		}
		least := func(all []*reference, from uint64) uint64 {
			least := ^uint64(0)
			for _, r := range all {
				if r.Offset == 0 || r.Offset >= from {
					least = min(least, r.From)
				}
			}
			return least
		}
		few := condensed(slices.Clone(all))
		if len(all) >= mostReferences {
			require.Less(t, len(few), len(all)/2+3)
		}
		for from := range offset + 2 {
			require.LessOrEqual(t, least(few, from), least(all, from))
		}
		require.Equal(t, all[len(all)-min(unknown, len(all)):], few[len(few)-min(unknown, len(few)):], "those that are not acknowledged yet")
	})
}

// TestNothingIsStagedWithoutRoom fills the log: nothing of a transaction in progress is dropped.
func TestNothingIsStagedWithoutRoom(t *testing.T) {
	r := newRig(t)
	r.source.Policy.RetainBytes = 16 << 20
	s := r.staging(r.host(), 0)
	n := 0
	for ; s.hasRoom(); n++ {
		r.stageMessages(s, uint64(n), 1)
	}
	require.Greater(t, n, 10)
	first, _, err := s.refer(t.Context(), 0)
	require.NoError(t, err, "it is there")
	require.Equal(t, first.key, r.stagedMessages(s)[0])
	require.NoError(t, s.trim(t.Context(), 1))
	require.False(t, s.hasRoom())
	for i := range n {
		s.drop(uint64(i))
	}
	s.referred(s.references[0], 1)
	require.NoError(t, s.trim(t.Context(), 2))
	require.True(t, s.hasRoom())
}

// TestNothingIsStagedWhereThereIsNoLog has a stream server that has room for the change log alone.
func TestNothingIsStagedWhereThereIsNoLog(t *testing.T) {
	r := newRigOn(t, stream.ServerOptions{MaxBytes: 40 << 20})
	r.source.Policy.RetainBytes = 24 << 20
	h := r.host()
	require.NoError(t, h.ProvisionSource(t.Context(), r.source))
	s := r.staging(h, 0)
	require.True(t, s.hasRoom())
	r.stageMessages(s, 1, 3)
	require.False(t, s.hasRoom())
	require.Contains(t, s.warning(), "insufficient")
	_, _, err := s.refer(t.Context(), 1)
	require.Equal(t, failure.StagedLost, failure.CodeOf(err))
	require.NoError(t, s.trim(t.Context(), 1))
}

// largeItems commits a transaction whose rows are large, of which the book stages a part.
func (r *rig) largeItems(name string) {
	var changes []graph.Change
	for i := range 90 {
		changes = append(changes, item(graph.OpInsert, "Item", i, name+strings.Repeat("x", 40_000), 20+i))
	}
	r.book.commit(changes...)
}

// TestStagedTransactionsReachAQuery kills the source between staging and reference, and between the reference and the last
// part; and the query while it reads.
func TestStagedTransactionsReachAQuery(t *testing.T) {
	r := newRig(t)
	r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
	r.book.parts, r.book.stages = true, true
	reached, release := make(chan string), make(chan struct{})
	var at atomic.Value // where the source stops
	at.Store("")
	stop := func(place string) {
		if place == at.Load() {
			reached <- place
			<-release
		}
	}
	r.book.beforeStaged = func() { stop("before the reference") }
	r.book.between = func(part int) { stop(fmt.Sprint("before part ", part)) }
	r.stock(30)
	src := r.readySource()
	r.bootstrap("first")
	query := r.startQuery(auto)
	r.settled("late")
	for _, place := range []string{"before the reference", "before part 1", "before part 2"} {
		at.Store(place)
		r.largeItems(place)
		require.Equal(t, place, <-reached)
		src.cancel()
		at.Store("")
		release <- struct{}{}
		require.ErrorIs(t, src.result(), context.Canceled, place)
		src = r.readySource()
		r.settled("late")
		query.kill()
		r.largeItems("a query killed " + place)
		query = r.startQuery(auto)
		eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query is about to read it")
		query.kill()
		query = r.startQuery(auto)
		r.settled("late")
	}
	src.drained()
	query.drained()

	// Nothing is left.
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
	_, err := r.conn.OpenLog(t.Context(), stagedLog("default", "shop"))
	require.ErrorIs(t, err, stream.ErrMissing)
	positions, err := r.host().bucket(t.Context(), positionsBucket)
	require.NoError(t, err)
	keys, err := positions.Keys(t.Context(), "default.shop")
	require.NoError(t, err)
	require.Empty(t, keys)
}

// TestStagedChangesThatAreLostAreReadFromTheSource: a query reads the tables anew where the change log refers to what is gone.
func TestStagedChangesThatAreLostAreReadFromTheSource(t *testing.T) {
	for name, lose := range map[string]func(r *rig){
		"trimmed": func(r *rig) { r.age(stagedLog("default", "shop")) },
		"deleted": func(r *rig) { require.NoError(r.t, r.conn.DeleteLog(r.t.Context(), stagedLog("default", "shop"))) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.index = pebble.New(pebble.Options{Dir: t.TempDir()})
			r.book.parts, r.book.stages = true, true
			r.stock(30)
			src := r.readySource()
			r.bootstrap("first")
			query := r.startQuery(auto)
			r.settled("late")
			query.drained()
			r.largeItems("lost")
			eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "all is durable")
			src.drained()
			lose(r)

			outcome, err := r.host().RunQuery(t.Context(), r.attempt(auto.ID()), auto)
			require.NoError(t, err)
			require.Equal(t, NeedsResync, outcome)
			src = r.readySource()
			r.bootstrap("second")
			query = r.startQuery(auto)
			r.settled("late")
			query.drained()
			src.drained()
		})
	}
}

// TestStagedMessagesMustBeComplete refers to more than there is.
func TestStagedMessagesMustBeComplete(t *testing.T) {
	r := newRig(t)
	h := r.host()
	s := r.staging(h, 0)
	r.stageMessages(s, 1, 2)
	of, _, err := s.refer(t.Context(), 1)
	require.NoError(t, err)
	f := &feed{source: "shop", staged: func(ctx context.Context) (*stream.Log, error) { return h.openStaged(ctx, "default", "shop") }}
	read := func(staged graph.Staged) error {
		return f.readStaged(t.Context(), &staged, func([]graph.Change) error { return nil })
	}
	whole := graph.Staged{Key: of.key, From: of.from, To: of.to, Messages: of.messages}
	require.NoError(t, read(whole))
	more, longer, other := whole, whole, whole
	more.Messages++
	longer.To++
	other.Key += "0"
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(read(more)))
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(read(longer)))
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(read(other)))
}
