package pipeline

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// TestMain looks for goroutines that are left. A stream server that is closed while it makes a log for a process that has
// just been killed does not close the store of that log.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(clustertest.M(m),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"),
		// nats.go forgets the channel that this reads if it starts late, and then it waits for ever.
		goleak.IgnoreTopFunction("github.com/nats-io/nats.go/jetstream.(*jetStream).resetPendingAcksOnReconnect"))
}

// rig is everything that stages need, in one process, with real parts but for the database.
type rig struct {
	t         testing.TB
	server    *stream.Server
	conn      *stream.Conn
	book      *book
	source    component.SourceSpec
	query     component.QuerySpec // that is bootstrapped
	sources   []source.Factory
	index     index.Backend
	reactions []reaction.Factory
	traces    *telemetry.Traces
	metrics   *telemetry.Metrics
	deafAfter time.Duration // of hosts; 0: as ever
	attempts  atomic.Uint64
}

func newRig(t testing.TB) *rig { return newRigOn(t, stream.ServerOptions{}) }

// newRigOn is newRig with a stream server of its own kind, in a directory of its own unless the options name one.
func newRigOn(t testing.TB, o stream.ServerOptions) *rig {
	if o.Log = zap.NewNop(); o.Dir == "" {
		o.Dir = t.TempDir()
	}
	server, err := stream.Serve(o)
	require.NoError(t, err)
	r := &rig{t: t, server: server}
	t.Cleanup(r.stopServer)
	conn, err := stream.Connect(t.Context(), stream.Options{Server: server, Name: t.Name(), Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	b := newBook()
	r.conn, r.book, r.source, r.query, r.sources, r.index = conn, b, shop, auto, []source.Factory{b}, memory.New()
	return r
}

// stopServer stops the stream server, once.
func (r *rig) stopServer() {
	if r.server == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(r.t, r.server.Close(ctx))
	r.server = nil
}

func (r *rig) host() *Host {
	h, err := NewHost(Options{
		Stream: r.conn, Sources: r.sources, Reactions: r.reactions, Index: r.index, HostID: "host", Metrics: r.metrics, Traces: r.traces, Log: zap.NewNop(),
	})
	require.NoError(r.t, err)
	h.deafAfter = cmp.Or(r.deafAfter, h.deafAfter)
	return h
}

var shop = component.SourceSpec{Name: "shop", Kind: "book"}

func (r *rig) attempt(id component.ID) Attempt {
	return Attempt{ID: id, Epoch: stream.Epoch{Generation: r.attempts.Add(1), Started: time.Now().UnixNano()}, Progress: &Progress{}}
}

// run is a stage that is running.
type run struct {
	t      testing.TB
	drain  chan struct{}
	cancel context.CancelFunc
	done   chan error
	status *Progress
	epoch  stream.Epoch
}

func (r *rig) start(id component.ID, body func(context.Context, Attempt) error) *run {
	ctx, cancel := context.WithCancel(context.Background())
	a := r.attempt(id)
	running := &run{t: r.t, drain: make(chan struct{}), cancel: cancel, done: make(chan error, 1), status: a.Progress, epoch: a.Epoch}
	a.Drain = running.drain
	go func() { running.done <- body(ctx, a) }()
	r.t.Cleanup(func() {
		if len(running.done) > 0 && r.t.Failed() {
			r.t.Logf("%s %s ended by itself with: %v; %+v", id, a.Epoch, running.result(), a.Progress.Snapshot())
		}
		cancel()
		running.result()
	})
	return running
}

func (r *run) result() error {
	select {
	case err := <-r.done:
		r.done <- err
		return err
	case <-time.After(20 * time.Second):
		r.t.Error("a stage does not end")
		return context.DeadlineExceeded
	}
}

// kill ends the stage at once.
func (r *run) kill() {
	r.cancel()
	require.ErrorIs(r.t, r.result(), context.Canceled)
}

// drained ends the stage in good order.
func (r *run) drained() {
	close(r.drain)
	require.NoError(r.t, r.result())
}

func (r *rig) startSource() *run {
	h := r.host()
	return r.start(r.source.ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, r.source) })
}

func (r *rig) startQuery(spec component.QuerySpec) *run {
	h := r.host()
	return r.start(spec.ID(), func(ctx context.Context, a Attempt) error {
		_, err := h.RunQuery(ctx, a, spec)
		return err
	})
}

// following waits until a query applies changes as they come.
func (r *rig) following(query *run) {
	r.t.Helper()
	eventually(r.t, func() bool { return len(query.done) > 0 || query.status.Snapshot().Phase == "following" }, "the query runs")
	require.Empty(r.t, query.done, "the query ended")
}

// newReading returns a rig whose source runs and had so many rows before, which the first bootstrap of the query has read.
func newReading(t testing.TB, rows int) (r *rig, src *run) {
	r = newRig(t)
	r.stock(rows)
	src = r.readySource()
	r.bootstrap("first")
	return r, src
}

// newFollowing returns a rig whose query follows, with its state on a disk, after it has read so many rows if it may.
func newFollowing(t testing.TB, spec component.QuerySpec, rows int) (r *rig, src, query *run, dir string) {
	r = newRig(t)
	r.query = spec
	r.stock(rows)
	src = r.readySource()
	dir = r.elsewhere()
	if spec.Bootstrap != "none" {
		r.bootstrap("first")
	}
	query = r.startQuery(spec)
	r.following(query)
	return r, src, query, dir
}

// ran has the query auto do a bootstrap, catch up and stop.
func (r *rig) ran(bootstrap string) {
	r.bootstrap(bootstrap)
	query := r.startQuery(auto)
	r.settled("late")
	query.drained()
}

// changeLog reads the whole change log: each transaction once and in order, or the test fails.
func (r *rig) changeLog() []graph.Transaction {
	log, err := r.conn.OpenLog(r.t.Context(), changeLog("default", "shop"))
	require.NoError(r.t, err)
	last, err := log.Last(r.t.Context())
	require.NoError(r.t, err)
	if last == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(r.t.Context(), 20*time.Second)
	defer cancel()
	var all []graph.Transaction
	var position graph.Position
	staged := func(ctx context.Context) (*stream.Log, error) { return r.host().openStaged(ctx, "default", "shop") }
	err = (&feed{source: "shop", log: log, staged: staged}).run(ctx, 0, func(m message) error {
		for _, tx := range m.Transactions {
			if m.Parts != nil {
				require.NoError(r.t, m.Parts(func(changes []graph.Change) error {
					tx.Changes = append(tx.Changes, slices.Clone(changes)...)
					return nil
				}))
			}
			require.Positive(r.t, tx.Position.Compare(position), "%s follows %s", tx.Position, position)
			position = tx.Position
			all = append(all, tx)
		}
		require.GreaterOrEqual(r.t, m.Position.Compare(position), 0)
		if m.sequence >= last.Sequence {
			return errLoaded
		}
		return nil
	})
	require.ErrorIs(r.t, err, errLoaded)
	return all
}

// eventually waits for a condition.
func eventually(t testing.TB, condition func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
