package stream_test

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func TestMain(m *testing.M) {
	// nats.go forgets the channel that this reads if it starts late, and then it waits for ever.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// writer opens a log and takes it over under an epoch.
func writer(t testing.TB, conn *stream.Conn, log *stream.Log, generation uint64) *stream.Writer {
	t.Helper()
	fence, err := conn.Acquire(t.Context(), "source.test."+log.Name(), stream.Epoch{Generation: generation}, "holder")
	require.NoError(t, err)
	w, err := log.NewWriter(t.Context(), fence)
	require.NoError(t, err)
	return w
}

func openLog(t testing.TB, conn *stream.Conn, name string) *stream.Log {
	t.Helper()
	log, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: name})
	require.NoError(t, err)
	return log
}

func appendAll(t testing.TB, w *stream.Writer, ids ...string) {
	t.Helper()
	for _, id := range ids {
		_, err := w.Append(t.Context(), id, []byte("data of "+id))
		require.NoError(t, err)
	}
}

// read reads the ids of n messages.
func read(t testing.TB, r *stream.Reader, n int) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ids := make([]string, 0, n)
	for range n {
		m, err := r.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, "data of "+m.ID, string(m.Data))
		ids = append(ids, m.ID)
	}
	return ids
}

func names(from, to int) []string {
	var ids []string
	for i := from; i <= to; i++ {
		ids = append(ids, fmt.Sprintf("m%d", i))
	}
	return ids
}

func serve(t testing.TB, dir, listen string) *stream.Server {
	t.Helper()
	server, err := stream.Serve(stream.ServerOptions{Dir: dir, Listen: listen, Log: zap.NewNop()})
	require.NoError(t, err)
	return server
}

func stop(t testing.TB, server *stream.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, server.Close(ctx))
}

func connect(t testing.TB, o stream.Options) *stream.Conn {
	t.Helper()
	o.Log, o.Name = zap.NewNop(), t.Name()
	conn, err := stream.Connect(t.Context(), o)
	require.NoError(t, err)
	return conn
}

func TestLogReadsInOrderFromAnySequence(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "CHG_a_b")
	w := writer(t, conn, log, 1)
	appendAll(t, w, names(1, 500)...)

	for _, from := range []uint64{0, 1} {
		r, err := log.Read(t.Context(), from)
		require.NoError(t, err)
		require.Equal(t, names(1, 500), read(t, r, 500))
		r.Close()
	}
	r, err := log.Read(t.Context(), 401) // sequence 1 is the writer's marker
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(400, 500), read(t, r, 101))

	// What comes later comes too.
	appendAll(t, w, "m501")
	require.Equal(t, []string{"m501"}, read(t, r, 1))

	state, err := log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(502), state.Last)
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	require.Equal(t, "m501", last.ID)
	require.Equal(t, uint64(502), last.Sequence)
	require.WithinDuration(t, time.Now(), last.Time, time.Minute)
	m, err := log.Get(t.Context(), 3)
	require.NoError(t, err)
	require.Equal(t, "m2", m.ID)
	_, err = log.Get(t.Context(), 1)
	require.ErrorIs(t, err, stream.ErrMissing)
	_, err = log.Get(t.Context(), 1000)
	require.ErrorIs(t, err, stream.ErrMissing)
}

// TestReadToAsksForNoMore: whoever wants a part of a log does not have the server send what follows it.
func TestReadToAsksForNoMore(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	appendAll(t, writer(t, conn, log, 1), names(1, 500)...)
	js, err := jetstream.New(conn.NATS())
	require.NoError(t, err)
	of, err := js.Stream(t.Context(), "L")
	require.NoError(t, err)
	for _, part := range []struct {
		from, last, sent uint64
		ids              []string
	}{{0, 11, 11, names(1, 10)}, {1, 11, 11, names(1, 10)}, {101, 101, 1, names(100, 100)}, {401, 501, 101, names(400, 500)}} {
		r, err := log.ReadTo(t.Context(), part.from, part.last)
		require.NoError(t, err)
		require.Equal(t, part.ids, read(t, r, len(part.ids)))
		require.NoError(t, conn.NATS().Flush()) // what was asked for is sent
		for info := range of.ListConsumers(t.Context()).Info() {
			require.Equal(t, part.sent, info.Delivered.Consumer)
		}
		r.Close()
		require.NoError(t, conn.NATS().Flush())
		require.Eventually(t, func() bool {
			left := 0
			for range of.ListConsumers(t.Context()).Info() {
				left++
			}
			return left == 0
		}, 10*time.Second, time.Millisecond)
	}
}

func TestReaderWaitsNoLongerThanItsContext(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = r.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Zero(t, r.Buffered())

	appendAll(t, writer(t, conn, log, 1), "m1") // and goes on afterwards
	require.Equal(t, names(1, 1), read(t, r, 1))
}

// TestReaderSaysThatItHears as long as the server is there, and neither while it is away, nor of what it has yet to read.
func TestReaderSaysThatItHears(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	server := serve(t, dir, address)
	conn := connect(t, stream.Options{URL: server.URL()})
	defer conn.Close()
	log := openLog(t, conn, "LOG")
	appendAll(t, writer(t, conn, log, 1), "m1")
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	heard := 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	r.OnIdle(func() {
		if heard++; heard == 2 {
			cancel()
		}
	})
	require.Equal(t, []string{"m1"}, read(t, r, 1))
	require.Zero(t, heard)
	_, err = r.Next(ctx)
	require.ErrorIs(t, err, context.Canceled)
	require.Equal(t, 2, heard)

	stop(t, server)
	ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	_, err = r.Next(ctx)
	require.Error(t, err)
	require.LessOrEqual(t, heard, 3, "one may have been under way")
}

func TestLogsAreListedOpenedAndDeleted(t *testing.T) {
	conn := streamtest.Start(t)
	for _, name := range []string{"RES_x_b", "RES_x_a", "CHG_x_a"} {
		openLog(t, conn, name)
	}
	list, err := conn.LogNames(t.Context(), "RES_")
	require.NoError(t, err)
	require.Equal(t, []string{"RES_x_a", "RES_x_b"}, list)

	require.NoError(t, conn.DeleteLog(t.Context(), "RES_x_a"))
	require.NoError(t, conn.DeleteLog(t.Context(), "RES_x_a"))
	_, err = conn.OpenLog(t.Context(), "RES_x_a")
	require.ErrorIs(t, err, stream.ErrMissing)
	log, err := conn.OpenLog(t.Context(), "RES_x_b")
	require.NoError(t, err)
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	require.Nil(t, last)
	state, err := log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, stream.LogState{First: 1}, state)

	_, err = conn.EnsureLog(t.Context(), stream.LogOptions{Name: "no.dots"})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
}

func TestReadingWhatWasTrimmedFails(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	appendAll(t, w, names(1, 100)...)
	require.NoError(t, log.TrimBefore(t.Context(), 51))
	state, err := log.State(t.Context())
	require.NoError(t, err)
	require.Equal(t, uint64(51), state.First)

	_, err = log.Read(t.Context(), 50)
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))
	_, err = log.Read(t.Context(), 103) // further than the log ever was
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))
	for _, from := range []uint64{0, 1, 51} {
		r, err := log.Read(t.Context(), from)
		require.NoError(t, err)
		require.Equal(t, names(50, 100), read(t, r, 51))
		r.Close()
	}
}

func TestReaderNoticesTrimmingBeforeItsEyes(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	big := make([]byte, 1<<20)
	for i := range 64 { // more than a reader reads ahead
		_, err := w.Append(t.Context(), fmt.Sprint(i), big)
		require.NoError(t, err)
	}
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	_, err = r.Next(t.Context())
	require.NoError(t, err)
	require.NoError(t, log.TrimBefore(t.Context(), 60))
	next := uint64(3)
	for {
		m, err := r.Next(t.Context())
		if err != nil {
			require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))
			break
		}
		require.Equal(t, next, m.Sequence)
		next++
	}
	require.Less(t, next, uint64(60))
}

func TestTrimmingKeepsTheNewestMessage(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	require.NoError(t, log.TrimBefore(t.Context(), 10))
	appendAll(t, writer(t, conn, log, 1), "m1", "m2")
	writer(t, conn, log, 2) // its marker comes last
	require.NoError(t, log.TrimBefore(t.Context(), 1000))
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	require.Equal(t, "m2", last.ID)
	appendAll(t, writer(t, conn, log, 3), "m3")
}

func TestLogBounds(t *testing.T) {
	conn := streamtest.Start(t)
	refusing, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: "refusing", MaxBytes: 100_000, Refuse: true})
	require.NoError(t, err)
	w := writer(t, conn, refusing, 1)
	kept := 0
	for ; err == nil; kept++ {
		_, err = w.Append(t.Context(), fmt.Sprint(kept), make([]byte, 10_000))
	}
	require.Equal(t, failure.StreamFull, failure.CodeOf(err))
	require.Greater(t, kept, 5)
	require.NoError(t, refusing.TrimBefore(t.Context(), 5))
	_, err = w.Append(t.Context(), "again", make([]byte, 10_000)) // there is room now
	require.NoError(t, err)

	dropping, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: "dropping", MaxBytes: 100_000})
	require.NoError(t, err)
	w = writer(t, conn, dropping, 1)
	for i := range 50 {
		_, err = w.Append(t.Context(), fmt.Sprint(i), make([]byte, 10_000))
		require.NoError(t, err)
	}
	state, err := dropping.State(t.Context())
	require.NoError(t, err)
	require.LessOrEqual(t, state.Bytes, uint64(100_000))
	require.Equal(t, uint64(51), state.Last)

	_, err = w.Append(t.Context(), "huge", make([]byte, stream.MaxMessage+1))
	require.Equal(t, failure.BadRecord, failure.CodeOf(err))
	_, err = w.Append(t.Context(), "fine", nil)
	require.NoError(t, err)
}

func TestServerRestartKeepsEverything(t *testing.T) {
	dir := t.TempDir()
	server := serve(t, dir, "")
	conn := connect(t, stream.Options{Server: server})
	log := openLog(t, conn, "L")
	appendAll(t, writer(t, conn, log, 1), names(1, 50)...)
	bucket, err := conn.Bucket(t.Context(), stream.BucketOptions{Name: "b"})
	require.NoError(t, err)
	_, err = bucket.Put(t.Context(), "k", []byte("v"))
	require.NoError(t, err)
	conn.Close()

	_, err = stream.Serve(stream.ServerOptions{Dir: dir, Log: zap.NewNop()})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), "a directory has one server")
	stop(t, server)

	server = serve(t, dir, "")
	defer stop(t, server)
	conn = connect(t, stream.Options{Server: server})
	defer conn.Close()
	log, err = conn.OpenLog(t.Context(), "L")
	require.NoError(t, err)
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 50), read(t, r, 50))
	bucket, err = conn.Bucket(t.Context(), stream.BucketOptions{Name: "b"})
	require.NoError(t, err)
	e, err := bucket.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, "v", string(e.Value))
	_, err = conn.Acquire(t.Context(), "source.test.L", stream.Epoch{}, "late")
	require.Equal(t, failure.FencedOff, failure.CodeOf(err))
}

// freeAddress returns an address where a server can be started and started again.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer func() { require.NoError(t, l.Close()) }()
	return l.Addr().String()
}

func TestReaderAndWriterSurviveServerRestart(t *testing.T) {
	dir, address := t.TempDir(), freeAddress(t)
	server := serve(t, dir, address)
	require.Equal(t, "nats://"+address, server.URL())
	conn := connect(t, stream.Options{URL: server.URL()})
	defer conn.Close()
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	appendAll(t, w, "m1", "m2")
	require.Equal(t, names(1, 2), read(t, r, 2))

	stop(t, server)
	appended := make(chan error, 1)
	go func() { // while there is no server
		_, err := w.Append(t.Context(), "m3", []byte("data of m3"))
		appended <- err
	}()
	server = serve(t, dir, address)
	defer func() { stop(t, server) }()
	require.NoError(t, <-appended)
	appendAll(t, w, "m4")
	require.Equal(t, names(3, 4), read(t, r, 2))
}

func TestListening(t *testing.T) {
	server := serve(t, t.TempDir(), ":0")
	defer stop(t, server)
	require.Contains(t, server.URL(), "127.0.0.1")
	_, err := stream.Serve(stream.ServerOptions{Dir: t.TempDir(), Listen: server.URL()[len("nats://"):], Log: zap.NewNop()})
	require.Equal(t, failure.PortInUse, failure.CodeOf(err))
	_, err = stream.Serve(stream.ServerOptions{Dir: t.TempDir(), Listen: "nonsense", Log: zap.NewNop()})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
}

func TestConnectingToNothingFailsInTime(t *testing.T) {
	start := time.Now()
	_, err := stream.Connect(t.Context(), stream.Options{
		URL: "nats://" + freeAddress(t), Log: zap.NewNop(), RequestTimeout: 100 * time.Millisecond,
	})
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestNothingWaitsForAClosedConnection(t *testing.T) {
	server := serve(t, t.TempDir(), "")
	defer stop(t, server)
	conn := connect(t, stream.Options{Server: server})
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	r, err := log.Read(t.Context(), 2)
	require.NoError(t, err)
	ended := make(chan error)
	go func() {
		_, err := r.Next(t.Context())
		ended <- err
	}()
	start := time.Now()
	conn.Close()
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(<-ended))
	_, err = w.Append(t.Context(), "m1", nil)
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	_, err = log.NewSharedWriter().Append(t.Context(), "m1", nil)
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	_, err = log.State(t.Context())
	require.Equal(t, failure.StreamUnavailable, failure.CodeOf(err))
	r.Close()
	conn.Close() // once more is no harm
	require.Less(t, time.Since(start), 5*time.Second)
}

func TestReaderGoesOnWhenTheServerForgotIt(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	appendAll(t, w, names(1, 3)...)
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, 3), read(t, r, 3))

	js, err := jetstream.New(conn.NATS())
	require.NoError(t, err)
	of, err := js.Stream(t.Context(), "L")
	require.NoError(t, err)
	for name := range of.ConsumerNames(t.Context()).Name() {
		require.NoError(t, of.DeleteConsumer(t.Context(), name))
	}
	appendAll(t, w, "m4")
	require.Equal(t, []string{"m4"}, read(t, r, 1))

	// That its log is gone is another matter.
	require.NoError(t, conn.DeleteLog(t.Context(), "L"))
	_, err = r.Next(t.Context())
	require.ErrorIs(t, err, stream.ErrMissing)
	openLog(t, conn, "L")
	_, err = r.Next(t.Context())
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err), "another log of that name is not the same")
}
