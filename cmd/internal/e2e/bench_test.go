package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"text/tabwriter"
	"time"

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

// benchRounds is how often each contestant does the work. Absolute figures mean little on a shared machine; the ratio
// within one round is what counts, and CPU time per row more than both.
const benchRounds = 5

// benchTable is the table that benchmarks use where nothing else is said.
const benchTable = `CREATE TABLE bench (id bigint PRIMARY KEY, customer int NOT NULL, status text NOT NULL, total numeric(12,2) NOT NULL, note text, at timestamptz NOT NULL)`

// benchSettings are the server's.
var benchSettings = map[string]string{"shared_buffers": "512MB", "max_wal_size": "8GB", "checkpoint_timeout": "1h", "synchronous_commit": "off"}

type bench struct {
	b     *testing.B
	pg    *cluster.Cluster
	conn  *pgx.Conn
	limit context.Context
	stop  context.CancelFunc // ends limit
}

func newBench(b *testing.B, table string) *bench {
	b.Helper()
	perdureprocess.TuneMemory()
	pg := clustertest.Own(b, benchSettings)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
	b.Cleanup(cancel)
	conn, err := pgx.Connect(ctx, pg.URL())
	require.NoError(b, err)
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	w := &bench{b: b, pg: pg, conn: conn, limit: ctx, stop: cancel}
	w.exec(table)
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

// check is require.NoError for goroutines: it ends what the others wait for.
func (w *bench) check(err error) {
	if err != nil {
		w.b.Error(err)
		w.stop()
	}
}

func (w *bench) source(kind string, round int) component.SourceSpec {
	name := fmt.Sprintf("%s%d", kind, round)
	config, err := json.Marshal(object{
		"url":    object{"$secret": "env:PERDURE_BENCH_DATABASE"},
		"tables": []object{{"name": "public.bench", "label": "Bench"}},
		"slot":   "bench_" + name,
	})
	require.NoError(w.b, err)
	return component.SourceSpec{Name: name, Instance: component.DefaultInstance, Kind: "postgres", Config: config,
		Policy: benchPolicy}
}

// benchPolicy lets the logs of all rounds fit: the server reserves what they may take.
var benchPolicy = component.Policy{RetainBytes: 3 << 30}

var benchQuery = component.QuerySpec{
	Name: "bench", Instance: component.DefaultInstance, Kind: "cypher", Bootstrap: "none", Policy: benchPolicy,
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

// BenchmarkSnapshot holds the copy of a table into the bootstrap stream against COPY TO STDOUT. Of our CPU time half is
// receiving and decoding rows, a seventh of it encoding, and a third the stream server's, most of it writing to disk.
func BenchmarkSnapshot(b *testing.B) {
	w := newBench(b, benchTable)
	const rows = 10_000_000
	w.exec(`INSERT INTO bench SELECT i, i % 1000, 'open', i * 0.25, 'note of ' || i, now() FROM generate_series(1, $1) i`, rows)
	w.exec(`VACUUM ANALYZE bench`)
	host, _ := w.host()
	source := w.source("source", 0)
	require.NoError(b, host.ProvisionSource(w.limit, source))
	drain := make(chan struct{})
	var group sync.WaitGroup
	defer group.Wait()
	defer close(drain)
	group.Go(func() {
		w.check(host.RunSource(w.limit, attempt(component.Source, source.Name, drain), source))
	})
	eventually(b, 30*time.Second, "change stream", func() error { return host.SourceReady(w.limit, component.DefaultInstance, source.Name) })

	// into copies what a query reads.
	into := func(query component.QuerySpec) func(round int) sample {
		return func(round int) sample {
			ctx, release := context.WithCancel(w.limit)
			defer release()
			query.Sources = []string{source.Name}
			ref := pipeline.BootstrapRef{ID: fmt.Sprintf("%s.%d", query.Name, round), Instance: component.DefaultInstance, Query: query.Name, Source: source.Name, SnapshotGeneration: 1}
			_, err := host.Subscribe(ctx, ref, query)
			require.NoError(b, err)
			ready := make(chan struct{})
			group.Go(func() {
				err := host.HoldSnapshot(ctx, ref, source, func(graph.Position) error { close(ready); return nil }, func() {})
				if ctx.Err() == nil {
					w.check(err)
				}
			})
			select {
			case <-ready:
			case <-w.limit.Done():
				require.NoError(b, w.limit.Err(), "waiting for the snapshot")
			}
			plan, err := host.PlanChunks(ctx, ref, source, query)
			require.NoError(b, err)
			m := w.measure()
			var copied atomic.Int64
			var copiers sync.WaitGroup
			for k := range plan.Parallelism {
				copiers.Go(func() {
					p, err := host.CopyChunks(ctx, ref, source, fmt.Sprintf("copier-%d", k), func(pipeline.CopyProgress) {})
					w.check(err)
					copied.Add(p.Rows)
				})
			}
			copiers.Wait()
			require.Equal(b, int64(rows), copied.Load())
			return m.end()
		}
	}
	all := benchQuery
	all.Name, all.Query = "all", "MATCH (b:Bench) RETURN b"
	w.compare("of-copy", rows,
		contestant{"copy-to-stdout", func(int) sample {
			m := w.measure()
			cmd := osexec.CommandContext(w.limit, "psql", "-X", "-q", "-d", w.pg.URL(), "-c", `COPY bench TO STDOUT (FORMAT binary)`) // to /dev/null
			require.NoError(b, cmd.Run())
			return m.end().of(cmd)
		}},
		contestant{"needed-columns-into-bootstrap-stream", into(benchQuery)},
		contestant{"all-columns-into-bootstrap-stream", into(all)},
	)
}

// contestant is one way to do the work, once per round.
type contestant struct {
	name string
	run  func(round int) sample
}

// sample is what one run took: time, CPU time of the contestant and of the server, and the most memory that the contestant
// had, in bytes. Ours is with the stream server.
type sample struct {
	took, own, server time.Duration
	peak              int64
}

// of puts what a program took in place of what we did.
func (s sample) of(cmd *osexec.Cmd) sample {
	s.own = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.peak = usage.Maxrss << 10
	}
	return s
}

// measurement is a sample that has begun.
type measurement struct {
	cpu   *cpu
	begin time.Time
}

func (w *bench) measure() measurement {
	debug.FreeOSMemory()
	require.NoError(w.b, os.WriteFile("/proc/self/clear_refs", []byte("5"), 0)) // the peak counts from here on
	return measurement{newCPU(w.b, w.pg.PID()), time.Now()}
}

func (m measurement) end() sample {
	took := time.Since(m.begin)
	own, server := m.cpu.spent()
	s := sample{took: took, own: own, server: server}
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(m.cpu.b, err)
	for line := range strings.Lines(string(status)) {
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &s.peak); err == nil {
			s.peak <<= 10
		}
	}
	return s
}

// compare runs all contestants benchRounds times and reports medians; the ratio to the first contestant is taken within
// each round, since what else the machine does changes from one to the next. All rounds are printed.
func (w *bench) compare(ratio string, rows int, contestants ...contestant) {
	samples := make([][]sample, len(contestants))
	for i := range samples {
		samples[i] = make([]sample, benchRounds)
	}
	for round := range benchRounds {
		for i := range contestants {
			i = (i + round) % len(contestants)
			samples[i][round] = contestants[i].run(round)
		}
	}
	million := float64(rows) / 1e6
	figures := []struct {
		unit string
		of   func(s, base sample) float64
	}{
		{"rows/s", func(s, _ sample) float64 { return float64(rows) / s.took.Seconds() }},
		{ratio, func(s, base sample) float64 { return base.took.Seconds() / s.took.Seconds() }},
		{"cpu-s/Mrow", func(s, _ sample) float64 { return s.own.Seconds() / million }},
		{"server-cpu-s/Mrow", func(s, _ sample) float64 { return s.server.Seconds() / million }},
		{"peak-MiB", func(s, _ sample) float64 { return float64(s.peak) / (1 << 20) }},
	}
	var table strings.Builder
	columns := tabwriter.NewWriter(&table, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(columns, "round\t")
	for _, c := range contestants {
		fmt.Fprintf(columns, "%s\t%s\tcpu-s/Mrow\t+ server\tMiB\t", c.name, ratio)
	}
	for round := range benchRounds {
		fmt.Fprintf(columns, "\n%d\t", round+1)
		for i := range contestants {
			at := func(f int) float64 { return figures[f].of(samples[i][round], samples[0][round]) }
			fmt.Fprintf(columns, "%.0f rows/s\t%.2f\t%.2f\t%.2f\t%.0f\t", at(0), at(1), at(2), at(3), at(4))
		}
	}
	fmt.Fprintln(columns)
	_ = columns.Flush()             // to memory
	fmt.Print("\n", table.String()) // a log of a benchmark with parts is never shown
	for i, c := range contestants {
		w.b.Run(c.name, func(b *testing.B) {
			for _, f := range figures {
				all := make([]float64, benchRounds)
				for round := range all {
					all[round] = f.of(samples[i][round], samples[0][round])
				}
				slices.Sort(all)
				b.ReportMetric(all[benchRounds/2], f.unit)
				if f.unit == ratio && i > 0 {
					b.ReportMetric(all[0], ratio+"-min")
					b.ReportMetric(all[benchRounds-1], ratio+"-max")
				}
			}
			b.ReportMetric(0, "ns/op")
		})
	}
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

func (c *cpu) spent() (self, server time.Duration) {
	self, server = c.read()
	return self - c.self, server - c.other
}

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
