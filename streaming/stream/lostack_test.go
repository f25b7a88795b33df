package stream_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// wire is a TCP relay in front of a server, which can swallow what the server answers and break connections.
type wire struct {
	listener net.Listener
	target   string
	wg       sync.WaitGroup

	mu    sync.Mutex
	deaf  bool // answers are swallowed
	conns map[net.Conn]struct{}
}

func newWire(t *testing.T, target string) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	w := &wire{listener: l, target: target, conns: make(map[net.Conn]struct{})}
	w.wg.Go(w.accept)
	t.Cleanup(func() {
		_ = l.Close()
		w.cut()
		w.wg.Wait()
	})
	return w
}

func (w *wire) accept() {
	for {
		client, err := w.listener.Accept()
		if err != nil {
			return
		}
		server, err := net.Dial("tcp", w.target)
		if err != nil {
			_ = client.Close()
			continue
		}
		w.mu.Lock()
		w.conns[client], w.conns[server] = struct{}{}, struct{}{}
		w.mu.Unlock()
		w.wg.Go(func() { _, _ = io.Copy(server, client); _ = server.Close() })
		w.wg.Go(func() { w.answer(client, server); _ = client.Close() })
	}
}

func (w *wire) answer(client, server net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := server.Read(buf)
		if err != nil {
			return
		}
		w.mu.Lock()
		deaf := w.deaf
		w.mu.Unlock()
		if deaf {
			continue
		}
		if _, err := client.Write(buf[:n]); err != nil {
			return
		}
	}
}

func (w *wire) setDeaf(deaf bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.deaf = deaf
}

// cut breaks all connections.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
	clear(w.conns)
}

// relayed returns a connection through a wire, and one beside it.
func relayed(t *testing.T) (*wire, *stream.Conn, *stream.Conn) {
	t.Helper()
	server := serve(t, t.TempDir(), "127.0.0.1:0")
	t.Cleanup(func() { stop(t, server) })
	w := newWire(t, server.URL()[len("nats://"):])
	beside := connect(t, stream.Options{Server: server})
	t.Cleanup(beside.Close)
	conn := connect(t, stream.Options{URL: "nats://" + w.listener.Addr().String()})
	t.Cleanup(conn.Close)
	return w, conn, beside
}

func TestLostAcknowledgementIsResolved(t *testing.T) {
	wire, conn, beside := relayed(t)
	log := openLog(t, conn, "L")
	watched := openLog(t, beside, "L")
	w := writer(t, conn, log, 1)
	for i := range 5 {
		id := fmt.Sprintf("m%d", i+1)
		wire.setDeaf(true)
		type result struct {
			sequence uint64
			err      error
		}
		done := make(chan result, 1)
		go func() {
			sequence, err := w.Append(t.Context(), id, []byte("data of "+id))
			done <- result{sequence, err}
		}()
		require.Eventually(t, func() bool { // stored, but nobody heard of it
			last, err := watched.Last(t.Context())
			return err == nil && last != nil && last.ID == id
		}, 10*time.Second, time.Millisecond)
		wire.cut()
		wire.setDeaf(false)
		got := <-done
		require.NoError(t, got.err)
		require.Equal(t, uint64(i+2), got.sequence)
	}
	appendAll(t, w, "m6")
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 6), read(t, r, 6))
}

func TestAppendOfUnknownOutcomeMustBeRepeatedFirst(t *testing.T) {
	wire, conn, _ := relayed(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	wire.setDeaf(true)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := w.Append(ctx, "m1", []byte("data of m1"))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	wire.cut()
	wire.setDeaf(false)

	_, err = w.Append(t.Context(), "m2", nil)
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	appendAll(t, w, "m1", "m2")
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 2), read(t, r, 2))
}

func TestReaderGoesOnWhereTheConnectionBroke(t *testing.T) {
	wire, conn, beside := relayed(t)
	log := openLog(t, beside, "L")
	w := writer(t, beside, log, 1)
	appendAll(t, w, names(1, 300)...)
	through, err := conn.OpenLog(t.Context(), "L")
	require.NoError(t, err)
	r, err := through.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	for i := range 6 {
		require.Equal(t, names(50*i+1, 50*i+50), read(t, r, 50))
		wire.cut()
	}
	appendAll(t, w, "m301")
	require.Equal(t, []string{"m301"}, read(t, r, 1))
}

// TestAClaimThatHangsHoldsUpNothingElse opens the bucket of claims for the first time while the server does not answer.
func TestAClaimThatHangsHoldsUpNothingElse(t *testing.T) {
	w, conn, _ := relayed(t)
	log := openLog(t, conn, "L")
	w.setDeaf(true)
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
	defer cancel()
	claimed := make(chan error, 1)
	begin := time.Now()
	go func() {
		_, err := conn.Acquire(ctx, "c", stream.Epoch{Generation: 1}, "me")
		claimed <- err
	}()
	for range 3 { // at the latest the second begins when the claim is on its way
		short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err := log.NewSharedWriter().Append(short, "m", nil)
		cancel()
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	require.Less(t, time.Since(begin), 3*time.Second)
	require.ErrorIs(t, <-claimed, context.DeadlineExceeded)
	w.setDeaf(false)
	_, err := conn.Acquire(t.Context(), "c", stream.Epoch{Generation: 1}, "me")
	require.NoError(t, err)
}
