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
	d.source.drained()
	var config map[string]any
	require.NoError(t, json.Unmarshal(d.spec.Config, &config))
	config["publish"] = "needed"
	var err error
	d.spec.Config, err = json.Marshal(config)
	require.NoError(t, err)
	require.NoError(t, d.rig.host().ProvisionSource(t.Context(), d.spec))
	d.run()
	return d
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
	var want map[string]string
	require.NoError(d.t, json.Unmarshal([]byte(d.text(fmt.Sprintf(
		`SELECT coalesce(json_object_agg(id, '{"id":' || id || ',"v":' || coalesce(to_json(right(%s, 8))::text, 'null') || '}'), '{}') FROM item`, property))), &want))
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
			statement := []string{
				fmt.Sprintf("INSERT INTO item VALUES (%d, %s, %[2]s, 'c') ON CONFLICT DO NOTHING", id, large),
				fmt.Sprintf("UPDATE item SET a = %s WHERE id = %d", large, id),
				fmt.Sprintf("UPDATE item SET b = %s WHERE id = %d", large, id),
				fmt.Sprintf("UPDATE item SET c = c || '+' WHERE id IN (%d, %d)", id, other),
				fmt.Sprintf("UPDATE item SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM item WHERE id = %[1]d)", id, other),
				fmt.Sprintf("DELETE FROM item WHERE id = %d", id),
				fmt.Sprintf("BEGIN; UPDATE item SET b = NULL WHERE id = %d; SELECT pg_sleep(0.003); UPDATE item SET b = %s WHERE id = %d; COMMIT", id, large, other),
			}[random.IntN(7)]
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
	h := r.host()
	s := newSink(nil, stream.Epoch{}, sourcePosition{Position: "4"}, nil, nil, telemetry.NewMetrics("").Source("default", "shop"))
	k := &wantsKeeper{host: h, key: "default.shop", epoch: stream.Epoch{Generation: 2}, sink: s}
	s.withhold = k.withhold
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
