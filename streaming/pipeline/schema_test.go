package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// bootstrapOf builds a query from a snapshot of its only source. Meanwhile happens when all is copied.
func (r *rig) bootstrapOf(src component.SourceSpec, query component.QuerySpec, id string, meanwhile func()) {
	r.t.Helper()
	r.bootstrapRef(src, query, BootstrapRef{ID: id}, meanwhile)
}

// bootstrapRef does so with what a ref says beside names.
func (r *rig) bootstrapRef(src component.SourceSpec, query component.QuerySpec, ref BootstrapRef, meanwhile func()) {
	r.t.Helper()
	h := r.host()
	ref.Instance, ref.Query, ref.Source, ref.SnapshotGeneration = "default", query.Name, src.Name, 1
	_, err := h.Subscribe(r.t.Context(), ref, query)
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
	meanwhile()
	require.NoError(r.t, h.VerifyBootstrap(r.t.Context(), ref, src, func() {}))
	_, _, err = h.SealBootstrap(r.t.Context(), ref)
	require.NoError(r.t, err)
	release()
	require.NoError(r.t, <-released)
}

// database is a Postgres database with a source that runs.
type database struct {
	t      *testing.T
	url    string
	rig    *rig
	spec   component.SourceSpec
	source *run
}

// newDatabase makes one of some statements. The source reads tables, and looks for DDL by itself once in an interval.
func newDatabase(t *testing.T, statements, interval string, tables ...string) *database {
	d := &database{t: t, url: clustertest.Database(t), rig: newRig(t)}
	d.exec(statements)
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	var list []map[string]string
	for _, name := range tables {
		list = append(list, map[string]string{"name": name})
	}
	config, err := json.Marshal(map[string]any{
		"host": u.Hostname(), "port": json.Number(u.Port()), "database": u.Path[1:], "user": u.User.Username(), "sslMode": "disable",
		"statusInterval": interval, "tables": list,
	})
	require.NoError(t, err)
	d.spec = component.SourceSpec{Name: "pg" + u.Path[len("/test_"):], Kind: postgres.Kind, Config: config}
	d.rig.sources = []source.Factory{postgres.Factory{}}
	h := d.rig.host()
	require.NoError(t, h.ProvisionSource(t.Context(), d.spec))
	t.Cleanup(func() { require.NoError(t, h.TeardownSource(context.Background(), d.spec)) })
	d.run()
	eventually(t, func() bool {
		positions, err := h.bucket(t.Context(), positionsBucket)
		require.NoError(t, err)
		keys, err := positions.Keys(t.Context(), "default."+d.spec.Name+schemaSuffix)
		require.NoError(t, err)
		return len(keys) == 1
	}, "the source knows the tables")
	return d
}

// run starts the source.
func (d *database) run() {
	h := d.rig.host()
	d.source = d.rig.start(d.spec.ID(), func(ctx context.Context, a Attempt) error { return h.RunSource(ctx, a, d.spec) })
}

func (d *database) exec(statements string) { d.t.Helper(); clustertest.Exec(d.t, d.url, statements) }

func (d *database) text(statement string) string {
	d.t.Helper()
	return clustertest.Text(d.t, d.url, statement)
}

func (d *database) query(name string) component.QuerySpec {
	return component.QuerySpec{Name: name, Sources: []string{d.spec.Name}, Query: "MATCH (i:item) RETURN i.id AS id, i.v AS v"}
}

// TestDDLThatASnapshotHas is told of after a query was built from a snapshot that has it already.
func TestDDLThatASnapshotHas(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE item (id serial PRIMARY KEY, v int); INSERT INTO item DEFAULT VALUES", "1h", "item")
	before, behind := d.query("before"), d.query("behind")
	d.rig.bootstrapOf(d.spec, before, "1", func() {})
	first := d.rig.startQuery(before)
	eventually(t, func() bool { return first.status.Snapshot().Phase == "following" }, "it runs")
	d.exec("ALTER TABLE item DROP v; ALTER TABLE item ADD v int DEFAULT 3")
	d.rig.bootstrapOf(d.spec, behind, "2", func() {})
	second := d.rig.startQuery(behind)
	eventually(t, func() bool { return second.status.Snapshot().Phase == "following" }, "it runs")
	d.exec("INSERT INTO item (v) VALUES (4)")
	require.Equal(t, failure.TableChanged, failure.CodeOf(first.result()))
	shows := func() bool {
		rows, _, err := d.rig.shown("behind")
		return err == nil && fmt.Sprint(rows) == `map[1:{"id":1,"v":3} 2:{"id":2,"v":4}]`
	}
	eventually(t, shows, "it goes on")
	second.kill()
	second = d.rig.startQuery(behind) // also from its own state
	eventually(t, shows, "it goes on")
	d.exec("ALTER TABLE item DROP v")
	d.exec("INSERT INTO item DEFAULT VALUES")
	require.Equal(t, failure.PropertyGone, failure.CodeOf(second.result()))
}

// TestDDLDuringABootstrap comes between the snapshot and the moment from which on the query follows.
func TestDDLDuringABootstrap(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE item (id serial PRIMARY KEY, v int); INSERT INTO item DEFAULT VALUES", "100ms", "item")
	q := d.query("during")
	for _, told := range []bool{true, false} { // before the query is loaded, or later
		d.rig.bootstrapOf(d.spec, q, fmt.Sprint(told), func() {
			d.exec("ALTER TABLE item DROP v; ALTER TABLE item ADD v int DEFAULT 3")
			if told {
				end := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
				eventually(t, func() bool {
					at := d.source.status.Snapshot().Position
					return at.Compare(end) > 0
				}, "the source has told of it")
			}
		})
		require.Equal(t, failure.TableChanged, failure.CodeOf(d.rig.startQuery(q).result()))
	}
	d.rig.bootstrapOf(d.spec, q, "after", func() {})
	running := d.rig.startQuery(q)
	eventually(t, func() bool {
		rows, _, err := d.rig.shown("during")
		return err == nil && fmt.Sprint(rows) == `map[1:{"id":1,"v":3}]`
	}, "it equals SQL")

	// And while the source is stopped, which remembers what the table was like.
	d.source.drained()
	d.exec("ALTER TABLE item DROP v")
	d.run()
	require.Equal(t, failure.PropertyGone, failure.CodeOf(running.result()))
}

// TestARenamedTableGoesOn through all that begins anew: provisioning, the source, and a query that reads the tables.
func TestARenamedTableGoesOn(t *testing.T) {
	d := newDatabase(t, "CREATE TABLE item (id serial PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY); INSERT INTO item (v) VALUES (1)", "1h", "item", "other")
	d.source.drained()
	d.exec("ALTER TABLE item RENAME TO thing; DROP TABLE other; INSERT INTO thing (v) VALUES (2)")
	require.NoError(t, d.rig.host().ProvisionSource(t.Context(), d.spec))
	d.run()
	d.rig.bootstrapOf(d.spec, d.query("renamed"), "1", func() { d.exec("INSERT INTO thing (v) VALUES (3)") })
	d.rig.startQuery(d.query("renamed"))
	eventually(t, func() bool {
		rows, _, err := d.rig.shown("renamed")
		return err == nil && fmt.Sprint(rows) == `map[1:{"id":1,"v":1} 2:{"id":2,"v":2} 3:{"id":3,"v":3}]`
	}, "it equals SQL")
	eventually(t, func() bool {
		details := d.source.status.Snapshot().Details
		return strings.HasPrefix(details["tablesMissing"], "other is not read: it was dropped") && strings.HasPrefix(details["tablesRenamed"], "item is public.thing by now")
	}, "the status says so")
}

// TestWhatASourceLearnsFollowsItsChanges: a crash may repeat what was said of the schema, not lose it.
func TestWhatASourceLearnsFollowsItsChanges(t *testing.T) {
	s := newSink(nil, stream.Epoch{}, sourcePosition{Position: "4"}, []byte("old"), nil, telemetry.NewMetrics("").Source("default", "shop"))
	s.Learn([]byte("same place"))
	require.Equal(t, "same place", string(s.durableSchema()), "all before is durable")
	s.stand("5")
	s.Learn([]byte("new"))
	s.Idle("6")
	require.Equal(t, "new", string(s.Schema()))
	require.Equal(t, "same place", string(s.durableSchema()))
	s.acked(&changes{position: "5"}, 1)
	require.Equal(t, "new", string(s.durableSchema()))
}

// TestTableThatIsAddedIsRead: a query that names a label gets its elements when the source gets the table, by itself.
func TestTableThatIsAddedIsRead(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE item (id serial PRIMARY KEY, v int); CREATE TABLE other (id int PRIMARY KEY, v int);
		INSERT INTO item (v) VALUES (1), (2); INSERT INTO other VALUES (10, 3)`, "100ms", "item")
	both, one := d.query("both"), d.query("one")
	both.Query = "MATCH (i:item|other) RETURN i.id AS id, i.v AS v"
	d.rig.bootstrapOf(d.spec, both, "1", func() {})
	d.rig.bootstrapOf(d.spec, one, "2", func() {})
	running := d.rig.startQuery(both)
	undisturbed := d.rig.startQuery(one)
	shows := func(query, want string) {
		t.Helper()
		eventually(t, func() bool {
			rows, _, err := d.rig.shown(query)
			return err == nil && fmt.Sprint(rows) == want
		}, query+" shows "+want)
	}
	shows("both", `map[1:{"id":1,"v":1} 2:{"id":2,"v":2}]`)
	d.source.drained()
	var config map[string]any
	require.NoError(t, json.Unmarshal(d.spec.Config, &config))
	config["tables"] = []map[string]string{{"name": "item"}, {"name": "other"}}
	var err error
	d.spec.Config, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, d.rig.host().ProvisionSource(t.Context(), d.spec))
	d.run()
	require.NoError(t, running.result())
	outcome, err := d.rig.host().RunQuery(t.Context(), d.rig.attempt(both.ID()), both)
	require.NoError(t, err)
	require.Equal(t, NeedsResync, outcome)
	d.rig.bootstrapOf(d.spec, both, "3", func() {})
	d.rig.startQuery(both)
	d.exec("INSERT INTO other VALUES (11, 4); INSERT INTO item (v) VALUES (5)")
	shows("both", `map[1:{"id":1,"v":1} 10:{"id":10,"v":3} 11:{"id":11,"v":4} 2:{"id":2,"v":2} 3:{"id":3,"v":5}]`)
	shows("one", `map[1:{"id":1,"v":1} 2:{"id":2,"v":2} 3:{"id":3,"v":5}]`)
	undisturbed.drained()
}

// TestDDLStopsQueriesThatReadIt alters a table under queries that read different things of it.
func TestDDLStopsQueriesThatReadIt(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE item (id serial PRIMARY KEY, name text, amount int, note text); CREATE TABLE other (id serial PRIMARY KEY);
		INSERT INTO item (name, amount) SELECT 'n' || i, i FROM generate_series(1, 20) i; INSERT INTO other DEFAULT VALUES`, "100ms", "item", "other")
	r, spec := d.rig, d.spec

	queries := make(map[string]component.QuerySpec)
	running := make(map[string]*run)
	bootstraps := 0
	start := func(name string) {
		t.Helper()
		bootstraps++
		r.bootstrapOf(spec, queries[name], fmt.Sprint(bootstraps), func() {})
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
		require.NoError(t, json.Unmarshal([]byte(d.text(statement)), &want))
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
		from := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
		var before uint64
		if step.stopped != "" {
			before = running[step.stopped].status.Snapshot().Offset
		}
		d.exec(step.statement)
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
		d.exec("INSERT INTO item DEFAULT VALUES")
		for name := range running {
			equal(name)
		}
	}
	d.exec("INSERT INTO item DEFAULT VALUES")
	for name, q := range running {
		equal(name)
		q.drained()
	}
	d.source.drained()
}
