package stream_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func requireFenced(t require.TestingT, err error) {
	require.Equal(t, failure.FencedOff, failure.CodeOf(err), "%v", err)
}

func TestOldWriterFailsOnceANewOneTookOver(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	old := writer(t, conn, log, 1)
	appendAll(t, old, "m1")
	current := writer(t, conn, log, 2)
	_, err := old.Append(t.Context(), "x1", nil)
	requireFenced(t, err)
	appendAll(t, current, "m2")
	_, err = old.Append(t.Context(), "x2", nil)
	requireFenced(t, err)
	_, err = old.Append(t.Context(), "m2", nil) // not even what the new one has appended
	requireFenced(t, err)

	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 2), read(t, r, 2))
}

func TestEpochsDecideWhoHoldsAComponent(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	ctx := t.Context()
	epoch := stream.Epoch{Generation: 2, Started: 100}
	mine, err := conn.Acquire(ctx, "c", epoch, "me")
	require.NoError(t, err)
	again, err := conn.Acquire(ctx, "c", epoch, "me") // the same attempt may ask again
	require.NoError(t, err)
	require.NoError(t, again.Check(ctx))
	require.Equal(t, epoch, mine.Epoch())

	for _, e := range []stream.Epoch{epoch, {Generation: 2, Started: 99}, {Generation: 1, Started: 500}} {
		_, err = conn.Acquire(ctx, "c", e, "zombie")
		requireFenced(t, err)
	}
	newer, err := conn.Acquire(ctx, "c", stream.Epoch{Generation: 2, Started: 101}, "other")
	require.NoError(t, err)
	requireFenced(t, mine.Check(ctx))
	_, err = log.NewWriter(ctx, mine)
	requireFenced(t, err)
	_, err = conn.Acquire(ctx, "c", epoch, "me")
	requireFenced(t, err)

	// Shutting out an attempt leaves newer ones alone.
	require.NoError(t, conn.BumpFence(ctx, "c", epoch))
	require.NoError(t, newer.Check(ctx))
	require.NoError(t, conn.BumpFence(ctx, "c", newer.Epoch()))
	requireFenced(t, newer.Check(ctx))
	_, err = conn.Acquire(ctx, "c", newer.Epoch(), "other")
	requireFenced(t, err)
	_, err = conn.Acquire(ctx, "c", stream.Epoch{Generation: 3}, "other")
	require.NoError(t, err)
}

func TestRepeatedAppendIsInTheLogOnce(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	appendAll(t, w, "m1", "m2")

	// Long after: the server remembers the id and the writer goes on where it was.
	sequence, err := w.Append(t.Context(), "m1", []byte("data of m1"))
	require.NoError(t, err)
	require.Equal(t, uint64(2), sequence)
	appendAll(t, w, "m3")

	shared := log.NewSharedWriter()
	for range 2 {
		sequence, err = shared.Append(t.Context(), "m4", []byte("data of m4"))
		require.NoError(t, err)
		require.Equal(t, uint64(5), sequence)
	}
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 4), read(t, r, 4))
	require.Zero(t, r.Buffered())
}

// Attempts of which each takes over from the one before, all of them appending at once: every message that was
// acknowledged is in the log, and between two markers there are messages of one writer only, in its order.
func TestRacingWritersNeverInterleave(t *testing.T) {
	conn := streamtest.Start(t)
	run := 0
	rapid.Check(t, func(rt *rapid.T) {
		run++
		log := openLog(t, conn, fmt.Sprintf("race%d", run))
		component := "c." + log.Name()
		attempts := rapid.IntRange(2, 4).Draw(rt, "attempts")
		appends := rapid.IntRange(1, 30).Draw(rt, "appends")
		acknowledged := make([]map[string]uint64, attempts)
		var wg sync.WaitGroup
		for a := range attempts {
			acknowledged[a] = make(map[string]uint64)
			epoch := stream.Epoch{Generation: rapid.Uint64Range(1, 3).Draw(rt, "generation"), Started: int64(a)}
			wg.Go(func() {
				fence, err := conn.Acquire(t.Context(), component, epoch, fmt.Sprint(a))
				if err == nil {
					var w *stream.Writer
					w, err = log.NewWriter(t.Context(), fence)
					for i := 0; i < appends && err == nil; i++ {
						id := fmt.Sprintf("%d:%d", a, i)
						var sequence uint64
						if sequence, err = w.Append(t.Context(), id, []byte("data of "+id)); err == nil {
							acknowledged[a][id] = sequence
						}
					}
				}
				if err != nil && failure.CodeOf(err) != failure.FencedOff {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		checkNotInterleaved(rt, t.Context(), log, acknowledged)
	})
}

func checkNotInterleaved(t *rapid.T, ctx context.Context, log *stream.Log, acknowledged []map[string]uint64) {
	state, err := log.State(ctx)
	require.NoError(t, err)
	stored := make(map[string]uint64)
	owner, next := "", 0
	for sequence := uint64(1); sequence <= state.Last; sequence++ {
		m, err := log.Get(ctx, sequence)
		if err != nil {
			require.ErrorIs(t, err, stream.ErrMissing)
			owner, next = "", 0 // a marker
			continue
		}
		by, _, _ := strings.Cut(m.ID, ":")
		if owner == "" {
			owner = by
		}
		require.Equal(t, fmt.Sprintf("%s:%d", owner, next), m.ID)
		next++
		stored[m.ID] = sequence
	}
	for _, of := range acknowledged {
		for id, sequence := range of {
			require.Equal(t, sequence, stored[id], id)
		}
	}
}
