package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// since skips a test on servers that are too old for it.
func (d db) since(version string) {
	d.Helper()
	if d.text("SHOW server_version_num") < version {
		d.Skip("the server is too old")
	}
}

// agree waits until the stream has what the database has, and shows that a snapshot has the same.
func agree(t testing.TB, s fullSource, sink *sourcetest.Sink) map[graph.ElementID]string {
	t.Helper()
	snapshot, release := hold(t, s)
	defer release()
	sourcetest.Eventually(t, "the stream arrives", func() bool { return sink.Position().Compare(snapshot.Position) >= 0 })
	read := sourcetest.NewSink("", readAll(t, s, snapshot)...).Graph().Texts()
	require.Equal(t, read, sink.Graph().Texts())
	return read
}

// fails runs a source until it fails.
func fails(t testing.TB, s source.Source, from graph.Position) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), sourcetest.Patience)
	defer cancel()
	return s.Run(ctx, from, sourcetest.NewSink(from))
}

func TestReplicaIdentities(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE standard (id int PRIMARY KEY, v text); CREATE TABLE whole (id int PRIMARY KEY, v text); ALTER TABLE whole REPLICA IDENTITY FULL;
		CREATE TABLE indexed (id int PRIMARY KEY, code text NOT NULL, v text); CREATE UNIQUE INDEX code ON indexed (code) INCLUDE (v); ALTER TABLE indexed REPLICA IDENTITY USING INDEX code;
		CREATE TABLE pair (b int, a text, v text, PRIMARY KEY (a, b)); CREATE TABLE none (id int PRIMARY KEY); ALTER TABLE none REPLICA IDENTITY NOTHING;
		CREATE TABLE late (id int PRIMARY KEY DEFERRABLE)`)
	e := d.refused(failure.ReplicaIdentityMissing, `"tables": [{"name": "standard"}, {"name": "none"}, {"name": "late"}, {"name": "indexed"}]`)
	require.Equal(t, `Run ALTER TABLE "public"."none" REPLICA IDENTITY DEFAULT; ALTER TABLE "public"."late" REPLICA IDENTITY FULL; ALTER TABLE "public"."indexed" REPLICA IDENTITY DEFAULT; then signal resume.`, e.Fix())

	s := d.source(`"tables": [{"name": "standard"}, {"name": "whole"}, {"name": "indexed", "key": ["code"]}, {"name": "pair"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	for _, table := range []string{"standard", "whole"} {
		d.exec("INSERT INTO %[1]s VALUES (1, 'a'), (2, 'b'), (3, 'c'); UPDATE %[1]s SET v = 'x' WHERE id = 1; UPDATE %[1]s SET id = 4 WHERE id = 2; DELETE FROM %[1]s WHERE id = 3", table)
	}
	d.exec("INSERT INTO indexed VALUES (1, 'a', 'a'), (2, 'b', 'b'), (3, 'c', 'c'); UPDATE indexed SET id = 7 WHERE id = 1; UPDATE indexed SET code = 'd' WHERE id = 2; DELETE FROM indexed WHERE id = 3")
	d.exec("INSERT INTO pair VALUES (1, 'a', 'a'), (2, 'b', 'b'), (3, 'c', 'c'); UPDATE pair SET v = 'x' WHERE b = 1; UPDATE pair SET b = 4 WHERE b = 2; DELETE FROM pair WHERE b = 3")
	require.Equal(t, map[graph.ElementID]string{
		"standard:1": `standard id=1 v="x"`, "standard:4": `standard id=4 v="b"`, "whole:1": `whole id=1 v="x"`, "whole:4": `whole id=4 v="b"`,
		"indexed:a": `indexed code="a" id=7 v="a"`, "indexed:d": `indexed code="d" id=2 v="b"`, "pair:a,1": `pair a="a" b=1 v="x"`, "pair:b,4": `pair a="b" b=4 v="b"`,
	}, agree(t, s, sink))
}

// TestLostIdentity: a replica identity that stops covering the key while changes stream is noticed, though by then it
// may be right again.
func TestLostIdentity(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE item (id int PRIMARY KEY, code int NOT NULL UNIQUE); INSERT INTO item VALUES (1, 1)`)
	s := d.source(`"tables": [{"name": "item"}]`)
	d.exec(`ALTER TABLE item REPLICA IDENTITY USING INDEX item_code_key; INSERT INTO item VALUES (2, 2)`)
	d.exec(`UPDATE item SET id = 3 WHERE id = 1`)
	d.exec(`ALTER TABLE item REPLICA IDENTITY DEFAULT`)
	err := fails(t, s, "")
	require.Equal(t, failure.ReplicaIdentityMissing, failure.CodeOf(err), "%v", err)
	require.Contains(t, failure.Of(err).Fix(), `ALTER TABLE "public"."item" REPLICA IDENTITY FULL`)
	require.NotEmpty(t, failure.Describe(err).Details["lsn"])
}

// TestWholeRow: a table without a key, of which identical rows are one node until the last of them is gone.
func TestWholeRow(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE owner (id int PRIMARY KEY);
		CREATE TABLE log (owner int, at timestamptz, doc json, r tsquery, body text);
		CREATE TABLE m (n int, v text) PARTITION BY LIST (n); CREATE TABLE m1 PARTITION OF m FOR VALUES IN (1); CREATE TABLE m2 PARTITION OF m FOR VALUES IN (2);`)
	const config = `"tables": [{"name": "owner"}, {"name": "log", "wholeRow": true}, {"name": "m", "wholeRow": true}],
		"relationships": [{"type": "BY", "table": "log", "columns": ["owner"], "references": "owner"}]`
	e := d.refused(failure.ReplicaIdentityMissing, config)
	require.Contains(t, e.Fix(), `ALTER TABLE "public"."log" REPLICA IDENTITY FULL; ALTER TABLE "public"."m" REPLICA IDENTITY FULL; ALTER TABLE "public"."m1"`)
	d.exec("ALTER TABLE log REPLICA IDENTITY FULL; ALTER TABLE m REPLICA IDENTITY FULL; ALTER TABLE m1 REPLICA IDENTITY FULL; ALTER TABLE m2 REPLICA IDENTITY FULL")
	s := d.source(config)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	nodes := func(want int, step string) {
		t.Helper()
		agree(t, s, sink)
		n := 0
		for _, text := range sink.Graph().Texts() {
			if strings.HasPrefix(text, "log") || strings.HasPrefix(text, "m ") {
				n++
			}
		}
		require.Equal(t, want, n, step)
	}
	d.exec(`INSERT INTO owner VALUES (1), (2); INSERT INTO log VALUES (1, '2024-01-01', '{"a": 1}', 'a & b', %[1]s), (1, '2024-01-01', '{"a": 1}', 'a & b', %[1]s), (1, '2024-01-01', '{"a":1}', 'a & b', %[1]s), (NULL, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL)`, incompressible)
	nodes(3, "two rows are identical, the third is not; two are all nulls")
	const first = "ctid = (SELECT min(ctid) FROM log WHERE %s)"
	d.exec("DELETE FROM log WHERE "+first, "owner IS NULL")
	nodes(3, "a copy is left")
	d.exec("DELETE FROM log WHERE "+first, "owner IS NULL")
	nodes(2, "none is left")
	d.exec("UPDATE log SET owner = 2 WHERE "+first, "owner = 1")
	nodes(3, "one of two changed")
	d.exec("UPDATE log SET owner = 2 WHERE owner = 1")
	nodes(2, "all are alike again, but for the blank")
	require.Len(t, sink.Graph(), 2+2+2)
	d.exec("BEGIN; DELETE FROM log; INSERT INTO log SELECT 1, NULL, NULL, NULL, i %% 2000 FROM generate_series(1, 5000) i; DELETE FROM log WHERE ctid IN (SELECT min(ctid) FROM log GROUP BY body); COMMIT")
	nodes(2000, "many in one transaction")
	d.exec("DELETE FROM log; INSERT INTO m VALUES (1, 'a'), (1, 'a'), (2, 'a')")
	nodes(2, "in partitions")
	d.exec("UPDATE m SET n = 2 WHERE ctid = (SELECT min(ctid) FROM m1) AND n = 1")
	nodes(2, "from one partition to another")
	d.exec("UPDATE m SET n = 2; TRUNCATE log")
	nodes(1, "all are alike")
}

// TestWholeRowAltered: with the columns, what identifies the rows changes.
func TestWholeRowAltered(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE log (a int, b int); ALTER TABLE log REPLICA IDENTITY FULL")
	s := d.source(`"tables": [{"name": "log", "wholeRow": true}]`)
	d.exec("INSERT INTO log VALUES (1, 1)")
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sourcetest.Eventually(t, "the row", func() bool { return len(sink.Graph()) == 1 })
	d.exec("ALTER TABLE log DROP b; INSERT INTO log VALUES (2)")
	wantSchema(t, sink, "column b of public.log was dropped", "what rows of public.log are as log changed, because of column b")
	require.Len(t, sink.Graph(), 2)
}

// TestTruncate: one, several, those that depend, children.
func TestTruncate(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id serial PRIMARY KEY); CREATE TABLE b (id serial PRIMARY KEY, a int REFERENCES a); CREATE TABLE c (id serial PRIMARY KEY);
		CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (PRIMARY KEY (id)) INHERITS (parent)`)
	s := d.source(`"tables": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "parent"}, {"name": "child"}],
		"relationships": [{"type": "OF", "table": "b", "columns": ["a"], "references": "a"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	const refill = `INSERT INTO a SELECT FROM generate_series(1, 3); INSERT INTO b (a) SELECT id FROM a; INSERT INTO c SELECT FROM generate_series(1, 3);
		INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1), (2)`
	for _, step := range []struct {
		statement string
		left      int
	}{
		{"TRUNCATE c", 3 + 6 + 3}, {"TRUNCATE a CASCADE", 3 + 3}, {"TRUNCATE c, a, b RESTART IDENTITY", 3}, {"TRUNCATE ONLY parent", 14},
		{"TRUNCATE parent", 12}, {"BEGIN; TRUNCATE a CASCADE; INSERT INTO a DEFAULT VALUES; COMMIT", 1 + 3 + 3},
	} {
		d.exec("TRUNCATE a, b, c, parent, child RESTART IDENTITY; %s; %s", refill, step.statement)
		require.Len(t, agree(t, s, sink), step.left, step.statement)
	}
}

// TestForeignPublication: a publication that somebody else made decides which rows and columns there are.
func TestForeignPublication(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE doc (id int PRIMARY KEY, open bool NOT NULL, secret text, body text, twice int GENERATED ALWAYS AS (id * 2) STORED);
		CREATE TABLE columnless (); CREATE UNIQUE INDEX i ON doc (id, open); ALTER TABLE doc REPLICA IDENTITY USING INDEX i;
		INSERT INTO doc VALUES (1, true, 's', 'b'), (2, false, 's', %s)`, incompressible)
	use := func(list string) string {
		d.exec("DROP PUBLICATION IF EXISTS theirs; CREATE PUBLICATION theirs FOR TABLE doc %s, columnless", list)
		return `"publication": "theirs", "tables": [{"name": "doc"}]`
	}
	conflict := func(list, members, fix string) {
		t.Helper()
		err := d.unprovisioned(use(list) + members).Provision(t.Context())
		require.Equal(t, failure.PublicationConflict, failure.CodeOf(err), "%v", err)
		require.Contains(t, failure.Of(err).Fix(), fix)
		d.exec("BEGIN; %s COMMIT", strings.TrimSuffix(strings.TrimPrefix(failure.Of(err).Fix(), "Run "), "then signal resume."))
		s := d.unprovisioned(`"publication": "theirs", "tables": [{"name": "doc"}]`)
		require.NoError(t, s.Provision(t.Context()), "the fix mends it")
		require.NoError(t, s.Teardown(t.Context()))
	}
	conflict("(open, body) WHERE (open)", "", `ADD TABLE ONLY "public"."doc" ("open", "body", "id") WHERE (open)`)
	conflict("(id, body)", "", `ADD TABLE ONLY "public"."doc" ("id", "body", "open")`) // the identity
	d.exec(`ALTER PUBLICATION theirs SET (publish = 'insert')`)
	err := d.unprovisioned(`"publication": "theirs", "tables": [{"name": "doc"}]`).Provision(t.Context())
	require.Equal(t, failure.PublicationConflict, failure.CodeOf(err), "%v", err)

	s := d.source(use("(id, open, body) WHERE (open)"))
	sink := sourcetest.NewSink("", graph.Element{ID: "doc:1"})
	running(t, s, "", sink)
	d.exec("INSERT INTO doc VALUES (3, true, 's', NULL), (4, false, 's', NULL); UPDATE doc SET open = true WHERE id = 2; UPDATE doc SET secret = 'x'")
	d.exec("UPDATE doc SET open = false WHERE id = 1")
	body := d.text("SELECT body FROM doc WHERE id = 2")
	require.Equal(t, map[graph.ElementID]string{
		"doc:2": `doc body="` + body + `" id=2 open=true`, // came by an update that did not bring the large value
		"doc:3": `doc id=3 open=true`,
	}, agree(t, s, sink))
}

// TestColumns: only columns that are wanted leave the server, and what the publication has follows the spec.
func TestColumns(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE a (x text, id int PRIMARY KEY, y text, acl aclitem[], "Zed" int); CREATE TABLE b (id int PRIMARY KEY, x text, a int REFERENCES a); ALTER TABLE b REPLICA IDENTITY FULL`)
	d.refused(failure.ColumnMissing, `"tables": [{"name": "b", "columns": ["nope"]}]`)
	members := func(a, b string) string {
		return fmt.Sprintf(`"tables": [{"name": "a", "columns": [%s]}, {"name": "b", "columns": [%s]}], "relationships": [{"type": "OF", "table": "b", "columns": ["a"], "references": "a"}]`, a, b)
	}
	published := func() string {
		return d.text("SELECT string_agg(tablename || ' ' || attnames::text, '; ' ORDER BY tablename) FROM pg_publication_tables")
	}
	require.NoError(t, d.unprovisioned(members(`"x"`, `"x"`)).Provision(t.Context()))
	require.Equal(t, "a {x,id}; b {id,x,a}", published())
	require.NoError(t, d.unprovisioned(members(`"Zed", "x"`, `"id"`)).Provision(t.Context()))
	require.Equal(t, "a {x,id,Zed}; b {id,x,a}", published(), "updates need all columns of b")
	s := d.source(members(`"Zed"`, `"id"`))
	require.Equal(t, "a {id,Zed}; b {id,x,a}", published())
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO a VALUES ('x', 1, 'y', '{}', 5); INSERT INTO b VALUES (1, %s, 1); UPDATE b SET id = 2`, incompressible)
	require.Equal(t, map[graph.ElementID]string{"a:1": "a Zed=5 id=1", "b:2": "b a=1 id=2", "OF:2": "OF (b:2)->(a:1)"}, agree(t, s, sink))
}

func TestGeneratedColumns(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE g (id int, twice int GENERATED ALWAYS AS (id * 2) STORED PRIMARY KEY)`)
	e := d.refused(failure.ColumnMissing, `"tables": [{"name": "g"}]`)
	require.Contains(t, e.Error(), "public.g.twice (it is generated, which the stream leaves out)")
}

// TestPublishedGeneratedColumns: from version 18 on a publication may have generated columns that are stored.
func TestPublishedGeneratedColumns(t *testing.T) {
	d := newDB(t)
	d.since("18")
	d.exec(`CREATE TABLE g (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) STORED, thrice int GENERATED ALWAYS AS (id * 3) VIRTUAL);
		CREATE PUBLICATION theirs FOR TABLE g WITH (publish_generated_columns = stored)`)
	for publication, want := range map[string]string{"theirs": "g id=4 twice=8", "ours": "g id=4"} {
		s := d.source(`"tables": [{"name": "g"}], "publication": "` + publication + `", "slot": "` + publication + `"`)
		sink := sourcetest.NewSink("")
		running(t, s, "", sink)
		d.exec("TRUNCATE g; INSERT INTO g VALUES (1); UPDATE g SET id = 4")
		require.Equal(t, map[graph.ElementID]string{"g:4": want}, agree(t, s, sink))
	}
}

// TestPartitionIdentity: the replica identity of each partition counts.
func TestPartitionIdentity(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE m (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
		CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20); ALTER TABLE m2 REPLICA IDENTITY NOTHING`)
	e := d.refused(failure.ReplicaIdentityMissing, `"tables": [{"name": "m"}]`)
	require.Equal(t, `Run ALTER TABLE "public"."m2" REPLICA IDENTITY DEFAULT; then signal resume.`, e.Fix())
	e = d.refused(failure.Unsupported, `"tables": [{"name": "m"}, {"name": "m1"}]`)
	require.Contains(t, e.Error(), "public.m1 is a partition of public.m")
	d.exec(`ALTER TABLE m2 REPLICA IDENTITY FULL`)
	s := d.source(`"tables": [{"name": "m"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO m VALUES (1, 1), (2, 2), (11, 1), (12, 2); UPDATE m SET id = 13 WHERE id = 1; UPDATE m SET id = 3 WHERE id = 11; DELETE FROM m WHERE id = 12; UPDATE m SET v = 9`)
	d.exec(`CREATE TABLE m3 PARTITION OF m FOR VALUES FROM (20) TO (30); INSERT INTO m VALUES (21, 1); UPDATE m SET id = 22 WHERE id = 2; UPDATE m SET id = 4 WHERE id = 21`)
	agree(t, s, sink)
	require.Len(t, sink.Graph(), 4)
	d.exec(`TRUNCATE m`)
	require.Empty(t, agree(t, s, sink))
}

// TestPartitionsComeAndGo: what the server writes no changes for is said.
func TestPartitionsComeAndGo(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE m (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10);
		CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20); CREATE TABLE m3 (id int PRIMARY KEY); INSERT INTO m3 VALUES (20)`)
	s := d.source(`"tables": [{"name": "m"}], "statusInterval": "100ms"`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO m VALUES (1), (11)")
	agree(t, s, sink)
	told := func() int { return len(missed(sink)) }
	d.exec("CREATE TABLE m5 PARTITION OF m FOR VALUES FROM (40) TO (50)")
	d.exec("INSERT INTO m VALUES (41)")
	agree(t, s, sink)

	d.exec("ALTER TABLE m ATTACH PARTITION m3 FOR VALUES FROM (20) TO (30)")
	sourcetest.Eventually(t, "rows that came with a partition", func() bool { return told() == 1 })
	require.Equal(t, []string{"m"}, missed(sink)[0].Labels)
	require.Equal(t, "rows came or went with partitions of public.m", missed(sink)[0].String())
	d.exec("ALTER TABLE m DETACH PARTITION m2")
	sourcetest.Eventually(t, "rows that went with a partition", func() bool { return told() == 2 })
	stop()
	d.exec("DROP TABLE m1; CREATE TABLE m4 PARTITION OF m FOR VALUES FROM (30) TO (40); INSERT INTO m VALUES (31)")
	stop = running(t, s, sink.Durable(), sink)
	sourcetest.Eventually(t, "rows that went while the source was stopped", func() bool { return told() == 3 })
	sourcetest.Eventually(t, "the row of a new partition", func() bool { _, there := sink.Graph()["m:31"]; return there })
	stop()
	require.Equal(t, 3, told(), "partitions that were created bring no rows")
}

// TestPartitionNotFull: a partition that came later, whose rows the key does not identify, is noticed.
func TestPartitionNotFull(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE m (id int PRIMARY KEY, code int NOT NULL) PARTITION BY RANGE (id); ALTER TABLE m REPLICA IDENTITY FULL`)
	s := d.source(`"tables": [{"name": "m", "key": ["code"]}]`)
	d.exec("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); INSERT INTO m VALUES (1, 1)")
	d.exec("UPDATE m SET code = 2")
	d.exec("ALTER TABLE m1 REPLICA IDENTITY FULL")
	err := fails(t, s, "")
	require.Equal(t, failure.ReplicaIdentityMissing, failure.CodeOf(err), "%v", err)
}

// TestUnfitTables: what cannot be watched is refused with what mends it.
func TestUnfitTables(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE UNLOGGED TABLE quick (id int PRIMARY KEY); CREATE MATERIALIZED VIEW mv AS SELECT 1 AS id`)
	e := d.refused(failure.Unsupported, `"tables": [{"name": "quick"}]`)
	require.Equal(t, `Run ALTER TABLE "public"."quick" SET LOGGED; then signal resume.`, e.Fix())
	d.refused(failure.Unsupported, `"tables": [{"name": "mv"}]`)
	d.refused(failure.Unsupported, `"tables": [{"name": "pg_catalog.pg_class"}]`)

	role := strings.ReplaceAll(d.text("SELECT current_database()"), "test", "limited")
	d.exec(`CREATE TABLE t (id int PRIMARY KEY); ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE ROLE %[1]s LOGIN REPLICATION; GRANT SELECT ON t TO %[1]s`, role)
	t.Cleanup(func() { d.exec("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role) })
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	u.User = url.User(role)
	e = db{t, u.String()}.refused(failure.PermissionDenied, `"tables": [{"name": "t"}]`)
	require.Equal(t, fmt.Sprintf(`Run ALTER ROLE %q BYPASSRLS; then signal resume.`, role), e.Fix())
}

// TestEncodings: text of other encodings is converted; what nobody can convert is refused, and the error says where.
func TestEncodings(t *testing.T) {
	for _, c := range []struct{ encoding, value string }{{"LATIN1", `convert_from('\xfc', 'LATIN1')`}, {"SQL_ASCII", "'ü'"}} {
		d := newDBIn(t, c.encoding)
		d.exec("CREATE TABLE t (id int PRIMARY KEY, v text, j json)")
		s := d.source(`"tables": [{"name": "t"}]`)
		sink := sourcetest.NewSink("")
		stop := running(t, s, "", sink)
		d.exec(`INSERT INTO t VALUES (1, %s, '"x"')`, c.value)
		require.Equal(t, map[graph.ElementID]string{"t:1": `t id=1 j="x" v="ü"`}, agree(t, s, sink), c.encoding)
		stop()
		if c.encoding != "SQL_ASCII" {
			continue
		}
		d.exec(`INSERT INTO t VALUES (2, E'\xfc', NULL)`)
		err := fails(t, s, sink.Durable())
		require.Equal(t, failure.BadRecord, failure.CodeOf(err), "%v", err)
		details := failure.Describe(err).Details
		require.Equal(t, []string{"public.t", "v"}, []string{details["table"], details["column"]})
		require.NotEmpty(t, details["lsn"])
		require.Contains(t, err.Error(), "record at "+details["lsn"]+": decoding column v (text) of public.t")
		snapshot, _ := hold(t, s)
		chunks := sourcetest.Chunks(t, s, snapshot, nil)
		err = sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func([]graph.Change) error { return nil })
		require.Equal(t, failure.BadRecord, failure.CodeOf(err), "%v", err)
	}
}
