package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

func reads(properties ...string) source.Reads { return source.Reads{Properties: properties} }

// newChosenDatabase is newDatabase with a source whose publication has the columns that queries read.
func newChosenDatabase(t *testing.T, statements string, tables ...string) *database {
	d := newDatabase(t, statements, "100ms", tables...)
	if d.text("SHOW server_version_num") < "150000" {
		t.Skip("lists of columns came with Postgres 15")
	}
	d.reconfigure("publish", "needed")
	return d
}

// reconfigure runs the source with another spec.
func (d *database) reconfigure(name string, value any) {
	d.t.Helper()
	d.source.drained()
	var config map[string]any
	require.NoError(d.t, json.Unmarshal(d.spec.Config, &config))
	config[name] = value
	var err error
	d.spec.Config, err = json.Marshal(config)
	require.NoError(d.t, err)
	require.NoError(d.t, d.rig.host().ProvisionSource(d.t.Context(), d.spec))
	d.run()
}

// published is the list of the only table.
func (d *database) published() string {
	d.t.Helper()
	return d.text("SELECT attnames::text FROM pg_publication_tables")
}

func (d *database) becomesPublished(want string) {
	d.t.Helper()
	eventually(d.t, func() bool { return d.published() == want }, "the publication has "+want)
}

// reads returns a query of a property.
func (d *database) reads(property string) component.QuerySpec {
	return component.QuerySpec{Name: property + "-reader", Sources: []string{d.spec.Name}, Query: "MATCH (i:item) RETURN i.id AS id, right(i." + property + ", 8) AS v"}
}

// following starts a query that was bootstrapped.
func (d *database) following(q component.QuerySpec) *run {
	d.t.Helper()
	running := d.rig.startQuery(q)
	eventually(d.t, func() bool { return running.status.Snapshot().Phase == "following" }, q.Name+" runs")
	return running
}

// equals waits until what a query shows is what SQL says.
func (d *database) equals(q component.QuerySpec, property string) {
	d.t.Helper()
	d.equalsOf(q, property, "item")
}

// equalsOf is equals for some of the items.
func (d *database) equalsOf(q component.QuerySpec, property, items string) {
	d.t.Helper()
	var want map[string]string
	require.NoError(d.t, json.Unmarshal([]byte(d.text(fmt.Sprintf(
		`SELECT coalesce(json_object_agg(id, '{"id":' || id || ',"v":' || coalesce(to_json(right(%s, 8))::text, 'null') || '}'), '{}') FROM %s`, property, items))), &want))
	end := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
	var rows map[string]string
	eventually(d.t, func() bool {
		var state result.State
		var err error
		rows, state, err = d.rig.shown(q.Name)
		return err == nil && state.Positions[d.spec.Name].Compare(end) >= 0
	}, q.Name+" has seen everything")
	require.Equal(d.t, want, rows)
}

const itemWithLargeColumns = `CREATE TABLE item (id int PRIMARY KEY, a text, b text, c text);
	ALTER TABLE item ALTER a SET STORAGE EXTERNAL, ALTER b SET STORAGE EXTERNAL;
	INSERT INTO item SELECT i, 'a' || i, repeat('b', i % 3 * 2000) || i, 'c' || i FROM generate_series(1, 300) i`

// scribbling writes to item at random until it is stopped.
func (d *database) scribbling() (stop func()) {
	return d.scribblingAs(func(id, other int) []string {
		return []string{
			fmt.Sprintf("INSERT INTO item VALUES (%d, %s, %[2]s, 'c') ON CONFLICT DO NOTHING", id, large),
			fmt.Sprintf("UPDATE item SET a = %s WHERE id = %d", large, id),
			fmt.Sprintf("UPDATE item SET b = %s WHERE id = %d", large, id),
			fmt.Sprintf("UPDATE item SET c = c || '+' WHERE id IN (%d, %d)", id, other),
			fmt.Sprintf("UPDATE item SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM item WHERE id = %[1]d)", id, other),
			fmt.Sprintf("DELETE FROM item WHERE id = %d", id),
			fmt.Sprintf("BEGIN; UPDATE item SET b = NULL WHERE id = %d; SELECT pg_sleep(0.003); UPDATE item SET b = %s WHERE id = %d; COMMIT", id, large, other),
		}
	})
}

// scribblingAs runs one of the statements at a time, about two of 300 items.
func (d *database) scribblingAs(statements func(id, other int) []string) (stop func()) {
	conn, err := pgx.Connect(d.t.Context(), d.url)
	require.NoError(d.t, err)
	random := rand.New(rand.NewPCG(4, 2))
	done, written := make(chan struct{}), make(chan error, 1)
	go func() {
		defer func() { _ = conn.Close(context.Background()) }() // nothing follows
		for {
			select {
			case <-done:
				written <- nil
				return
			default:
			}
			id, other := 1+random.IntN(300), 1+random.IntN(300)
			choice := statements(id, other)
			statement := choice[random.IntN(len(choice))]
			if _, err := conn.Exec(context.Background(), statement); err != nil {
				written <- fmt.Errorf("%s: %w", statement, err)
				return
			}
		}
	}()
	return func() {
		d.t.Helper()
		close(done)
		require.NoError(d.t, <-written)
	}
}

// TestQueriesChooseColumns: what queries read comes, from the snapshot of each on, while the tables are written to, and
// what no query reads any more goes.
func TestQueriesChooseColumns(t *testing.T) {
	d := newChosenDatabase(t, itemWithLargeColumns, "item")
	d.becomesPublished("{id}")
	stop := d.scribbling()
	readers := map[string]*run{}
	for i, property := range []string{"c", "b", "a"} {
		q := d.reads(property)
		d.rig.bootstrapOf(d.spec, q, fmt.Sprint(i), func() {})
		require.Contains(t, d.published(), property)
		readers[property] = d.following(q)
	}
	stop()
	for property, running := range readers {
		d.equals(d.reads(property), property)
		require.Empty(t, running.done, "none was disturbed")
	}

	// A query goes, and its column with it; those that stay do not notice.
	readers["b"].drained()
	require.NoError(t, d.rig.host().TeardownQuery(t.Context(), d.reads("b")))
	d.becomesPublished("{id,a,c}")
	d.exec("INSERT INTO item VALUES (1000, 'a', 'b', 'c')")
	d.equals(d.reads("a"), "a")
	d.equals(d.reads("c"), "c")

	// One that stops keeps its column.
	readers["a"].kill()
	d.source.kill()
	d.run()
	d.exec("INSERT INTO item VALUES (1001, 'a', 'b', 'c')")
	d.equals(d.reads("c"), "c")
	readers["a"] = d.following(d.reads("a"))
	d.equals(d.reads("a"), "a")
	require.Equal(t, "{id,a,c}", d.published())

	// One whose text becomes another reads on; what its state before read goes when the new one has taken its place.
	other := d.reads("b")
	other.Name = d.reads("a").Name
	readers["a"].drained()
	d.rig.bootstrapOf(d.spec, other, "other", func() {})
	require.Equal(t, "{id,a,b,c}", d.published(), "it may be wanted still")
	d.following(other)
	d.becomesPublished("{id,b,c}")
	d.exec("UPDATE item SET b = 'other' WHERE id = 1001")
	d.equals(other, "b")
}

// TestQueriesChooseRows: what is in the tables of the tenants that queries ask for comes, from the snapshot of each on, while
// rows come, go and move from tenant to tenant, and what no query asks for any more goes.
func TestQueriesChooseRows(t *testing.T) {
	d := newChosenDatabase(t, `CREATE TABLE item (tenant int, id int UNIQUE, a text, PRIMARY KEY (tenant, id)); ALTER TABLE item ALTER a SET STORAGE EXTERNAL;
		INSERT INTO item SELECT i % 3, i, repeat('a', i % 3 * 2000) || i FROM generate_series(1, 300) i`, "item")
	scribbling := func() (stop func()) {
		return d.scribblingAs(func(id, other int) []string {
			return []string{
				fmt.Sprintf("INSERT INTO item VALUES (%d, %d, %s) ON CONFLICT DO NOTHING", other%3, id, large),
				fmt.Sprintf("UPDATE item SET a = %s WHERE id = %d", large, id),
				fmt.Sprintf("UPDATE item SET tenant = %d WHERE id = %d", other%3, id),
				fmt.Sprintf("UPDATE item SET tenant = %d WHERE id IN (%d, %d)", id%3, id, other),
				fmt.Sprintf("UPDATE item SET tenant = (tenant + 1) %% 3, id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM item WHERE id = %[1]d)", id, other),
				fmt.Sprintf("DELETE FROM item WHERE id = %d", id),
				fmt.Sprintf("BEGIN; UPDATE item SET tenant = %d WHERE id = %d; SELECT pg_sleep(0.003); UPDATE item SET tenant = %d, a = %s WHERE id = %d; COMMIT", other%3, id, id%3, large, other),
			}
		})
	}
	of := func(name, tenants string) component.QuerySpec {
		return component.QuerySpec{
			Name: name, Sources: []string{d.spec.Name}, Query: "MATCH (i:item) WHERE i.tenant IN $tenants RETURN i.id AS id, right(i.a, 8) AS v",
			Parameters: map[string]json.RawMessage{"tenants": json.RawMessage("[" + tenants + "]")},
		}
	}
	equals := func(q component.QuerySpec, tenants string) {
		d.t.Helper()
		d.equalsOf(q, "a", "item WHERE tenant IN ("+tenants+")")
	}
	filter := func() string { return d.text("SELECT coalesce(rowfilter, '') FROM pg_publication_tables") }
	becomes := func(values string) {
		eventually(t, func() bool { return filter() == "(tenant = ANY ('{"+values+"}'::integer[]))" }, "the publication has the rows of "+values)
	}
	zero, one, all := of("zero", "0"), of("one", "1"), of("all", "0, 1, 2")
	all.Query = "MATCH (i:item) RETURN i.id AS id, right(i.a, 8) AS v"

	stop := scribbling()
	d.rig.bootstrapOf(d.spec, zero, "1", func() {})
	first := d.following(zero)
	becomes("0")
	d.rig.bootstrapOf(d.spec, one, "2", func() {})
	require.Equal(t, "(tenant = ANY ('{0,1}'::integer[]))", filter())
	second := d.following(one)
	d.source.kill()
	d.run()
	stop()
	equals(zero, "0")
	equals(one, "1")

	// A query goes, its rows with it, and comes again. That other rows are left out, it must not take for their absence.
	stop = scribbling()
	second.drained()
	require.NoError(t, d.rig.host().TeardownQuery(t.Context(), one))
	becomes("0")
	d.rig.bootstrapOf(d.spec, one, "3", func() {})
	second = d.following(one)
	stop()
	equals(zero, "0")
	equals(one, "1")

	// With a query of all rows there is no filter.
	stop = scribbling()
	d.rig.bootstrapOf(d.spec, all, "4", func() {})
	require.Empty(t, filter())
	third := d.following(all)
	stop()
	equals(zero, "0")
	equals(one, "1")
	d.equalsOf(all, "a", "item")
	third.drained()
	require.NoError(t, d.rig.host().TeardownQuery(t.Context(), all))
	becomes("0,1")
	stop = scribbling()
	becomes("0,1")
	stop()
	equals(zero, "0")
	equals(one, "1")
	require.Empty(t, first.done, "it was not disturbed")
	require.Empty(t, second.done)
}

// TestQueriesChooseRowsWithTheirEnds: rows of one tenant and the relationships between them.
func TestQueriesChooseRowsWithTheirEnds(t *testing.T) {
	d := newChosenDatabase(t, `CREATE TABLE owner (tenant int, id int, name text, PRIMARY KEY (tenant, id));
		CREATE TABLE item (tenant int, id int UNIQUE, owner int, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, owner) REFERENCES owner DEFERRABLE INITIALLY DEFERRED);
		INSERT INTO owner SELECT t, i, t || ' ' || i FROM generate_series(0, 2) t, generate_series(1, 20) i;
		INSERT INTO item SELECT i % 3, i, i % 20 + 1 FROM generate_series(1, 300) i`, "owner", "item")
	d.reconfigure("relationships", []any{map[string]any{"type": "OF", "table": "item", "columns": []string{"tenant", "owner"}, "references": "owner"}})
	scribbling := func() (stop func()) {
		return d.scribblingAs(func(id, other int) []string {
			tenant, owner := other%3, other%20+1
			return []string{
				fmt.Sprintf("INSERT INTO item VALUES (%d, %d, %d) ON CONFLICT DO NOTHING", tenant, id, owner),
				fmt.Sprintf("UPDATE item SET tenant = %d WHERE id = %d", tenant, id),
				fmt.Sprintf("UPDATE item SET owner = %d WHERE id = %d", owner, id),
				fmt.Sprintf("UPDATE item SET owner = NULL WHERE id = %d", id),
				fmt.Sprintf("UPDATE owner SET name = name || '+' WHERE tenant = %d AND id = %d", tenant, owner),
				fmt.Sprintf("DELETE FROM item WHERE id = %d", id),
				fmt.Sprintf("BEGIN; UPDATE item SET owner = NULL WHERE tenant = %d AND owner = %d; DELETE FROM owner WHERE tenant = %[1]d AND id = %[2]d; INSERT INTO owner VALUES (%[1]d, %[2]d, 'new'); COMMIT", tenant, owner),
			}
		})
	}
	of := func(tenant string) component.QuerySpec {
		return component.QuerySpec{
			Name: "of-" + tenant, Sources: []string{d.spec.Name},
			Query: "MATCH (i:item {tenant: " + tenant + "})-[:OF]->(o:owner {tenant: " + tenant + "}) RETURN i.id AS id, right(o.name, 8) AS v",
		}
	}
	filters := func() string {
		return d.text("SELECT string_agg(coalesce(rowfilter, ''), ' ' ORDER BY tablename) FROM pg_publication_tables")
	}
	const zero, either = "(tenant = ANY ('{0}'::integer[]))", "(tenant = ANY ('{0,1}'::integer[]))"
	equals := func(tenant string) {
		d.t.Helper()
		d.equalsOf(of(tenant), "name", "(SELECT item.id, name FROM item JOIN owner ON owner.tenant = item.tenant AND owner.id = item.owner WHERE item.tenant = "+tenant+") i")
	}
	stop := scribbling()
	d.rig.bootstrapOf(d.spec, of("0"), "1", func() {})
	first := d.following(of("0"))
	eventually(t, func() bool { return filters() == zero+" "+zero }, "both tables have a filter")
	for i := range 2 {
		d.rig.bootstrapOf(d.spec, of("1"), fmt.Sprint("again", i), func() {})
		require.Equal(t, either+" "+either, filters())
		second := d.following(of("1"))
		stop()
		equals("0")
		equals("1")
		stop = scribbling()
		second.drained()
		require.NoError(t, d.rig.host().TeardownQuery(t.Context(), of("1")))
		eventually(t, func() bool { return filters() == zero+" "+zero }, "the rows of the other tenant go")
	}
	stop()
	equals("0")
	require.Empty(t, first.done, "it was not disturbed")
}

// wants returns what agrees for a source with those that read it.
func (r *rig) wants() (*Host, *sink, *wantsKeeper) {
	h := r.host()
	s := newSink(nil, stream.Epoch{}, sourcePosition{Position: "4"}, nil, nil, telemetry.NewMetrics("").Source("default", "shop"))
	k := &wantsKeeper{host: h, key: "default.shop", epoch: stream.Epoch{Generation: 2}, sink: s}
	s.withhold = k.withhold
	return h, s, k
}

// TestWantedElementsAreOnRecord: the source learns which elements queries read.
func TestWantedElementsAreOnRecord(t *testing.T) {
	r := newRig(t)
	h, s, k := r.wants()
	need := func(text string) source.Wanted {
		compiled, err := compile(component.QuerySpec{Name: "q", Sources: []string{"shop"}, Query: text, Parameters: map[string]json.RawMessage{"tenant": json.RawMessage("7")}})
		require.NoError(t, err)
		return needsOf(compiled)
	}
	item := func(tenants ...string) source.Wanted {
		return source.Wanted{"Item": {Properties: []string{"name", "tenant"}, Only: source.Only{"tenant": tenants}}}
	}
	seven := need("MATCH (i:Item {tenant: $tenant}) RETURN i.name")
	require.Equal(t, item("7"), seven)
	require.Equal(t, item("7", "8"), need("MATCH (i:Item {tenant: 7}), (j:Item {tenant: 8}) RETURN i.name, j.name"))
	require.Nil(t, need("MATCH (i:Item {tenant: 7}), (j:Item) RETURN i.name, j.name")["Item"].Only)
	require.Nil(t, need("MATCH (i:Item {tenant: 7}), (j) RETURN i.name, j.name").Only("Item"))

	require.NoError(t, h.want(t.Context(), "default", "shop", "q", seven))
	require.NoError(t, k.keep(t.Context()))
	require.Equal(t, seven, s.Wanted())
	agreed, err := s.Withhold(t.Context(), seven)
	require.NoError(t, err)
	require.True(t, agreed)
	require.NoError(t, h.want(t.Context(), "default", "shop", "p", item("8")))
	agreed, err = s.Withhold(t.Context(), seven)
	require.NoError(t, err)
	require.False(t, agreed)
	ctx, cancel := context.WithCancel(t.Context())
	require.ErrorIs(t, h.awaitServed(ctx, "default", "shop", "p", cancel), context.Canceled, "its rows do not come yet")
	require.NoError(t, k.keep(t.Context()))
	require.Equal(t, item("7", "8"), s.Wanted())
	s.Serve(s.Wanted())
	require.NoError(t, k.keep(t.Context()))
	require.NoError(t, h.awaitServed(t.Context(), "default", "shop", "p", func() {}))
}

// TestQueryWithoutBootstrapWaitsForItsColumns starts with the changes from now on, all of which have what it reads.
func TestQueryWithoutBootstrapWaitsForItsColumns(t *testing.T) {
	d := newChosenDatabase(t, itemWithLargeColumns, "item")
	d.becomesPublished("{id}")
	q := d.reads("b")
	q.Bootstrap = "none"
	stop := d.scribbling()
	running := d.rig.startQuery(q)
	eventually(t, func() bool { return running.status.Snapshot().Phase == "following" }, "it runs")
	stop()
	d.exec("DELETE FROM item; INSERT INTO item VALUES (1, 'a', 'b', 'c')")
	d.equals(q, "b")
	require.Equal(t, "{id,b}", d.published())
}

// TestSnapshotWaitsForItsColumns is not taken while the source cannot say that the columns come.
func TestSnapshotWaitsForItsColumns(t *testing.T) {
	d := newChosenDatabase(t, itemWithLargeColumns, "item")
	d.becomesPublished("{id}")
	d.source.drained()
	h, q := d.rig.host(), d.reads("b")
	ref := BootstrapRef{ID: "1", Instance: "default", Query: q.Name, Source: d.spec.Name, SnapshotGeneration: 1}
	_, err := h.Subscribe(t.Context(), ref, q)
	require.NoError(t, err)
	ctx, release := context.WithCancel(t.Context())
	var alive atomic.Int64
	ready, released := make(chan graph.Position, 1), make(chan error, 1)
	go func() {
		released <- h.HoldSnapshot(ctx, ref, d.spec, func(p graph.Position) error { ready <- p; return nil }, func() { alive.Add(1) })
	}()
	t.Cleanup(func() { release(); require.NoError(t, <-released) })
	eventually(t, func() bool { return alive.Load() > 20 }, "it says that it lives while it waits")
	require.Empty(t, ready)
	d.run()
	eventually(t, func() bool { return len(ready) > 0 }, "it is taken")
	require.Equal(t, "{id,b}", d.published())

	// A query that is given up is not waited for, and leaves nothing.
	require.NoError(t, h.AbandonBootstrap(t.Context(), ref))
	d.becomesPublished("{id}")
}

// TestSourceCrashesWhileColumnsCome: the publication has the column, a transaction that has none of it runs still, and the
// attempt at the source ends. The snapshot waits for the next one.
func TestSourceCrashesWhileColumnsCome(t *testing.T) {
	d := newChosenDatabase(t, itemWithLargeColumns, "item")
	d.becomesPublished("{id}")
	old, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, old.Close(context.Background())) })
	_, err = old.Exec(t.Context(), "BEGIN; UPDATE item SET b = 'first' WHERE id = 1")
	require.NoError(t, err)
	q, crashed := d.reads("b"), make(chan error, 1)
	go func() {
		crashed <- func() error {
			conn, err := pgx.Connect(t.Context(), d.url)
			if err != nil {
				return err
			}
			defer func() { _ = conn.Close(context.Background()) }() // nothing follows
			for list := ""; list != "{id,b}"; {
				if err := conn.QueryRow(t.Context(), "SELECT attnames::text FROM pg_publication_tables").Scan(&list); err != nil {
					return err
				}
			}
			d.source.cancel()
			if err := d.source.result(); !errors.Is(err, context.Canceled) {
				return err
			}
			d.run()
			_, err = old.Exec(t.Context(), "UPDATE item SET b = 'second' WHERE id = 2; COMMIT")
			return err
		}()
	}()
	d.rig.bootstrapOf(d.spec, q, "1", func() {})
	require.NoError(t, <-crashed)
	d.following(q)
	d.exec("UPDATE item SET a = 'x' WHERE id < 5; UPDATE item SET b = 'third' WHERE id = 3")
	d.equals(q, "b")
}

// TestMissingColumnIsNotNull: whatever becomes of the publication, a query does not take what does not come for null.
func TestMissingColumnIsNotNull(t *testing.T) {
	d := newChosenDatabase(t, itemWithLargeColumns, "item")
	q := d.reads("c")
	d.rig.bootstrapOf(d.spec, q, "1", func() {})
	running := d.following(q)
	d.becomesPublished("{id,c}")
	name := d.text("SELECT quote_ident(pubname) FROM pg_publication")
	d.exec(fmt.Sprintf("BEGIN; ALTER PUBLICATION %s DROP TABLE item; ALTER PUBLICATION %[1]s ADD TABLE ONLY item (id); INSERT INTO item VALUES (1000, 'a', 'b', 'c'); COMMIT", name))
	require.NoError(t, running.result())
	outcome, err := d.rig.host().RunQuery(t.Context(), d.rig.attempt(q.ID()), q)
	require.NoError(t, err)
	require.Equal(t, NeedsResync, outcome)
	d.becomesPublished("{id,c}")
	d.rig.bootstrapOf(d.spec, q, "2", func() {})
	for running = d.rig.startQuery(q); ; running = d.rig.startQuery(q) { // it may be told that the column comes again
		eventually(t, func() bool { return len(running.done) > 0 || running.status.Snapshot().Phase == "following" }, "it runs")
		if len(running.done) == 0 {
			break
		}
		d.rig.bootstrapOf(d.spec, q, fmt.Sprint(running.epoch.Generation), func() {})
	}
	d.exec("INSERT INTO item VALUES (1001, 'a', 'b', 'd')")
	d.equals(q, "c")
}

// TestWithheldOnlyWhatNobodyWants: queries and attempts at a source agree by one record.
func TestWithheldOnlyWhatNobodyWants(t *testing.T) {
	r := newRig(t)
	h, s, k := r.wants()
	require.NoError(t, k.keep(t.Context()))
	require.Equal(t, source.Wanted{}, s.Wanted())
	<-s.WantedChanged()

	name := source.Wanted{"Item": reads("name")}
	require.NoError(t, h.want(t.Context(), "default", "shop", "q", name))
	agreed, err := s.Withhold(t.Context(), source.Wanted{})
	require.NoError(t, err)
	require.False(t, agreed, "q has come in between")
	require.NoError(t, k.keep(t.Context()))
	require.Equal(t, name, s.Wanted())
	agreed, err = s.Withhold(t.Context(), name)
	require.NoError(t, err)
	require.True(t, agreed)
	require.NoError(t, h.awaitServed(t.Context(), "default", "shop", "q", func() {}))

	// What is served counts when all before is durable.
	amount := source.Wanted{"Item": reads("amount")}
	require.NoError(t, h.want(t.Context(), "default", "shop", "p", amount))
	waits := func() bool {
		ctx, cancel := context.WithCancel(t.Context())
		return h.awaitServed(ctx, "default", "shop", "p", cancel) != nil
	}
	s.stand("5")
	s.Serve(source.Union(name, amount))
	require.NoError(t, k.keep(t.Context()))
	require.True(t, waits())
	s.acked(&changes{position: "5"}, 1)
	require.NoError(t, k.keep(t.Context()))
	require.False(t, waits())

	// What was said before something was withheld is void, and so is what an older attempt says.
	s.Serve(nil)
	require.NoError(t, h.unwant(t.Context(), "default", "shop", "p"))
	agreed, err = s.Withhold(t.Context(), name)
	require.NoError(t, err)
	require.True(t, agreed)
	require.NoError(t, k.keep(t.Context()))
	require.NoError(t, h.want(t.Context(), "default", "shop", "p", amount))
	require.True(t, waits())
	old := &wantsKeeper{host: h, key: "default.shop", epoch: stream.Epoch{Generation: 1}, sink: s}
	s.Serve(nil)
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.keep(t.Context())))

	// A query that has not said what it reads may read everything.
	b, err := h.bucket(t.Context(), subscriptionsBucket)
	require.NoError(t, err)
	_, err = write(t.Context(), b, subscriptionKey("default", "shop", "earlier"), subscription{})
	require.NoError(t, err)
	require.NoError(t, h.want(t.Context(), "default", "shop", "p", name))
	require.NoError(t, k.keep(t.Context()))
	require.Nil(t, s.Wanted())
	require.NoError(t, h.unsubscribe(t.Context(), component.ID{Kind: component.Query, Instance: "default", Name: "earlier"}, nil))
	require.NoError(t, h.unsubscribe(t.Context(), component.ID{Kind: component.Query, Instance: "default", Name: "q"}, nil))
	k.listed = k.listed.Add(-trimEvery)
	require.NoError(t, k.keep(t.Context()))
	require.Equal(t, name, s.Wanted(), "p reads it still")
}
