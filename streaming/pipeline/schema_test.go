package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// bootstrapOf builds a query from a snapshot of its only source.
func (r *rig) bootstrapOf(src component.SourceSpec, query component.QuerySpec, id string) {
	r.t.Helper()
	h := r.host()
	ref := BootstrapRef{ID: id, Instance: "default", Query: query.Name, Source: src.Name, SnapshotGeneration: 1}
	_, err := h.Subscribe(r.t.Context(), ref)
	require.NoError(r.t, err)
	ctx, release := context.WithCancel(r.t.Context())
	ready, released := make(chan graph.Position, 1), make(chan error, 1)
	go func() {
		released <- h.HoldSnapshot(ctx, ref, src, func(p graph.Position) error { ready <- p; return nil }, func() {})
	}()
	select {
	case <-ready:
	case err := <-released:
		r.t.Fatalf("no snapshot: %v", err)
	}
	_, err = h.PlanChunks(r.t.Context(), ref, src, query)
	require.NoError(r.t, err)
	_, err = h.CopyChunks(r.t.Context(), ref, src, "worker", func(CopyProgress) {})
	require.NoError(r.t, err)
	require.NoError(r.t, h.VerifyBootstrap(r.t.Context(), ref, src, func() {}))
	_, _, err = h.SealBootstrap(r.t.Context(), ref)
	require.NoError(r.t, err)
	release()
	require.NoError(r.t, <-released)
}

// TestDDLStopsQueriesThatReadIt alters a table under queries that read different things of it.
func TestDDLStopsQueriesThatReadIt(t *testing.T) {
	db := clustertest.Database(t)
	exec := func(statement string) { t.Helper(); clustertest.Exec(t, db, statement) }
	exec(`CREATE TABLE item (id serial PRIMARY KEY, name text, amount int, note text); CREATE TABLE other (id serial PRIMARY KEY);
		INSERT INTO item (name, amount) SELECT 'n' || i, i FROM generate_series(1, 20) i; INSERT INTO other DEFAULT VALUES`)
	u, err := url.Parse(db)
	require.NoError(t, err)
	spec := component.SourceSpec{Name: "pg" + u.Path[len("/test_"):], Kind: postgres.Kind}
	spec.Config = json.RawMessage(fmt.Sprintf(`{"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable", "statusInterval": "100ms",
		"tables": [{"name": "item"}, {"name": "other"}]}`, u.Hostname(), u.Port(), u.Path[1:], u.User.Username()))
	r := newRig(t)
	r.sources = []source.Factory{postgres.Factory{}}
	h := r.host()
	require.NoError(t, h.ProvisionSource(t.Context(), spec))
	t.Cleanup(func() { require.NoError(t, h.TeardownSource(context.Background(), spec)) })
	src := r.start(spec.ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, spec) })

	queries := make(map[string]component.QuerySpec)
	running := make(map[string]*run)
	bootstraps := 0
	start := func(name string) {
		t.Helper()
		bootstraps++
		r.bootstrapOf(spec, queries[name], fmt.Sprint(bootstraps))
		running[name] = r.startQuery(queries[name])
		eventually(t, func() bool { return running[name].status.Snapshot().Phase == "following" }, name+" runs")
	}
	// The queries, and SQL for the property beside the id.
	sql := map[string]string{"names": "name", "amounts": "amount", "others": ""}
	for name, text := range map[string]string{
		"names":   "MATCH (i:item) RETURN i.id AS id, i.name AS v",
		"amounts": "MATCH (i:item) RETURN i.id AS id, i.amount AS v",
		"others":  "MATCH (o:other) RETURN o.id AS id",
	} {
		queries[name] = component.QuerySpec{Name: name, Sources: []string{spec.Name}, Query: text}
		start(name)
	}
	equal := func(name string) {
		t.Helper()
		statement := `SELECT coalesce(json_object_agg(id, '{"id":' || id || '}'), '{}') FROM other`
		if sql[name] != "" {
			statement = fmt.Sprintf(`SELECT coalesce(json_object_agg(id, '{"id":' || id || ',"v":' || coalesce(to_json(%s)::text, 'null') || '}'), '{}') FROM item`, sql[name])
		}
		var want map[string]string
		require.NoError(t, json.Unmarshal([]byte(clustertest.Text(t, db, statement)), &want))
		eventually(t, func() bool {
			rows, _, err := r.shown(name)
			return err == nil && fmt.Sprint(rows) == fmt.Sprint(want)
		}, name+" equals SQL")
	}

	for _, step := range []struct {
		statement, stopped, table, column string
		code                              *failure.Code
		then                              func() // before the query is built anew
	}{
		{statement: "ALTER TABLE item ADD extra int; ALTER TABLE item ADD filled int DEFAULT 1; ALTER TABLE item ALTER amount TYPE bigint; ALTER TABLE item RENAME note TO remark"},
		{statement: "ALTER TABLE item ALTER amount TYPE text USING amount || '!'", stopped: "amounts", table: "public.item", column: "amount", code: failure.TableChanged},
		{statement: "ALTER TABLE item DROP amount; ALTER TABLE item ADD amount int DEFAULT 7", stopped: "amounts", table: "public.item", column: "amount", code: failure.TableChanged},
		{statement: "ALTER TABLE item RENAME name TO title", stopped: "names", table: "public.item", column: "name", code: failure.PropertyGone, then: func() {
			q := queries["names"]
			q.Query = "MATCH (i:item) RETURN i.id AS id, i.title AS v"
			queries["names"], sql["names"] = q, "title"
		}},
		{statement: "DROP TABLE other", stopped: "others", table: "public.other", code: failure.TableChanged},
	} {
		from := graph.Position(clustertest.Text(t, db, "SELECT pg_current_wal_lsn()"))
		var before uint64
		if step.stopped != "" {
			before = running[step.stopped].status.Snapshot().Offset
		}
		exec(step.statement)
		if step.stopped != "" {
			err := running[step.stopped].result()
			require.Equal(t, step.code, failure.CodeOf(err), "%s: %v", step.statement, err)
			report := failure.Describe(err)
			require.Equal(t, step.table, report.Details["table"])
			require.Equal(t, step.column, report.Details["column"])
			require.Equal(t, spec.Name, report.Details["source"])
			require.Positive(t, graph.Position(report.Details["position"]).Compare(from))
			require.Contains(t, report.Fix, "rebootstrap")
			require.GreaterOrEqual(t, running[step.stopped].status.Snapshot().Offset, before)

			// It stays there: trying again changes nothing.
			again := r.startQuery(queries[step.stopped])
			require.Equal(t, report.Message, failure.Describe(again.result()).Message)
			delete(running, step.stopped)
			if step.stopped == "others" {
				break
			}
			if step.then != nil {
				step.then()
			}
			start(step.stopped)
		}
		exec("INSERT INTO item DEFAULT VALUES")
		for name := range running {
			equal(name)
		}
	}
	exec("INSERT INTO item DEFAULT VALUES")
	for name, q := range running {
		equal(name)
		q.drained()
	}
	src.drained()
}
