package postgres_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// streamsEarly has the server send transactions while they are in progress.
func (d db) streamsEarly() {
	d.Helper()
	d.exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %%I SET logical_decoding_work_mem = ''64kB''', current_database()); END $$`)
}

// insertDocuments is a statement that outgrows the server's memory.
func insertDocuments(from, n int) string {
	return fmt.Sprintf("INSERT INTO document (id, body, edition) SELECT i, repeat(md5(i::text), 30), 0 FROM generate_series(%d, %d) i; ", from, from+n-1)
}

// TestPlainChangesAreStaged writes large transactions, of which more or less can be known before their end. What comes of them
// is what a snapshot has, and each comes as one.
func TestPlainChangesAreStaged(t *testing.T) {
	d := newDB(t)
	d.streamsEarly()
	d.exec(`CREATE TABLE document (id int PRIMARY KEY, body text, edition int); ALTER TABLE document ALTER body SET STORAGE EXTERNAL;
		CREATE TABLE unwatched (id int PRIMARY KEY, v text); CREATE TABLE tag (a int, b text); ALTER TABLE tag REPLICA IDENTITY FULL;
		CREATE TABLE late (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED); ALTER TABLE late REPLICA IDENTITY FULL`)
	s := d.source(`"tables": [{"name": "document"}, {"name": "tag", "wholeRow": true}, {"name": "late"}]`)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	d.exec("INSERT INTO tag VALUES (1, 'x'), (1, 'x'), (2, 'y'); INSERT INTO late VALUES (1), (2), (3); INSERT INTO document SELECT i, repeat('long', 3000), 0 FROM generate_series(1, 3) i")
	agree(t, s, sink)
	for _, test := range []struct {
		name, sql      string
		staged, others int // changes
	}{
		{"plain", insertDocuments(1000, 2000) + "UPDATE document SET edition = 1 WHERE id BETWEEN 1000 AND 1499; DELETE FROM document WHERE id BETWEEN 1000 AND 1099", 2600, 0},
		{"savepoint, released", insertDocuments(3000, 1000) + "SAVEPOINT a; " + insertDocuments(4000, 1000) + "RELEASE a; " + insertDocuments(5000, 1000), 1000, 2000},
		{"savepoint, rolled back", insertDocuments(6000, 1000) + "SAVEPOINT a; " + insertDocuments(7000, 1000) + "ROLLBACK TO a; " + insertDocuments(8000, 1000), 1000, 1000},
		{"all in a savepoint", "SAVEPOINT a; " + insertDocuments(9000, 1000) + "RELEASE a", 0, 1000},
		{"a table that is not watched", "INSERT INTO unwatched SELECT i, repeat('x', 100) FROM generate_series(1, 3000) i; " + insertDocuments(10_000, 1000), 1000, 0},
		{"large values that did not change, of other keys", insertDocuments(11_000, 1000) + "UPDATE document SET edition = 2 WHERE id = 1; UPDATE document SET id = id + 10 WHERE id IN (1, 2); " + insertDocuments(12_000, 1000), 1001, 1004},
		{"without a key", insertDocuments(13_000, 1000) + "DELETE FROM tag WHERE ctid = (SELECT min(ctid) FROM tag); " + insertDocuments(14_000, 1000), 1000, 1000},
		{"keys that are checked late", insertDocuments(15_000, 1000) + "UPDATE late SET id = id + 1; " + insertDocuments(16_000, 1000), 1000, 1008},
		{"a column is added", insertDocuments(17_000, 1000) + "ALTER TABLE document ADD note text; " + insertDocuments(18_000, 1000), 1000, 1000},
		{"and known", insertDocuments(19_000, 1000), 1000, 0},
		{"a table is renamed for a while", insertDocuments(50_000, 1000) + "ALTER TABLE document RENAME TO other; INSERT INTO other VALUES (-2, 'x', 0); ALTER TABLE other RENAME TO document; " + insertDocuments(51_000, 1000), 1000, 1001},
		{"and called as before", insertDocuments(52_000, 1000), 1000, 0},
		{"truncate", insertDocuments(20_000, 1000) + "TRUNCATE document; " + insertDocuments(21_000, 1000), 1000, 1001},
	} {
		_, before := sink.Staged()
		transactions := len(sink.Transactions())
		d.exec("BEGIN; %s; COMMIT", test.sql)
		agree(t, s, sink)
		inProgress, after := sink.Staged()
		require.Zero(t, inProgress, test.name)
		all := sink.Transactions()
		require.Equal(t, test.staged, after-before, test.name)
		require.Len(t, all[transactions].Changes, test.staged+test.others, test.name)
	}
	d.exec("BEGIN; %s; ROLLBACK; INSERT INTO document VALUES (-1, 'behind', 0)", insertDocuments(30_000, 2000))
	agree(t, s, sink)
	inProgress, _ := sink.Staged()
	require.Zero(t, inProgress, "what was rolled back is dropped")

	sink.RefuseToStage()
	_, before := sink.Staged()
	d.exec("%s", insertDocuments(40_000, 2000))
	agree(t, s, sink)
	_, after := sink.Staged()
	require.Equal(t, before, after)
	stop()
}

// TestBadRowOfATransactionInProgress has a row that cannot be decoded in the middle of one.
func TestBadRowOfATransactionInProgress(t *testing.T) {
	d := newDBIn(t, "SQL_ASCII")
	d.streamsEarly()
	d.exec("CREATE TABLE document (id int PRIMARY KEY, body text, edition int)")
	var letters atomic.Int64
	settings := d.settings()
	settings.Reject = func(_ context.Context, letter source.DeadLetter) error {
		letters.Add(1)
		require.True(t, bytes.Contains(letter.Record, []byte("\xfc")))
		return nil
	}
	s := d.sourceWith(`"tables": [{"name": "document"}]`, settings)
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	bad := "INSERT INTO document VALUES (-1, E'\\xfc', 0); "
	d.exec("BEGIN; %s ROLLBACK", insertDocuments(1, 2000)+bad+insertDocuments(3000, 2000))
	d.exec("BEGIN; %s COMMIT", insertDocuments(1, 2000)+bad+insertDocuments(3000, 2000))
	sourcetest.Eventually(t, "the good rows", func() bool { return len(sink.Graph()) == 4000 })
	_, staged := sink.Staged()
	require.Equal(t, 2000, staged)
	require.Equal(t, int64(1), letters.Load(), "what is rolled back is no bad row")
	stop()
}

// TestStagedTransactionsBetweenOthers has two in progress at the same time, which take turns, and small ones in between.
func TestStagedTransactionsBetweenOthers(t *testing.T) {
	d, s := documents(t)
	d.streamsEarly()
	sink := sourcetest.NewSink("")
	stop := running(t, s, "", sink)
	var open []*pgx.Conn
	for range 2 {
		conn, err := pgx.Connect(t.Context(), d.url)
		require.NoError(t, err)
		defer func() { require.NoError(t, conn.Close(context.Background())) }()
		_, err = conn.Exec(t.Context(), "BEGIN")
		require.NoError(t, err)
		open = append(open, conn)
	}
	for round := range 5 {
		for i, conn := range open {
			_, err := conn.Exec(t.Context(), insertDocuments(10_000*(i+1)+round*1000, 500+100*i))
			require.NoError(t, err)
		}
		d.exec("INSERT INTO document VALUES (%d, 'small', 0); UPDATE document SET edition = edition + 1 WHERE id < 10", round)
	}
	for i := range open {
		_, err := open[len(open)-1-i].Exec(t.Context(), "COMMIT")
		require.NoError(t, err)
	}
	requireTable(d, sink)
	require.Len(t, sink.Transactions(), 7)
	inProgress, staged := sink.Staged()
	require.Zero(t, inProgress)
	require.Equal(t, 5*500+5*600, staged)
	stop()
}

// TestLostStagedChangesComeAgain has a sink that does not keep what is staged.
func TestLostStagedChangesComeAgain(t *testing.T) {
	d, s := documents(t)
	d.streamsEarly()
	sink := &forgetfulSink{Sink: sourcetest.NewSink("")}
	stop := running(t, s, "", sink)
	d.exec("%s", insertDocuments(1, 2000))
	requireTable(d, sink.Sink)
	require.Equal(t, int64(1), sink.failed.Load())
	inProgress, staged := sink.Staged()
	require.Zero(t, staged, "it is not staged again")
	require.Zero(t, inProgress, "what could not be appended is dropped")
	sink.remembers.Store(true)
	d.exec("%s", insertDocuments(3000, 2000))
	requireTable(d, sink.Sink)
	_, staged = sink.Staged()
	require.Equal(t, 2000, staged, "the next one is")
	require.Len(t, sink.Transactions(), 2)
	stop()
}

type forgetfulSink struct {
	*sourcetest.Sink
	remembers atomic.Bool
	failed    atomic.Int64
}

func (s *forgetfulSink) AppendStaged(ctx context.Context, transaction uint64, committed time.Time) error {
	if s.remembers.Load() {
		return s.Sink.AppendStaged(ctx, transaction, committed)
	}
	s.failed.Add(1)
	return failure.StagedLost.Errorf("it is gone")
}
