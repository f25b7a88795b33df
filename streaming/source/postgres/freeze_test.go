//go:build unix

package postgres_test

import (
	"context"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// freeze stops a server process without ending its connection; thaw lets it go on.
func (d db) freeze(pid string) (thaw func()) {
	d.Helper()
	n, err := strconv.Atoi(pid)
	require.NoError(d, err)
	require.NoError(d, syscall.Kill(n, syscall.SIGSTOP))
	thaw = func() { _ = syscall.Kill(n, syscall.SIGCONT) }
	d.Cleanup(thaw)
	return thaw
}

// TestFrozenSender: a server that falls silent is noticed; when it comes back, streaming goes on.
func TestFrozenSender(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "a"}], "receiveTimeout": "1500ms"`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO a DEFAULT VALUES")
	sequence(t, sink, 1)
	pid := d.slot(s, "active_pid")
	thaw := d.freeze(pid)
	d.exec("INSERT INTO a DEFAULT VALUES")
	ticks := sink.Ticks()
	sourcetest.Eventually(t, "the silence is noticed", func() bool { return sink.Ticks() > ticks+8 })
	require.Len(t, sink.Transactions(), 1)
	thaw()
	sequence(t, sink, 2)
	require.NotEqual(t, pid, d.slot(s, "active_pid"))
}

// TestFrozenCopy: a copy that falls silent ends within its bound, and one whose callee takes its time does not.
func TestFrozenCopy(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id int PRIMARY KEY, v text); INSERT INTO a SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i")
	s := d.source(`"tables": [{"name": "a"}], "statementTimeout": "1s", "chunkRows": 1000000`)
	snapshot, _ := hold(t, s)
	chunks := sourcetest.Chunks(t, s, snapshot, nil)
	require.Len(t, chunks, 1)

	rows, begin := 0, time.Now()
	require.NoError(t, sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func(changes []graph.Change) error {
		if rows == 0 {
			sourcetest.Eventually(t, "a slow callee", func() bool { return time.Since(begin) > 2500*time.Millisecond })
		}
		rows += len(changes)
		return nil
	}))
	require.Equal(t, 50000, rows)

	begin = time.Now()
	frozen := false
	err := sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func([]graph.Change) error {
		if !frozen {
			frozen = true
			d.freeze(d.text("SELECT pid FROM pg_stat_activity WHERE query LIKE 'COPY (%%' AND datname = current_database()"))
		}
		return nil
	})
	require.Equal(t, failure.Timeout, failure.CodeOf(err), "%v", err)
	require.Less(t, time.Since(begin), 15*time.Second)
}

// TestFrozenPlan: a server process that freezes while the tables are measured, so that it cannot see to its own bounds
// either, is given up.
func TestFrozenPlan(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id int PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "a"}], "statementTimeout": "2s"`)
	snapshot, _ := hold(t, s)
	locker, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	defer func() { _ = locker.Close(context.Background()) }()
	_, err = locker.Exec(t.Context(), "BEGIN; LOCK TABLE a IN ACCESS EXCLUSIVE MODE")
	require.NoError(t, err)

	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	begin, done := time.Now(), make(chan error, 1)
	go func() {
		_, err := s.PlanSnapshot(ctx, snapshot, nil)
		done <- err
	}()
	var pid string
	sourcetest.Eventually(t, "the plan waits for the lock", func() bool {
		pid = d.text("SELECT coalesce(max(pid), 0) FROM pg_locks WHERE NOT granted AND relation = 'a'::regclass")
		return pid != "0"
	})
	d.freeze(pid)
	require.Equal(t, failure.Timeout, failure.CodeOf(<-done))
	require.Less(t, time.Since(begin), 15*time.Second)
}
