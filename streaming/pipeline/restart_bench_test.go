package pipeline

import (
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
)

// BenchmarkRestart measures how long a query with a million elements, of which a tenth are rows, takes to follow its
// sources again: with its state on the host's disk, and on a host that has none.
func BenchmarkRestart(b *testing.B) {
	const elements, each = 1_000_000, 1000
	r := newRig(b)
	src := r.readySource()
	dir := b.TempDir()
	r.index = pebble.New(pebble.Options{Dir: dir})
	query := r.startQuery(late)
	r.following(query)
	name := make([]byte, 20)
	for i := 0; i < elements; i += each {
		changes := make([]graph.Change, each)
		for j := range changes {
			for k := range name {
				name[k] = byte('a' + rand.IntN(26))
			}
			changes[j] = item(graph.OpInsert, "Item", i+j, string(name), 2+j%10)
		}
		r.book.commit(changes...)
	}
	end, deadline := r.book.end(), time.After(10*time.Minute)
	for _, state, err := r.shown("late"); err != nil || state.Positions["shop"].Compare(end) < 0; _, state, err = r.shown("late") {
		require.Empty(b, query.done)
		select {
		case <-time.After(100 * time.Millisecond):
		case <-deadline:
			b.Fatal("the changes are not applied")
		}
	}
	query.drained() // which may leave no checkpoint in its time
	query = r.startQuery(late)
	began := time.Now()
	eventually(b, func() bool {
		kept := r.checkpoints().Checkpoints
		return len(kept) > 0 && kept[0].Offsets["shop"] >= query.status.Snapshot().Offset
	}, "there is a checkpoint")
	b.Logf("a checkpoint of %d MiB was there after %s", r.checkpoints().Checkpoints[0].Bytes>>20, time.Since(began).Round(time.Millisecond))
	for _, at := range []string{"disk", "checkpoint"} {
		b.Run(at, func(b *testing.B) {
			for range b.N {
				b.StopTimer()
				query.kill()
				if at == "checkpoint" {
					require.NoError(b, os.RemoveAll(dir))
					dir = b.TempDir()
					r.index = pebble.New(pebble.Options{Dir: dir})
				}
				b.StartTimer()
				query = r.startQuery(late)
				r.following(query)
			}
		})
	}
	require.Zero(b, r.beginnings())
	query.drained()
	src.drained()
}
