package pipeline

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/stream"
)

// TestChangeLogFillsTheDisk has a source write, while its query is stopped, until the disk of the stream server is short of
// space, which a restart does not change. Then the query goes on, with results and checkpoints for which there is still
// room, and so does the source, by itself, when the change log is trimmed.
func TestChangeLogFillsTheDisk(t *testing.T) {
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=96m"); err != nil {
		t.Skip("the disk to be filled is a small tmpfs, which this user may not mount (run as root): ", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	r := newRigOn(t, stream.ServerOptions{Dir: dir})
	r.elsewhere()
	src := r.readySource()
	query := r.startQuery(late)
	r.following(query)
	r.book.commit(item(graph.OpInsert, "Item", 1, "first", 20))
	r.settled("late")
	eventually(t, func() bool { return len(r.checkpoints().Checkpoints) > 0 }, "there is a checkpoint")
	query.drained()

	text, written := strings.Repeat("x", 64<<10), 0
	write := func() (position graph.Position) {
		written++
		r.book.commit(item(graph.OpUpdate, "Item", 100+written%20, text, 0)) // is in no result
		return r.book.commit(item(graph.OpUpdate, "Item", written%3, "small", 20+written))
	}
	waits := func() bool {
		return strings.Contains(src.status.Snapshot().Backpressure, "room for the change log: ")
	}
	for !waits() {
		position := write()
		eventually(t, func() bool { return r.book.confirmedAt() == position || waits() }, "the source goes on or waits for room")
	}
	for range 2 * maxWaiting / len(text) { // more than the source takes
		write()
	}
	require.True(t, r.conn.ShortOfSpace())
	src.kill()
	src = r.readySource() // there is room for it to take over
	eventually(t, waits, "another attempt waits as well")
	stopped, ticked := r.book.confirmedAt(), src.status.LastTick()
	eventually(t, func() bool { return src.status.LastTick().After(ticked.Add(2 * roomEvery)) }, "the source is well")
	require.Equal(t, stopped, r.book.confirmedAt())
	require.Empty(t, src.done)

	results, err := r.conn.OpenLog(t.Context(), resultLog("default", "late"))
	require.NoError(t, err)
	before, err := results.State(t.Context())
	require.NoError(t, err)
	query = r.startQuery(late)
	eventually(t, func() bool {
		now, err := results.State(t.Context())
		require.NoError(t, err)
		return r.conn.ShortOfSpace() && now.Last > before.Last+1 // the marker of who writes it, and results
	}, "results are taken while changes are not")
	require.Eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, 3*time.Minute, 50*time.Millisecond, "all is in the log")
	eventually(t, func() bool { return src.status.Snapshot().Backpressure == "" }, "the source waits for nothing")
	r.settled("late")
	query.drained()
	src.drained()
}
