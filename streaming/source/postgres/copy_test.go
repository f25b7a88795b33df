package postgres_test

import (
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

// TestNeededColumnsOnly: columns that nobody reads are not asked of the server, apart from those that identify rows.
func TestNeededColumnsOnly(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE customer (id int PRIMARY KEY, name text); INSERT INTO customer VALUES (1, 'n');
		CREATE TABLE orders (id int PRIMARY KEY, customer_id int REFERENCES customer, total int, secret text); INSERT INTO orders VALUES (7, 1, 5, 's')`)
	s := d.source(`"tables": [{"name": "customer", "label": "Customer"}, {"name": "orders", "label": "Order"}],
		"relationships": [{"type": "PLACED_BY", "table": "orders", "columns": ["customer_id"], "references": "customer"}]`)
	snapshot, _ := hold(t, s)
	read := func(wanted source.Wanted) map[graph.ElementID]string {
		return sourcetest.NewSink("", sourcetest.ReadSnapshot(t, s, snapshot, wanted)...).Graph().Texts()
	}
	all := map[graph.ElementID]string{
		"Customer:1": `Customer id=1 name="n"`, "Order:7": `Order customer_id=1 id=7 secret="s" total=5`, "PLACED_BY:7": "PLACED_BY (Order:7)->(Customer:1)",
	}
	require.Equal(t, all, read(nil))
	require.Equal(t, all, read(source.Wanted{"": reads("*")}))
	require.Equal(t, map[graph.ElementID]string{
		"Order:7": "Order customer_id=1 id=7 total=5", "PLACED_BY:7": "PLACED_BY (Order:7)->(Customer:1)",
	}, read(source.Wanted{"Order": reads("total", "no such column")}))
	require.Equal(t, map[graph.ElementID]string{
		"Order:7": "Order customer_id=1 id=7", "PLACED_BY:7": "PLACED_BY (Order:7)->(Customer:1)",
	}, read(source.Wanted{"PLACED_BY": reads()}))
	require.Equal(t, map[graph.ElementID]string{"Customer:1": `Customer id=1 name="n"`}, read(source.Wanted{"Customer": reads("*")}))
	require.Empty(t, read(source.Wanted{"other": reads("*")}))

	d.exec("ALTER TABLE orders DROP COLUMN secret") // not read, so not missed by who has read the catalog before
	require.Len(t, read(source.Wanted{"Order": reads("total")}), 2)
}

// TestRewrittenTable: what older snapshots do not see, or see elsewhere, is no part of this one.
func TestRewrittenTable(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id int PRIMARY KEY, v int); INSERT INTO a SELECT i, i FROM generate_series(1, 1000) i; DELETE FROM a WHERE id < 500;
		CREATE TABLE b (id int PRIMARY KEY, v int); INSERT INTO b SELECT i, i FROM generate_series(1, 1000) i`)
	s := d.source(`"tables": [{"name": "a"}, {"name": "b"}], "chunkRows": 400`)
	for _, rewrite := range []string{"VACUUM FULL a", "ALTER TABLE a ALTER v TYPE bigint", "TRUNCATE a"} {
		snapshot, release := hold(t, s)
		chunks := sourcetest.Chunks(t, s, snapshot, source.Wanted{"a": reads()})
		reader, err := s.OpenSnapshot(t.Context(), snapshot)
		require.NoError(t, err)
		require.NoError(t, reader.ReadChunk(t.Context(), chunks[0], sourcetest.Discard{}))
		d.exec("%s", rewrite) // nothing is locked between chunks
		err = reader.ReadChunk(t.Context(), chunks[len(chunks)-1], sourcetest.Discard{})
		require.Equal(t, failure.SnapshotLost, failure.CodeOf(err), "%s: %v", rewrite, err)
		reader.Close()
		require.Len(t, sourcetest.ReadSnapshot(t, s, snapshot, source.Wanted{"b": reads()}), 1000, "other tables are as they were")
		release()
	}
	snapshot, _ := hold(t, s)
	require.Len(t, readAll(t, s, snapshot), 1000)
}

// TestLimitedRole: a role that may read the tables and replicate needs nothing else, given a publication.
func TestLimitedRole(t *testing.T) {
	d := newDB(t)
	role := strings.ReplaceAll(d.text("SELECT current_database()"), "test", "reader")
	d.exec(`CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100000);
		INSERT INTO t SELECT i, 'v' FROM generate_series(1, 5000) i; CREATE PUBLICATION given FOR TABLE t WITH (publish_via_partition_root);
		CREATE ROLE %[1]s LOGIN REPLICATION; GRANT SELECT ON t TO %[1]s`, role)
	t.Cleanup(func() { d.exec("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role) })
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	u.User = url.User(role)
	s := db{t, u.String()}.source(`"tables": [{"name": "t"}], "publication": "given", "chunkRows": 1000`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	snapshot, release := hold(t, s)
	elements := readAll(t, s, snapshot)
	require.Len(t, elements, 5000)
	require.NoError(t, s.VerifySnapshot(t.Context(), snapshot))
	release()
	d.exec("INSERT INTO t VALUES (6000, 'new')")
	sourcetest.Eventually(t, "the stream goes on", func() bool { return len(sink.Transactions()) == 1 })
	require.Equal(t, "t:6000", fmt.Sprint(sink.Transactions()[0].Changes[0].Element.ID))
}

// TestSelectRevokedWhileCopying: what is planned without reading is read with another right, and the failure says how to give it.
func TestSelectRevokedWhileCopying(t *testing.T) {
	d := newDB(t)
	role := strings.ReplaceAll(d.text("SELECT current_database()"), "test", "revoked")
	d.exec(`CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 10); CREATE PUBLICATION given FOR TABLE t;
		CREATE ROLE %[1]s LOGIN REPLICATION; GRANT SELECT ON t TO %[1]s`, role)
	t.Cleanup(func() { d.exec("DROP OWNED BY %[1]s; DROP ROLE %[1]s", role) })
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	u.User = url.User(role)
	s := db{t, u.String()}.source(`"tables": [{"name": "t"}], "publication": "given"`)
	snapshot, release := hold(t, s)
	defer release()
	d.exec("REVOKE SELECT ON t FROM %s", role)
	chunks := sourcetest.Chunks(t, s, snapshot, nil)
	require.Len(t, chunks, 1)
	read := func() error {
		return sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func([]graph.Change) error { return nil })
	}
	err = read()
	require.Equal(t, failure.PermissionDenied, failure.CodeOf(err), "%v", err)
	require.Equal(t, "public.t", failure.Of(err).Details()["table"])
	fix := failure.Of(err).Fix()
	grants, _, _ := strings.Cut(strings.TrimPrefix(fix, "Run "), " then signal")
	d.exec("%s", grants)
	require.NoError(t, read(), "after %s", fix)
}
