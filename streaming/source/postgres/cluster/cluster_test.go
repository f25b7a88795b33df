package cluster_test

import (
	"context"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv("CLUSTER_TEST_CHILD"); dir != "" {
		child(dir)
	}
	goleak.VerifyTestMain(clustertest.M(m))
}

// child starts a server, prints its process id and waits to be killed.
func child(dir string) {
	c, err := cluster.Start(context.Background(), cluster.Options{Dir: dir})
	if err != nil {
		println(err.Error())
		os.Exit(1)
	}
	os.Stdout.WriteString(strconv.Itoa(c.PID()) + "\n")
	select {}
}

func TestLifecycle(t *testing.T) {
	c := clustertest.Own(t, map[string]string{"fsync": "off"})
	require.Equal(t, "logical", clustertest.Text(t, c.URL(), "SHOW wal_level"))
	clustertest.Exec(t, c.URL(), "CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
	port, pid := c.Port(), c.PID()
	for _, immediate := range []bool{true, false} {
		require.NoError(t, c.Restart(t.Context(), immediate))
		require.Equal(t, port, c.Port())
		require.NotEqual(t, pid, c.PID())
		require.Equal(t, "1", clustertest.Text(t, c.URL(), "SELECT i FROM t"))
	}
	require.NoError(t, c.Stop(t.Context()))
	require.Zero(t, c.PID())
	require.NoError(t, c.Stop(t.Context()))
	u, err := url.Parse(c.URLFor("some db", "alice"))
	require.NoError(t, err)
	require.Equal(t, "/some db", u.Path)
}

func TestDatabasePerTest(t *testing.T) {
	a, b := clustertest.Database(t), clustertest.Database(t)
	clustertest.Exec(t, a, "CREATE TABLE t ()")
	clustertest.Exec(t, b, "CREATE TABLE t ()")
}

// TestParentKilled shows that the server dies with its parent, and that what it leaves behind is no obstacle.
func TestParentKilled(t *testing.T) {
	parent, err := os.MkdirTemp("", "perdure-postgres-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(parent) })
	dir := filepath.Join(parent, "data") // parent is closed to the server's user: mode 0700
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "CLUSTER_TEST_CHILD="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	line := make([]byte, 32)
	n, err := out.Read(line)
	require.NoError(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(string(line[:n])))
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	require.Eventually(t, func() bool { return syscall.Kill(pid, 0) != nil }, 20*time.Second, 10*time.Millisecond)

	lock := []byte(strconv.Itoa(os.Getpid()) + "\n" + dir + "\n") // of a process that lives and is no server
	require.NoError(t, os.WriteFile(filepath.Join(dir, "postmaster.pid"), lock, 0o600))
	c, err := cluster.Start(t.Context(), cluster.Options{Dir: dir})
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Stop(context.Background())) }()

	again, err := cluster.Start(t.Context(), cluster.Options{Dir: dir}) // takes the directory over from a living server
	require.NoError(t, err)
	require.Equal(t, "1", clustertest.Text(t, again.URL(), "SELECT 1"))
	require.NoError(t, again.Stop(t.Context()))
}

func TestNotInstalled(t *testing.T) {
	t.Setenv("PERDURE_POSTGRES_BIN", t.TempDir())
	_, err := cluster.Start(t.Context(), cluster.Options{Dir: filepath.Join(t.TempDir(), "data")})
	require.ErrorIs(t, err, cluster.ErrNotInstalled)
}

func TestForeignDirectory(t *testing.T) {
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "letter.txt"), []byte("dear"), 0o600))
	_, err := cluster.Start(t.Context(), cluster.Options{Dir: dir})
	require.ErrorContains(t, err, "neither empty nor a Postgres data directory")
}
