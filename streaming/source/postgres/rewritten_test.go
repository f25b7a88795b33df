package postgres_test

import (
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestRowsWrittenAnew: commands that change rows without a change in the stream are told of, those that keep them are not.
func TestRowsWrittenAnew(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i;
		CREATE TABLE m (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10); CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (10) TO (20);
		INSERT INTO m SELECT i, i FROM generate_series(1, 19) i; CREATE TABLE mark (id int PRIMARY KEY)`)
	s := d.source(`"tables": [{"name": "t", "label": "T"}, {"name": "m"}, {"name": "mark"}], "statusInterval": "100ms"`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	sourcetest.Eventually(t, "it knows the tables", func() bool { return sink.Schema() != nil })
	var want []string
	const anewT, anewM = "rows of public.t were written anew or removed", "rows of public.m were written anew or removed"
	for i, step := range []struct{ statements, want string }{
		{"TRUNCATE m1", anewM},
		{"BEGIN; TRUNCATE m2; INSERT INTO m VALUES (15, 1); COMMIT", anewM},
		{"VACUUM FULL m2", ""},
		{"TRUNCATE m", ""}, // the stream has it
		{"INSERT INTO m VALUES (1, 1), (11, 1); TRUNCATE m1", anewM},
		{"ALTER TABLE m ALTER v TYPE int USING v + 1", anewM},
		{"VACUUM FULL t", ""},
		{"CLUSTER t USING t_pkey", ""},
		{"VACUUM FREEZE t", ""},
		{"VACUUM FULL t", ""},
		{"ALTER TABLE t ALTER v TYPE int USING v + 1", anewT},
		{"TRUNCATE t; INSERT INTO t VALUES (1, 1)", ""},
		{"ALTER TABLE t ALTER v TYPE int USING v + 1", anewT},
		{"ALTER TABLE t ALTER v TYPE bigint", ""}, // the same values
		{"ALTER TABLE t ALTER v TYPE text USING 'x'", "column v of public.t has the type text and had int8"},
		{"ALTER TABLE t ADD w float DEFAULT random()", "column w of public.t (float8) was added with a value in the rows that existed"},
		{"DELETE FROM t", ""},
	} {
		d.exec("%s", step.statements)
		if step.want != "" {
			want = append(want, step.want)
			wantSchema(t, sink, want...)
		}
		from, to := "mark", "marked"
		if i%2 == 1 {
			from, to = to, from
		}
		d.exec("ALTER TABLE %s RENAME TO %s", from, to) // what came before would have been told of by then
		want = append(want, "table public."+from+" was renamed to public."+to)
		wantSchema(t, sink, want...)
	}
	// Also while the source is stopped.
	stop()
	d.exec("INSERT INTO t (id) VALUES (1); INSERT INTO m VALUES (12, 1)")
	again := resumed(sink)
	stop = running(t, s, sink.Durable(), again)
	sourcetest.Eventually(t, "the rows", func() bool { return len(again.Graph()) == 2 })
	stop()
	d.exec("TRUNCATE m2")
	last := resumed(again)
	running(t, s, again.Durable(), last)
	wantSchema(t, last, anewM)
}

// TestTruncateKeepsTheStream: where rows are is learned without a new connection, which would read again what is not confirmed.
func TestTruncateKeepsTheStream(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE t (id int PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "t"}], "statusInterval": "100ms"`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO t VALUES (1)")
	sourcetest.Eventually(t, "the row", func() bool { return len(sink.Graph()) == 1 })
	reader := d.slot(s, "active_pid")
	for i := range 3 {
		d.exec("TRUNCATE t")
		file := `"file":` + d.text("SELECT pg_relation_filenode('t')") + `,"since"`
		sourcetest.Eventually(t, "it knows where the rows are", func() bool { return strings.Contains(string(sink.Schema()), file) })
		d.exec("INSERT INTO t VALUES (%d)", i)
		sourcetest.Eventually(t, "the next row", func() bool { _, there := sink.Graph()[graph.ElementID("t:"+strconv.Itoa(i))]; return there })
		require.Equal(t, reader, d.slot(s, "active_pid"))
	}
	require.Empty(t, sink.SchemaChanges())
}

// TestTablesThatAreTruncatedAllTheTime do not keep what became of others from being told.
func TestTablesThatAreTruncatedAllTheTime(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "t"}, {"name": "other"}], "statusInterval": "100ms"`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sourcetest.Eventually(t, "it knows the tables", func() bool { return sink.Schema() != nil })
	d.exec("ALTER TABLE other RENAME TO another")
	sourcetest.Eventually(t, "it is told of", func() bool {
		d.exec("TRUNCATE t")
		return len(sink.SchemaChanges()) == 1
	})
}

// TestNamesInTypes: values are made of the labels of enums and the attributes of composite types.
func TestNamesInTypes(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN feeling AS mood; CREATE TYPE pair AS (a int, moods feeling[]);
		CREATE TABLE t (id int PRIMARY KEY, p pair); CREATE TABLE other (id int PRIMARY KEY)`)
	s := d.source(`"tables": [{"name": "t", "label": "T"}, {"name": "other"}], "statusInterval": "100ms"`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO t VALUES (1, (1, '{ok}'))")
	sourcetest.Eventually(t, "the row", func() bool { return len(sink.Graph()) == 1 })
	const others = "rows of public.t are written otherwise, since labels of an enum or attributes of a composite type are others"
	d.exec("ALTER TYPE mood RENAME VALUE 'ok' TO 'fine'")
	wantSchema(t, sink, others)
	d.exec("ALTER TYPE mood ADD VALUE 'glad'")
	d.exec("ALTER TABLE other RENAME TO another")
	want := []string{others, "table public.other was renamed to public.another"}
	wantSchema(t, sink, want...)
	d.exec("ALTER TYPE mood RENAME VALUE 'glad' TO 'happy'")
	want = append(want, others)
	wantSchema(t, sink, want...)
	d.exec("ALTER TYPE pair RENAME ATTRIBUTE a TO b")
	want = append(want, others)
	wantSchema(t, sink, want...)
	d.exec("ALTER TYPE pair ADD ATTRIBUTE c int")
	want = append(want, others)
	wantSchema(t, sink, want...)
	d.exec("INSERT INTO t VALUES (2, (1, '{happy}', 3))")
	sourcetest.Eventually(t, "the row", func() bool { return len(sink.Graph()) == 2 })
	e := sink.Graph()["T:2"]
	require.Equal(t, []string{"b", "c", "moods"}, e.Get("p").AsMap().Keys)
}
