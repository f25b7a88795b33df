package stack_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/devserver"
	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
	"github.com/perdure/perdure/workflows"
)

func TestMain(m *testing.M) { os.Exit(clustertest.M(m).Run()) }

// buggySource is the source of Postgres, in which what looks after the slot panics.
type buggySource struct{ postgres.Factory }

func (buggySource) Kind() string { return "buggy" }

func (f buggySource) New(config json.RawMessage, s source.Settings) (source.Source, error) {
	made, err := f.Factory.New(config, s)
	return unmeasured{made}, err
}

type unmeasured struct{ source.Source }

func (u unmeasured) Run(ctx context.Context, from graph.Position, sink source.Sink) error {
	return u.Source.Run(ctx, from, buggySink{sink})
}

type buggySink struct{ source.Sink }

func (buggySink) Measure(string, float64) { panic("a bug in a source") }

// witness is a reaction that counts rows, or panics instead.
type witness struct {
	kind   string
	panics bool
	rows   atomic.Int64
}

func (w *witness) Kind() string { return w.kind }

func (w *witness) New(json.RawMessage, reaction.Settings) (reaction.Reaction, error) { return w, nil }

func (w *witness) Close(context.Context) error { return nil }

func (w *witness) Deliver(_ context.Context, d reaction.Delivery) error {
	if w.panics {
		panic("a bug in a reaction")
	}
	w.rows.Add(int64(len(d.Event.Diffs)))
	return nil
}

// TestPanicsAreTheirComponentsAlone has a source and a reaction panic, in goroutines of their own, in a process in which others
// of both run: those fail and say why, and these go on.
func TestPanicsAreTheirComponentsAlone(t *testing.T) {
	s := newSystem(t)
	s.start("Source", "source.default.shop", map[string]any{"name": "shop", "kind": "postgres", "config": config("items", "Item")})
	s.start("Query", "query.default.all", map[string]any{"name": "all", "query": "MATCH (i:Item) RETURN i.id AS id", "sources": []string{"shop"}})
	s.start("Reaction", "reaction.default.witness", map[string]any{"name": "witness", "kind": "witness", "queries": []string{"all"}})
	healthy := []string{"source.default.shop", "query.default.all", "reaction.default.witness"}
	for _, id := range healthy {
		s.await(id, func(st workflows.Status) bool { return st.Phase == workflows.PhaseRunning })
	}
	s.insert(1)

	s.start("Source", "source.default.broken", map[string]any{"name": "broken", "kind": "buggy", "config": config("others", "Other")})
	s.start("Reaction", "reaction.default.broken", map[string]any{"name": "broken", "kind": "buggy", "queries": []string{"all"}})
	for _, id := range []string{"source.default.broken", "reaction.default.broken"} {
		st := s.await(id, func(st workflows.Status) bool { return st.Breaker.LastError != nil })
		require.Equal(t, "failing", st.Health, id)
		require.Equal(t, failure.Panic.ID, st.Breaker.LastError.Code, id)
		require.Contains(t, st.Breaker.LastError.Message, "a bug in a", id)
	}
	s.insert(2)
	for _, id := range healthy {
		st := s.await(id, func(st workflows.Status) bool { return st.Phase == workflows.PhaseRunning })
		require.Nil(t, st.Breaker.LastError, id)
	}
}

// system is all that a worker needs, and a worker, in this process.
type system struct {
	t        *testing.T
	client   client.Client
	postgres string
	witness  *witness
}

func newSystem(t *testing.T) *system {
	s := &system{t: t, postgres: clustertest.Database(t), witness: &witness{kind: "witness"}}
	clustertest.Exec(t, s.postgres, "CREATE TABLE items (id int PRIMARY KEY); CREATE TABLE others (id int PRIMARY KEY)")
	bounded := func(stop func(context.Context) error) {
		t.Cleanup(func() {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			require.NoError(t, stop(ctx))
		})
	}
	dir, log := t.TempDir(), zap.NewNop()
	temporal, err := devserver.Start(t.Context(), devserver.Options{DBFile: filepath.Join(dir, "temporal.db"), FrontendAddr: "127.0.0.1:0", Namespace: "default", Log: log})
	require.NoError(t, err)
	bounded(temporal.Stop)
	server, err := stream.Serve(stream.ServerOptions{Dir: filepath.Join(dir, "stream"), Log: log})
	require.NoError(t, err)
	bounded(server.Close)
	conn, err := stream.Connect(t.Context(), stream.Options{Server: server, Name: "test", Log: log})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	s.client, err = client.DialContext(t.Context(), client.Options{HostPort: temporal.Address(), Namespace: "default", Logger: workers.Logger(log)})
	require.NoError(t, err)
	t.Cleanup(s.client.Close)
	host, err := pipeline.NewHost(pipeline.Options{
		Stream: conn, Sources: append(catalog.Sources(), buggySource{}), Reactions: append(catalog.Reactions(), s.witness, &witness{kind: "buggy", panics: true}),
		Index: pebble.New(pebble.Options{Dir: filepath.Join(dir, "index")}), SpillDir: dir, HostID: "host", Log: log,
		Secret: func(string) (string, error) { return s.postgres, nil },
	})
	require.NoError(t, err)
	bounded(host.Close)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		ended <- workers.Run(ctx, workers.Options{Client: s.client, Namespace: "default", Host: host, HostID: "host", Stream: conn, Log: log})
	}()
	t.Cleanup(func() { stop(); require.NoError(t, <-ended) })
	return s
}

// start starts a component.
func (s *system) start(workflow, id string, spec map[string]any) {
	s.t.Helper()
	_, err := s.client.ExecuteWorkflow(s.t.Context(), client.StartWorkflowOptions{ID: id, TaskQueue: workers.TaskQueue}, workflow, map[string]any{"spec": spec})
	require.NoError(s.t, err)
}

// await returns the status of a component that is as it is to be.
func (s *system) await(id string, wanted func(workflows.Status) bool) (st workflows.Status) {
	s.t.Helper()
	require.EventuallyWithT(s.t, func(c *assert.CollectT) {
		answer, err := s.client.QueryWorkflow(s.t.Context(), id, "", workflows.QueryStatus)
		require.NoError(c, err)
		st = workflows.Status{}
		require.NoError(c, answer.Get(&st))
		require.True(c, wanted(st), "%s: %+v", id, st)
	}, time.Minute, 50*time.Millisecond)
	return st
}

// insert has the witness see another row.
func (s *system) insert(id int) {
	s.t.Helper()
	seen := s.witness.rows.Load()
	clustertest.Exec(s.t, s.postgres, fmt.Sprintf("INSERT INTO items VALUES (%d)", id))
	require.Eventually(s.t, func() bool { return s.witness.rows.Load() == seen+1 }, time.Minute, 10*time.Millisecond)
}

func config(table, label string) map[string]any {
	return map[string]any{"url": map[string]any{"$secret": "env:POSTGRES"}, "tables": []any{map[string]any{"name": table, "label": label}}}
}
