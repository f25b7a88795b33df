package postgres_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

const benchRows = 300_000

func benchTable(b *testing.B) (db, fullSource) {
	d := newDB(b)
	d.exec(`CREATE TABLE orders (id bigint PRIMARY KEY, customer_id int NOT NULL, status text NOT NULL, total numeric(12, 2) NOT NULL,
		placed timestamptz NOT NULL, note text)`)
	return d, d.source(`"tables": [{"name": "orders", "label": "Order"}]`)
}

const fill = `INSERT INTO orders SELECT i, i %% 1000, 'status ' || i %% 7, i * 0.25, now(), CASE WHEN i %% 3 = 0 THEN 'note ' || i END FROM generate_series(%d, %d) i`

// BenchmarkSnapshot compares reading by chunks with a plain COPY of the table.
func BenchmarkSnapshot(b *testing.B) {
	d, s := benchTable(b)
	d.exec(fill, 1, benchRows)
	d.exec("VACUUM ANALYZE orders")
	b.Run("copy", func(b *testing.B) {
		conn, err := pgx.Connect(b.Context(), d.url)
		require.NoError(b, err)
		defer conn.Close(context.Background())
		for b.Loop() {
			_, err := conn.PgConn().CopyTo(b.Context(), io.Discard, "COPY orders TO STDOUT (FORMAT binary)")
			require.NoError(b, err)
		}
		b.ReportMetric(float64(b.N*benchRows)/b.Elapsed().Seconds(), "rows/s")
	})
	b.Run("chunks", func(b *testing.B) {
		snapshot, _ := hold(b, s)
		chunks := sourcetest.Chunks(b, s, snapshot, nil)
		for b.Loop() {
			rows := 0
			for _, c := range chunks {
				require.NoError(b, sourcetest.ReadChunk(b.Context(), s, snapshot, c, func(changes []graph.Change) error {
					rows += len(changes)
					return nil
				}))
			}
			require.Equal(b, benchRows, rows)
		}
		b.ReportMetric(float64(b.N*benchRows)/b.Elapsed().Seconds(), "rows/s")
	})
}

// countingSink only counts.
type countingSink struct {
	count, want int
	done        chan struct{}
	wanted      source.Wanted
	staged      map[uint64]int
}

func (s *countingSink) Append(_ context.Context, tx *graph.Transaction) error {
	if s.count += len(tx.Changes); s.count >= s.want && s.want > 0 {
		s.want = 0
		close(s.done)
	}
	return nil
}
func (s *countingSink) AppendPart(ctx context.Context, part *graph.Transaction, _ int, _ bool) error {
	return s.Append(ctx, part)
}
func (s *countingSink) Stage(_ context.Context, transaction uint64, changes []graph.Change) error {
	if s.staged == nil {
		s.staged = make(map[uint64]int)
	}
	s.staged[transaction] += len(changes)
	return nil
}
func (s *countingSink) Stages() bool               { return true }
func (s *countingSink) Unstage(transaction uint64) { delete(s.staged, transaction) }
func (s *countingSink) AppendStaged(ctx context.Context, transaction uint64, _ time.Time) error {
	s.count += s.staged[transaction]
	return s.Append(ctx, &graph.Transaction{})
}
func (s *countingSink) Idle(graph.Position)            {}
func (s *countingSink) System() string                 { return "" }
func (s *countingSink) Identify(string)                {}
func (s *countingSink) Schema() []byte                 { return nil }
func (s *countingSink) Learn([]byte)                   {}
func (s *countingSink) Wanted() source.Wanted          { return s.wanted }
func (s *countingSink) WantedChanged() <-chan struct{} { return nil }
func (s *countingSink) Withhold(context.Context, source.Wanted) (bool, error) {
	return false, nil
}
func (s *countingSink) Serve(source.Wanted)             {}
func (s *countingSink) Note(string, string)             {}
func (s *countingSink) Measure(string, float64)         {}
func (s *countingSink) Durable() graph.Position         { return "" }
func (s *countingSink) DurableChanged() <-chan struct{} { return nil }
func (s *countingSink) Interrupted(error)               {}
func (s *countingSink) Tick()                           {}

// BenchmarkStream drains changes that the server holds already: single-row transactions, and one large transaction.
func BenchmarkStream(b *testing.B) {
	for name, write := range map[string]func(d db){
		"one transaction": func(d db) { d.exec(fill, 1, benchRows) },
		"10 rows each": func(d db) {
			d.exec(`CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN FOR n IN 0..29999 LOOP
				INSERT INTO orders SELECT i, i %% 1000, 'status ' || i %% 7, i * 0.25, now(), 'note' FROM generate_series(n * 10 + 1, n * 10 + 10) i; COMMIT; END LOOP; END $$`)
			d.exec("CALL fill()")
		},
	} {
		b.Run(name, func(b *testing.B) {
			d, s := benchTable(b)
			write(d)
			for b.Loop() {
				sink := &countingSink{want: benchRows, done: make(chan struct{})}
				ctx, cancel := context.WithCancel(b.Context())
				finished := make(chan error, 1)
				go func() { finished <- s.Run(ctx, "", sink) }()
				begin := time.Now()
				<-sink.done
				b.ReportMetric(benchRows/time.Since(begin).Seconds(), "rows/s")
				cancel()
				require.NoError(b, <-finished)
			}
		})
	}
}

// BenchmarkMovedRows drains an update of keys that leaves large values as they are, which are read from the table.
func BenchmarkMovedRows(b *testing.B) {
	const rows = 10_000
	d := newDB(b)
	d.exec("CREATE TABLE document (id int PRIMARY KEY, body text); ALTER TABLE document ALTER body SET STORAGE EXTERNAL")
	s := d.source(`"tables": [{"name": "document"}]`)
	d.exec("INSERT INTO document SELECT i, repeat(md5(i::text), 100) FROM generate_series(1, %d) i", rows)
	from := graph.Position(d.text("SELECT pg_current_wal_lsn()"))
	d.exec("UPDATE document SET id = id + %d", rows)
	for b.Loop() {
		sink := &countingSink{want: 2 * rows, done: make(chan struct{})}
		ctx, cancel := context.WithCancel(b.Context())
		finished := make(chan error, 1)
		go func() { finished <- s.Run(ctx, from, sink) }()
		begin := time.Now()
		<-sink.done
		b.ReportMetric(rows/time.Since(begin).Seconds(), "rows/s")
		cancel()
		require.NoError(b, <-finished)
	}
}

// BenchmarkNeededColumns drains changes of a table of 20 columns, of which a query reads 3, with and without the others.
func BenchmarkNeededColumns(b *testing.B) {
	for _, publish := range []string{"all", "needed"} {
		b.Run(publish, func(b *testing.B) {
			d := newDB(b)
			columns, values := "", ""
			for i := range 19 {
				columns += fmt.Sprintf(", c%d %s", i, []string{"int", "text", "timestamptz", "numeric(12, 2)"}[i%4])
				values += []string{", i", ", 'text of row ' || i", ", now()", ", i * 0.25"}[i%4]
			}
			d.exec("CREATE TABLE wide (id bigint PRIMARY KEY%s)", columns)
			s := d.source(`"tables": [{"name": "wide"}], "statusInterval": "100ms", "publish": "` + publish + `"`)
			wanted := source.Wanted{"wide": reads("id", "c0", "c1")}
			if publish == "needed" {
				chosen := sourcetest.NewSink("")
				chosen.Want(wanted)
				stop := running(b, s, "", chosen)
				d.becomesPublished("wide {id,c0,c1}")
				stop()
			}
			d.exec("INSERT INTO wide SELECT i%s FROM generate_series(1, %d) i", values, benchRows)
			for b.Loop() {
				sink := &countingSink{want: benchRows, done: make(chan struct{}), wanted: wanted}
				ctx, cancel := context.WithCancel(b.Context())
				finished := make(chan error, 1)
				go func() { finished <- s.Run(ctx, "", sink) }()
				begin := time.Now()
				<-sink.done
				b.ReportMetric(benchRows/time.Since(begin).Seconds(), "rows/s")
				cancel()
				require.NoError(b, <-finished)
			}
		})
	}
}

// BenchmarkLargeTransaction takes one of a gigabyte, and reports how much memory the process needs at most.
func BenchmarkLargeTransaction(b *testing.B) {
	const rows, bytes = 1_000_000, 1 << 30
	d := newDB(b)
	d.exec("CREATE TABLE document (id int PRIMARY KEY, body text)")
	s := d.source(`"tables": [{"name": "document"}]`)
	for b.Loop() {
		sink := &countingSink{want: rows, done: make(chan struct{})}
		ctx, cancel := context.WithCancel(b.Context())
		finished := make(chan error, 1)
		require.NoError(b, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // the peak is counted from here on
		go func() { finished <- s.Run(ctx, "", sink) }()
		d.exec("INSERT INTO document SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, %d) i", rows)
		begin := time.Now()
		<-sink.done
		b.ReportMetric(time.Since(begin).Seconds(), "s-after-commit")
		cancel()
		require.NoError(b, <-finished)
		b.ReportMetric(float64(peakMemory(b))/(1<<20), "peak-MiB")
		d.exec("TRUNCATE document")
	}
	b.SetBytes(bytes)
}

// peakMemory returns the most memory that the process had, in bytes.
func peakMemory(b *testing.B) (bytes int64) {
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &bytes); err == nil {
			return bytes << 10
		}
	}
	b.Fatal("the peak is not known")
	return 0
}
