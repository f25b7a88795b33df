package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"bufio"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	perdureprocess "github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	pebbleindex "github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/stream"
)

// The throughput benchmarks drain the same WAL: benchRows rows in transactions of benchRowsPerTx. Absolute figures mean
// little on a shared machine; the ratio to pg_recvlogical in the same run is what counts.
const (
	benchRows      = 500_000
	benchRowsPerTx = 50
)

type bench struct {
	b     *testing.B
	pg    *cluster.Cluster
	conn  *pgx.Conn
	limit context.Context
}

func newBench(b *testing.B) *bench {
	b.Helper()
	perdureprocess.TuneMemory()
	pg := clustertest.Own(b, map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "synchronous_commit": "off"})
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	b.Cleanup(cancel)
	conn, err := pgx.Connect(ctx, pg.URL())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	w := &bench{b: b, pg: pg, conn: conn, limit: ctx}
	w.exec(`CREATE TABLE bench (id bigint PRIMARY KEY, customer int NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL, note text, at timestamptz NOT NULL)`)
	b.Setenv("PERDURE_BENCH_DATABASE", pg.URL())
	return w
}

func (w *bench) exec(sql string, args ...any) {
	w.b.Helper()
	_, err := w.conn.Exec(w.limit, sql, args...)
	require.NoError(w.b, err, sql)
}

func (w *bench) lsn() string {
	w.b.Helper()
	var lsn string
	require.NoError(w.b, w.conn.QueryRow(w.limit, `SELECT pg_current_wal_insert_lsn()::text`).Scan(&lsn))
	return lsn
}

// write produces the WAL that all contestants drain: inserts and updates, half of each.
func (w *bench) write() (end string) {
	w.b.Helper()
	w.exec(fmt.Sprintf(`DO $$ BEGIN FOR t IN 0..%d LOOP
		INSERT INTO bench SELECT t * %[2]d + i, i %% 1000, 'open', (t + i) * 0.25, 'note of ' || i, now() FROM generate_series(1, %[2]d) i;
		COMMIT; END LOOP; END $$`, benchRows/2/benchRowsPerTx-1, benchRowsPerTx))
	w.exec(fmt.Sprintf(`DO $$ BEGIN FOR t IN 0..%d LOOP
		UPDATE bench SET status = 'paid', total = total + 1 WHERE id > t * %[2]d AND id <= (t + 1) * %[2]d;
		COMMIT; END LOOP; END $$`, benchRows/2/benchRowsPerTx-1, benchRowsPerTx))
	end = w.lsn()
	w.exec(`INSERT INTO bench VALUES (0, 0, 'last', 0, '', now())`) // whoever is past end has drained all before it
	return end
}

func (w *bench) source(name string) component.SourceSpec {
	config, err := json.Marshal(object{
		"url":    object{"$secret": "env:PERDURE_BENCH_DATABASE"},
		"tables": []object{{"name": "public.bench", "label": "Bench"}},
		"slot":   "bench_" + name,
	})
	require.NoError(w.b, err)
	return component.SourceSpec{Name: name, Instance: component.DefaultInstance, Kind: "postgres", Config: config}
}

var benchQuery = component.QuerySpec{
	Name: "bench", Instance: component.DefaultInstance, Kind: "cypher", Sources: []string{"withquery"}, Bootstrap: "none",
	Query: `MATCH (b:Bench) WHERE b.total > 1000 RETURN b.customer AS customer, b.status AS status, b.total AS total`,
}

func (w *bench) host() (*pipeline.Host, *stream.Conn) {
	w.b.Helper()
	dir := w.b.TempDir()
	server, err := stream.Serve(stream.ServerOptions{Dir: filepath.Join(dir, "stream"), Log: zap.NewNop()})
	require.NoError(w.b, err)
	conn, err := stream.Connect(w.limit, stream.Options{Server: server, Name: "bench", Log: zap.NewNop()})
	require.NoError(w.b, err)
	host, err := pipeline.NewHost(pipeline.Options{
		Stream: conn, Sources: catalog.Sources(), Reactions: catalog.Reactions(),
		Index: pebbleindex.New(pebbleindex.Options{Dir: filepath.Join(dir, "index")}), HostID: "bench", Log: zap.NewNop(), Secret: component.ResolveSecret,
	})
	require.NoError(w.b, err)
	w.b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		require.NoError(w.b, host.Close(ctx))
		conn.Close()
		require.NoError(w.b, server.Close(ctx))
	})
	return host, conn
}

// awaitPast polls until a position is past end.
func (w *bench) awaitPast(end string, position func() graph.Position) {
	w.b.Helper()
	for position().Compare(graph.Position(end)) <= 0 {
		require.NoError(w.b, w.limit.Err(), "waiting for position %s, at %s", end, position())
		time.Sleep(5 * time.Millisecond) // between polls
	}
}

// confirmed returns what the source of a slot has confirmed, and so has made durable.
func (w *bench) confirmed(slot string) graph.Position {
	w.b.Helper()
	var lsn string
	require.NoError(w.b, w.conn.QueryRow(w.limit, `SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1`, slot).Scan(&lsn))
	return graph.Position(lsn)
}

func attempt(kind component.Kind, name string, drain chan struct{}) pipeline.Attempt {
	return pipeline.Attempt{
		ID:    component.ID{Kind: kind, Instance: component.DefaultInstance, Name: name},
		Epoch: stream.Epoch{Generation: 1, Started: time.Now().UnixNano()}, Drain: drain, Progress: &pipeline.Progress{},
	}
}

// BenchmarkDrain holds our source, and source with query, against pg_recvlogical on the same WAL.
func BenchmarkDrain(b *testing.B) {
	w := newBench(b)
	host, _ := w.host()
	alone, withQuery := w.source("alone"), w.source("withquery")
	require.NoError(b, host.ProvisionSource(w.limit, alone))
	require.NoError(b, host.ProvisionSource(w.limit, withQuery))
	w.exec(`CREATE PUBLICATION bench_recv FOR TABLE bench`)
	w.exec(`SELECT pg_create_logical_replication_slot('bench_recv', 'pgoutput')`)
	end := w.write()

	var baseline float64
	drained := map[string]bool{}
	once := func(b *testing.B) { // a second pass would measure how quickly nothing is drained
		require.False(b, drained[b.Name()], "the WAL can be drained once: run with -benchtime 1x -count 1, and again for more samples")
		drained[b.Name()] = true
	}
	report := func(b *testing.B, took, ours, server time.Duration) {
		rate := benchRows / took.Seconds()
		b.ReportMetric(rate, "rows/s")
		b.ReportMetric(ours.Seconds()*1e6/benchRows, "cpu-s/Mrow")
		b.ReportMetric(server.Seconds()*1e6/benchRows, "server-cpu-s/Mrow")
		b.ReportMetric(0, "ns/op")
		if baseline == 0 {
			baseline = rate
		}
		b.ReportMetric(rate/baseline, "of-recvlogical")
	}
	b.Run("pg_recvlogical", func(b *testing.B) {
		once(b)
		cpu, begin := newCPU(b, w.pg.PID()), time.Now()
		cmd := osexec.CommandContext(w.limit, "pg_recvlogical", "-d", w.pg.URL(), "--slot", "bench_recv", "--start", "--no-loop", "--endpos", end,
			"-o", "proto_version=1", "-o", "publication_names=bench_recv", "-o", "binary=true", "-f", "/dev/null")
		out, err := cmd.CombinedOutput()
		took := time.Since(begin)
		require.NoError(b, err, "%s", out)
		report(b, took, cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime(), cpu.server())
	})
	b.Run("source-into-stream", func(b *testing.B) {
		once(b)
		drain := make(chan struct{})
		a := attempt(component.Source, "alone", drain)
		cpu, begin := newCPU(b, w.pg.PID()), time.Now()
		var group sync.WaitGroup
		group.Go(func() { require.NoError(b, host.RunSource(w.limit, a, alone)) })
		w.awaitPast(end, func() graph.Position { return w.confirmed("bench_alone") })
		took, ours := time.Since(begin), cpu.own()
		close(drain)
		group.Wait()
		report(b, took, ours, cpu.server())
	})
	b.Run("source-query-result", func(b *testing.B) {
		once(b)
		drain := make(chan struct{})
		source, query := attempt(component.Source, "withquery", drain), attempt(component.Query, "bench", drain)
		cpu, begin := newCPU(b, w.pg.PID()), time.Now()
		var group sync.WaitGroup
		group.Go(func() { require.NoError(b, host.RunSource(w.limit, source, withQuery)) })
		eventually(b, 30*time.Second, "change stream", func() error { return host.SourceReady(w.limit, component.DefaultInstance, "withquery") })
		group.Go(func() { _, err := host.RunQuery(w.limit, query, benchQuery); require.NoError(b, err) })
		w.awaitPast(end, func() graph.Position { return query.Progress.Snapshot().Position })
		took, ours := time.Since(begin), cpu.own()
		close(drain)
		group.Wait()
		report(b, took, ours, cpu.server())
	})
}

// BenchmarkSnapshot holds the copy of a table into the bootstrap stream against COPY TO STDOUT.
func BenchmarkSnapshot(b *testing.B) {
	w := newBench(b)
	const rows = 2_000_000
	w.exec(`INSERT INTO bench SELECT i, i % 1000, 'open', i * 0.25, 'note of ' || i, now() FROM generate_series(1, $1) i`, rows)
	w.exec(`VACUUM ANALYZE bench`)
	host, _ := w.host()
	source := w.source("withquery")
	require.NoError(b, host.ProvisionSource(w.limit, source))
	var baseline float64
	b.Run("copy-to-stdout", func(b *testing.B) {
		begin := time.Now()
		cmd := osexec.CommandContext(w.limit, "psql", "-X", "-q", "-d", w.pg.URL(), "-c", `COPY bench TO STDOUT (FORMAT binary)`)
		cmd.Stdout = io.Discard
		require.NoError(b, cmd.Run())
		baseline = rows / time.Since(begin).Seconds()
		b.ReportMetric(baseline, "rows/s")
		b.ReportMetric(0, "ns/op")
	})
	b.Run("into-bootstrap-stream", func(b *testing.B) {
		ctx, cancel := context.WithCancel(w.limit)
		defer cancel()
		a, drain := pipeline.Attempt{}, make(chan struct{})
		a = attempt(component.Source, "withquery", drain)
		var group sync.WaitGroup
		group.Go(func() { require.NoError(b, host.RunSource(w.limit, a, source)) })
		eventually(b, 30*time.Second, "change stream", func() error { return host.SourceReady(ctx, component.DefaultInstance, "withquery") })
		ref := pipeline.BootstrapRef{ID: "bench.1", Instance: component.DefaultInstance, Query: "bench", Source: "withquery", SnapshotGeneration: 1}
		_, err := host.Subscribe(ctx, ref)
		require.NoError(b, err)
		ready := make(chan struct{})
		holding, release := context.WithCancel(ctx)
		group.Go(func() {
			_ = host.HoldSnapshot(holding, ref, source, func(graph.Position) error { close(ready); return nil }, func() {})
		})
		<-ready
		_, err = host.PlanChunks(ctx, ref, source, benchQuery)
		require.NoError(b, err)
		begin := time.Now()
		var copied atomic.Int64
		var copiers sync.WaitGroup
		for k := range 2 {
			copiers.Go(func() {
				p, err := host.CopyChunks(ctx, ref, source, fmt.Sprintf("copier-%d", k), func(pipeline.CopyProgress) {})
				require.NoError(b, err)
				copied.Add(p.Rows)
			})
		}
		copiers.Wait()
		rate := rows / time.Since(begin).Seconds()
		require.Equal(b, int64(rows), copied.Load())
		release()
		close(drain)
		group.Wait()
		b.ReportMetric(rate, "rows/s")
		b.ReportMetric(rate/baseline, "of-copy")
		b.ReportMetric(0, "ns/op")
	})
}

// BenchmarkReady measures from the start of `perdure dev` to the answer that it is ready.
func BenchmarkReady(b *testing.B) {
	s := newSystem(b)
	for _, c := range []struct {
		name string
		dir  string
	}{{"empty-directory", b.TempDir()}, {"used-directory", s.dir}} {
		b.Run(c.name, func(b *testing.B) {
			s.dev.terminate(b, time.Minute)
			s.dir = c.dir
			begin := time.Now()
			s.startDev()
			b.ReportMetric(time.Since(begin).Seconds(), "s-to-ready")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkLatency measures from a transaction's commit time in Postgres to its diff on SSE, through the real binary. Each
// rate is measured several times, as others may be using the machine; what counts is the median.
func BenchmarkLatency(b *testing.B) {
	const rounds, length = 5, 8 * time.Second
	s := newSystem(b, ownPostgres(nil))
	s.startOrders()
	execSQL(b, s.connect(), `DELETE FROM orders`)
	s.requireEqualsSQL(nil, 30*time.Second) // from here on there is a result to follow
	for _, rate := range []int{100, 1000} {
		b.Run(fmt.Sprintf("%d-tx-per-s", rate), func(b *testing.B) {
			measured := make(map[string][]float64)
			for range rounds {
				latencies := s.latencies(b, rate, length)
				slices.Sort(latencies)
				at := func(p float64) float64 {
					return float64(latencies[int(p*float64(len(latencies)-1))].Microseconds()) / 1000
				}
				for unit, value := range map[string]float64{
					"p50-ms": at(0.50), "p99-ms": at(0.99), "max-ms": at(1), "events/s": float64(len(latencies)) / length.Seconds(),
				} {
					measured[unit] = append(measured[unit], value)
				}
			}
			b.Logf("p50 in ms: %v, p99: %v", measured["p50-ms"], measured["p99-ms"])
			for unit, values := range measured {
				slices.Sort(values)
				b.ReportMetric(values[rounds/2], unit)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

func (s *system) latencies(b *testing.B, rate int, length time.Duration) []time.Duration {
	b.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url("/api/v1/queries/open-orders/events"), nil)
	require.NoError(b, err)
	response, err := http.DefaultClient.Do(request)
	require.NoError(b, err)
	require.Equal(b, http.StatusOK, response.StatusCode)
	var latencies []time.Duration
	var reading sync.WaitGroup
	reading.Go(func() {
		defer response.Body.Close()
		lines := bufio.NewReaderSize(response.Body, 1<<20)
		for {
			line, err := lines.ReadBytes('\n')
			if err != nil {
				return
			}
			now := time.Now()
			data, isData := bytes.CutPrefix(line, []byte("data: "))
			if !isData {
				continue
			}
			var event struct {
				CommitTime time.Time
				Diffs      []json.RawMessage
			}
			if json.Unmarshal(data, &event) == nil && len(event.Diffs) > 0 {
				latencies = append(latencies, now.Sub(event.CommitTime))
			}
		}
	})
	const clients = 4
	var writing sync.WaitGroup
	stop := time.Now().Add(length)
	for c := range clients {
		writing.Go(func() {
			conn, err := pgx.Connect(ctx, s.database)
			require.NoError(b, err)
			defer conn.Close(context.Background())
			tick := time.NewTicker(time.Second * clients / time.Duration(rate))
			defer tick.Stop()
			for now := range tick.C {
				if now.After(stop) {
					return
				}
				_, err := conn.Exec(ctx, `INSERT INTO orders (customer_id, total) VALUES ($1, 1.5)`, 1+c)
				require.NoError(b, err)
			}
		})
	}
	writing.Wait()
	s.requireEqualsSQL(nil, 30*time.Second)
	cancel()
	reading.Wait()
	require.NotEmpty(b, latencies)
	return latencies
}

// cpu tells CPU time spent since it was made: by this process, and by Postgres with all its children, living and dead.
type cpu struct {
	b           *testing.B
	postmaster  int
	self, other time.Duration
}

func newCPU(b *testing.B, postmaster int) *cpu {
	c := &cpu{b: b, postmaster: postmaster}
	c.self, c.other = c.read()
	return c
}

func (c *cpu) own() time.Duration    { self, _ := c.read(); return self - c.self }
func (c *cpu) server() time.Duration { _, other := c.read(); return other - c.other }

func (c *cpu) read() (self, server time.Duration) {
	c.b.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	require.NoError(c.b, err)
	for _, path := range stats {
		data, err := os.ReadFile(path)
		if err != nil {
			continue // it ended meanwhile
		}
		var pid int
		_, _ = fmt.Sscan(string(data), &pid)
		fields := strings.Fields(string(data[bytes.LastIndexByte(data, ')')+1:]))
		number := func(i int) (n int64) { _, _ = fmt.Sscan(fields[i], &n); return n }
		const tick = 10 * time.Millisecond // USER_HZ is 100 on every Linux
		alone, waited := time.Duration(number(11)+number(12))*tick, time.Duration(number(13)+number(14))*tick
		switch {
		case pid == os.Getpid():
			self = alone
		case pid == c.postmaster:
			server += alone + waited
		case int(number(1)) == c.postmaster:
			server += alone
		}
	}
	return self, server
}
