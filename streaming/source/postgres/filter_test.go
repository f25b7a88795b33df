package postgres_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// filters returns the row filters of the tables in all publications.
func (d db) filters() string {
	d.Helper()
	return d.text("SELECT string_agg(tablename || coalesce(' ' || rowfilter, ''), '; ' ORDER BY tablename) FROM pg_publication_tables")
}

func (d db) becomesFiltered(want string) {
	d.Helper()
	require.EventuallyWithT(d, func(c *collect) { require.Equal(c, want, d.filters()) }, sourcetest.Patience, tick)
}

// only is what a query reads of elements of which a property has one of some values.
func only(property string, values ...string) source.Reads {
	return source.Reads{Properties: []string{"*"}, Only: source.Only{property: values}}
}

const (
	tenants     = `CREATE TABLE t (tenant int, id int, v text, PRIMARY KEY (tenant, id)); ALTER TABLE t ALTER v SET STORAGE EXTERNAL`
	tenantsSpec = `"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "t"}]`
	tenant7     = "t (tenant = ANY ('{7}'::integer[]))"
	tenants78   = "t (tenant = ANY ('{7,8}'::integer[]))"
)

// filtered returns what a source writes to that runs, with a table of which one tenant's rows are read.
func filtered(t *testing.T) (db, *sourcetest.Sink) {
	t.Helper()
	d := newDB(t)
	d.since("15")
	d.exec(tenants)
	sink := sourcetest.NewSink("")
	running(t, d.source(tenantsSpec), "", sink)
	sink.Want(source.Wanted{"t": only("tenant", "7")})
	d.becomesFiltered(tenant7)
	return d, sink
}

// comes writes a row with another value, which it returns, and waits until it has come, and so has all that was written before.
func (d db) comes(sink *sourcetest.Sink, tenant, id int) (value string) {
	d.Helper()
	value = d.text("INSERT INTO t VALUES (%d, %d, pg_current_wal_lsn()) ON CONFLICT (tenant, id) DO UPDATE SET v = pg_current_wal_lsn() RETURNING v", tenant, id)
	sourcetest.Eventually(d, "the row comes", func() bool { return valueOf(sink, graph.ElementID(fmt.Sprintf("t:%d,%d", tenant, id))) == value })
	return value
}

// valueOf returns property v of an element, nothing if it is not there.
func valueOf(sink *sourcetest.Sink, id graph.ElementID) string {
	e, is := sink.Graph()[id]
	if !is {
		return ""
	}
	return e.Get("v").AsString()
}

func ids(sink *sourcetest.Sink) (ids []string) {
	for id := range sink.Graph() {
		ids = append(ids, string(id))
	}
	slices.Sort(ids)
	return ids
}

// TestNeededRows: the publication has the rows that are read, and only they come.
func TestNeededRows(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(tenants)
	s := d.source(tenantsSpec)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	unread := d.comes(sink, 6, 1)
	sink.Want(source.Wanted{"t": only("tenant", "7")})
	d.becomesFiltered(tenant7)
	d.exec("INSERT INTO t VALUES (8, 1, %[1]s); UPDATE t SET v = 'other' WHERE tenant = 6; INSERT INTO t VALUES (7, 1, %[1]s)", incompressible)
	d.comes(sink, 7, 2)
	require.Equal(t, []string{"t:6,1", "t:7,1", "t:7,2"}, ids(sink))
	require.Equal(t, unread, valueOf(sink, "t:6,1"), "nobody reads it")

	checks, err := s.(source.Checker).Check(t.Context())
	require.NoError(t, err)
	require.True(t, slices.ContainsFunc(checks, func(c source.Check) bool {
		return c.Name == "columns" && c.Found == "3 of 3 columns of public.t where (tenant = ANY ('{7}'::integer[]))"
	}), "%v", checks)

	// Rows move in, with a large value that the server does not send, and out.
	d.exec("UPDATE t SET tenant = 7, id = 3 WHERE tenant = 8; UPDATE t SET tenant = 9 WHERE tenant = 7 AND id = 1")
	d.comes(sink, 7, 2)
	require.Equal(t, []string{"t:6,1", "t:7,2", "t:7,3"}, ids(sink))
	require.Equal(t, d.text("SELECT v FROM t WHERE id = 3"), valueOf(sink, "t:7,3"))
	d.exec("DELETE FROM t WHERE id = 3")
	d.comes(sink, 7, 2)
	require.NotContains(t, ids(sink), "t:7,3")

	// A snapshot has the same rows.
	snapshot, release := hold(t, s)
	var read []string
	for _, e := range sourcetest.ReadSnapshot(t, s, snapshot, source.Wanted{"t": only("tenant", "7")}) {
		read = append(read, string(e.ID))
	}
	release()
	require.Equal(t, []string{"t:7,2"}, read)

	// Another query reads more, and one of them goes.
	both := source.Wanted{"t": only("tenant", "7", "8")}
	serves(t, sink, both)
	require.Equal(t, tenants78, d.filters())
	d.comes(sink, 8, 2)
	unread = d.comes(sink, 7, 2)
	sink.Want(source.Wanted{"t": only("tenant", "8")})
	d.becomesFiltered("t (tenant = ANY ('{8}'::integer[]))")
	d.exec("UPDATE t SET v = 'nobody' WHERE tenant = 7")
	d.comes(sink, 8, 3)
	require.Equal(t, unread, valueOf(sink, "t:7,2"))

	// What stands is left as it is after a restart.
	stop()
	require.NoError(t, d.unprovisioned(tenantsSpec).Provision(t.Context()))
	require.Equal(t, "t (tenant = ANY ('{8}'::integer[]))", d.filters())
	from := sink.Durable()
	sink = withholding(t, sink, source.Wanted{"t": only("tenant", "8")})
	running(t, d.unprovisioned(tenantsSpec), from, sink)
	d.comes(sink, 8, 4)
	require.False(t, sink.Serves(both))

	// A query of all rows ends the filter.
	serves(t, sink, source.Wanted{"t": reads("*")})
	require.Equal(t, "t", d.filters())
	d.comes(sink, 6, 1)
	require.Empty(t, sink.SchemaChanges(), "nobody is disturbed")
}

// TestRowsComeBehindOldTransactions: one that runs while rows come may lack them, also when the source is stopped meanwhile.
func TestRowsComeBehindOldTransactions(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			d := newDB(t)
			d.since("15")
			d.exec(tenants)
			sink := sourcetest.NewSink("")
			stop := running(t, d.source(tenantsSpec), "", sink)
			seven, both := source.Wanted{"t": only("tenant", "7")}, source.Wanted{"t": only("tenant", "7", "8")}
			sink.Want(seven)
			d.becomesFiltered(tenant7)
			old, err := pgx.Connect(t.Context(), d.url)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, old.Close(context.Background())) })
			_, err = old.Exec(t.Context(), "BEGIN; INSERT INTO t VALUES (8, 1, 'old')")
			require.NoError(t, err)
			sink.Want(both)
			d.becomesFiltered(tenants78)
			sourcetest.Eventually(t, "it says what it waits for", func() bool {
				return slices.ContainsFunc(sink.Notes(), func(n string) bool { return strings.Contains(n, "rows come when the transactions have ended") })
			})
			if restarted {
				stop()
				from := sink.Durable()
				sink = withholding(t, sink, seven)
				sink.Want(both)
				running(t, d.unprovisioned(tenantsSpec), from, sink)
			}
			rounds := func() (n int) {
				for _, note := range sink.Notes() {
					if strings.HasPrefix(note, "retainedWAL") {
						n++
					}
				}
				return n
			}
			before := rounds()
			sourcetest.Eventually(t, "it looks again", func() bool { return rounds() > before+3 })
			require.False(t, sink.Serves(both))
			_, err = old.Exec(t.Context(), "COMMIT")
			require.NoError(t, err)
			sourcetest.Eventually(t, "it is served", func() bool { return sink.Serves(both) })
			require.NotContains(t, ids(sink), "t:8,1", "which is why it waits")
			d.comes(sink, 8, 2)
		})
	}
}

// TestFilters: what can be a row filter, and what cannot.
func TestFilters(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE COLLATION alike (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE COLLATION own FROM "C";
		CREATE TABLE t ("order" smallint, "Big" bigint, s text, v varchar(9), u uuid, b boolean, c char(3), n numeric, f text COLLATE alike, o text COLLATE own, "a b" int, x int,
			PRIMARY KEY ("order", "Big", s, v, u, b, c, n, f, o, "a b"))`)
	s := d.source(tenantsSpec)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	values := source.Only{"order": {"-1"}, "Big": {"7"}, "s": {"NULL", "a b"}, "v": {"x"}, "u": {"0188a1f2-0000-4000-8000-00000000000a"}, "b": {"true"}}
	sink.Want(source.Wanted{"t": {Only: values}})
	const all = `t (("order" = ANY ('{-1}'::smallint[])) AND ("Big" = ANY ('{7}'::bigint[])) AND (s = ANY ('{"NULL","a b"}'::text[])) AND ((v)::text = ANY ('{x}'::text[]))` +
		` AND (u = ANY ('{0188a1f2-0000-4000-8000-00000000000a}'::uuid[])) AND (b = ANY ('{t}'::boolean[])))`
	d.becomesFiltered(all)
	d.exec("INSERT INTO t VALUES (-1, 7, 'a b', 'x', '0188a1f2-0000-4000-8000-00000000000a', true, 'c', 1, 'f', 'o', 1, 1)")
	sourcetest.Eventually(t, "the row comes", func() bool { return len(sink.Graph()) == 1 })

	for _, unfit := range []source.Only{
		{"order": {"40000"}}, {"order": {"1", "x"}}, {"order": {"+1"}}, {"Big": {"7.0"}}, {"s": {"it's"}}, {"s": {`a\`}}, {"s": {`"`}}, {"s": {"ä"}}, {"s": {""}}, {"s": {"{a,b}"}},
		{"u": {"0188A1F2-0000-4000-8000-00000000000A"}}, {"b": {"yes"}}, {"c": {"c"}}, {"n": {"1"}}, {"f": {"f"}}, {"o": {"o"}}, {"a b": {"1"}}, {"x": {"1"}}, {"no such column": {"1"}},
		{"order": strings.Split(strings.Repeat("1 ", 100)+"1", " ")},
	} {
		one := source.Only{"Big": {"7"}}
		for name, list := range unfit {
			one[name] = list
		}
		want := "t (\"Big\" = ANY ('{7}'::bigint[]))"
		if one["Big"][0] != "7" {
			want = "t"
		}
		sink.Want(source.Wanted{"t": {Only: one}})
		require.EventuallyWithT(t, func(c *collect) { require.Equal(c, want, d.filters()) }, sourcetest.Patience, tick, "%v", unfit)
		sink.Want(source.Wanted{"t": {Only: values}})
		d.becomesFiltered(all)
	}
}

// TestEndsAreNotFiltered: a relationship that comes must not wait for its end, which may be whatever row.
func TestEndsAreNotFiltered(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE b (id int PRIMARY KEY); CREATE TABLE a (id int PRIMARY KEY, b int REFERENCES b); CREATE TABLE j (id int PRIMARY KEY, a int REFERENCES a, b int REFERENCES b)`)
	s := d.source(`"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "a"}, {"name": "b"}, {"name": "j", "type": "J"}],
		"relationships": [{"type": "OF", "table": "a", "columns": ["b"], "references": "b"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	one := only("id", "1")
	const filter = " (id = ANY ('{1}'::integer[]))"
	for _, c := range []struct {
		wanted source.Wanted
		want   string
	}{
		{source.Wanted{"a": one, "b": one}, "a" + filter + "; b" + filter + "; j"},
		{source.Wanted{"a": one, "b": one, "OF": {}}, "a" + filter + "; b; j"},
		{source.Wanted{"a": one, "b": one, "J": one}, "a; b; j" + filter},
		{source.Wanted{"a": one, "b": one, "": {}}, "a; b; j"},
		{source.Wanted{"a": one}, "a" + filter + "; b; j"},
	} {
		sink.Want(c.wanted)
		require.EventuallyWithT(t, func(collect *collect) { require.Equal(collect, c.want, d.filters()) }, sourcetest.Patience, tick, "%v", c.wanted)
	}
}

// TestFilteredEnds: a relationship within a tenant has an end that comes if it comes itself.
func TestFilteredEnds(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE b (tenant int, id int, up int, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, up) REFERENCES b);
		CREATE TABLE a (tenant int, id int, b int, other int, PRIMARY KEY (tenant, id), FOREIGN KEY (tenant, b) REFERENCES b, FOREIGN KEY (other, b) REFERENCES b)`)
	s := d.source(`"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "a"}, {"name": "b"}], "relationships": [{"type": "OF", "table": "a", "columns": ["tenant", "b"]},
		{"type": "OTHER", "table": "a", "columns": ["other", "b"]}, {"type": "UP", "table": "b", "columns": ["tenant", "up"]}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	seven, either := only("tenant", "7"), only("tenant", "7", "8")
	one := source.Reads{Only: source.Only{"tenant": {"7"}, "id": {"1"}}}
	const f7, f78, f1 = " (tenant = ANY ('{7}'::integer[]))", " (tenant = ANY ('{7,8}'::integer[]))", " ((tenant = ANY ('{7}'::integer[])) AND (id = ANY ('{1}'::integer[])))"
	for _, c := range []struct {
		wanted source.Wanted
		want   string
	}{
		{source.Wanted{"a": seven, "b": seven, "OF": {}}, "a" + f7 + "; b" + f7},
		{source.Wanted{"a": seven, "b": seven, "OF": {}, "OTHER": {}}, "a" + f7 + "; b"},
		{source.Wanted{"a": seven, "b": either, "OF": {}}, "a" + f7 + "; b" + f78},
		{source.Wanted{"a": either, "b": seven, "OF": {}}, "a" + f78 + "; b"},
		{source.Wanted{"a": reads(), "b": seven, "OF": {}}, "a; b"},
		{source.Wanted{"a": one, "b": one, "OF": {}}, "a" + f1 + "; b" + f7},
		{source.Wanted{"b": seven, "UP": {}}, "a; b" + f7},
		{source.Wanted{"b": one, "UP": {}}, "a; b" + f7},
		{source.Wanted{"b": seven, "OF": {}}, "a; b"},
	} {
		sink.Want(c.wanted)
		require.EventuallyWithT(t, func(collect *collect) { require.Equal(collect, c.want, d.filters()) }, sourcetest.Patience, tick, "%v", c.wanted)
	}
}

// TestFilterFollowsReplicaIdentity: the server refuses to update rows of which it could not tell what they were. The source
// takes the filter away.
func TestFilterFollowsReplicaIdentity(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(tenants + "; CREATE UNIQUE INDEX ids ON t (id); ALTER TABLE t ALTER id SET NOT NULL")
	s := d.source(`"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "t", "key": ["id"]}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	wanted := source.Wanted{"t": only("tenant", "7")}
	sink.Want(source.Wanted{"t": only("id", "1", "2")})
	d.becomesFiltered("t (id = ANY ('{1,2}'::integer[]))")
	sink.Want(wanted)
	d.becomesFiltered("t") // the key does not have it
	sink.Want(source.Wanted{"t": only("id", "1")})
	d.becomesFiltered("t (id = ANY ('{1}'::integer[]))")
	d.exec("ALTER TABLE t REPLICA IDENTITY FULL")
	d.becomesFiltered("t")
	d.exec("INSERT INTO t VALUES (7, 1, 'v'); UPDATE t SET v = 'w'")
	d.exec("ALTER TABLE t REPLICA IDENTITY USING INDEX ids")
	d.becomesFiltered("t (id = ANY ('{1}'::integer[]))")
	d.exec("UPDATE t SET v = 'x'")
	sourcetest.Eventually(t, "it comes", func() bool { return valueOf(sink, "t:1") == "x" })
}

// TestFilteredKeys: what a filter keeps an application from is what the documentation warns of. With another primary key the
// source takes the filter away.
func TestFilteredKeys(t *testing.T) {
	d, sink := filtered(t)
	d.comes(sink, 7, 1)
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	for statement, refused := range map[string]string{
		"ALTER TABLE t DROP tenant":                                                        "depend",
		"ALTER TABLE t ALTER tenant TYPE bigint":                                           "publication WHERE",
		"ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id); UPDATE t SET v = 'v'": "cannot update table",
	} {
		_, err := conn.Exec(t.Context(), statement)
		require.ErrorContains(t, err, refused, statement)
	}
	d.exec("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id)")
	d.becomesFiltered("t")
	d.exec("UPDATE t SET v = 'v'")
	sourcetest.Eventually(t, "it comes", func() bool { return valueOf(sink, "t:1") == "v" })
}

// TestRenamedColumnOfAFilter: the filter follows the column, and the query that names it stops.
func TestRenamedColumnOfAFilter(t *testing.T) {
	d, sink := filtered(t)
	d.exec("ALTER TABLE t RENAME tenant TO owner")
	d.becomesFiltered("t")
	sourcetest.Eventually(t, "it is told of", func() bool {
		return slices.Contains(sink.SchemaChanges(), "column tenant of public.t was renamed to owner")
	})
	sink.Want(source.Wanted{"t": only("owner", "8")})
	d.becomesFiltered("t (owner = ANY ('{8}'::integer[]))")
}

// TestAlteredFilterIsMended: what somebody else does to a filter is told of, and undone.
func TestAlteredFilterIsMended(t *testing.T) {
	for name, filter := range map[string]string{"another form": "tenant > 8", "our form": "tenant = ANY ('{9}'::int[])"} {
		t.Run(name, func(t *testing.T) {
			d, sink := filtered(t)
			d.comes(sink, 7, 1)
			d.exec("ALTER PUBLICATION %s SET TABLE ONLY t WHERE (%s)", d.text("SELECT quote_ident(pubname) FROM pg_publication"), filter)
			const told = "rows of public.t were left out, since somebody altered the row filter of the publication"
			sourcetest.Eventually(t, "it is told of, and again when it is mended", func() bool { return slices.Equal(sink.SchemaChanges(), []string{told, told}) })
			d.becomesFiltered(tenant7)
			d.comes(sink, 7, 2)
			require.Len(t, sink.SchemaChanges(), 2)
		})
	}

	t.Run("publish all", func(t *testing.T) {
		d := newDB(t)
		d.since("15")
		d.exec(tenants)
		s := d.source(`"statusInterval": "100ms", "tables": [{"name": "t"}]`)
		sink := sourcetest.NewSink("")
		running(t, s, "", sink)
		d.comes(sink, 7, 1)
		d.exec("ALTER PUBLICATION %s SET TABLE ONLY t WHERE (tenant = 7)", d.text("SELECT quote_ident(pubname) FROM pg_publication"))
		d.becomesFiltered("t")
		d.comes(sink, 8, 1)
	})
}

// TestPartitionsAreFiltered by the filter of their root.
func TestPartitionsAreFiltered(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE t (tenant int, id int, v text, PRIMARY KEY (tenant, id)) PARTITION BY LIST (tenant);
		CREATE TABLE t7 PARTITION OF t FOR VALUES IN (7); CREATE TABLE rest PARTITION OF t DEFAULT`)
	s := d.source(tenantsSpec)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sink.Want(source.Wanted{"t": only("tenant", "7")})
	d.becomesFiltered(tenant7)
	d.exec("INSERT INTO t VALUES (8, 1, 'v'), (8, 2, 'v'); UPDATE t SET tenant = 7 WHERE id = 1; UPDATE t SET v = 'w' WHERE id = 1")
	d.comes(sink, 7, 9)
	require.Equal(t, []string{"t:7,1", "t:7,9"}, ids(sink))
	d.exec("ALTER TABLE rest REPLICA IDENTITY FULL")
	d.becomesFiltered("t")
}
