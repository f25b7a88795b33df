package stream_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// TestBoundsReserveNothing: what logs may grow to is far more than there is on any disk.
func TestBoundsReserveNothing(t *testing.T) {
	_, conn, _ := serveWithSpace(t)
	for i := range 100 {
		_, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: fmt.Sprintf("log-%d", i), MaxBytes: 1 << 50})
		require.NoError(t, err)
	}
}

// TestNearlyFullDisk: nothing is taken until there is space again, and then all goes on.
func TestNearlyFullDisk(t *testing.T) {
	_, conn, free := serveWithSpace(t)
	log, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: "log"})
	require.NoError(t, err)
	w := writer(t, conn, log, 1)
	appendAll(t, w, "one")
	free.Store(100 << 20)
	n := 0
	require.Eventually(t, func() bool {
		n++
		_, err = w.Append(t.Context(), fmt.Sprintf("before %d", n), []byte("x"))
		return err != nil
	}, 10*time.Second, 20*time.Millisecond)
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
	_, err = conn.EnsureLog(t.Context(), stream.LogOptions{Name: "another"})
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
	free.Store(550 << 20) // not enough to be sure
	_, err = w.Append(t.Context(), fmt.Sprintf("before %d", n), []byte("x"))
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
	free.Store(600 << 20)
	require.Eventually(t, func() bool {
		_, err = w.Append(t.Context(), fmt.Sprintf("before %d", n), []byte("x"))
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	appendAll(t, w, "two")
}

// TestLogsYieldSpace: logs that yield are refused while all else is taken, for whoever is connected; a writer can still
// take one over, and it goes on by itself.
func TestLogsYieldSpace(t *testing.T) {
	server, conn, free := serveWithSpace(t)
	other, err := stream.Connect(t.Context(), stream.Options{URL: server.URL(), Name: "other process", Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(other.Close)
	options := stream.LogOptions{Name: "yields", Yields: true}
	yields, err := conn.EnsureLog(t.Context(), options)
	require.NoError(t, err)
	first := writer(t, conn, yields, 1)
	appendAll(t, first, "one")
	yields, err = other.EnsureLog(t.Context(), options)
	require.NoError(t, err)
	shared := yields.NewSharedWriter()
	n := 0
	eventually := func(append func(context.Context, string, []byte) (uint64, error), refused bool) {
		t.Helper()
		require.Eventually(t, func() bool {
			n++
			_, err := append(t.Context(), fmt.Sprint(n), []byte("x"))
			return refused == (err != nil) && (err == nil || failure.CodeOf(err) == failure.StreamFull)
		}, 10*time.Second, 20*time.Millisecond)
	}
	free.Store(1 << 30)
	eventually(first.Append, true)
	eventually(shared.Append, true)
	require.True(t, other.ShortOfSpace())

	appendAll(t, writer(t, other, openLog(t, other, "log"), 1), "one", "two")
	bucket, err := other.Bucket(t.Context(), stream.BucketOptions{Name: "bucket"})
	require.NoError(t, err)
	_, err = bucket.Put(t.Context(), "key", []byte("value"))
	require.NoError(t, err)
	objects, err := other.Objects(t.Context(), "objects", "")
	require.NoError(t, err)
	require.NoError(t, objects.Put(t.Context(), "object", make([]byte, 1<<20)))
	second := writer(t, other, yields, 2)
	_, err = second.Append(t.Context(), "refused", []byte("x"))
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
	require.NoError(t, yields.TrimBefore(t.Context(), second.Last()))

	free.Store(3 << 30)
	eventually(second.Append, false)
	require.False(t, other.ShortOfSpace())
	free.Store(1 << 20)
	eventually(second.Append, true)
	eventually(openLog(t, conn, "log").NewSharedWriter().Append, true)
	free.Store(1 << 30) // some of the way
	eventually(openLog(t, conn, "log").NewSharedWriter().Append, false)
	_, err = second.Append(t.Context(), "still refused", []byte("x"))
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
}

// TestReserves: what is to stay free of disks of all sizes.
func TestReserves(t *testing.T) {
	const mib, gib = 1 << 20, 1 << 30
	for _, c := range []struct{ total, yield, last uint64 }{
		{256 * mib, 64 * mib, 16 * mib},
		{10 * gib, 512 * mib, 204 * mib},
		{20 * gib, 1 * gib, 409 * mib},
		{1000 * gib, 2 * gib, 512 * mib},
	} {
		yield, last := stream.Reserves(c.total)
		require.InDelta(t, c.yield, yield, mib, "of %d", c.total)
		require.InDelta(t, c.last, last, mib, "of %d", c.total)
	}
}

func serveWithSpace(t *testing.T) (*stream.Server, *stream.Conn, *atomic.Uint64) {
	t.Helper()
	free := new(atomic.Uint64)
	free.Store(100 << 30)
	server, err := stream.Serve(stream.WithSpace(stream.ServerOptions{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: zap.NewNop()},
		func() (uint64, uint64) { return free.Load(), 200 << 30 }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	conn, err := stream.Connect(t.Context(), stream.Options{Server: server, Name: "test", Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return server, conn, free
}
