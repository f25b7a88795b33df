package pipeline

import (
	"context"
	"crypto/md5" //nolint:gosec // only to show what differs
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/stream"
)

// TestPostgresUnderFaults has eight writers write at random while a process takes a snapshot and streams, and meanwhile
// ends what serves it: the server's process that sends changes, the one that holds the snapshot, those that are read
// from, the server, the process itself, its disk. In the end the query must have what SQL says, its result log must add up to the
// same, and no part of a transaction may ever have been seen alone.
//
// PERDURE_SEEDS says how many seeds are tried (20, or 12 with -short), PERDURE_SEED runs one alone.
func TestPostgresUnderFaults(t *testing.T) {
	if order := os.Getenv(trialChild); order != "" {
		runChild(t, order)
	}
	const servers = 2 // a trial waits most of the time
	all := seeds(t)
	for n := range min(servers, len(all)) {
		t.Run(fmt.Sprint("server", n), func(t *testing.T) {
			t.Parallel()
			server := clustertest.Own(t, map[string]string{
				"fsync": "off", "logical_decoding_work_mem": "64kB", "max_prepared_transactions": "20", "deadlock_timeout": "30ms",
			})
			for i := n; i < len(all) && !t.Failed(); i += servers {
				if !t.Run(fmt.Sprint("seed", all[i]), func(t *testing.T) { newTrial(t, server, all[i]).run() }) {
					t.Errorf("to run it alone: PERDURE_SEED=%d go test -count=1 -run '^TestPostgresUnderFaults$' ./streaming/pipeline", all[i])
				}
			}
		})
	}
}

func seeds(t *testing.T) (seeds []uint64) {
	number := func(name, otherwise string) uint64 {
		text := os.Getenv(name)
		if text == "" {
			text = otherwise
		}
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err, name)
		return n
	}
	if one := number("PERDURE_SEED", "0"); one > 0 {
		return []uint64{one}
	}
	count := "20"
	if testing.Short() {
		count = "12"
	}
	for seed := range number("PERDURE_SEEDS", count) {
		seeds = append(seeds, seed+1)
	}
	return seeds
}

// trialBound is how long a query may take to run, and to see everything.
const trialBound = 3 * time.Minute

// trial is what one seed does.
type trial struct {
	*testing.T
	random   *rand.Rand
	server   *cluster.Cluster
	database string
	conn     *stream.Conn
	order    order

	child   *exec.Cmd
	stdin   func() error
	output  string // name of the file with what the processes say
	exited  chan error
	writers sync.WaitGroup
	commits atomic.Int64
	running atomic.Bool // the query
	faults  []string
}

func newTrial(t *testing.T, server *cluster.Cluster, seed uint64) *trial {
	tr := &trial{T: t, random: rand.New(rand.NewPCG(seed, 0)), server: server, database: fmt.Sprintf("trial_%d", seed)}
	clustertest.Exec(t, server.URL(), "CREATE DATABASE "+tr.database)
	clustertest.Exec(t, tr.url(), trialTables)
	log, err := stream.Serve(stream.ServerOptions{Dir: t.TempDir(), Listen: "127.0.0.1:0", Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, log.Close(ctx))
	})
	tr.conn, err = stream.Connect(t.Context(), stream.Options{Server: log, Name: t.Name(), Log: zap.NewNop()})
	require.NoError(t, err)
	t.Cleanup(tr.conn.Close)
	u, err := url.Parse(server.URL())
	require.NoError(t, err)
	dir := t.TempDir()
	tr.output = filepath.Join(dir, "output")
	tr.order = order{
		Stream: log.URL(), Dir: dir,
		Source: component.SourceSpec{Name: tr.database[:5] + "-" + tr.database[6:], Kind: "postgres", Config: json.RawMessage(fmt.Sprintf(
			`{"host": "127.0.0.1", "port": %s, "database": %q, "user": "postgres", "sslMode": "disable", %s}`, u.Port(), tr.database, trialConfig))},
		Query: component.QuerySpec{Name: "all", Query: trialQuery, Checkpoint: component.Checkpoint{Seconds: 1}},
	}
	tr.order.Query.Sources = []string{tr.order.Source.Name}
	return tr
}

func (tr *trial) url() string { return tr.server.URLFor(tr.database, "postgres") }

func (tr *trial) run() {
	tr.start()
	tr.Cleanup(func() {
		if tr.Failed() {
			said, _ := os.ReadFile(tr.output)
			tr.Logf("faults: %s\nthe end of what the process said:\n%s", strings.Join(tr.faults, ", "), said[max(0, len(said)-64<<10):])
		}
		tr.kill()
		tr.remove()
	})
	writing, stop := context.WithCancel(tr.Context())
	defer stop()
	for number := range 8 {
		w := &trialWriter{Rand: rand.New(rand.NewPCG(tr.random.Uint64(), 0)), number: number, url: tr.url, commits: &tr.commits, running: &tr.running}
		tr.writers.Go(func() { w.run(writing) })
	}
	tr.faulty(tr.random.IntN(4), 700*time.Millisecond, killed, restarted, sending, holding, holding, reading)
	for deadline := time.Now().Add(trialBound); ; tr.wait(20 * time.Millisecond) {
		if _, _, err := tr.shown("FFFFFFFF/FFFFFFFF"); errors.Is(err, errBehind) {
			break
		}
		require.True(tr, time.Now().Before(deadline), "the query does not come to run")
	}
	tr.running.Store(true)
	tr.faulty(1+tr.random.IntN(3), 400*time.Millisecond, killed, lost, restarted, sending, sending)
	tr.wait(100 * time.Millisecond)
	stop()
	tr.writers.Wait()
	for {
		gid := clustertest.Text(tr, tr.url(), "SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
		if gid == "" {
			break
		}
		clustertest.Exec(tr, tr.url(), "ROLLBACK PREPARED '"+gid+"'")
	}
	tr.settle()
}

// settle waits until the query has seen everything, and compares.
func (tr *trial) settle() {
	begin := time.Now()
	want, err := tr.asked()
	require.NoError(tr, err)
	before := graph.Position(clustertest.Text(tr, tr.url(), "SELECT pg_current_wal_insert_lsn()"))
	clustertest.Exec(tr, tr.url(), "INSERT INTO doc VALUES (-1, 0, 'the last', NULL)")
	want = append(want, trialRow("doc", int64(-1), int64(0), "the last", nil))
	slices.Sort(want)
	var rows map[result.RowKey]string
	var sequence uint64
	for deadline := time.Now().Add(trialBound); ; tr.wait(20 * time.Millisecond) {
		if rows, sequence, err = tr.shown(before); err == nil && slices.Contains(slices.Collect(maps.Values(rows)), want[0]) {
			break
		}
		if time.Now().After(deadline) {
			tr.Fatalf("the query did not see everything in time: %v", err)
		}
	}
	require.Equal(tr, want, slices.Sorted(maps.Values(rows)), "the query has what SQL says")
	require.Equal(tr, rows, tr.replayed(sequence), "the result log adds up to the view")
	said, err := os.ReadFile(tr.output)
	require.NoError(tr, err)
	tr.Logf("%d transactions, %d rows; %s; %d times restored, %d copies went on; settled in %s", tr.commits.Load(), len(rows), strings.Join(tr.faults, ", "),
		strings.Count(string(said), "was restored from a checkpoint"), strings.Count(string(said), "the copy goes on"), time.Since(begin).Round(time.Millisecond))
}

// trialRow shows a row, large values by their hash.
func trialRow(values ...any) string {
	if body, ok := values[len(values)-1].(string); ok {
		values[len(values)-1] = fmt.Sprintf("%d %x", len(body), md5.Sum([]byte(body)))
	}
	text, _ := json.Marshal(values) // numbers and strings always marshal
	return string(text)
}

// asked returns what SQL says.
func (tr *trial) asked() ([]string, error) {
	conn, err := pgx.Connect(tr.Context(), tr.url())
	if err != nil {
		return nil, err
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(tr.Context(), trialSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		values, err := row.Values()
		return trialRow(values...), err
	})
}

func queryRow(values []graph.Value) string {
	shown := make([]any, len(values))
	for i, v := range values {
		switch v.Kind() {
		case graph.KindInt:
			shown[i] = v.AsInt()
		case graph.KindString:
			shown[i] = v.AsString()
		}
	}
	return trialRow(shown...)
}

var errBehind = errors.New("the query is behind")

// shown returns the rows of the query's view, if that is beyond a position, and the sequence of its last event.
func (tr *trial) shown(beyond graph.Position) (rows map[result.RowKey]string, sequence uint64, err error) {
	rows = make(map[result.RowKey]string)
	ctx, cancel := context.WithTimeout(tr.Context(), 10*time.Second)
	defer cancel()
	err = NewResults(tr.conn, "").Snapshot(ctx, tr.order.Query.Name, func(_ []string, s result.State) error {
		if sequence = s.Sequence; s.Positions[tr.order.Source.Name].Compare(beyond) <= 0 {
			return errBehind
		}
		return nil
	}, func(row result.Row) error {
		rows[row.Key] = queryRow(row.Values)
		return nil
	})
	return rows, sequence, err
}

// replayed adds up the result log to the event with a sequence: each event once and in order, each difference fitting the
// rows before it, and every sum over a whole transaction.
func (tr *trial) replayed(to uint64) map[result.RowKey]string {
	log, err := tr.conn.OpenLog(tr.Context(), resultLog("default", tr.order.Query.Name))
	require.NoError(tr, err)
	reader, err := log.Read(tr.Context(), 0)
	require.NoError(tr, err)
	defer reader.Close()
	ctx, cancel := context.WithTimeout(tr.Context(), 20*time.Second)
	defer cancel()
	rows := make(map[result.RowKey]string)
	for sequence := uint64(0); sequence < to; {
		m, err := reader.Next(ctx)
		require.NoError(tr, err)
		events, err := result.DecodeMessage(m.Data)
		require.NoError(tr, err)
		for _, e := range events {
			if isAnew(e) {
				clear(rows)
			} else {
				require.Equal(tr, sequence+1, e.Sequence)
			}
			sequence = e.Sequence
			for _, d := range e.Diffs {
				shown := rows[d.Key] // "": there is none
				delete(rows, d.Key)
				if d.Before != nil && queryRow(d.Before) != shown || d.Before == nil && shown != "" {
					tr.Fatalf("event %d does not fit: %q was there", sequence, shown)
				}
				if d.After != nil {
					rows[d.Key] = queryRow(d.After)
				}
				if d.After != nil && d.After[0].AsString() == "sum" && d.After[1].AsInt() != 0 {
					tr.Fatalf("event %d at %s shows a part of a transaction: %s", sequence, e.Position, rows[d.Key])
				}
			}
		}
	}
	return rows
}

// faulty makes faults, each within a while after the one before.
func (tr *trial) faulty(faults int, within time.Duration, choice ...string) {
	for range faults {
		tr.wait(time.Duration(tr.random.Int64N(int64(within))))
		tr.fault(choice[tr.random.IntN(len(choice))])
	}
}

// wait chooses the moment of a fault; no outcome depends on its length.
func (tr *trial) wait(d time.Duration) {
	select {
	case <-time.After(d):
	case err := <-tr.exited:
		tr.exited <- err
		tr.Fatalf("the process ended by itself: %v", err)
	}
}

// Faults: the process is killed, or the host of the process is lost with its disk, the server is restarted as after a crash, or processes of the server are ended.
const (
	killed    = "killed"
	lost      = "lost"
	restarted = "restarted"
	sending   = "sending"
	holding   = "holding"
	reading   = "reading"
)

var backends = map[string]string{
	sending: "backend_type = 'walsender'",
	holding: "application_name LIKE 'perdure/%' AND state = 'idle in transaction'",
	reading: "application_name LIKE 'perdure/%' AND backend_type = 'client backend' AND state = 'active'",
}

func (tr *trial) fault(name string) {
	switch name {
	case killed:
		tr.kill()
		tr.start()
	case lost:
		tr.kill()
		require.NoError(tr, os.RemoveAll(filepath.Join(tr.order.Dir, trialIndex)))
		tr.order.Lost++
		tr.start()
	case restarted:
		require.NoError(tr, tr.server.Restart(tr.Context(), true))
	default:
		ended := "0"
		for end := time.Now().Add(time.Second); ended == "0" && time.Now().Before(end); tr.wait(time.Millisecond) { // one may come
			ended = clustertest.Text(tr, tr.url(), "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = current_database() AND "+backends[name])
		}
		name = ended + " " + name
	}
	tr.faults = append(tr.faults, name)
}

func (tr *trial) start() {
	tr.order.Attempt++
	text, err := json.Marshal(tr.order)
	require.NoError(tr, err)
	output, err := os.OpenFile(tr.output, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(tr, err)
	defer output.Close()
	tr.child = exec.Command(os.Args[0], "-test.run=^TestPostgresUnderFaults$")
	tr.child.Env = append(os.Environ(), trialChild+"="+string(text))
	tr.child.Stdout, tr.child.Stderr = output, output
	stdin, err := tr.child.StdinPipe() // it ends when this process does
	require.NoError(tr, err)
	require.NoError(tr, tr.child.Start())
	child, exited := tr.child, make(chan error, 1)
	tr.stdin, tr.exited = stdin.Close, exited
	go func() { exited <- child.Wait() }()
}

func (tr *trial) kill() {
	_ = tr.child.Process.Kill() // it may have ended by itself, which wait says
	<-tr.exited
	tr.exited <- errors.New("killed")
	_ = tr.stdin()
}

// remove makes room on the server for other trials.
func (tr *trial) remove() {
	eventually(tr, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		conn, err := pgx.Connect(ctx, tr.server.URL())
		if err != nil {
			return false
		}
		defer conn.Close(ctx)
		for _, statement := range []string{
			"SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active AND database = '%s'",
			"SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = '%s'",
			"DROP DATABASE IF EXISTS %s WITH (FORCE)",
		} {
			if _, err := conn.Exec(ctx, fmt.Sprintf(statement, tr.database)); err != nil {
				return false
			}
		}
		return true
	}, "the database can be dropped")
}
