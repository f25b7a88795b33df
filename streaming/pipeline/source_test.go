package pipeline

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

func (r *rig) requireWholeLog() {
	r.t.Helper()
	got := r.changeLog()
	require.Len(r.t, got, len(r.book.log))
	for i := range got {
		require.Equal(r.t, r.book.log[i].Position, got[i].Position)
		require.Len(r.t, got[i].Changes, len(r.book.log[i].Changes))
		for n := range got[i].Changes {
			require.Equal(r.t, r.book.log[i].Changes[n].Element.ID, got[i].Changes[n].Element.ID)
		}
	}
}

func TestSourceWritesEachTransactionOnceWhateverHappens(t *testing.T) {
	r := newRig(t)
	r.book.repeats = true
	random := rand.New(rand.NewPCG(1, 2))
	for range 12 {
		running := r.startSource()
		for n := random.IntN(200); n > 0; n-- {
			r.book.commit(item(graph.OpInsert, "Item", random.IntN(50), "x", n))
			if n%40 == 0 {
				time.Sleep(time.Duration(random.IntN(3)) * time.Millisecond)
			}
		}
		running.kill()
	}
	running := r.startSource()
	eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "everything is confirmed")
	running.drained()
	r.requireWholeLog()
}

func TestSourceConfirmsOnlyWhatIsDurable(t *testing.T) {
	r := newRig(t)
	running := r.startSource()
	for range 500 {
		r.book.commit(item(graph.OpInsert, "Item", 1, "x", 1))
	}
	running.drained()
	log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
	require.NoError(t, err)
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	if last != nil {
		m, err := new(graph.Decoder).Decode(last.Data)
		require.NoError(t, err)
		require.Equal(t, m.Position, r.book.confirmedAt(), "a drained source has confirmed exactly what is in the log")
	}
}

func TestSourceSplitsLargeTransactions(t *testing.T) { largeTransactions(t, false, false) }

func TestSourceTakesPartsOfTransactions(t *testing.T) { largeTransactions(t, true, false) }

func TestSourceTakesStagedTransactions(t *testing.T) { largeTransactions(t, true, true) }

func largeTransactions(t *testing.T, parts, stages bool) {
	r := newRig(t)
	r.book.parts, r.book.stages = parts, stages
	text := strings.Repeat("x", 10_000)
	large := func() {
		var changes []graph.Change
		for i := range 400 {
			changes = append(changes, item(graph.OpInsert, "Item", i, text, i))
		}
		r.book.commit(changes...)
	}
	r.book.commit(item(graph.OpInsert, "Item", 1, "first", 1))
	for range 6 {
		large()
	}
	r.book.commit(item(graph.OpInsert, "Item", 1, "last", 1))
	for i := range 8 { // interrupted in the middle of it
		running := r.startSource()
		time.Sleep(time.Duration(i) * 4 * time.Millisecond)
		running.kill()
	}
	running := r.startSource()
	eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "everything is confirmed")
	running.drained()
	r.requireWholeLog()
}

func TestOldAttemptOfSourceIsFencedOff(t *testing.T) {
	r := newRig(t)
	old := r.startSource()
	r.book.commit(item(graph.OpInsert, "Item", 1, "x", 1))
	eventually(t, func() bool { return r.book.confirmedAt() == "1" }, "the first attempt works")
	young := r.startSource()
	eventually(t, func() bool { return young.status.Snapshot().Phase == "streaming" }, "the second attempt works")
	r.book.commit(item(graph.OpInsert, "Item", 2, "x", 1))
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.result()))
	eventually(t, func() bool { return r.book.confirmedAt() == "2" }, "the second attempt goes on")

	// An attempt that is older than what is there does not even begin.
	err := r.host().RunSource(t.Context(), Attempt{ID: shop.ID(), Epoch: stream.Epoch{Generation: 1, Started: 1}}, shop)
	require.Equal(t, failure.FencedOff, failure.CodeOf(err))
	young.drained()
	r.requireWholeLog()
}

func TestIdleSourceTellsWhereItIs(t *testing.T) {
	r := newRig(t)
	running := r.startSource()
	r.book.commit(item(graph.OpInsert, "Item", 1, "x", 1))
	h := r.host()
	b, err := h.bucket(t.Context(), positionsBucket)
	require.NoError(t, err)
	eventually(t, func() bool {
		var at sourcePosition
		_, _, err := read(t.Context(), b, "default.shop", &at)
		require.NoError(t, err)
		return at.Position == "1"
	}, "the position is on record")
	running.drained()
	require.NoError(t, h.TeardownSource(t.Context(), shop))
	require.Equal(t, failure.SourceMissing, failure.CodeOf(h.SourceReady(t.Context(), "default", "shop")))
}

func TestChangeLogIsTrimmedToTheSlowestSubscriber(t *testing.T) {
	r := newRig(t)
	h := r.host()
	running := r.startSource()
	for i := range 20 {
		position := r.book.commit(item(graph.OpInsert, "Item", i, "x", 1))
		eventually(t, func() bool { return r.book.confirmedAt() == position }, "it is durable")
	}
	running.drained()
	log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
	require.NoError(t, err)
	before, err := log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(1), before.First)
	subscriptions, err := h.bucket(t.Context(), subscriptionsBucket)
	require.NoError(t, err)
	_, err = write(t.Context(), subscriptions, "default.shop.slow", subscription{Offset: 10})
	require.NoError(t, err)
	_, err = write(t.Context(), subscriptions, "default.shop.fast", subscription{Offset: before.Last})
	require.NoError(t, err)

	s := newSink(nil, stream.Epoch{}, sourcePosition{Position: "20", Offset: before.Last}, nil, nil, telemetry.NewMetrics("").Source("default", "shop"))
	s.staging = r.staging(h, before.Last)
	k := &keeper{host: h, spec: shop, log: log, sink: s, key: "default.shop"}
	for range 2 {
		require.NoError(t, k.trim(t.Context()))
	}
	after, err := log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(11), after.First)
	require.NoError(t, subscriptions.Delete(t.Context(), "default.shop.slow"))
	for range 2 {
		require.NoError(t, k.trim(t.Context()))
	}
	after, err = log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, before.Last, after.First, "the last message says where to resume")
}

// TestTrimmingWaitsForAWholeRound lets a round end early: what it found is not to be dropped by the next one, which
// comes sooner than a subscription may take.
func TestTrimmingWaitsForAWholeRound(t *testing.T) {
	r := newRig(t)
	running := r.startSource()
	for i := range 3 {
		position := r.book.commit(item(graph.OpInsert, "Item", i, "x", 1))
		eventually(t, func() bool { return r.book.confirmedAt() == position }, "it is durable")
	}
	running.drained()
	h := r.host()
	log, err := r.conn.OpenLog(t.Context(), changeLog("default", "shop"))
	require.NoError(t, err)
	state, err := log.State(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.conn.DeleteLog(t.Context(), changeLog("default", "shop")))
	s := newSink(nil, stream.Epoch{}, sourcePosition{Position: "3", Offset: state.Last}, nil, nil, telemetry.NewMetrics("").Source("default", "shop"))
	k := &keeper{host: h, spec: shop, log: log, sink: s, key: "default.shop"}
	require.ErrorIs(t, k.trim(t.Context()), stream.ErrMissing)
	require.Zero(t, k.trimTo)
}

func TestRecordsThatCannotBeDecodedAreKept(t *testing.T) {
	r := newRig(t)
	h := r.host()
	reject := h.rejecter(shop)
	cause := failure.BadRecord.Errorf("decoding column n: no number").WithDetail("column", "n")
	letter := source.DeadLetter{Position: "7", Scope: "public.a", Cause: cause, Record: []byte{1, 2, 3}}
	require.NoError(t, reject(t.Context(), letter))
	require.NoError(t, reject(t.Context(), letter), "the same one again")
	log, err := r.conn.OpenLog(t.Context(), rejectedLog("default", "shop"))
	require.NoError(t, err)
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, last.Sequence)
	var kept rejected
	require.NoError(t, json.Unmarshal(last.Data, &kept))
	require.Equal(t, []byte{1, 2, 3}, kept.Record)
	require.Equal(t, failure.BadRecord.ID, kept.Failure.Code)
	require.NoError(t, h.TeardownSource(t.Context(), shop))
	_, err = r.conn.OpenLog(t.Context(), rejectedLog("default", "shop"))
	require.ErrorIs(t, err, stream.ErrMissing)
}
