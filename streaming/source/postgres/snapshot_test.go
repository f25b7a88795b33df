package postgres_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// hold holds a snapshot until the test ends or release is called.
func hold(t testing.TB, s source.Snapshotter) (snapshot source.Snapshot, release func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan source.Snapshot, 1), make(chan error, 1)
	go func() {
		done <- s.HoldSnapshot(ctx, func(taken source.Snapshot) error { ready <- taken; return nil }, func() {})
	}()
	release = func() {
		if cancel != nil {
			cancel()
			cancel = nil
			require.NoError(t, <-done)
		}
	}
	select {
	case snapshot = <-ready:
	case err := <-done:
		require.NoError(t, err)
	}
	t.Cleanup(release)
	return snapshot, release
}

// readAll reads all of a snapshot.
func readAll(t testing.TB, s source.Snapshotter, snapshot source.Snapshot) []graph.Element {
	t.Helper()
	return sourcetest.ReadSnapshot(t, s, snapshot, nil)
}

// TestSnapshotMeetsStream takes snapshots while transactions commit: each is either in the snapshot or after it.
func TestSnapshotMeetsStream(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE counter (id int PRIMARY KEY, n int NOT NULL); INSERT INTO counter SELECT i, 0 FROM generate_series(1, 2000) i`)
	s := d.source(`"tables": [{"name": "counter"}], "chunkRows": 300`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)

	writing, stop := context.WithCancel(t.Context())
	var written atomic.Int64
	writers := make(chan error, 4)
	for w := range cap(writers) {
		go func() { writers <- write(writing, d.url, uint64(w), &written) }()
	}
	type taken struct {
		source.Snapshot
		elements []graph.Element
	}
	var snapshots []taken
	for range 4 {
		before := written.Load()
		sourcetest.Eventually(t, "writers write", func() bool { return written.Load() > before+100 })
		snapshot, release := hold(t, s)
		elements := readAll(t, s, snapshot)
		require.NoError(t, s.VerifySnapshot(t.Context(), snapshot))
		release()
		snapshots = append(snapshots, taken{snapshot, elements})
	}
	stop()
	for range cap(writers) {
		require.NoError(t, <-writers)
	}
	last := graph.Position(d.text("SELECT pg_current_wal_insert_lsn()"))
	sourcetest.Eventually(t, "the stream arrives", func() bool { return sink.Position().Compare(last) >= 0 })
	want := d.text("SELECT string_agg(id || '=' || n, ' ' ORDER BY id) FROM counter")
	for _, snapshot := range snapshots {
		merged := sourcetest.NewSink(snapshot.Position, snapshot.elements...)
		for _, tx := range sink.Transactions() {
			require.NoError(t, merged.Append(t.Context(), tx)) // drops what is at or below the snapshot's position
		}
		require.NotZero(t, merged.Repeated())
		g := merged.Graph()
		got := ""
		for id := range 2400 {
			if e, ok := g[graph.ElementID(fmt.Sprintf("counter:%d", id))]; ok {
				got += fmt.Sprintf(" %d=%d", id, e.Get("n").AsInt())
			}
		}
		require.Equal(t, " "+want, got)
	}
}

// write counts up, inserts, deletes and moves keys until ctx ends. Each value depends on the one before, so that a
// transaction that is missing or applied twice shows.
func write(ctx context.Context, url string, seed uint64, written *atomic.Int64) error {
	conn, err := pgx.Connect(context.WithoutCancel(ctx), url)
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	random := rand.New(rand.NewPCG(seed, 1))
	for ctx.Err() == nil {
		id := random.IntN(2000) + 1
		statement := fmt.Sprintf("UPDATE counter SET n = n + 1 WHERE id IN (%d, %d)", id, id+1)
		switch random.IntN(10) {
		case 0:
			statement = fmt.Sprintf("DELETE FROM counter WHERE id = %d", id)
		case 1:
			statement = fmt.Sprintf("INSERT INTO counter VALUES (%d, 0) ON CONFLICT DO NOTHING", id+random.IntN(300))
		case 2:
			statement = fmt.Sprintf("BEGIN; UPDATE counter SET n = n + 10 WHERE id = %d; SAVEPOINT a; DELETE FROM counter WHERE id = %d; ROLLBACK TO a; UPDATE counter SET n = n * 2 %% 1000 WHERE id = %d; COMMIT", id, id+1, id)
		}
		if _, err := conn.Exec(context.WithoutCancel(ctx), statement); err != nil && conn.PgConn().TxStatus() != 'I' {
			if _, err := conn.Exec(context.WithoutCancel(ctx), "ROLLBACK"); err != nil { // of a deadlock
				return err
			}
		}
		written.Add(1)
	}
	return nil
}

func TestSnapshotLost(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)`)
	s := d.source(`"tables": [{"name": "item"}]`)
	snapshot, release := hold(t, s)
	chunks := sourcetest.Chunks(t, s, snapshot, nil)
	require.Len(t, chunks, 1)
	release()
	sourcetest.Eventually(t, "the server has noticed", func() bool {
		return d.text("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND state = 'idle in transaction'") == "0"
	})
	err := sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func([]graph.Change) error { return nil })
	require.Equal(t, failure.SnapshotLost, failure.CodeOf(err), "%v", err)

	snapshot.System = "1/1"
	require.Equal(t, failure.WrongSystem, failure.CodeOf(s.VerifySnapshot(t.Context(), snapshot)))
	require.Equal(t, "0", d.text("SELECT count(*) FROM pg_replication_slots WHERE temporary AND database = current_database()"))
}

// TestSnapshotOfAnotherSpec: between planning and reading, the source was given a spec that does not name a table any more.
func TestSnapshotOfAnotherSpec(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE item (id int PRIMARY KEY); CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1)`)
	s := d.source(`"tables": [{"name": "item"}, {"name": "other"}]`)
	snapshot, release := hold(t, s)
	defer release()
	chunks := sourcetest.Chunks(t, s, snapshot, source.Wanted{"other": reads("*")})
	require.Len(t, chunks, 1)
	s = d.unprovisioned(`"tables": [{"name": "item"}]`)
	err := sourcetest.ReadChunk(t.Context(), s, snapshot, chunks[0], func([]graph.Change) error { return nil })
	require.Equal(t, failure.SchemaMismatch, failure.CodeOf(err), "%v", err)
}

// TestSnapshotDoesNotWaitForEver: a slot can be made only when all transactions that run have ended.
func TestSnapshotDoesNotWaitForEver(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE a (id int PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "a"}], "slotTimeout": "300ms"`)
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(t.Context(), "BEGIN; INSERT INTO a VALUES (1)")
	require.NoError(t, err)
	hold := func(ctx context.Context, ready func()) error {
		return s.HoldSnapshot(ctx, func(source.Snapshot) error { ready(); return nil }, func() {})
	}
	err = hold(t.Context(), func() {})
	require.Equal(t, failure.Timeout, failure.CodeOf(err), "%v", err)
	require.True(t, failure.ClassOf(err).Retryable())
	_, err = conn.Exec(t.Context(), "COMMIT")
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	require.NoError(t, hold(ctx, cancel))
}
