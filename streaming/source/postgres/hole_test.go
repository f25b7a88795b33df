package postgres_test

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestBlackHoleAtEachStep: packets begin to vanish when the server has been told something, so that nobody learns what it
// made of it. Whatever that was fails within its bound, in a way that is tried again, and then it succeeds.
func TestBlackHoleAtEachStep(t *testing.T) {
	const bound = 20 * time.Second // a statement's is 5.5 s here; some need several, and connections are hung up
	type attempt struct {
		name      string
		hole      *hole
		op        func(context.Context) error
		err, last error
		took      time.Duration
	}
	var attempts []*attempt
	for _, step := range []struct {
		name    string
		prepare func(*station) func(context.Context) error
		told    []string
	}{
		{"provision", func(s *station) func(context.Context) error {
			require.NoError(t, s.direct.Teardown(t.Context()))
			return s.through.Provision
		}, []string{"CREATE PUBLICATION", "pg_create_logical_replication_slot", " made at "}},
		{"teardown", func(s *station) func(context.Context) error {
			return s.through.Teardown
		}, []string{"pg_drop_replication_slot", "DROP PUBLICATION"}},
		{"stream", func(s *station) func(context.Context) error {
			return s.stream
		}, []string{"IDENTIFY_SYSTEM", "START_REPLICATION"}},
		{"hold a snapshot", func(s *station) func(context.Context) error {
			return func(ctx context.Context) error {
				ctx, cancel := context.WithTimeout(ctx, 12*time.Second) // longer than it takes to notice
				defer cancel()
				return s.through.HoldSnapshot(ctx, func(source.Snapshot) error { return nil }, func() {})
			}
		}, []string{"CREATE_REPLICATION_SLOT", "SET TRANSACTION SNAPSHOT", "pg_export_snapshot", "ROLLBACK TO look", "SELECT 1\x00"}},
		{"plan, copy and verify", func(s *station) func(context.Context) error {
			snapshot, _ := hold(t, s.direct)
			return func(ctx context.Context) error {
				plan, err := s.through.PlanSnapshot(ctx, snapshot, nil)
				if err != nil {
					return err
				}
				chunk := source.Chunk{Scope: plan.Scopes[0], To: plan.Scopes[0].Places}
				if err := sourcetest.ReadChunk(ctx, s.through, snapshot, chunk, func([]graph.Change) error { return nil }); err != nil {
					return err
				}
				return s.through.VerifySnapshot(ctx, snapshot)
			}
		}, []string{"pg_relation_size", "SET TRANSACTION SNAPSHOT", "COPY (", "IDENTIFY_SYSTEM"}},
	} {
		for _, told := range step.told {
			s := newStation(t)
			a := &attempt{name: step.name + ": " + told, hole: s.hole, op: step.prepare(s)}
			s.hole.opensAt(told)
			attempts = append(attempts, a)
		}
	}
	var wg sync.WaitGroup
	for _, a := range attempts {
		wg.Go(func() {
			began := time.Now()
			a.err = a.op(t.Context())
			a.took = time.Since(began)
			a.hole.closes()
			for began := time.Now(); time.Since(began) < bound; {
				if a.last = a.op(t.Context()); a.last == nil || !failure.ClassOf(a.last).Retryable() {
					return
				}
			}
		})
	}
	wg.Wait()
	for _, a := range attempts {
		t.Logf("%s: after %s: %v", a.name, a.took.Round(time.Millisecond), a.err)
		require.Error(t, a.err, a.name)
		require.True(t, failure.ClassOf(a.err).Retryable(), "%s: %v", a.name, a.err)
		require.Less(t, a.took, bound, a.name)
		require.NoError(t, a.last, a.name)
	}
}

// TestSnapshotIsChecked has the server say of a snapshot what must not be.
func TestSnapshotIsChecked(t *testing.T) {
	s := newStation(t)
	hold := func() error {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		return s.through.HoldSnapshot(ctx, func(source.Snapshot) error { cancel(); return nil }, func() {})
	}
	for want, lie := range map[string]lie{
		"the isolation level is read committed!": {truth: "repeatable read", instead: "read committed!"},
		"is not before the server's":             {among: "_snap_", truth: "0/", instead: "9/"}, // the slot's consistent point
	} {
		s.hole.lies(lie)
		err := hold()
		require.ErrorContains(t, err, want)
		require.Equal(t, failure.SnapshotLost, failure.CodeOf(err), "%v", err)
	}
	s.hole.lies(lie{})
	require.NoError(t, hold())
}

// station is a source that reaches its server through a hole, and the same one without.
type station struct {
	t               *testing.T
	direct, through fullSource
	hole            *hole
}

func newStation(t *testing.T) *station {
	d := newDB(t)
	d.exec("CREATE TABLE a (id serial PRIMARY KEY)")
	u, err := url.Parse(d.url)
	require.NoError(t, err)
	h := newHole(t, u.Host)
	const table = `"tables": [{"name": "a"}]`
	s := &station{t: t, direct: d.source(table), hole: h}
	d.exec("INSERT INTO a DEFAULT VALUES")
	d.url = strings.Replace(d.url, u.Host, h.address, 1)
	through, err := postgres.Factory{}.New(d.config(table+`, "connectTimeout": "2s", "statementTimeout": "500ms", "receiveTimeout": "1s", "slotTimeout": "1s"`), d.settings())
	require.NoError(t, err)
	s.through = through.(fullSource)
	return s
}

// stream reads until there is a row.
func (s *station) stream(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	sink := sourcetest.NewSink("")
	done := make(chan error, 1)
	go func() { done <- s.through.Run(ctx, "", sink) }()
	for ctx.Err() == nil && len(sink.Transactions()) == 0 && len(done) == 0 {
		time.Sleep(tick)
	}
	cancel()
	if err := <-done; err != nil {
		return err
	}
	if len(sink.Transactions()) == 0 {
		return errors.New("nothing came")
	}
	return nil
}

// hole is a proxy that, from some moment on, lets nothing through in either direction, nor on connections that come.
type hole struct {
	address string

	mu   sync.Mutex
	told string // by a client: it opens; "": it does not
	open bool
	lie  lie
	era  int // connections of before it was closed stay as they were: nothing passes
}

// lie is what is put in place of the truth, as long as that, in answers with something else in them.
type lie struct{ among, truth, instead string }

func newHole(t *testing.T, server string) *hole {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	h := &hole{address: listener.Addr().String()}
	var proxies sync.WaitGroup
	t.Cleanup(func() {
		require.NoError(t, listener.Close())
		proxies.Wait()
	})
	proxies.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			behind, err := net.Dial("tcp", server)
			if err != nil {
				_ = client.Close() // the server has ended
				continue
			}
			h.mu.Lock()
			era := h.era
			h.mu.Unlock()
			proxies.Go(func() {
				h.copy(client, behind, func(answer []byte) bool { return h.answers(era, answer) })
				if h.passes(era) { // or its end vanishes too
					_ = client.Close()
				}
			})
			proxies.Go(func() {
				h.copy(behind, client, func(said []byte) bool { return h.tells(era, said) }) // until the client gives up
				_, _ = client.Close(), behind.Close()
			})
		}
	})
	return h
}

func (h *hole) copy(to, from net.Conn, passes func([]byte) bool) {
	buffer := make([]byte, 32<<10)
	for {
		n, err := from.Read(buffer)
		if passes(buffer[:n]) {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (h *hole) opensAt(told string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told = told
}

func (h *hole) lies(l lie) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.lie = l
}

func (h *hole) closes() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.told, h.open = "", false
	h.era++
}

func (h *hole) passes(era int) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return era == h.era && !h.open
}

// answers is passes for what a server says.
func (h *hole) answers(era int, said []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if at := bytes.Index(said, []byte(h.lie.truth)); at >= 0 && h.lie.truth != "" && bytes.Contains(said, []byte(h.lie.among)) {
		copy(said[at:], h.lie.instead)
	}
	return era == h.era && !h.open
}

// tells is passes for what a client says, which is the last to come through if it is what the hole opens at.
func (h *hole) tells(era int, said []byte) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	passes := era == h.era && !h.open
	if passes && h.told != "" && bytes.Contains(said, []byte(h.told)) {
		h.open = true
	}
	return passes
}
