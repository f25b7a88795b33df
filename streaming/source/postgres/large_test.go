package postgres_test

import (
	"context"
	"crypto/md5" //nolint:gosec // as the server has it
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// documents makes a database with a table of documents and a source for it.
func documents(t *testing.T) (db, fullSource) {
	d := newDB(t)
	d.exec("CREATE TABLE document (id int PRIMARY KEY, body text, edition int)")
	return d, d.source(`"tables": [{"name": "document"}]`)
}

// requireTable waits until the sink has what the table has.
func requireTable(d db, sink *sourcetest.Sink) {
	d.Helper()
	want := strings.Fields(d.text("SELECT coalesce(string_agg(id || ':' || md5(body) || ':' || edition, ' ' ORDER BY id || ':' COLLATE \"C\"), '') FROM document"))
	var got []string
	sourcetest.Eventually(d, "what the table has", func() bool {
		got = nil
		for _, e := range sink.Graph() {
			got = append(got, fmt.Sprintf("%d:%x:%d", e.Get("id").AsInt(), md5.Sum([]byte(e.Get("body").AsString())), e.Get("edition").AsInt()))
		}
		slices.Sort(got)
		return slices.Equal(want, got)
	})
}

// TestLargeTransaction commits one that is handed over in parts and takes effect as one.
func TestLargeTransaction(t *testing.T) {
	d, s := documents(t)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO document SELECT i, repeat(md5(i::text), 10), 0 FROM generate_series(1, 10000) i")
	d.exec("UPDATE document SET edition = 1 WHERE id = 5")
	requireTable(d, sink)
	require.Greater(t, sink.MostParts(), 2)
	require.Len(t, sink.Transactions(), 2)
	stop()

	again := sourcetest.NewSink("") // what was confirmed does not come again
	stop = running(t, s, sink.Durable(), again)
	d.exec("DELETE FROM document WHERE id > 1")
	sourcetest.Eventually(t, "the last transaction", func() bool { return len(again.Transactions()) == 1 })
	require.Len(t, again.Transactions()[0].Changes, 9999)
	stop()
}

// TestTransactionsInProgress has the server send transactions before they end: two at the same time, one of which is
// rolled back, with subtransactions that are rolled back alone.
func TestTransactionsInProgress(t *testing.T) {
	d, s := documents(t)
	d.streamsEarly()
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	ctx := context.Background()
	begin := func() *pgx.Conn {
		conn, err := pgx.Connect(ctx, d.url)
		require.NoError(t, err)
		t.Cleanup(func() { require.NoError(t, conn.Close(ctx)) })
		_, err = conn.Exec(ctx, "BEGIN")
		require.NoError(t, err)
		return conn
	}
	run := func(conn *pgx.Conn, format string, args ...any) {
		_, err := conn.Exec(ctx, fmt.Sprintf(format, args...))
		require.NoError(t, err)
	}
	insert := func(conn *pgx.Conn, from, n int) {
		run(conn, "INSERT INTO document SELECT i, repeat(md5(i::text), 30), 0 FROM generate_series(%d, %d) i", from, from+n-1)
	}
	noted := func(what string) bool {
		return slices.ContainsFunc(sink.Notes(), func(n string) bool { return strings.HasPrefix(n, "transactionsInProgress: "+what) })
	}

	kept, gone := begin(), begin()
	insert(kept, 1, 6000)
	insert(gone, 100_000, 3000)
	run(kept, "SAVEPOINT outside")
	insert(kept, 10_000, 1000)
	run(kept, "SAVEPOINT inside")
	insert(kept, 20_000, 1000)
	run(kept, "ROLLBACK TO outside")
	insert(kept, 30_000, 1000)
	run(kept, "SAVEPOINT third")
	run(kept, "UPDATE document SET edition = 2 WHERE id %% 3 = 0")
	run(kept, "RELEASE third")
	insert(gone, 200_000, 3000)
	d.exec("INSERT INTO document VALUES (-1, 'small', 0)") // commits while the others are in progress
	sourcetest.Eventually(t, "both are in progress", func() bool { return noted("2,") })
	sourcetest.Eventually(t, "the small one", func() bool { return len(sink.Transactions()) == 1 })
	run(gone, "ROLLBACK")
	run(kept, "COMMIT")
	requireTable(d, sink)
	require.Len(t, sink.Transactions(), 2)
	require.Greater(t, sink.MostParts(), 2)
	sourcetest.Eventually(t, "in the end there is none", func() bool {
		notes := slices.DeleteFunc(slices.Clone(sink.Notes()), func(n string) bool { return !strings.HasPrefix(n, "transactionsInProgress") })
		return notes[len(notes)-1] == "transactionsInProgress: "
	})
	d.exec("UPDATE document SET edition = 3 WHERE id = 1")
	requireTable(d, sink)
	stop()

	// One that is in progress when the connection ends is sent from its begin.
	kept = begin()
	insert(kept, 300_000, 3000)
	again := sourcetest.NewSink(sink.Durable())
	stop = running(t, s, sink.Durable(), again)
	sourcetest.Eventually(t, "in progress", func() bool {
		return slices.ContainsFunc(again.Notes(), func(n string) bool { return strings.HasPrefix(n, "transactionsInProgress: 1,") })
	})
	d.exec("SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '%s'", s.Describe()["slot"])
	insert(kept, 400_000, 10)
	run(kept, "COMMIT")
	sourcetest.Eventually(t, "all of it", func() bool { return len(again.Graph()) == 3010 })
	require.Len(t, again.Transactions(), 1)
	for _, tx := range again.Transactions() {
		require.Equal(t, graph.OpInsert, tx.Changes[0].Op)
	}
	stop()
}
