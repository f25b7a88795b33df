package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
)

// TestResyncReadsTheTablesConcernedOnly: when a table comes to a source, comes back as another one, or has rows that came
// without changes, the queries that name its labels read it and nothing else, while rows of all tables change.
func TestResyncReadsTheTablesConcernedOnly(t *testing.T) {
	d := newDatabase(t, `CREATE TABLE item (id int PRIMARY KEY, v int); CREATE TABLE idle (id int PRIMARY KEY);
		CREATE TABLE other (id int, item int, v int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
		CREATE TABLE other1 PARTITION OF other FOR VALUES FROM (0) TO (1000);
		INSERT INTO item SELECT i, i FROM generate_series(1, 50) i; INSERT INTO idle VALUES (1);
		INSERT INTO other SELECT i, i % 50, i FROM generate_series(1, 300) i`, "100ms", "item", "idle")
	q := d.query("both")
	q.Query = `MATCH (i:item) OPTIONAL MATCH (i)<-[:OF]-(o:other) OPTIONAL MATCH (x:idle) WHERE x.id = 1
		RETURN i.id AS id, i.v AS v, count(o) AS n, coalesce(sum(o.v), 0) AS s, count(x) > 0 AS x`
	sql := `SELECT json_object_agg(id, format('{"id":%s,"v":%s,"n":%s,"s":%s,"x":true}', id, v, n, s)) FROM
		(SELECT i.id, i.v, count(o.id) AS n, coalesce(sum(o.v), 0) AS s FROM item i LEFT JOIN other o ON o.item = i.id GROUP BY i.id) r`
	d.rig.bootstrapOf(d.spec, q, "1", func() {})
	running := d.rig.startQuery(q)
	d.rig.following(running)
	_, before := d.rig.replayed("both")
	w := d.busyTables()

	for i, step := range []struct {
		what   string
		happen func()
	}{
		{"added", func() {
			d.source.drained()
			var config map[string]any
			require.NoError(t, json.Unmarshal(d.spec.Config, &config))
			config["tables"] = []map[string]string{{"name": "item"}, {"name": "idle"}, {"name": "other"}}
			config["relationships"] = []map[string]any{{"type": "OF", "table": "other", "columns": []string{"item"}, "references": "item"}}
			var err error
			d.spec.Config, err = json.Marshal(config)
			require.NoError(t, err)
			require.NoError(t, d.rig.host().ProvisionSource(t.Context(), d.spec))
			d.run()
		}},
		{"another one of the same name", func() {
			d.source.drained()
			w.pause(func() {
				d.exec(`DROP TABLE other; CREATE TABLE other (id int, item int, v int, PRIMARY KEY (id)) PARTITION BY RANGE (id);
					CREATE TABLE other1 PARTITION OF other FOR VALUES FROM (0) TO (1000);
					INSERT INTO other SELECT i, i % 20, i + 1 FROM generate_series(100, 200) i`)
			})
			require.NoError(t, d.rig.host().ProvisionSource(t.Context(), d.spec))
			d.run()
		}},
		{"a partition with rows", func() {
			d.exec(`CREATE TABLE other2 (LIKE other INCLUDING ALL); INSERT INTO other2 SELECT i, i % 50, i FROM generate_series(1000, 1100) i;
				ALTER TABLE other ATTACH PARTITION other2 FOR VALUES FROM (1000) TO (2000)`)
		}},
	} {
		step.happen()
		require.NoError(t, running.result(), step.what)
		missing := running.status.Snapshot().Missing
		require.NotNil(t, missing, step.what)
		require.Equal(t, d.spec.Name, missing.Source, step.what)
		require.ElementsMatch(t, []string{"OF", "other"}, missing.Labels, step.what)

		ref := BootstrapRef{ID: fmt.Sprint("only", i), Labels: missing.Labels}
		d.rig.bootstrapRef(d.spec, q, ref, func() {
			boots, err := d.rig.host().bucket(t.Context(), bootstrapBucket)
			require.NoError(t, err)
			scopes, err := d.rig.host().scopes(t.Context(), boots, bootstrapKey("default", q.Name, d.spec.Name))
			require.NoError(t, err)
			require.Len(t, scopes, 1, step.what)
			require.Contains(t, scopes[0].Name, "other", step.what)
		})
		for _, phase := range []string{"loading", "sealing"} { // cut off there, or later where that is quick
			cut := d.rig.startQuery(q)
			eventually(t, func() bool { p := cut.status.Snapshot().Phase; return p == phase || p == "following" }, phase)
			cut.kill()
		}
		running = d.rig.startQuery(q)
		d.rig.following(running)
		d.exec("UPDATE item SET v = v + 1 WHERE id < 10")
		w.pause(func() {
			var want map[string]string
			require.NoError(t, json.Unmarshal([]byte(d.text(sql)), &want))
			eventually(t, func() bool {
				shown, _, err := d.rig.shown("both")
				return err == nil && maps.Equal(want, shown)
			}, step.what+": it equals SQL")
			eventually(t, func() bool {
				replayed, _ := d.rig.replayed("both")
				return maps.Equal(want, replayed)
			}, step.what+": so do its results")
		})
		rows, after := d.rig.replayed("both")
		require.NotEmpty(t, rows)
		require.Greater(t, after, before, step.what)
		require.Less(t, after, before+rebuiltAfter, "%s: only differences are published", step.what)
		before = after
	}
	w.stop()
	running.drained()
	d.source.drained()
}

// TestResyncOfLabelsGrows: what a bootstrap does not make up for is read by the next one with what this one read; and all is
// read when the state that has the rest is gone.
func TestResyncOfLabelsGrows(t *testing.T) {
	r := newRig(t)
	r.book.commit(item(graph.OpInsert, "Item", 1, "i", 11), item(graph.OpInsert, "Other", 2, "o", 12), item(graph.OpInsert, "Third", 3, "t", 13))
	src := r.readySource()
	q := auto
	q.Query = "MATCH (n:Item|Other) RETURN n.id AS id, n.name AS name, n.amount AS amount"
	q.Parameters = nil
	r.bootstrapAs(q, BootstrapRef{ID: "all"})
	ask := func() (Outcome, *Missing) {
		t.Helper()
		a := r.attempt(q.ID())
		outcome, err := r.host().RunQuery(t.Context(), a, q)
		require.NoError(t, err)
		return outcome, a.Progress.Snapshot().Missing
	}
	row := func(id int, name string) string { return fmt.Sprintf(`{"id":%d,"name":%q,"amount":1%[1]d}`, id, name) }
	wanted := map[string]string{"1": row(1, "i"), "2": row(2, "o")}
	settled := func(query *run) {
		t.Helper()
		r.settledAt("late", r.book.end(), wanted)
		query.drained()
	}
	settled(r.startQuery(q))

	miss := func(id int, label, name string) {
		r.book.miss(item(graph.OpUpdate, label, id, name, 10+id))
		r.book.tell(graph.MissedDiff, label)
		wanted[fmt.Sprint(id)] = row(id, name)
	}
	for i, lost := range []bool{false, true} {
		name := fmt.Sprint("missed", i)
		r.book.tell(graph.MissedDiff, "Third") // which nobody reads
		miss(1, "Item", name)
		miss(2, "Other", name)
		eventually(t, func() bool { return r.book.confirmedAt() == r.book.end() }, "the source is durable")
		outcome, missing := ask()
		require.Equal(t, NeedsResync, outcome)
		require.Equal(t, &Missing{"shop", []string{"Item"}}, missing)
		r.bootstrapAs(q, BootstrapRef{ID: name, Labels: missing.Labels})
		if lost {
			r.index = memory.New()
		}
		outcome, missing = ask()
		require.Equal(t, NeedsResync, outcome)
		if lost {
			require.Nil(t, missing)
			r.bootstrapAs(q, BootstrapRef{ID: name + " all"})
		} else {
			require.Equal(t, &Missing{"shop", []string{"Item", "Other"}}, missing)
			r.bootstrapAs(q, BootstrapRef{ID: name + " both", Labels: missing.Labels})
		}
		settled(r.startQuery(q))
	}
	src.drained()
}

// tableWriter changes rows of item and other, one statement at a time.
type tableWriter struct {
	t    *testing.T
	mu   sync.Mutex // held while it writes
	done chan struct{}
	end  sync.WaitGroup
	err  error
}

func (d *database) busyTables() *tableWriter {
	w := &tableWriter{t: d.t, done: make(chan struct{})}
	conn, err := pgx.Connect(d.t.Context(), d.url)
	require.NoError(d.t, err)
	d.t.Cleanup(func() { require.NoError(d.t, conn.Close(context.Background())) })
	w.end.Go(func() {
		for i := 0; w.err == nil; i++ {
			select {
			case <-w.done:
				return
			default:
			}
			statement := []string{
				"UPDATE item SET v = v + 1 WHERE id = $1 % 50 + 1",
				"INSERT INTO other VALUES (300 + $1 % 600, $1 % 50, $1) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
				"UPDATE other SET item = item % 50 + 1 WHERE id = 101 + $1 % 90",
				"DELETE FROM other WHERE id = 300 + ($1 - 7) % 600",
			}[i%4]
			w.mu.Lock()
			_, w.err = conn.Exec(context.Background(), statement, i)
			w.mu.Unlock()
		}
	})
	d.t.Cleanup(w.stop)
	return w
}

// pause does something while nothing is written.
func (w *tableWriter) pause(do func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	do()
}

func (w *tableWriter) stop() {
	select {
	case <-w.done:
		return
	default:
	}
	close(w.done)
	w.end.Wait()
	require.NoError(w.t, w.err)
}
