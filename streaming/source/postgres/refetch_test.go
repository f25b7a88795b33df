package postgres_test

import (
	"context"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestValuesAreReadTogether: rows whose key changed, and whose large values did not, are read from the table many at a time.
func TestValuesAreReadTogether(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE doc (id int PRIMARY KEY, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE late (id int UNIQUE DEFERRABLE INITIALLY DEFERRED NOT NULL, body text); ALTER TABLE late REPLICA IDENTITY FULL`)
	s := d.source(`"tables": [{"name": "doc"}, {"name": "late", "key": ["id"]}]`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	const rows = 2000
	d.exec(`INSERT INTO doc SELECT i, repeat(i::text, 3000) FROM generate_series(1, %[1]d) i; INSERT INTO late SELECT i, i FROM generate_series(1, %[1]d) i`, rows)
	sourcetest.Eventually(t, "the rows", func() bool { return len(sink.Graph()) == 2*rows })
	committed := func() int {
		n, err := strconv.Atoi(d.text("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"))
		require.NoError(t, err)
		return n
	}
	d.exec("SELECT pg_stat_reset()")
	d.exec("UPDATE doc SET id = id + %d; UPDATE late SET id = id + 1", rows)
	require.Len(t, agree(t, s, sink), 2*rows)
	stop()
	sourcetest.Eventually(t, "the server has counted", func() bool {
		return d.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'perdure/%%'") == "0"
	})
	n := committed() // each round trip is a transaction
	require.Less(t, n, rows/4, "of %d rows, and what else is asked", 2*rows)
	t.Logf("%d round trips", n)
}

// TestLargeValuesAreReadFewAtATime: what is read is handed over before the next is, so that it is not all in memory.
func TestLargeValuesAreReadFewAtATime(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE doc (id int PRIMARY KEY, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL; INSERT INTO doc SELECT i, repeat('x', 2000000) FROM generate_series(1, 20) i")
	s := d.source(`"tables": [{"name": "doc"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("UPDATE doc SET id = id + 100")
	require.Len(t, agree(t, s, sink), 20)
	require.GreaterOrEqual(t, sink.MostParts(), 20)
}

// TestNamesChangeBehindRows: what tables are asked goes by the names that they have by then.
func TestNamesChangeBehindRows(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE doc (id int PRIMARY KEY, body text); ALTER TABLE doc ALTER body SET STORAGE EXTERNAL; INSERT INTO doc SELECT i, repeat('x', 3000) FROM generate_series(1, 3) i;
		CREATE TABLE log (v int); ALTER TABLE log REPLICA IDENTITY FULL; CREATE TABLE mark (id int PRIMARY KEY)`)
	s := d.source(`"tables": [{"name": "doc"}, {"name": "log", "wholeRow": true}, {"name": "mark"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO log VALUES (1), (1)")
	sourcetest.Eventually(t, "a row", func() bool { return len(sink.Graph()) == 1 })
	d.exec("BEGIN; UPDATE doc SET id = id + 1000; ALTER TABLE doc RENAME body TO content; COMMIT")
	d.exec("BEGIN; UPDATE doc SET id = id + 1000; ALTER TABLE doc RENAME TO d2; COMMIT")
	d.exec("BEGIN; DELETE FROM log; DROP TABLE log; COMMIT; INSERT INTO mark VALUES (1)")
	sourcetest.Eventually(t, "what came behind", func() bool { _, there := sink.Graph()["mark:1"]; return there })
	require.Len(t, sink.Graph(), 4)
	moved := sink.Graph()["doc:2001"]
	require.Len(t, moved.Get("content").AsString(), 3000)
}

// TestBadValuesThatAreReadLater concern their row alone.
func TestBadValuesThatAreReadLater(t *testing.T) {
	d := newDBIn(t, "SQL_ASCII")
	d.exec(`CREATE TABLE u (id int PRIMARY KEY, body text); ALTER TABLE u ALTER body SET STORAGE EXTERNAL`)
	var mu sync.Mutex
	var columns []string
	settings := d.settings()
	settings.Reject = func(_ context.Context, letter source.DeadLetter) error {
		mu.Lock()
		defer mu.Unlock()
		columns = append(columns, letter.Scope+"."+failure.Describe(letter.Cause).Details["column"])
		return nil
	}
	s := d.sourceWith(`"tables": [{"name": "u"}]`, settings)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO u VALUES (1, repeat('x', 3000)), (2, repeat('y', 3000)), (3, repeat(E'\xfc', 3000))`)
	sourcetest.Eventually(t, "the good rows", func() bool { return len(sink.Graph()) == 2 })
	d.exec(`UPDATE u SET id = id + 10; INSERT INTO u VALUES (20, 'z')`)
	sourcetest.Eventually(t, "they are others now", func() bool { return len(sink.Graph()) == 3 })
	moved := sink.Graph()["u:12"]
	require.Len(t, moved.Get("body").AsString(), 3000)
	require.Contains(t, sink.Graph(), graph.ElementID("u:20"))
	mu.Lock()
	defer mu.Unlock()
	require.Equal(t, []string{"public.u.body", "public.u.body"}, columns)
}

// TestKeysOfExtensionTypes: types of extensions bring the operators that compare them.
func TestKeysOfExtensionTypes(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE SCHEMA ext; CREATE EXTENSION ltree SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN place AS ext.ltree;
		CREATE TABLE a (id ext.ltree PRIMARY KEY, body text); CREATE TABLE b (id ext.citext PRIMARY KEY, body text); CREATE TABLE c (id mood PRIMARY KEY, body text);
		CREATE TABLE e (id place PRIMARY KEY, body text); CREATE TABLE f (id ext.ltree[] PRIMARY KEY, body text);`)
	s := d.source(`"tables": [{"name": "a"}, {"name": "b"}, {"name": "c"}, {"name": "e"}, {"name": "f"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO a SELECT 'x.y', %[1]s; INSERT INTO b SELECT 'Ab', %[1]s; INSERT INTO c SELECT 'sad', %[1]s; INSERT INTO e SELECT 'x', %[1]s; INSERT INTO f SELECT '{x,y}', %[1]s", incompressible)
	d.exec("UPDATE a SET id = 'z'; UPDATE b SET id = 'cD'; UPDATE c SET id = 'ok'; UPDATE e SET id = 'z'; UPDATE f SET id = '{z}'")
	require.Len(t, agree(t, s, sink), 5)
}

// TestTypesWithoutBinaryFormAreReadBack as text, as they come.
func TestTypesWithoutBinaryFormAreReadBack(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE late (id int PRIMARY KEY DEFERRABLE, rights aclitem); ALTER TABLE late REPLICA IDENTITY FULL")
	s := d.source(`"tables": [{"name": "late"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO late SELECT i, format('=%%s/%%s', substr('rwad', i, 1), current_user)::aclitem FROM generate_series(1, 3) i")
	d.exec("UPDATE late SET id = id + 1")
	require.Len(t, agree(t, s, sink), 3)
}

// TestTypesChangeBehindRows: what tables are asked goes by the types that they have by then.
func TestTypesChangeBehindRows(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN code AS text;
		CREATE TABLE u (id uuid PRIMARY KEY, body text); CREATE TABLE e (id mood PRIMARY KEY, body text); CREATE TABLE n (id int PRIMARY KEY, body text);
		CREATE TABLE w (id text PRIMARY KEY, body text); CREATE TABLE c (id uuid PRIMARY KEY, body code); CREATE TABLE b (id int PRIMARY KEY, body json); CREATE TABLE mark (id int PRIMARY KEY)`)
	s := d.source(`"tables": [{"name": "u"}, {"name": "e"}, {"name": "n"}, {"name": "w"}, {"name": "c"}, {"name": "b"}, {"name": "mark"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO u SELECT md5('a')::uuid, %[1]s; INSERT INTO c SELECT md5('a')::uuid, %[1]s; INSERT INTO e SELECT 'sad', %[1]s; INSERT INTO n SELECT 1, %[1]s;
		INSERT INTO w SELECT 'x', %[1]s; INSERT INTO b SELECT 1, to_json(%[1]s)`, incompressible)
	sourcetest.Eventually(t, "the rows", func() bool { return len(sink.Graph()) == 6 })
	for _, change := range []string{
		"UPDATE u SET id = md5('b')::uuid; ALTER TABLE u ALTER id TYPE text",
		"UPDATE c SET id = md5('b')::uuid; ALTER TABLE c ALTER id TYPE text",
		"UPDATE e SET id = 'ok'; ALTER TABLE e ALTER id TYPE text",
		"UPDATE n SET id = 2; ALTER TABLE n ALTER id TYPE text",
		"UPDATE w SET id = 'yy'; ALTER TABLE w ALTER id TYPE int USING length(id)",
		"UPDATE b SET id = 2; ALTER TABLE b ALTER body TYPE jsonb",
	} {
		d.exec("BEGIN; %s; COMMIT", change)
	}
	d.exec("INSERT INTO mark VALUES (1)")
	sourcetest.Eventually(t, "what came behind", func() bool { _, there := sink.Graph()["mark:1"]; return there })
	body := func(id, label string) {
		moved := sink.Graph()[graph.ElementID(id)]
		require.Equal(t, d.text("SELECT body::text FROM %s", label), moved.Get("body").AsString(), id)
	}
	second := d.text("SELECT md5('b')::uuid")
	body("u:"+second, "u")
	body("c:"+second, "c")
	body("e:ok", "e")
	body("n:2", "n")
	lost, jsonb := sink.Graph()["w:yy"], sink.Graph()["b:2"]
	require.True(t, lost.Get("body").IsNull(), "no row has that key by now")
	require.Equal(t, d.text("SELECT body #>> '{}' FROM b"), jsonb.Get("body").AsString())
}
