package postgres_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// nothingLeft says that a refused source left neither slot nor publication.
func (d db) nothingLeft() {
	d.Helper()
	require.Equal(d, "0", d.text("SELECT (SELECT count(*) FROM pg_publication) + (SELECT count(*) FROM pg_replication_slots WHERE database = current_database())"))
}

func (d db) refused(code *failure.Code, members string) *failure.Error {
	d.Helper()
	err := d.unprovisioned(members).Provision(d.Context())
	require.Error(d, err)
	require.Equal(d, code.ID, failure.CodeOf(err).ID, "%v", err)
	require.False(d, code.Class.Retryable())
	d.nothingLeft()
	return failure.Of(err)
}

func TestBadInput(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE "Upper" (id int PRIMARY KEY); CREATE TABLE keyless (id int, v text); CREATE VIEW v AS SELECT 1 AS id;
		CREATE TABLE a (id int PRIMARY KEY, x int, UNIQUE (x)); CREATE TABLE b (id int PRIMARY KEY, ax int REFERENCES a (x), aid int REFERENCES a)`)

	e := d.refused(failure.TableMissing, `"tables": [{"name": "nope"}, {"name": "other.nope", "label": "x"}, {"name": "upper"}]`)
	require.Contains(t, e.Error(), "public.nope")
	require.Contains(t, e.Error(), "other.nope")
	require.Contains(t, e.Error(), "public.upper (there is public.Upper)")

	e = d.refused(failure.KeyMissing, `"tables": [{"name": "keyless"}]`)
	require.Contains(t, e.Fix(), `ALTER TABLE "public"."keyless" ADD PRIMARY KEY`)

	e = d.refused(failure.KeyNullable, `"tables": [{"name": "keyless", "key": ["id"]}]`)
	require.Contains(t, e.Fix(), `ALTER TABLE "public"."keyless" ALTER "id" SET NOT NULL;`)
	d.exec("ALTER TABLE keyless ALTER id SET NOT NULL")

	e = d.refused(failure.ReplicaIdentityMissing, `"tables": [{"name": "keyless", "key": ["id"]}]`)
	require.Contains(t, e.Fix(), `ALTER TABLE "public"."keyless" REPLICA IDENTITY FULL;`)

	d.refused(failure.ColumnMissing, `"tables": [{"name": "a", "key": ["nope"]}]`)
	d.refused(failure.Unsupported, `"tables": [{"name": "v"}]`)
	e = d.refused(failure.ConfigInvalid, `"tables": [{"name": "a"}, {"name": "b"}], "relationships": [{"type": "R", "table": "b", "columns": ["ax"], "references": "a"}]`)
	require.Contains(t, e.Error(), "does not reference the key (id)")
	d.refused(failure.ColumnMissing, `"tables": [{"name": "a"}, {"name": "b"}], "relationships": [{"type": "R", "table": "b", "columns": ["zz"], "references": "a"}]`)
}

func TestBadSlotAndPublication(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)`)
	slot := d.unprovisioned(`"tables": [{"name": "a"}]`).Describe()["slot"]
	d.exec("SELECT pg_create_logical_replication_slot('%s', 'test_decoding')", slot)
	err := d.unprovisioned(`"tables": [{"name": "a"}]`).Provision(t.Context())
	require.Equal(t, failure.SlotTaken, failure.CodeOf(err), "%v", err)
	require.Equal(t, "0", d.text("SELECT count(*) FROM pg_publication"))
	d.exec("SELECT pg_drop_replication_slot('%s')", slot)

	d.exec("CREATE PUBLICATION theirs FOR TABLE b")
	s := d.unprovisioned(`"tables": [{"name": "a"}], "publication": "theirs"`)
	err = s.Provision(t.Context())
	require.Equal(t, failure.PublicationConflict, failure.CodeOf(err), "%v", err)
	require.Contains(t, failure.Of(err).Fix(), `ALTER PUBLICATION "theirs" ADD TABLE ONLY "public"."a"`)
	require.Equal(t, "0", d.text("SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"))
	d.exec("ALTER PUBLICATION theirs ADD TABLE a")
	require.NoError(t, s.Provision(t.Context()))
	require.NoError(t, s.Teardown(t.Context()))
	require.Equal(t, "1", d.text("SELECT count(*) FROM pg_publication"), "what is not ours stays")
}

// TestIdempotent provisions twice, with another table the second time, and tears down twice.
func TestIdempotent(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (id int PRIMARY KEY)`)
	require.NoError(t, d.unprovisioned(`"tables": [{"name": "a"}]`).Provision(t.Context()))
	s := d.unprovisioned(`"tables": [{"name": "a"}, {"name": "b"}], "onSlotLoss": "stop"`)
	require.NoError(t, s.Provision(t.Context()))
	require.NoError(t, s.Provision(t.Context()))
	require.Equal(t, "a b", d.text("SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_publication_tables"))

	d.exec("SELECT pg_drop_replication_slot('%s')", s.Describe()["slot"])
	err := s.Provision(t.Context())
	require.Equal(t, failure.SlotMissing, failure.CodeOf(err), "a new slot would hide that changes are lost: %v", err)
	err = s.Run(t.Context(), "", sourcetest.NewSink(""))
	require.Equal(t, failure.SlotMissing, failure.CodeOf(err), "%v", err)
	require.NoError(t, s.Teardown(t.Context()))
	require.NoError(t, s.Teardown(t.Context()))
	d.nothingLeft()

	require.NoError(t, s.Provision(t.Context()))
	err = s.Run(t.Context(), "0/1", sourcetest.NewSink("0/1"))
	require.Equal(t, failure.SlotMissing, failure.CodeOf(err), "the slot is newer than the position: %v", err)
	require.Equal(t, "0/1", failure.Describe(err).Details["position"])
	err = s.Run(t.Context(), "FFFFFF/0", sourcetest.NewSink(""))
	require.Equal(t, failure.WrongSystem, failure.CodeOf(err), "%v", err)
	require.NoError(t, s.Teardown(t.Context()))
}

func TestBadServer(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off", "max_replication_slots": "1", "max_wal_senders": "5"})
	d := db{t, c.URL()}
	d.exec(`CREATE TABLE a (id int PRIMARY KEY); CREATE ROLE plain LOGIN; CREATE ROLE repl LOGIN REPLICATION; CREATE ROLE pw LOGIN REPLICATION PASSWORD 'right'`)
	as := func(user, members string) *failure.Error {
		config := strings.Replace(string(d.config(members)), `"user": "postgres"`, `"user": "`+user+`"`, 1)
		s, err := postgres.Factory{}.New(json.RawMessage(config), d.ownSettings())
		require.NoError(t, err)
		err = s.Provision(t.Context())
		require.Error(t, err)
		d.nothingLeft()
		return failure.Of(err)
	}
	tables := `"tables": [{"name": "a"}]`

	e := as("plain", tables)
	require.Equal(t, failure.PermissionDenied, e.Code())
	require.Contains(t, e.Fix(), `ALTER ROLE "plain" REPLICATION;`)

	e = as("repl", tables)
	require.Equal(t, failure.PermissionDenied, e.Code())
	require.Contains(t, e.Fix(), `GRANT SELECT ON "public"."a" TO "repl";`)
	d.exec("GRANT SELECT ON a TO repl")
	e = as("repl", tables)
	require.Equal(t, failure.PermissionDenied, e.Code())
	require.Contains(t, e.Fix(), `CREATE PUBLICATION "perdure_orders" FOR TABLE ONLY "public"."a"`)
	require.Equal(t, "42501", e.Details()["sqlstate"])

	hba := filepath.Join(c.Dir(), "pg_hba.conf")
	old, err := os.ReadFile(hba)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(hba, append([]byte("host all pw 127.0.0.1/32 scram-sha-256\n"), old...), 0o600))
	d.exec("SELECT pg_reload_conf()")
	t.Setenv("WRONG_PW", "wrong")
	var wrong *failure.Error
	require.EventuallyWithT(t, func(c *collect) {
		wrong = as("pw", tables+`, "password": {"$secret": "env:WRONG_PW"}`)
		require.Equal(c, failure.AuthFailed.ID, wrong.Code().ID)
	}, sourcetest.Patience, tick)
	require.Equal(t, "28P01", wrong.Details()["sqlstate"])
	require.NotContains(t, failure.Describe(wrong).Message, "wrong")
	e = as("pw", tables+`, "password": {"$secret": "env:NOT_SET"}`)
	require.Equal(t, failure.SecretMissing, e.Code())
	require.Equal(t, failure.AuthFailed, as("nobody", tables).Code(), "no such role")

	missing := strings.Replace(string(d.config(tables)), `"database": "postgres"`, `"database": "nope"`, 1)
	s, err := postgres.Factory{}.New(json.RawMessage(missing), d.ownSettings())
	require.NoError(t, err)
	require.Equal(t, failure.DatabaseMissing, failure.CodeOf(s.Provision(t.Context())))

	encrypted := strings.Replace(string(d.config(tables)), `"sslMode": "disable"`, `"sslMode": "require"`, 1)
	s, err = postgres.Factory{}.New(json.RawMessage(encrypted), d.ownSettings())
	require.NoError(t, err)
	require.Equal(t, failure.Unsupported, failure.CodeOf(s.Provision(t.Context())), "the server has no TLS")

	d.exec("SELECT pg_create_physical_replication_slot('x')")
	s, err = postgres.Factory{}.New(d.config(tables), d.ownSettings())
	require.NoError(t, err)
	err = s.Provision(t.Context())
	require.Equal(t, failure.SlotCapacity, failure.CodeOf(err), "%v", err)
	d.nothingLeft()
}

func TestWalLevel(t *testing.T) {
	d := db{t, clustertest.Own(t, map[string]string{"fsync": "off", "wal_level": "replica"}).URL()}
	d.exec(`CREATE TABLE a (id int PRIMARY KEY)`)
	s, err := postgres.Factory{}.New(d.config(`"tables": [{"name": "a"}]`), d.ownSettings())
	require.NoError(t, err)
	require.Equal(t, failure.WalLevelNotLogical, failure.CodeOf(s.Provision(t.Context())))
	d.nothingLeft()
}

func TestUnreachable(t *testing.T) {
	silent, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and never answers
	require.NoError(t, err)
	defer silent.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, free.Close())
	for name, address := range map[string]string{
		"refused": fmt.Sprintf(`"host": "127.0.0.1", "port": %d`, free.Addr().(*net.TCPAddr).Port),
		"silent":  fmt.Sprintf(`"host": "127.0.0.1", "port": %d`, silent.Addr().(*net.TCPAddr).Port),
		"no name": `"host": "does-not-exist.invalid"`,
	} {
		t.Run(name, func(t *testing.T) {
			s, err := postgres.Factory{}.New(json.RawMessage(`{`+address+`, "database": "d", "user": "u", "connectTimeout": "500ms", "tables": [{"name": "a"}]}`), db{TB: t}.ownSettings())
			require.NoError(t, err)
			begin := time.Now()
			err = s.Provision(t.Context())
			require.Equal(t, failure.Unreachable, failure.CodeOf(err), "%v", err)
			require.Less(t, time.Since(begin), 10*time.Second)

			ctx, cancel := context.WithTimeout(t.Context(), 1500*time.Millisecond)
			defer cancel()
			sink := sourcetest.NewSink("")
			require.NoError(t, s.Run(ctx, "", sink), "goes on trying until it is told to stop")
			require.NotZero(t, sink.Ticks())
		})
	}
}
