package e2e

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/api/workflowservice/v1"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// Tests that mostly wait run at the same time, more of them than there are processors.
func TestMain(m *testing.M) {
	if err := flag.Set("test.parallel", "5"); err != nil {
		panic(err) // the flag is there
	}
	os.Exit(clustertest.M(m).Run())
}

// full reports whether the long form of a test is asked for.
func full() bool { return os.Getenv("PERDURE_FULL") != "" }

func TestChangeReachesSSEAndStopAndResumeLoseNothing(t *testing.T) {
	s := newSystem(t)
	s.startOrders()
	s.startComponent("Reaction", "reaction.default.print", object{"spec": object{
		"name": "print", "kind": "log", "queries": []string{"open-orders"},
	}})
	s.awaitPhase("reaction.default.print", "Running", 30*time.Second)
	f := s.follow("open-orders")
	s.requireEqualsSQL(f, 30*time.Second)

	conn := s.connect()
	execSQL(t, conn, `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	s.requireEqualsSQL(f, 30*time.Second)

	writers := s.openShop(1, 2)
	eventually(t, 30*time.Second, "some commits", func() error {
		if n := writers.commits.Load(); n < 200 {
			return fmt.Errorf("%d commits", n)
		}
		return nil
	})
	s.signal("source.default.shop", "stop")
	s.awaitPhase("source.default.shop", "Stopped", 90*time.Second)
	requireSlotInactive(t, s)

	s.signal("source.default.shop", "resume")
	s.signal("query.default.open-orders", "stop")
	s.awaitPhase("query.default.open-orders", "Stopped", 90*time.Second)
	s.signal("query.default.open-orders", "resume")
	s.awaitPhase("source.default.shop", "Running", 60*time.Second)
	s.awaitPhase("query.default.open-orders", "Running", 60*time.Second)
	writers.close()
	s.requireEqualsSQL(f, 60*time.Second)
	s.requireMetrics()

	s.signal("source.default.shop", "stop")
	s.awaitPhase("source.default.shop", "Stopped", 90*time.Second)
	requireSlotInactive(t, s)
	s.dev.terminate(t, 60*time.Second)
}

// requireMetrics looks for what each stage measures.
func (s *system) requireMetrics() {
	s.t.Helper()
	s.requireSeries(
		`perdure_source_changes_total{instance="default",source="shop"}`,
		`perdure_source_wal_retained_bytes{instance="default",source="shop"}`,
		`perdure_query_result_rows{instance="default",query="open-orders"}`,
		`perdure_query_lag_seconds_count{instance="default",query="open-orders"}`,
		`perdure_reaction_end_to_end_seconds_count{instance="default",reaction="print"}`,
	)
}

// requireSeries waits until all of them are among the metrics.
func (s *system) requireSeries(wanted ...string) {
	s.t.Helper()
	for _, series := range wanted {
		eventually(s.t, 20*time.Second, series, func() error {
			response, err := http.Get(s.url("/metrics"))
			if err != nil {
				return err
			}
			defer response.Body.Close()
			text, err := io.ReadAll(response.Body)
			if err == nil && !strings.Contains(string(text), series+" ") {
				err = fmt.Errorf("missing among %d bytes", len(text))
			}
			return err
		})
	}
}

func requireSlotInactive(t *testing.T, s *system) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var slots, active int
	require.NoError(t, s.connect().QueryRow(ctx,
		`SELECT count(*), count(*) FILTER (WHERE active) FROM pg_replication_slots WHERE database = current_database()`).Scan(&slots, &active))
	require.Equal(t, 1, slots, "the slot is kept while stopped")
	require.Zero(t, active, "the slot is inactive")
	eventually(t, 10*time.Second, "no connection is left", func() error {
		var left int
		err := s.connect().QueryRow(ctx, `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'perdure%'`).Scan(&left)
		if err == nil && left > 0 {
			err = fmt.Errorf("%d connections", left)
		}
		return err
	})
}

func TestKillingTheWorkerLosesAndRepeatsNothing(t *testing.T) {
	const kills = 25
	s := newSystem(t, externalWorkers)
	worker := s.startWorker("worker")
	s.startOrders()
	f := s.follow("open-orders")
	writers := s.openShop(2, 2)
	rnd := rand.New(rand.NewPCG(2, 25))
	for i := range kills {
		before, _, _ := f.State()
		worker.kill()
		worker = s.startWorker("worker")
		// It must take up work again before it may be killed again, at a random point of doing so; and soon, without waiting
		// for the heartbeats of its predecessor to be overdue.
		eventually(t, 20*time.Second, fmt.Sprintf("progress after kill %d", i+1), func() error {
			if after, _, faults := f.State(); after <= before {
				return fmt.Errorf("sequence still %d; %v", after, faults)
			}
			return nil
		})
		pause(time.Duration(rnd.IntN(1500)) * time.Millisecond)
	}
	require.Positive(t, writers.commits.Load())
	writers.close()
	s.requireEqualsSQL(f, 90*time.Second)
}

// The slot is dropped twice while changes go on, some of which nobody can tell of any more.
func TestLostSlotIsMadeUpFor(t *testing.T) {
	s := newSystem(t)
	s.startOrders()
	f := s.follow("open-orders")
	s.requireEqualsSQL(f, 30*time.Second)
	conn := s.connect()
	for round := range uint64(2) {
		writers := s.openShop(6+round, 2)
		execSQL(t, conn, `DO $$ BEGIN
			FOR i IN 1..2000 LOOP
				BEGIN
					PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE database = current_database() AND active;
					PERFORM pg_sleep(0.01);
					PERFORM pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = current_database();
					RETURN;
				EXCEPTION WHEN object_in_use THEN NULL;
				END;
			END LOOP;
			RAISE 'the slot stays in use';
		END $$`)
		// Locked first, so that it cannot be in a deadlock with the writers.
		execSQL(t, conn, `LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE; UPDATE orders SET total = total + 1 WHERE id % 3 = 0`)
		execSQL(t, conn, `LOCK TABLE orders IN SHARE ROW EXCLUSIVE MODE; DELETE FROM orders WHERE id % 7 = 0`)
		writers.close()
		s.requireEqualsSQL(f, 120*time.Second)
	}
}

// The server has handed out an attempt of which the process that it went to knows nothing, because it was killed before the
// answer reached it. Here the test is that process, under the identity of the worker's host.
func TestAttemptThatReachedNobodyIsTakenUpSoon(t *testing.T) {
	s := newSystem(t, externalWorkers)
	worker := s.startWorker("worker")
	s.startOrders()
	f := s.follow("open-orders")
	s.requireEqualsSQL(f, 30*time.Second)
	worker.terminate(t, 60*time.Second)
	hostID, err := os.ReadFile(filepath.Join(s.dir, "worker", "host-id"))
	require.NoError(t, err)
	c := s.client()
	eventually(t, 60*time.Second, "an attempt at running the source", func() error {
		task, err := c.WorkflowService().PollActivityTaskQueue(s.context(30*time.Second), &workflowservice.PollActivityTaskQueueRequest{
			Namespace: "default", TaskQueue: &taskqueue.TaskQueue{Name: activities.QueueRun}, Identity: strings.TrimSpace(string(hostID)) + "@1",
		})
		if err == nil && len(task.GetTaskToken()) == 0 {
			err = errors.New("none yet")
		}
		return err
	})

	execSQL(t, s.connect(), `UPDATE orders SET total = total + 1`)
	s.startWorker("worker")
	s.requireEqualsSQL(f, 15*time.Second) // and not when heartbeats are overdue
}

// pause chooses the moment of a fault; no outcome depends on its length.
func pause(d time.Duration) { <-time.After(d) }

func TestKillingTheWorkerDuringTheSnapshot(t *testing.T) {
	s := newSystem(t, apart(t), externalWorkers)
	conn := s.connect()
	execSQL(t, conn, schema)
	execSQL(t, conn, `INSERT INTO orders (customer_id, status, total) SELECT 1 + i % 20, 'open', i FROM generate_series(1, 40000) i`)
	worker := s.startWorker("worker")
	source := sourceInput(s)
	source["spec"].(object)["config"].(object)["snapshotRowsPerSecond"] = 5000 // so that there is time to kill
	s.startComponent("Source", "source.default.shop", source)
	s.awaitPhase("source.default.shop", "Running", 60*time.Second)
	writers := s.openShop(3, 1)
	s.startComponent("Query", "query.default.open-orders", queryInput())
	s.awaitBootstrap("bootstrap.default.open-orders.shop.1", "rows that were copied", func(st bootstrapStatus) bool { return st.RowsDone > 0 })
	worker.kill()
	s.startWorker("worker")
	s.awaitPhase("query.default.open-orders", "Running", 180*time.Second)
	f := s.follow("open-orders")
	writers.close()
	s.requireEqualsSQL(f, 120*time.Second)
}

// TestProgressOfASnapshotIsInItsStatus reads a snapshot slowly, so that there is time to look.
func TestProgressOfASnapshotIsInItsStatus(t *testing.T) {
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, total) SELECT 1 + i % 20, i FROM generate_series(1, 60000) i; ANALYZE orders`)
	source := sourceInput(s)
	source["spec"].(object)["config"].(object)["snapshotRowsPerSecond"] = 3000
	s.startComponent("Source", "source.default.shop", source)
	s.startComponent("Query", "query.default.open-orders", queryInput())
	eventually(t, 2*time.Minute, "progress", func() error {
		var st struct {
			Parallelism int
			Progress    struct {
				TablesCopied  int
				Rows          int64 `json:",string"`
				RowsPerSecond int64 `json:",string"`
				Expected      time.Time
				Tables        []struct{ Name, State, Rows, Estimate string }
			}
		}
		if err := s.statusInto("bootstrap.default.open-orders.shop.1", &st); err != nil {
			return err
		}
		p := st.Progress
		if st.Parallelism != 4 || p.TablesCopied != 1 || p.Rows == 0 || p.RowsPerSecond == 0 || p.Expected.IsZero() ||
			len(p.Tables) != 2 || p.Tables[0].Name != `"public"."orders"` || p.Tables[0].State != "copying" || p.Tables[0].Estimate != "60500" {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
}

func TestPostgresRestartedImmediatelyLosesAndRepeatsNothing(t *testing.T) {
	restarts := 3
	if full() {
		restarts = 25
	}
	s := newSystem(t, ownPostgres(nil))
	s.startOrders()
	f := s.follow("open-orders")
	writers := s.openShop(4, 2)
	for i := range restarts {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		require.NoError(t, s.postgres.Restart(ctx, true))
		cancel()
		s.requireProgress(f, 60*time.Second, fmt.Sprintf("after restart %d", i+1))
	}
	writers.close()
	s.requireEqualsSQL(f, 60*time.Second)
}

// TestRestartOfEverythingResumesWithoutNewSnapshot: neither a stop nor a kill makes the query read its source again, or
// publish anything but what two transactions did, which came while nothing ran.
func TestRestartOfEverythingResumesWithoutNewSnapshot(t *testing.T) {
	s := newSystem(t)
	s.startOrders()
	f := s.follow("open-orders")
	s.requireEqualsSQL(f, 30*time.Second)
	before, _, _ := f.State()
	require.Equal(t, 1, s.bootstraps("query.default.open-orders"))
	s.dev.terminate(t, 60*time.Second)

	execSQL(t, s.connect(), `UPDATE orders SET total = total + 1 WHERE id % 2 = 0`)
	s.startDev()
	s.requireEqualsSQL(f, 60*time.Second)

	s.dev.kill()
	execSQL(t, s.connect(), `DELETE FROM orders WHERE id % 5 = 0`)
	s.startDev()
	s.requireEqualsSQL(f, 90*time.Second)
	after, _, _ := f.State()
	require.Equal(t, before+2, after, "one event for each transaction")
	require.Equal(t, 1, s.bootstraps("query.default.open-orders"))
}

// bootstraps returns how often a query was told to read its sources, which is in its history.
func (s *system) bootstraps(id string) (n int) {
	s.t.Helper()
	events := s.client().GetWorkflowHistory(s.context(20*time.Second), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		event, err := events.Next()
		require.NoError(s.t, err)
		if event.GetStartChildWorkflowExecutionInitiatedEventAttributes() != nil {
			n++
		}
	}
	return n
}

// The follower has seen events that are not yet in the result log whenever everything is killed, and comes back for what
// follows them.
func TestKillingEverythingLosesAndRepeatsNothing(t *testing.T) {
	kills := 5
	if full() {
		kills = 25
	}
	s := newSystem(t)
	s.startOrders()
	f := s.follow("open-orders")
	writers := s.openShop(6, 2)
	rnd := rand.New(rand.NewPCG(6, 5))
	for i := range kills {
		s.dev.kill()
		s.startDev()
		s.requireProgress(f, 60*time.Second, fmt.Sprintf("after kill %d", i+1))
		pause(time.Duration(rnd.IntN(1500)) * time.Millisecond)
	}
	writers.close()
	s.requireEqualsSQL(f, 90*time.Second)
}

func TestWritesToUnwatchedTablesDoNotPinWAL(t *testing.T) {
	length := 30 * time.Second
	if full() {
		length = 10 * time.Minute
	}
	s := newSystem(t, apart(t)) // its WAL is measured
	s.startOrders()
	conn := s.connect()
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	var begin string
	require.NoError(t, conn.QueryRow(ctx, `SELECT pg_current_wal_lsn()::text`).Scan(&begin))
	// Postgres moves a slot's restart_lsn, which is what retains WAL, only when it logs its running transactions, every
	// 15 s, and then to where it did so the time before. At this rate, about 1.5 MB/s, that alone is up to 45 MB.
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var unconfirmed, retained, written int64
	for end := time.Now().Add(length); time.Now().Before(end); <-tick.C {
		_, err := conn.Exec(ctx, `INSERT INTO audit (note) SELECT md5(random()::text) || repeat('x', 400) FROM generate_series(1, 280)`)
		require.NoError(t, err)
		var nowUnconfirmed, nowRetained int64
		require.NoError(t, conn.QueryRow(ctx, `SELECT (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint, (pg_current_wal_lsn() - restart_lsn)::bigint,
			(pg_current_wal_lsn() - $1::pg_lsn)::bigint FROM pg_replication_slots WHERE database = current_database()`, begin).Scan(&nowUnconfirmed, &nowRetained, &written))
		unconfirmed, retained = max(unconfirmed, nowUnconfirmed), max(retained, nowRetained)
	}
	t.Logf("wrote %d MB of WAL; at most %d MB retained and %d MB unconfirmed", written>>20, retained>>20, unconfirmed>>20)
	if full() {
		require.Greater(t, written, int64(256<<20), "the test must write more than it allows to be retained")
	}
	require.Less(t, retained, int64(64<<20))
	require.Less(t, unconfirmed, int64(8<<20))
	require.Greater(t, written, 3*unconfirmed, "the slot must follow")
	s.requireEqualsSQL(nil, 30*time.Second)
}

func TestIdlePipelineAddsNoHistory(t *testing.T) {
	s := newSystem(t, apart(t))
	s.startOrders()
	length := 20 * time.Second
	if full() {
		length = 10 * time.Minute
	}
	count := func(id string) int {
		st, err := s.status(id)
		require.NoError(t, err)
		return st.History.Events
	}
	for _, id := range []string{"source.default.shop", "query.default.open-orders"} { // the last that a start does
		eventually(t, time.Minute, id+" tells where it runs", func() error {
			st, err := s.status(id)
			if err == nil && st.Attempt == 0 {
				err = errors.New("it has not")
			}
			return err
		})
	}
	source, query := count("source.default.shop"), count("query.default.open-orders")
	pause(length)
	t.Logf("after %s: source %d events, query %d", length, count("source.default.shop"), count("query.default.open-orders"))
	require.Equal(t, source, count("source.default.shop"))
	require.Equal(t, query, count("query.default.open-orders"))
	require.Less(t, source, 60, "start of one")
	require.Less(t, query, 60, "start of one")
}
