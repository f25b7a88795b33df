package postgres_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

const incompressible = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 500) i)"

// TestToast: a large value that did not change is not sent, and is kept.
func TestToast(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE doc (id int PRIMARY KEY, n int, body text, more text)")
	s := d.source(`"tables": [{"name": "doc"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO doc VALUES (1, 1, %s, NULL)", incompressible)
	d.exec("UPDATE doc SET n = 2")
	sourcetest.Eventually(t, "both", func() bool { return len(sink.Transactions()) == 2 })
	update := sink.Transactions()[1].Changes[0]
	require.Equal(t, graph.OpUpdate, update.Op)
	require.Equal(t, graph.KindUnchanged, update.Element.Get("body").Kind())
	require.True(t, update.Element.Get("more").IsNull())

	d.exec("UPDATE doc SET id = 7, n = 3") // a moved row brings its large values along
	sourcetest.Eventually(t, "the move", func() bool { return len(sink.Transactions()) == 3 })
	g := sink.Graph()
	require.Len(t, g, 1)
	e := g["doc:7"]
	require.Equal(t, int64(3), e.Get("n").AsInt())
	require.Equal(t, d.text("SELECT body FROM doc"), e.Get("body").AsString())

	d.exec("ALTER TABLE doc REPLICA IDENTITY FULL")
	d.exec("UPDATE doc SET id = 8")
	sourcetest.Eventually(t, "the second move", func() bool { return len(sink.Transactions()) == 4 })
	e = sink.Graph()["doc:8"]
	require.Equal(t, d.text("SELECT body FROM doc"), e.Get("body").AsString())
	d.exec("UPDATE doc SET more = 'x'; DELETE FROM doc")
	sourcetest.Eventually(t, "the end", func() bool { return len(sink.Graph()) == 0 })
}

// TestLargeKey: a key that is stored apart is not sent when it did not change.
func TestLargeKey(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE doc (name text, n int, v int, body text, PRIMARY KEY (name, n)); ALTER TABLE doc ALTER name SET STORAGE EXTERNAL;
		CREATE TABLE tag (name text NOT NULL, v int); ALTER TABLE tag REPLICA IDENTITY FULL; ALTER TABLE tag ALTER name SET STORAGE EXTERNAL`)
	s := d.source(`"tables": [{"name": "doc"}, {"name": "tag", "key": ["name"]}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO doc SELECT left(%[1]s, 2500), 1, 1, %[1]s; INSERT INTO tag SELECT %[1]s, 1", incompressible)
	d.exec("UPDATE doc SET v = 2; UPDATE tag SET v = 2")
	require.Len(t, agree(t, s, sink), 2)
	for _, change := range sink.Transactions()[1].Changes {
		require.Equal(t, graph.OpUpdate, change.Op, "the key did not change")
	}
	d.exec("UPDATE doc SET n = 7")
	require.Len(t, agree(t, s, sink), 2)
}

// TestKeysAndNames: keys of several columns and types, names in mixed case, a schema other than public.
func TestKeysAndNames(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE SCHEMA "My Schema"; CREATE TABLE "My Schema"."Line.Item" ("Order" numeric, "No" char(4), "Val""ue" text, PRIMARY KEY ("Order", "No"));
		CREATE TABLE part (id uuid PRIMARY KEY, o numeric, n varchar(4), FOREIGN KEY (n, o) REFERENCES "My Schema"."Line.Item" ("No", "Order"), d date, b bytea)`)
	s := d.source(`"tables": [{"name": "\"My Schema\".\"Line.Item\"", "label": "Item"}, {"name": "part"}],
		"relationships": [{"type": "PART_OF", "table": "part", "columns": ["n", "o"], "references": "\"My Schema\".\"Line.Item\""}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	const uuid = "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"
	d.exec(`INSERT INTO "My Schema"."Line.Item" VALUES (1.50, 'a,b', 'v'), (2, 'a\', NULL)`)
	d.exec(`INSERT INTO part VALUES ('%s', 1.5, 'a,b', '2024-01-02', '\x00')`, uuid)
	want := map[graph.ElementID]string{
		`Item:1.5,a\,b`:                    `Item No="a,b" Order=decimal 1.50 Val"ue="v"`,
		`Item:2,a\\`:                       `Item No="a\\" Order=decimal 2`,
		`part:` + uuid:                     `part b="AA==" d=DATE 2024-01-02 id="` + uuid + `" n="a,b" o=decimal 1.5`,
		`PART_OF:` + graph.ElementID(uuid): `PART_OF (part:` + uuid + `)->(Item:1.5,a\,b)`,
	}
	wantTexts(t, sink, want)
	snapshot, _ := hold(t, s)
	require.Equal(t, want, sourcetest.NewSink("", readAll(t, s, snapshot)...).Graph().Texts())

	d.exec(`UPDATE part SET o = 2, n = 'a\'`)
	d.exec(`ALTER TABLE part ADD extra int DEFAULT 5; UPDATE part SET d = NULL`)
	want[`PART_OF:`+uuid] = `PART_OF (part:` + uuid + `)->(Item:2,a\\)`
	want[`part:`+uuid] = `part b="AA==" extra=5 id="` + uuid + `" n="a\\" o=decimal 2`
	wantTexts(t, sink, want)
}

// TestPartitions: a partitioned table is one table, in the stream and in the snapshot.
func TestPartitions(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE m (id int, at int, v int GENERATED ALWAYS AS (id * 2) STORED, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child () INHERITS (parent)`)
	s := d.source(`"tables": [{"name": "m"}, {"name": "parent"}], "chunkRows": 100`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO m SELECT i, i %% 20 FROM generate_series(1, 2000) i; UPDATE m SET at = 15 WHERE at = 5; INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2)")
	sourcetest.Eventually(t, "all", func() bool { return len(sink.Graph()) == 2001 })
	snapshot, _ := hold(t, s)
	require.Greater(t, len(sourcetest.Chunks(t, s, snapshot, nil)), 3)
	require.Equal(t, sink.Graph().Texts(), sourcetest.NewSink("", readAll(t, s, snapshot)...).Graph().Texts())
}
