package sse

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/reaction/reactiontest"
	"github.com/perdure/perdure/streaming/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a query's results in memory, with the meaning that reaction.Results has.
type journal struct {
	mu     sync.Mutex
	moved  chan struct{}
	events []*result.Event
	first  uint64 // oldest event that is kept
	rows   int    // in the snapshot
}

func newJournal() *journal { return &journal{moved: make(chan struct{}), first: 1, rows: 1} }

func (j *journal) add(n int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for range n {
		sequence := uint64(len(j.events) + 1)
		j.events = append(j.events, &result.Event{
			Sequence: sequence, Source: "shop", Columns: []string{"id"},
			Diffs: []result.Diff{{Op: result.Added, After: []graph.Value{graph.Int(int64(sequence))}}},
		})
	}
	close(j.moved)
	j.moved = make(chan struct{})
}

func (j *journal) Snapshot(_ context.Context, query string, begin func([]string, result.State) error, visit func(result.Row) error) error {
	if query != "late" {
		return failure.QueryMissing.Errorf("query %s is not running", query)
	}
	j.mu.Lock()
	sequence, rows := uint64(len(j.events)), j.rows
	j.mu.Unlock()
	if err := begin([]string{"id"}, result.State{Sequence: sequence, Positions: map[string]graph.Position{"shop": "0/1"}}); err != nil {
		return err
	}
	for i := range rows {
		if err := visit(result.Row{Values: []graph.Value{graph.Int(int64(i))}}); err != nil {
			return err
		}
	}
	return nil
}

func (j *journal) Follow(ctx context.Context, _ string, after uint64, visit func(*result.Event) error, _ func() error) error {
	for {
		j.mu.Lock()
		if after+1 < j.first {
			j.mu.Unlock()
			return failure.StreamTrimmed.Errorf("trimmed")
		}
		var next *result.Event
		if after < uint64(len(j.events)) {
			next = j.events[after]
		}
		moved := j.moved
		j.mu.Unlock()
		if next == nil {
			select {
			case <-moved:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err := visit(next); err != nil {
			return err
		}
		after++
	}
}

type received struct{ kind, id, data string }

// stream opens an event stream; next reads its events.
func stream(t *testing.T, url, lastID string) (next func() received) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	require.NoError(t, err)
	if lastID != "" {
		request.Header.Set("Last-Event-ID", lastID)
	}
	client := &http.Client{Transport: &http.Transport{}}
	response, err := client.Do(request)
	require.NoError(t, err)
	t.Cleanup(func() {
		cancel()
		_ = response.Body.Close()
		client.CloseIdleConnections()
	})
	require.Equal(t, http.StatusOK, response.StatusCode)
	require.Equal(t, "text/event-stream", response.Header.Get("Content-Type"))
	require.Equal(t, "no", response.Header.Get("X-Accel-Buffering"))
	lines := bufio.NewReader(response.Body)
	return func() received {
		var r received
		for {
			line, err := lines.ReadString('\n')
			require.NoError(t, err)
			name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
			switch name {
			case "event":
				r.kind = value
			case "id":
				r.id = value
			case "data":
				r.data = value
			case "":
				if r.kind != "" {
					return r
				}
			}
		}
	}
}

func serve(t *testing.T, j *journal, o Options) string {
	mux := http.NewServeMux()
	mux.Handle("GET /queries/{id}/events", NewHandler(j, o))
	s := httptest.NewServer(mux)
	t.Cleanup(func() {
		s.CloseClientConnections()
		s.Close()
	})
	return s.URL + "/queries/"
}

func TestSnapshotThenDiffs(t *testing.T) {
	j := newJournal()
	j.add(3)
	next := stream(t, serve(t, j, Options{})+"late/events", "")
	require.Equal(t, received{"snapshot", "3", `{"columns":["id"],"positions":{"shop":"0/1"},"sequence":3,"rows":[{"key":"` + result.RowKey{}.String() + `","row":{"id":0}}]}`}, next())
	j.add(2)
	for _, want := range []string{"4", "5"} {
		e := next()
		require.Equal(t, "diff", e.kind)
		require.Equal(t, want, e.id)
		var diff struct{ Sequence json.Number }
		require.NoError(t, json.Unmarshal([]byte(e.data), &diff))
		require.Equal(t, want, diff.Sequence.String())
	}
}

func TestResume(t *testing.T) {
	j := newJournal()
	j.add(5)
	next := stream(t, serve(t, j, Options{})+"late/events", "3")
	require.Equal(t, "4", next().id)
	require.Equal(t, "5", next().id)
}

func TestResumeWhatIsTrimmedBeginsAnew(t *testing.T) {
	j := newJournal()
	j.add(5)
	j.first = 5
	next := stream(t, serve(t, j, Options{})+"late/events", "2")
	e := next()
	require.Equal(t, "snapshot", e.kind)
	require.Equal(t, "5", e.id)
}

func TestResultSetBuiltAnew(t *testing.T) {
	j := newJournal()
	j.add(1)
	next := stream(t, serve(t, j, Options{})+"late/events", "")
	require.Equal(t, "snapshot", next().kind)
	j.mu.Lock()
	j.events = append(j.events, &result.Event{Sequence: 2, Snapshot: true})
	j.mu.Unlock()
	j.add(1)
	e := next()
	require.Equal(t, "snapshot", e.kind)
	require.Equal(t, "3", e.id)
}

func TestHeartbeat(t *testing.T) {
	j := newJournal()
	next := stream(t, serve(t, j, Options{Heartbeat: 20 * time.Millisecond})+"late/events", "")
	require.Equal(t, "snapshot", next().kind)
	require.Equal(t, received{"heartbeat", "0", `{"sequence":0}`}, next())
	j.add(1)
	for e := next(); e.kind != "diff"; e = next() {
		require.Equal(t, "heartbeat", e.kind)
	}
	require.Equal(t, received{"heartbeat", "1", `{"sequence":1}`}, next())
}

func TestMissingQuery(t *testing.T) {
	url := serve(t, newJournal(), Options{})
	for path, want := range map[string]int{"other/events": http.StatusNotFound, "late/events?lastEventId=x": http.StatusBadRequest} {
		response, err := http.Get(url + path) //nolint:noctx // a test
		require.NoError(t, err)
		require.NoError(t, response.Body.Close())
		require.Equal(t, want, response.StatusCode)
	}
	http.DefaultClient.CloseIdleConnections()
}

// TestSlowClientIsDropped lets a client read nothing of a large snapshot: the handler must return by itself.
func TestSlowClientIsDropped(t *testing.T) {
	j := newJournal()
	j.rows = 5_000_000
	ended := make(chan struct{})
	mux := http.NewServeMux()
	h := NewHandler(j, Options{WriteTimeout: 50 * time.Millisecond})
	mux.HandleFunc("GET /queries/{id}/events", func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		h.ServeHTTP(w, r)
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	_, err = conn.Write([]byte("GET /queries/late/events HTTP/1.1\r\nHost: x\r\n\r\n"))
	require.NoError(t, err)
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the handler waits for a client that does not read")
	}
}

func TestReaction(t *testing.T) {
	j := newJournal()
	j.add(1)
	r, err := Factory{}.New(json.RawMessage(`{"listen":"127.0.0.1:0"}`), reaction.Settings{Queries: []string{"late"}, Log: zap.NewNop()})
	require.NoError(t, err)
	s := r.(*server)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, j) }()
	address := (<-s.listening).String()
	next := stream(t, "http://"+address+"/queries/late/events", "")
	require.Equal(t, "snapshot", next().kind)

	taken, err := Factory{}.New(json.RawMessage(`{"listen":"`+address+`"}`), reaction.Settings{Log: zap.NewNop()})
	require.NoError(t, err)
	err = taken.(reaction.Server).Serve(ctx, j)
	require.Equal(t, failure.PortInUse, failure.CodeOf(err))
	require.ErrorContains(t, err, address)

	stop()
	require.NoError(t, <-done)
	require.NoError(t, r.Close(t.Context()))
}

func TestBadConfig(t *testing.T) {
	_, err := Factory{}.New(json.RawMessage(`{"listen":"nowhere","heartbeat":"1ms","port":1}`), reaction.Settings{})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	require.ErrorContains(t, err, "listen: must be host:port")
	require.ErrorContains(t, err, "heartbeat: must be at least 10ms")
	require.ErrorContains(t, err, "port: unknown field")
}

func TestConformance(t *testing.T) {
	reactiontest.RunServer(t, Factory{}, `{"listen":"127.0.0.1:0"}`, newJournal(), []reactiontest.BadConfig{
		{Config: `{"listen":"nowhere","heartbeat":"1ms"}`, Problems: []string{"listen: must be host:port", "heartbeat: must be at least"}},
	})
}
