package pipeline

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// orders is the spec of a source of a table at a server, with more members of its config.
func orders(t testing.TB, server, members string) component.SourceSpec {
	u, err := url.Parse(server)
	require.NoError(t, err)
	return component.SourceSpec{Name: "shop", Kind: postgres.Kind, Config: json.RawMessage(fmt.Sprintf(
		`{"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable", "connectTimeout": "2s", "tables": [{"name": "orders"}]%s}`,
		u.Hostname(), u.Port(), u.Path[1:], u.User.Username(), members))}
}

// things lists the slots and publications of a database.
func things(t testing.TB, server string) string {
	return clustertest.Text(t, server, `SELECT coalesce(string_agg(name, ' ' ORDER BY name), '') FROM (
		SELECT 'slot ' || slot_name AS name FROM pg_replication_slots WHERE database = current_database() UNION ALL SELECT 'publication ' || pubname FROM pg_publication) t`)
}

// kept lists what the stream server has of a source, but for the record of what it made.
func (r *rig) kept() (kept []string) {
	h := r.host()
	logs, err := r.conn.LogNames(r.t.Context(), "")
	require.NoError(r.t, err)
	for _, log := range logs {
		if strings.Contains(log, "_default_shop") {
			kept = append(kept, log)
		}
	}
	for _, name := range []string{positionsBucket, subscriptionsBucket, "fences"} {
		b, err := h.bucket(r.t.Context(), name)
		require.NoError(r.t, err)
		keys, err := b.Keys(r.t.Context(), "")
		require.NoError(r.t, err)
		kept = append(kept, keys...)
	}
	return kept
}

func (r *rig) made() madeRecord {
	record, _, err := r.host().readMade(r.t.Context(), "default.shop")
	require.NoError(r.t, err)
	return record
}

func newOrders(t testing.TB) (*rig, string) {
	r := newRig(t)
	r.sources = []source.Factory{postgres.Factory{}}
	server := clustertest.Database(t)
	clustertest.Exec(t, server, "CREATE TABLE orders (id serial PRIMARY KEY)")
	return r, server
}

// ranBeyond has the source run until what was written now is read.
func (r *rig) ranBeyond(server string) {
	r.t.Helper()
	clustertest.Exec(r.t, server, "INSERT INTO orders DEFAULT VALUES")
	end := graph.Position(clustertest.Text(r.t, server, "SELECT pg_current_wal_lsn()"))
	src := r.startSource()
	eventually(r.t, func() bool {
		require.Empty(r.t, src.done, "the source ended")
		return src.status.Snapshot().Position.Compare(end) >= 0
	}, "the source reads what was written")
	src.drained()
}

// TestAnotherSpecLeavesNothing gives a source that has read something other slots, publications and databases.
func TestAnotherSpecLeavesNothing(t *testing.T) {
	r, server := newOrders(t)
	other := clustertest.Database(t)
	clustertest.Exec(t, other, "CREATE TABLE orders (id serial PRIMARY KEY)")
	name := "s" + clustertest.Text(t, server, "SELECT oid FROM pg_database WHERE datname = current_database()")
	for _, next := range []struct{ server, slot, publication string }{
		{server, name, "a"}, {server, name + "b", "a"}, {server, name + "b", "b"}, {server, name + "c", "c"}, {other, name + "c", "c"}, {other, name + "d", "c"}, {server, name, "a"},
	} {
		r.source = orders(t, next.server, fmt.Sprintf(`, "slot": %q, "publication": %q`, next.slot, next.publication))
		require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
		r.ranBeyond(next.server)
		require.Equal(t, fmt.Sprintf("publication %s slot %s", next.publication, next.slot), things(t, next.server))
		for _, there := range []string{server, other} {
			if there != next.server {
				require.Empty(t, things(t, there))
			}
		}
		require.Len(t, r.made().Specs, 1)
	}
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
	require.Empty(t, things(t, server))
	require.Empty(t, r.kept())
	require.Empty(t, r.made())
}

// TestServerBeforeIsGone: a source that moves to another server before it has read anything does not wait for the first
// one, and removes what is there when it is deleted.
func TestServerBeforeIsGone(t *testing.T) {
	r, server := newOrders(t)
	first := clustertest.Own(t, map[string]string{"fsync": "off"})
	clustertest.Exec(t, first.URL(), "CREATE TABLE orders (id serial PRIMARY KEY)")
	before := orders(t, first.URL(), "")
	require.NoError(t, r.host().ProvisionSource(t.Context(), before))
	require.NoError(t, first.Stop(t.Context()))

	r.source = orders(t, server, `, "slot": "moved_`+clustertest.Text(t, server, "SELECT oid FROM pg_database WHERE datname = current_database()")+`"`)
	require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
	require.Contains(t, r.made().Left, "slot perdure_shop in database postgres of server")
	src := r.startSource()
	eventually(t, func() bool { return strings.Contains(src.status.Snapshot().Details["leftBehind"], "perdure_shop") }, "the status tells of it")
	src.drained()
	err := r.host().TeardownSource(t.Context(), r.source)
	require.ErrorContains(t, err, "slot perdure_shop in database postgres of server")
	require.Empty(t, things(t, server), "what can be reached goes")
	require.Empty(t, r.kept())

	require.NoError(t, first.Restart(t.Context(), false))
	require.NotEmpty(t, things(t, first.URL()))
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
	require.Empty(t, things(t, first.URL()))
	require.Empty(t, r.made())
}

// TestDeletionWithoutPostgres: what is in the stream server goes, and the error names what does not.
func TestDeletionWithoutPostgres(t *testing.T) {
	r, _ := newOrders(t)
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	clustertest.Exec(t, c.URL(), "CREATE TABLE orders (id serial PRIMARY KEY)")
	r.source = orders(t, c.URL(), "")
	require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
	r.ranBeyond(c.URL())
	require.NotEmpty(t, r.kept())
	require.NoError(t, c.Stop(t.Context()))
	err := r.host().TeardownSource(t.Context(), r.source)
	require.Equal(t, failure.Unreachable, failure.CodeOf(err), "%v", err)
	require.ErrorContains(t, err, "slot perdure_shop in database postgres")
	require.ErrorContains(t, err, "publication perdure_shop in database postgres")
	require.Empty(t, r.kept())

	// A source of that name that is started anew knows what is there, and a deletion then removes it.
	require.NoError(t, c.Restart(t.Context(), false))
	require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
	require.Empty(t, things(t, c.URL()))
	require.Empty(t, r.made())
}

// TestDeletionOfASourceThatMadeNothing neither needs the server nor touches what is there.
func TestDeletionOfASourceThatMadeNothing(t *testing.T) {
	r, server := newOrders(t)
	slot := "theirs_" + clustertest.Text(t, server, "SELECT oid FROM pg_database WHERE datname = current_database()")
	clustertest.Exec(t, server, "SELECT pg_create_logical_replication_slot('"+slot+"', 'pgoutput')")
	for _, spec := range []component.SourceSpec{orders(t, server, `, "slot": "`+slot+`"`), orders(t, "postgres://nobody@127.0.0.1:1/nowhere", "")} {
		err := r.host().ProvisionSource(t.Context(), spec)
		require.Error(t, err)
		require.NoError(t, r.host().TeardownSource(context.Background(), spec))
		require.Equal(t, "slot "+slot, things(t, server))
		require.Empty(t, r.made())
	}
}

// TestServerIsAnotherOne: the server behind an address is replaced, as by an upgrade, and the way out is to delete the
// source.
func TestServerIsAnotherOne(t *testing.T) {
	r, server := newOrders(t)
	r.source = orders(t, server, `, "publication": "orders"`)
	require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
	err := r.host().editMade(t.Context(), "default.shop", func(m *madeRecord) {
		id := clustertest.Text(t, server, "SELECT system_identifier FROM pg_control_system()")
		m.Made[postgres.Kind] = bytes.ReplaceAll(m.Made[postgres.Kind], []byte(id), []byte("7000000000000000000"))
	})
	require.NoError(t, err)
	clustertest.Exec(t, server, "SELECT pg_drop_replication_slot('perdure_shop')")
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
	require.Empty(t, things(t, server), "the publication says itself whose it is")
	require.Empty(t, r.made())
}

// TestRecordOfLargeSpecs fits into a value of a bucket of any server, and keeps every spec as it is.
func TestRecordOfLargeSpecs(t *testing.T) {
	const mostValue = 1 << 20 // unless a server allows more
	h := newRig(t).host()
	tables := make([]string, 50_000)
	for i := range tables {
		tables[i] = fmt.Sprintf(`{"name":"warehouse.fact_table_%d","label":"FactTable%d"}`, i, i)
	}
	spec := component.SourceSpec{Name: "shop", Kind: "x", Config: json.RawMessage(`{"tables":[` + strings.Join(tables, ",") + `]}`)}
	other := spec
	other.Policy.DrainSeconds = 7
	want := madeRecord{Specs: []component.SourceSpec{spec, other, {Name: "shop"}}, Left: "something"}
	require.NoError(t, h.editMade(t.Context(), "default.shop", func(r *madeRecord) { *r = want }))
	got, revision, err := h.readMade(t.Context(), "default.shop")
	require.NoError(t, err)
	require.Equal(t, want, got)
	made := &sourceRecord{host: h, key: "default.shop", kind: "x", record: got, revision: revision}
	require.NoError(t, made.Save(t.Context(), []byte("slot")))
	b, err := h.bucket(t.Context(), madeBucket)
	require.NoError(t, err)
	entry, err := b.Get(t.Context(), "default.shop")
	require.NoError(t, err)
	require.Less(t, len(entry.Value), mostValue)
	got, _, err = h.readMade(t.Context(), "default.shop")
	require.NoError(t, err)
	want.Made = map[string][]byte{"x": []byte("slot")}
	require.Equal(t, want, got)

	small := madeRecord{Specs: want.Specs[2:]}
	require.NoError(t, h.editMade(t.Context(), "default.shop", func(r *madeRecord) { *r = small }))
	entry, err = b.Get(t.Context(), "default.shop")
	require.NoError(t, err)
	require.NotContains(t, string(entry.Value), "packed", "which builds before this one can read too")
}
