package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"

	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// system is one `perdure dev` with its ports, and a Postgres database for it.
type system struct {
	t        testing.TB
	dir      string
	temporal int
	ui       int
	api      int
	nats     int
	withSelf bool // dev runs the worker itself
	dev      *process

	postgres *cluster.Cluster
	database string // URL
	env      []string
	oracle   string // what the query open-orders asks, in SQL
}

type option func(*system)

// externalWorkers leaves the work to worker processes that the test starts.
func externalWorkers(s *system) { s.withSelf = false }

// ownPostgres gives the test a cluster of its own, to be restarted or misconfigured.
func ownPostgres(settings map[string]string) option {
	return func(s *system) { s.postgres = clustertest.Own(s.t, settings) }
}

// apart lets a test that mostly waits run beside others. Slots are those of a whole server, so it has a server of its own.
func apart(t *testing.T) option {
	t.Parallel()
	return ownPostgres(map[string]string{"fsync": "off"}) // the machine does not crash in a test
}

func (s *system) stopPostgres() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	require.NoError(s.t, s.postgres.Stop(ctx))
}

// restartPostgres stops the test's own server, if it runs, and starts it on the same port with other settings.
func (s *system) restartPostgres(settings map[string]string) {
	s.t.Helper()
	s.stopPostgres()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	again, err := cluster.Start(ctx, cluster.Options{Dir: s.postgres.Dir(), Port: s.postgres.Port(), Settings: settings})
	require.NoError(s.t, err)
	s.postgres = again
	s.t.Cleanup(s.stopPostgres)
}

func newSystem(t testing.TB, options ...option) *system {
	t.Helper()
	port := freePorts(t, 4)
	s := &system{t: t, dir: t.TempDir(), temporal: port[0], ui: port[1], api: port[2], nats: port[3], withSelf: true, oracle: oracle}
	for _, o := range options {
		o(s)
	}
	if s.postgres == nil {
		s.database = clustertest.Database(t)
	} else {
		s.database = s.postgres.URL()
	}
	s.env = append(s.env, "PERDURE_E2E_DATABASE="+s.database)
	s.startDev()
	t.Cleanup(s.explain)
	return s
}

func (s *system) startDev() {
	s.t.Helper()
	args := []string{
		"dev", "--data-dir", filepath.Join(s.dir, "dev"),
		"--temporal-port", strconv.Itoa(s.temporal), "--ui-port", strconv.Itoa(s.ui),
		"--api-port", strconv.Itoa(s.api), "--nats-port", strconv.Itoa(s.nats),
	}
	if !s.withSelf {
		args = append(args, "--no-worker")
	}
	s.dev = start(s.t, s.env, "perdure", args...)
	s.awaitReady()
}

func (s *system) awaitReady() {
	s.t.Helper()
	eventually(s.t, 30*time.Second, "perdure dev ready", func() error {
		if s.dev.exited() {
			return fmt.Errorf("it exited: %w", s.dev.err)
		}
		return s.get("/readyz", nil)
	})
}

// startWorker starts a worker process; the same name keeps its data directory and host id.
func (s *system) startWorker(name string) *process {
	s.t.Helper()
	return start(s.t, append([]string{
		fmt.Sprintf("TEMPORAL_ADDRESS=127.0.0.1:%d", s.temporal), "TEMPORAL_NAMESPACE=default",
		fmt.Sprintf("NATS_URL=nats://127.0.0.1:%d", s.nats),
	}, s.env...), "worker", "--data-dir", filepath.Join(s.dir, name))
}

func (s *system) url(path string) string { return fmt.Sprintf("http://127.0.0.1:%d%s", s.api, path) }

func (s *system) get(path string, into any) error {
	client := http.Client{Timeout: 20 * time.Second}
	resp, err := client.Get(s.url(path))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		var problem json.RawMessage
		_ = json.NewDecoder(resp.Body).Decode(&problem)
		return fmt.Errorf("GET %s: %s: %s", path, resp.Status, problem)
	}
	if into == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(into)
}

// tctl runs the real tctl against the system and returns what it prints.
func (s *system) tctl(args ...string) (string, error) {
	return run(s.t, []string{
		fmt.Sprintf("TEMPORAL_CLI_ADDRESS=127.0.0.1:%d", s.temporal), "TEMPORAL_CLI_NAMESPACE=default",
	}, "tctl", args...)
}

// startComponent starts a component's workflow with tctl from a JSON file's content.
func (s *system) startComponent(workflowType, id string, input any) {
	s.t.Helper()
	data, err := json.Marshal(input)
	require.NoError(s.t, err)
	file := filepath.Join(s.t.TempDir(), id+".json")
	require.NoError(s.t, os.WriteFile(file, data, 0o600))
	s.startFromFile(workflowType, id, file)
}

func (s *system) startFromFile(workflowType, id, file string) {
	s.t.Helper()
	_, err := s.tctl("workflow", "start", "--tq", "perdure", "--wt", workflowType, "-w", id, "--if", file)
	require.NoError(s.t, err)
}

func (s *system) signal(id, name string, payload ...string) {
	s.t.Helper()
	args := []string{"workflow", "signal", "-w", id, "--name", name}
	if len(payload) == 1 {
		args = append(args, "--input", payload[0])
	}
	_, err := s.tctl(args...)
	require.NoError(s.t, err)
}

// client connects to Temporal, for what tctl does not show.
func (s *system) client() client.Client {
	s.t.Helper()
	c, err := client.Dial(client.Options{
		HostPort: fmt.Sprintf("127.0.0.1:%d", s.temporal), Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	require.NoError(s.t, err)
	s.t.Cleanup(c.Close)
	return c
}

// context ends after the bound, or with the test.
func (s *system) context(bound time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	s.t.Cleanup(cancel)
	return ctx
}

func (s *system) connect() *pgx.Conn {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, s.database)
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func execSQL(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := conn.Exec(ctx, sql, args...)
	require.NoError(t, err, sql)
}
