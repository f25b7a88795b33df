package postgres_test

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// published returns the lists of the tables in all publications.
func (d db) published() string {
	d.Helper()
	return d.text("SELECT string_agg(tablename || ' ' || attnames::text, '; ' ORDER BY tablename) FROM pg_publication_tables")
}

func (d db) becomesPublished(want string) {
	d.Helper()
	require.EventuallyWithT(d, func(c *collect) { require.Equal(c, want, d.published()) }, sourcetest.Patience, tick)
}

// serves waits until the sink is told that everything of wanted comes.
func serves(t testing.TB, sink *sourcetest.Sink, wanted source.Wanted) {
	t.Helper()
	sink.Want(wanted)
	sourcetest.Eventually(t, "what is wanted is served", func() bool { return sink.Serves(wanted) })
}

// withholding is resumed, with what is on record about what is left out.
func withholding(t testing.TB, sink *sourcetest.Sink, served source.Wanted) *sourcetest.Sink {
	again := resumed(sink)
	again.Want(served)
	agreed, err := again.Withhold(t.Context(), served)
	require.NoError(t, err)
	require.True(t, agreed)
	return again
}

// sent returns the names of the properties of the last change of an element.
func sent(t testing.TB, sink *sourcetest.Sink, id graph.ElementID) string {
	t.Helper()
	var names []string
	sourcetest.Eventually(t, "the row comes", func() bool {
		for _, tx := range sink.Transactions() {
			for _, c := range tx.Changes {
				if c.Element.ID == id {
					names = slices.Clone(c.Element.Shape.Names())
				}
			}
		}
		return names != nil
	})
	return strings.Join(names, " ")
}

const neededTables = `CREATE TABLE a (id int PRIMARY KEY, x text, y text, z int, b int); CREATE TABLE b (id int PRIMARY KEY, u text, v text);
	CREATE TABLE f (id int PRIMARY KEY, x text, y text); ALTER TABLE f REPLICA IDENTITY FULL;
	CREATE TABLE j (a int REFERENCES a, b int REFERENCES b, w int, note text, PRIMARY KEY (a, b));
	ALTER TABLE a ALTER x SET STORAGE EXTERNAL`

const neededSpec = `"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "a", "columns": ["x", "y", "z"]}, {"name": "b"}, {"name": "f"}, {"name": "j", "type": "J"}],
	"relationships": [{"type": "OF", "table": "a", "columns": ["b"], "references": "b"}]`

// TestNeededColumns: the publication has what is read and what identifies, and only that comes.
func TestNeededColumns(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(neededTables)
	s := d.source(neededSpec)
	const everything = "a {id,x,y,z,b}; b {id,u,v}; f {id,x,y}; j {a,b,w,note}"
	require.Equal(t, everything, d.published())
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO b VALUES (1, 'u', 'v'); INSERT INTO a VALUES (1, 'x', 'y', 1, 1)")
	require.Equal(t, "id x y z b", sent(t, sink, "a:1"), "nobody has said what is read")

	sink.Want(source.Wanted{"a": reads("y", "nope"), "J": reads("w"), "OF": reads()})
	d.becomesPublished("a {id,y,b}; b {id}; f {id,x,y}; j {a,b,w}")
	d.exec("INSERT INTO b VALUES (2, 'u', 'v'); INSERT INTO a VALUES (2, %s, 'y', 2, 2); INSERT INTO j VALUES (2, 2, 3, 'n'); INSERT INTO f VALUES (1, 'x', 'y')", incompressible)
	require.Equal(t, "id y b", sent(t, sink, "a:2"))
	require.Equal(t, "id", sent(t, sink, "b:2"))
	require.Equal(t, "a b w", sent(t, sink, "J:2,2"))
	require.Equal(t, "id x y", sent(t, sink, "f:1"), "updates need all of it")
	require.Equal(t, "OF (a:2)->(b:2)", sink.Graph().Texts()["OF:2"])
	withheld := []string{
		"column x of public.a is not sent any more", "column z of public.a is not sent any more", "column u of public.b is not sent any more",
		"column v of public.b is not sent any more", "column note of public.j is not sent any more",
	}
	require.Equal(t, withheld, sink.SchemaChanges())

	// A key changes while large values are left out.
	d.exec("DELETE FROM j; UPDATE a SET id = 3 WHERE id = 2")
	require.Equal(t, "id y b", sent(t, sink, "a:3"))

	wanted := source.Wanted{"a": reads("x", "y"), "J": reads("*")}
	serves(t, sink, wanted)
	require.Equal(t, "a {id,x,y,b}; b {id}; f {id,x,y}; j {a,b,w,note}", d.published())
	d.exec("INSERT INTO j VALUES (1, 1, 4, 'n'); UPDATE a SET id = 4 WHERE id = 3")
	require.Equal(t, "a b w note", sent(t, sink, "J:1,1"))
	require.Equal(t, "id x y b", sent(t, sink, "a:4"))
	moved := sink.Graph()["a:4"]
	require.Len(t, moved.Get("x").AsString(), len(d.text("SELECT x FROM a WHERE id = 4")), "it is read back")
	require.Equal(t, append(withheld, "column x of public.a is sent from now on", "column note of public.j is sent from now on"), sink.SchemaChanges())

	// Provisioning again, as after a restart, leaves it as it is; another spec does not.
	stop()
	require.NoError(t, d.unprovisioned(neededSpec).Provision(t.Context()))
	require.Equal(t, "a {id,x,y,b}; b {id}; f {id,x,y}; j {a,b,w,note}", d.published())
	all := d.unprovisioned(strings.Replace(neededSpec, "needed", "all", 1))
	require.NoError(t, all.Provision(t.Context()))
	require.Equal(t, everything, d.published())
	again := withholding(t, sink, wanted)
	running(t, all, sink.Durable(), again)
	serves(t, again, nil)
	require.Contains(t, again.SchemaChanges(), "column z of public.a is sent from now on")
	d.exec("INSERT INTO a VALUES (9, 'x', 'y', 1, 1)")
	require.Equal(t, "id x y z b", sent(t, again, "a:9"))
}

// TestColumnsComeBehindOldTransactions: one that runs while a column comes may have rows without it, so that the column
// is there only for what commits after that, also when the source is stopped meanwhile.
func TestColumnsComeBehindOldTransactions(t *testing.T) {
	for _, restarted := range []bool{false, true} {
		t.Run(fmt.Sprintf("restarted %t", restarted), func(t *testing.T) {
			d := newDB(t)
			d.since("15")
			d.exec(neededTables)
			s := d.source(neededSpec)
			sink := sourcetest.NewSink("")
			stop := running(t, s, "", sink)
			sink.Want(source.Wanted{})
			d.becomesPublished("a {id,b}; b {id}; f {id,x,y}; j {a,b}")

			old, err := pgx.Connect(t.Context(), d.url)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, old.Close(context.Background())) })
			_, err = old.Exec(t.Context(), "BEGIN; INSERT INTO b VALUES (1, 'u', 'v')")
			require.NoError(t, err)
			wanted := source.Wanted{"b": reads("v")}
			sink.Want(wanted)
			d.becomesPublished("a {id,b}; b {id,v}; f {id,x,y}; j {a,b}")
			sourcetest.Eventually(t, "it says what it waits for", func() bool {
				return slices.ContainsFunc(sink.Notes(), func(n string) bool {
					return strings.Contains(n, "columns and rows come when the transactions have ended")
				})
			})
			if restarted {
				stop()
				from := sink.Durable()
				sink = withholding(t, sink, source.Wanted{})
				sink.Want(wanted)
				running(t, d.unprovisioned(neededSpec), from, sink)
				sourcetest.Eventually(t, "it says what it waits for", func() bool { return len(sink.Notes()) > 0 && sink.Ticks() > 2 })
			}
			_, err = old.Exec(t.Context(), "INSERT INTO b VALUES (3, 'u', 'v')")
			require.NoError(t, err)
			require.False(t, sink.Serves(wanted))
			_, err = old.Exec(t.Context(), "COMMIT")
			require.NoError(t, err)
			sourcetest.Eventually(t, "it is served", func() bool { return sink.Serves(wanted) })
			d.exec("INSERT INTO b VALUES (4, 'u', 'v')")
			require.Equal(t, "id v", sent(t, sink, "b:4"))
			require.Equal(t, "id", sent(t, sink, "b:1"), "which is why it waits")
			// Behind the word that the column comes, each row has it.
			supplied := false
			for _, tx := range sink.Transactions() {
				for _, c := range tx.Schema {
					supplied = supplied || c.Op == graph.SchemaSupplied
				}
				for _, c := range tx.Changes {
					require.True(t, !supplied || slices.Contains(c.Element.Shape.Names(), "v"), "%s", c.Element.ID)
				}
			}
			require.True(t, supplied)
		})
	}
}

// TestForeignPublicationIsNotChosen: what somebody else made stays as it is, and the status says so.
func TestForeignPublicationIsNotChosen(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(neededTables + "; CREATE PUBLICATION theirs FOR TABLE b")
	s := d.source(`"publish": "needed", "publication": "theirs", "statusInterval": "100ms", "tables": [{"name": "b"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sink.Want(source.Wanted{"b": reads("v")})
	sourcetest.Eventually(t, "it says so", func() bool {
		return slices.Contains(sink.Notes(), "columnsWatch: the columns and rows of publication theirs are sent, which somebody else made")
	})
	ticks := sink.Ticks()
	sourcetest.Eventually(t, "it looks again", func() bool { return sink.Ticks() > ticks+2 })
	require.Equal(t, "b {id,u,v}", d.published())
	d.exec("INSERT INTO b VALUES (1, 'u', 'v')")
	require.Equal(t, "id u v", sent(t, sink, "b:1"))
}

// TestForeignPublicationAfterOurs: columns that our own publication withheld come from another one, which stays as it is.
func TestForeignPublicationAfterOurs(t *testing.T) {
	for _, publish := range []string{"all", "needed"} {
		t.Run(publish, func(t *testing.T) {
			d := newDB(t)
			d.since("15")
			d.exec("CREATE TABLE b (id int PRIMARY KEY, u text, v text)")
			const spec = `"statusInterval": "100ms", "tables": [{"name": "b"}]`
			m := &memo{}
			s := d.with(m, `"publish": "needed", `+spec)
			require.NoError(t, s.Provision(t.Context()))
			sink := sourcetest.NewSink("")
			stop := running(t, s, "", sink)
			sink.Want(source.Wanted{})
			d.becomesPublished("b {id}")
			sourcetest.Eventually(t, "it is told of", func() bool { return len(sink.SchemaChanges()) == 2 })
			stop()
			d.exec("CREATE PUBLICATION theirs FOR TABLE b (id, v)")
			other := d.with(m, fmt.Sprintf(`"publish": %q, "publication": "theirs", %s`, publish, spec))
			require.NoError(t, other.Provision(t.Context()))
			again := withholding(t, sink, source.Wanted{})
			running(t, other, sink.Durable(), again)
			wanted := source.Wanted{"b": reads("v")}
			again.Want(wanted)
			if publish == "needed" {
				sourcetest.Eventually(t, "what is wanted is served", func() bool { return again.Serves(wanted) })
			} else {
				sourcetest.Eventually(t, "all is served", func() bool { return again.Serves(nil) })
			}
			require.Contains(t, again.SchemaChanges(), "column v of public.b is sent from now on")
			require.Contains(t, d.text("SELECT string_agg(tablename || ' ' || attnames::text, '; ') FROM pg_publication_tables WHERE pubname = 'theirs'"), "b {id,v}")
		})
	}
}

// TestLockedTableIsNotWaitedFor: the next round tries again, and the slot is watched meanwhile, whatever the database's settings
// of literals.
func TestLockedTableIsNotWaitedFor(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(`CREATE TABLE b (id int PRIMARY KEY, "v""" text)`)
	d.exec("ALTER DATABASE %s SET standard_conforming_strings = off", d.text("SELECT current_database()"))
	s := d.source(`"publish": "needed", "statusInterval": "100ms", "tables": [{"name": "b"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sink.Want(source.Wanted{})
	d.becomesPublished("b {id}")
	sourcetest.Eventually(t, "it is told of", func() bool { return len(sink.SchemaChanges()) == 1 })
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "BEGIN; LOCK TABLE b IN SHARE UPDATE EXCLUSIVE MODE")
	require.NoError(t, err)
	wanted := source.Wanted{"b": reads(`v"`)}
	sink.Want(wanted)
	sourcetest.Eventually(t, "it gives up for now", func() bool {
		return slices.ContainsFunc(sink.Notes(), func(n string) bool { return strings.HasPrefix(n, "columnsWatch: altering the publication") })
	})
	require.NoError(t, conn.Close(t.Context()))
	sourcetest.Eventually(t, "it is served", func() bool { return sink.Serves(wanted) })
	require.NotContains(t, strings.Join(sink.Notes(), "; "), "retainedWAL: unknown")
}

// TestServedWithoutMessages: who may not write into the WAL what became of tables has the columns that come served.
func TestServedWithoutMessages(t *testing.T) {
	d := newDB(t)
	d.since("15")
	role := strings.ReplaceAll(d.text("SELECT current_database()"), "test", "silent")
	d.exec(`CREATE TABLE b (id int PRIMARY KEY, v text); CREATE PUBLICATION theirs FOR TABLE b; CREATE ROLE %[1]s LOGIN REPLICATION; GRANT SELECT ON b TO %[1]s`, role)
	t.Cleanup(func() { d.exec("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role) })
	d.exec(`DO $$ DECLARE f regprocedure; BEGIN
		FOR f IN SELECT oid FROM pg_proc WHERE proname = 'pg_logical_emit_message' LOOP EXECUTE 'REVOKE EXECUTE ON FUNCTION ' || f || ' FROM PUBLIC'; END LOOP; END $$`)
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	u.User = url.User(role)
	s := db{t, u.String()}.source(`"publish": "needed", "publication": "theirs", "statusInterval": "100ms", "tables": [{"name": "b"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sourcetest.Eventually(t, "it knows the table", func() bool { return sink.Schema() != nil })
	d.exec("TRUNCATE b")
	sourcetest.Eventually(t, "it cannot tell where rows are", func() bool {
		return slices.ContainsFunc(sink.Notes(), func(n string) bool { return strings.HasPrefix(n, "tablesWatch: writing into the WAL") })
	})
	serves(t, sink, source.Wanted{"b": reads("v")})
	d.exec("GRANT EXECUTE ON FUNCTION pg_logical_emit_message(boolean, text, text%s) TO %s", flush(d), role)
	file := `"file":` + d.text("SELECT pg_relation_filenode('b')") + `,"since"`
	sourcetest.Eventually(t, "it tries again", func() bool { return strings.Contains(string(sink.Schema()), file) })
}

// flush is the last parameter of pg_logical_emit_message, which came with Postgres 17.
func flush(d db) string {
	return d.text("SELECT CASE WHEN current_setting('server_version_num')::int >= 170000 THEN ', boolean' ELSE '' END")
}

// TestRenamedColumnOfTheSpec: what the server describes under a name that the spec does not have is not withheld.
func TestRenamedColumnOfTheSpec(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec("CREATE TABLE b (id int PRIMARY KEY, v text, w text)")
	s := d.source(`"publish": "needed", "statusInterval": "1h", "tables": [{"name": "b", "columns": ["v", "w"]}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sourcetest.Eventually(t, "it knows the table", func() bool { return sink.Schema() != nil })
	d.exec("BEGIN; ALTER TABLE b RENAME v TO v2; INSERT INTO b VALUES (1, 'v', 'w'); COMMIT")
	require.Equal(t, "id w", sent(t, sink, "b:1"))
	require.Equal(t, []string{"column v of public.b was dropped"}, sink.SchemaChanges())
}

// TestListedColumnsCannotBeDropped is what the documentation warns of.
func TestListedColumnsCannotBeDropped(t *testing.T) {
	d := newDB(t)
	d.since("15")
	d.exec(neededTables)
	s := d.source(neededSpec)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	sink.Want(source.Wanted{"b": reads("v")})
	d.becomesPublished("a {id,b}; b {id,v}; f {id,x,y}; j {a,b}")
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "ALTER TABLE b DROP v")
	require.ErrorContains(t, err, "depend")
	require.NoError(t, conn.Close(t.Context()))
	d.exec("ALTER TABLE b DROP u; ALTER TABLE b ADD w int") // which nobody reads
	serves(t, sink, source.Wanted{"b": reads("w")})
	d.exec("INSERT INTO b VALUES (1, 'v', 5)")
	require.Contains(t, sent(t, sink, "b:1"), "w")
	require.Contains(t, sink.SchemaChanges(), "column w of public.b is sent from now on")
	require.NotContains(t, strings.Join(sink.SchemaChanges(), "; "), "dropped")
}
