// Package clustertest gives tests a real Postgres server: one per test process, a database of its own per test.
//
// A package that uses it says so in its TestMain, so that the server is stopped before goroutines are counted:
//
//	func TestMain(m *testing.M) { goleak.VerifyTestMain(clustertest.M(m)) }
package clustertest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source/postgres/cluster"
)

// shared is the test process's server. It is global because a test process is: tests cannot pass it to each other.
var shared struct {
	once    sync.Once
	cluster *cluster.Cluster
	parent  string
	err     error
	names   atomic.Int64
}

// Runner is what goleak.VerifyTestMain takes.
type Runner struct{ m *testing.M }

// M wraps m so that the shared server is stopped when the tests have run.
func M(m *testing.M) Runner { return Runner{m} }

// Run runs the tests.
func (r Runner) Run() int {
	code := r.m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "clustertest:", err)
		return max(code, 1)
	}
	return code
}

func stop() error {
	if shared.cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := shared.cluster.Stop(ctx); err != nil {
		return err
	}
	return os.RemoveAll(shared.parent)
}

// Start returns the test process's server, which the first call starts. Where no server is installed, the test fails.
func Start(t testing.TB) *cluster.Cluster {
	t.Helper()
	shared.once.Do(func() { shared.cluster, shared.parent, shared.err = launch() })
	require.NoError(t, shared.err)
	return shared.cluster
}

// Own returns a server that belongs to the test alone, for tests that restart or break it.
func Own(t testing.TB, settings map[string]string) *cluster.Cluster {
	t.Helper()
	parent, err := os.MkdirTemp("", "perdure-postgres-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{Dir: filepath.Join(parent, "data"), Settings: settings})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(t, c.Stop(ctx))
	})
	return c
}

func launch() (*cluster.Cluster, string, error) {
	parent, err := os.MkdirTemp("", "perdure-postgres-")
	if err != nil {
		return nil, "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	c, err := cluster.Start(ctx, cluster.Options{
		Dir:      filepath.Join(parent, "data"),
		Settings: map[string]string{"fsync": "off", "max_prepared_transactions": "20"}, // the machine does not crash in a test
	})
	if err != nil {
		_ = os.RemoveAll(parent)
	}
	return c, parent, err
}

// Database creates a database for the test on the shared server and returns its URL. It is dropped, with its
// replication slots, when the test ends.
func Database(t testing.TB) string {
	t.Helper()
	c := Start(t)
	name := fmt.Sprintf("test_%d", shared.names.Add(1))
	Exec(t, c.URL(), "CREATE DATABASE "+name)
	t.Cleanup(func() {
		Exec(t, c.URL(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '"+name+"'")
		require.EventuallyWithT(t, func(collect *assert.CollectT) {
			_, err := query(c.URL(), "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '"+name+"'")
			require.NoError(collect, err)
		}, 10*time.Second, 20*time.Millisecond)
		Exec(t, c.URL(), "DROP DATABASE "+name+" WITH (FORCE)")
	})
	return c.URLFor(name, "postgres")
}

// Exec runs statements, separated by semicolons, on the database behind url.
func Exec(t testing.TB, url, sql string) {
	t.Helper()
	_, err := query(url, sql)
	require.NoError(t, err, sql)
}

// Text runs a query and returns the first column of its first row as text, empty when there is none.
func Text(t testing.TB, url, sql string) string {
	t.Helper()
	s, err := query(url, sql)
	require.NoError(t, err, sql)
	return s
}

func query(url, sql string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return "", err
	}
	defer conn.Close(ctx)
	results, err := conn.PgConn().Exec(ctx, sql).ReadAll()
	if err != nil || len(results) == 0 {
		return "", err
	}
	if rows := results[len(results)-1].Rows; len(rows) > 0 && len(rows[0]) > 0 {
		return string(rows[0][0]), nil
	}
	return "", nil
}
