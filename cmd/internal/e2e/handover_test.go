package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/followtest"
)

// TestWorkerThatIsToldToStopHandsOver: under load, a worker that gets SIGTERM ends with success, and another one goes on
// where it was, with the source and with the query, whose state it takes from the checkpoint. Then the other way round.
func TestWorkerThatIsToldToStopHandsOver(t *testing.T) {
	const bound, eventsEach = 5 * time.Second, 20
	s := newSystem(t, apart(t), externalWorkers)
	s.env = append(s.env, "PERDURE_LOG_LEVEL=info") // so that workers say when they work
	worker := s.startWorker("worker-0")
	s.startOrders()
	var silence silence
	replay := followtest.NewReplay("open-orders")
	replay.Look = func(followtest.Event) error { silence.end(); return nil }
	f := s.followInto(replay)
	writers := s.openShop(9, 2)
	s.requireProgress(f, 30*time.Second, "before")
	conn := s.connect()
	rounds := numberOf(t, "PERDURE_E2E_HAND_OVERS", 2)
	for round := 1; round <= rounds; round++ {
		other := s.startWorker(fmt.Sprint("worker-", round%2))
		awaitWorking(t, other)
		before, err := s.reader(conn)
		require.NoError(t, err)
		was, err := s.status("query.default.open-orders")
		require.NoError(t, err)
		silence.begin()
		told := time.Now()
		worker.terminate(t, 60*time.Second)
		ended := time.Since(told)
		eventually(t, 60*time.Second, "another reader of the slot", func() error {
			now, err := s.reader(conn)
			if err == nil && now == before {
				err = fmt.Errorf("it is still %d", now)
			}
			return err
		})
		source := time.Since(told)
		s.requireProgress(f, 2*time.Minute, "with the other worker")
		query := silence.longest()
		t.Logf("the worker ended after %s; the source was read on after %s, and no event came for %s",
			ended.Round(time.Millisecond), source.Round(time.Millisecond), query.Round(time.Millisecond))
		require.Less(t, source, bound)
		require.Less(t, query, bound)
		require.Contains(t, other.output.tail(1<<20), "restored from a checkpoint")
		is := s.awaitPhase("query.default.open-orders", "Running", 10*time.Second)
		require.Nil(t, is.Breaker.LastError)
		require.LessOrEqual(t, is.History.Events, was.History.Events+eventsEach)
		worker = other
	}
	writers.close()
	s.requireEqualsSQL(f, 60*time.Second)
	require.Zero(t, f.Anew())
	require.Equal(t, 1, s.bootstraps("query.default.open-orders"))
}

// TestOnlyWorkerThatStops: nothing fails while there is no worker. When it comes back it goes on with the state on its disk;
// another one that comes instead goes on as well, and waits for nobody.
func TestOnlyWorkerThatStops(t *testing.T) {
	const bound = 10 * time.Second // of which the start of a process takes some
	s := newSystem(t, apart(t), externalWorkers)
	s.env = append(s.env, "PERDURE_LOG_LEVEL=info")
	worker := s.startWorker("worker-0")
	s.startOrders()
	f := s.follow("open-orders")
	writers := s.openShop(9, 2)
	s.requireProgress(f, 30*time.Second, "before")
	for _, next := range []string{"worker-0", "worker-0", "worker-1"} {
		worker.terminate(t, 60*time.Second)
		before, _, _ := f.State()
		worker = s.startWorker(next)
		began := time.Now()
		eventually(t, 60*time.Second, "an event", func() error {
			if after, _, faults := f.State(); after <= before {
				return fmt.Errorf("none after %d; %v", before, faults)
			}
			return nil
		})
		took := time.Since(began)
		t.Logf("an event came %s after the start of %s", took.Round(time.Millisecond), next)
		require.Less(t, took, bound)
		restored := strings.Contains(worker.output.tail(1<<20), "restored from a checkpoint")
		require.Equal(t, next == "worker-1", restored)
		s.requireProgress(f, 60*time.Second, "with "+next)
		require.Nil(t, s.awaitPhase("query.default.open-orders", "Running", 10*time.Second).Breaker.LastError)
	}
	writers.close()
	s.requireEqualsSQL(f, 60*time.Second)
	require.Zero(t, f.Anew())
	require.Equal(t, 1, s.bootstraps("query.default.open-orders"))
}

// awaitWorking waits until a worker that logs at level info takes tasks, or is about to.
func awaitWorking(t *testing.T, worker *process) {
	t.Helper()
	eventually(t, 30*time.Second, "another worker", func() error {
		if !strings.Contains(worker.output.tail(1<<20), "working") {
			return fmt.Errorf("it says %q", worker.output.tail(1000))
		}
		return nil
	})
}

// reader returns the process of the server that serves the slot, and an error while there is none.
func (s *system) reader(conn *pgx.Conn) (pid int, err error) {
	err = conn.QueryRow(s.context(10*time.Second), `SELECT active_pid FROM pg_replication_slots WHERE active`).Scan(&pid)
	return pid, err
}

// silence measures the longest time between events. It is safe for concurrent use.
type silence struct {
	mu   sync.Mutex
	last time.Time
	most time.Duration
}

func (s *silence) begin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last, s.most = time.Now(), 0
}

func (s *silence) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	s.last, s.most = now, max(s.most, now.Sub(s.last))
}

func (s *silence) longest() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.most
}

// TestPortThatIsTakenIsFreed: a reaction whose port is taken says so and hurts no other one; when the port is free, it runs.
func TestPortThatIsTakenIsFreed(t *testing.T) {
	s := newSystem(t, apart(t))
	s.startOrders()
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1)[0]))
	require.NoError(t, err)
	defer listener.Close() //nolint:errcheck // it is closed by then
	address := listener.Addr().String()
	output := filepath.Join(t.TempDir(), "lines")
	s.startComponent("Reaction", "reaction.default.serve", object{"spec": object{
		"name": "serve", "kind": "sse", "queries": []string{"open-orders"}, "config": object{"listen": address},
	}})
	s.startComponent("Reaction", "reaction.default.lines", object{"spec": object{
		"name": "lines", "kind": "log", "queries": []string{"open-orders"}, "config": object{"output": output},
	}})
	s.requireShown(s.awaitPhase("reaction.default.serve", "NeedsOperator", 60*time.Second), "PortInUse")
	s.awaitPhase("reaction.default.lines", "Running", 60*time.Second)
	execSQL(t, s.connect(), `INSERT INTO orders (customer_id, total) VALUES (3, 99.90)`)
	eventually(t, 30*time.Second, "the result with the other reaction", func() error {
		text, err := os.ReadFile(output)
		if err == nil && !strings.Contains(string(text), "customer 3") {
			err = fmt.Errorf("it was given %q", text)
		}
		return err
	})

	require.NoError(t, listener.Close())
	s.signal("reaction.default.serve", "resume")
	s.awaitPhase("reaction.default.serve", "Running", 60*time.Second)
	f := followtest.New(followtest.NewReplay("open-orders"), "http://"+address)
	ctx, cancel := context.WithCancel(t.Context())
	followed := make(chan struct{})
	go func() { defer close(followed); f.Run(ctx) }()
	defer func() { cancel(); <-followed }()
	eventually(t, 30*time.Second, "a snapshot", f.Started)
}
