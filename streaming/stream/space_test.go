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
	conn, _ := serveWithSpace(t)
	for i := range 100 {
		_, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: fmt.Sprintf("log-%d", i), MaxBytes: 1 << 50})
		require.NoError(t, err)
	}
}

// TestNearlyFullDisk: nothing is taken until there is space again, and then all goes on.
func TestNearlyFullDisk(t *testing.T) {
	conn, free := serveWithSpace(t)
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
	free.Store(600 << 20) // not enough to be sure
	_, err = w.Append(t.Context(), fmt.Sprintf("before %d", n), []byte("x"))
	require.Equal(t, failure.StreamFull, failure.CodeOf(err), "%v", err)
	free.Store(1 << 30)
	require.Eventually(t, func() bool {
		_, err = w.Append(t.Context(), fmt.Sprintf("before %d", n), []byte("x"))
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)
	appendAll(t, w, "two")
}

func serveWithSpace(t *testing.T) (*stream.Conn, *atomic.Uint64) {
	t.Helper()
	free := new(atomic.Uint64)
	free.Store(100 << 30)
	server, err := stream.Serve(stream.WithSpace(stream.ServerOptions{Dir: t.TempDir(), Log: zap.NewNop()},
		func() (uint64, uint64) { return free.Load(), 200 << 30 }))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, server.Close(context.Background())) })
	conn, err := stream.Connect(t.Context(), stream.Options{Server: server, Name: "test", Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return conn, free
}
