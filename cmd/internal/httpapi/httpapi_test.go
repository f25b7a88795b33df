package httpapi_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/httpapi"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeResults is a query "totals" whose position moves on by one transaction each time it is read.
type fakeResults struct {
	mu        sync.Mutex
	positions map[string][]graph.Position
	fail      error         // after the rows
	rows      int           // instead of two
	slow      time.Duration // between the state and the rows
	reads     int
}

func (f *fakeResults) Snapshot(ctx context.Context, query string, begin func([]string, result.State) error, visit func(result.Row) error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if query == "starting" {
		return failure.QueryNotReady.Errorf("query %s does not run at present", query)
	}
	if query != "totals" {
		return failure.QueryMissing.Errorf("query %s has no results", query)
	}
	state := result.State{Sequence: uint64(f.reads), Positions: make(map[string]graph.Position)}
	for source, list := range f.positions {
		state.Positions[source] = list[min(f.reads, len(list)-1)]
	}
	f.reads++
	if err := begin([]string{"customer", "open"}, state); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(f.slow):
	}
	rows := [][]graph.Value{{graph.String("Ann"), graph.Int(2)}, {graph.String("B\"ob"), graph.Value{}}}
	for i := range max(f.rows, len(rows)) {
		if err := visit(result.Row{Values: rows[i%len(rows)]}); err != nil {
			return err
		}
	}
	return f.fail
}

func (f *fakeResults) Follow(context.Context, string, uint64, func(*result.Event) error, func() error) error {
	return errors.New("not used")
}

func serve(t *testing.T, f *fakeResults, ready func(context.Context) error) func(path string) (int, string, string) {
	t.Helper()
	handler := httpapi.New(httpapi.Deps{
		Results: func(instance string) reaction.Results {
			require.Contains(t, []string{"default", "eu"}, instance)
			return f
		},
		Events: func(reaction.Results) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "events of "+r.PathValue("id")) })
		},
		Ready: ready,
	})
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	t.Cleanup(http.DefaultClient.CloseIdleConnections)
	return func(path string) (int, string, string) {
		res, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		if err != nil {
			return res.StatusCode, res.Header.Get("Content-Type"), err.Error()
		}
		return res.StatusCode, res.Header.Get("Content-Type"), string(body)
	}
}

func one(positions ...graph.Position) map[string][]graph.Position {
	return map[string][]graph.Position{"orders-db": positions}
}

func TestResults(t *testing.T) {
	get := serve(t, &fakeResults{positions: one("0/10")}, nil)
	for _, path := range []string{"/api/v1/queries/totals/results", "/api/v1/queries/eu.totals/results"} {
		status, contentType, body := get(path)
		require.Equal(t, http.StatusOK, status)
		require.Equal(t, "application/json", contentType)
		require.True(t, json.Valid([]byte(body)))
		require.Contains(t, body, `"positions":{"orders-db":"0/10"},"columns":["customer","open"],"rows":[{"customer":"Ann","open":2},{"customer":"B\"ob","open":null}]}`)
	}
}

func TestResultsWaitForAPosition(t *testing.T) {
	f := &fakeResults{positions: one("0/10", "0/FF", "1/0", "1/A0")}
	get := serve(t, f, nil)
	status, _, body := get("/api/v1/queries/totals/results?min_lsn=1/9f")
	require.Equal(t, http.StatusOK, status, body)
	require.Contains(t, body, `"sequence":3,"positions":{"orders-db":"1/A0"}`)
	require.Equal(t, 4, f.reads)
}

// TestTheTimeoutIsForTheWait shows that a result set may take longer to send than a reader waits for its position.
func TestTheTimeoutIsForTheWait(t *testing.T) {
	get := serve(t, &fakeResults{positions: one("0/10"), slow: 100 * time.Millisecond}, nil)
	status, _, body := get("/api/v1/queries/totals/results?min_lsn=0/10&timeout=50ms")
	require.Equal(t, http.StatusOK, status, body)
}

func TestResultsOfSeveralSourcesNeedToKnowWhosePosition(t *testing.T) {
	get := serve(t, &fakeResults{positions: map[string][]graph.Position{"a": {"0/5"}, "b": {"0/1", "0/2"}}}, nil)
	status, _, body := get("/api/v1/queries/totals/results?min_lsn=0/2")
	require.Equal(t, http.StatusBadRequest, status)
	require.Contains(t, body, "several sources, a, b")
	status, _, _ = get("/api/v1/queries/totals/results?min_lsn=0/2&source=b")
	require.Equal(t, http.StatusOK, status)
}

func TestProblems(t *testing.T) {
	get := serve(t, &fakeResults{positions: one("0/10")}, func(context.Context) error { return failure.StreamUnavailable.Errorf("no answer") })
	for path, want := range map[string]struct {
		status int
		code   string
	}{
		"/api/v1/queries/other/results":                                    {http.StatusNotFound, "QueryMissing"},
		"/api/v1/queries/starting/results":                                 {http.StatusServiceUnavailable, "QueryNotReady"},
		"/api/v1/queries/starting/results?min_lsn=0/11&timeout=30ms":       {http.StatusGatewayTimeout, "Timeout"},
		"/api/v1/queries/Other/results":                                    {http.StatusBadRequest, "ConfigInvalid"},
		"/api/v1/queries/a.b.c/results":                                    {http.StatusBadRequest, "ConfigInvalid"},
		"/api/v1/queries/a.B/events":                                       {http.StatusBadRequest, "ConfigInvalid"},
		"/api/v1/queries/totals/results?min_lsn=here%20":                   {http.StatusBadRequest, "ConfigInvalid"},
		"/api/v1/queries/totals/results?timeout=long":                      {http.StatusBadRequest, "ConfigInvalid"},
		"/api/v1/queries/totals/results?min_lsn=0/11&timeout=30ms":         {http.StatusGatewayTimeout, "Timeout"},
		"/api/v1/queries/other/results?min_lsn=0/11&timeout=30ms":          {http.StatusGatewayTimeout, "Timeout"},
		"/api/v1/queries/totals/results?min_lsn=0/1&source=b&timeout=30ms": {http.StatusGatewayTimeout, "Timeout"},
		"/api/v1/health":  {http.StatusServiceUnavailable, "StreamUnavailable"},
		"/api/v1/nothing": {http.StatusNotFound, ""},
	} {
		status, contentType, body := get(path)
		require.Equal(t, want.status, status, path)
		require.Equal(t, "application/problem+json", contentType, path)
		var p struct{ Title, Detail, Code string }
		require.NoError(t, json.Unmarshal([]byte(body), &p), path)
		require.Equal(t, want.code, p.Code, path)
		require.NotEmpty(t, p.Title, path)
		require.NotEmpty(t, p.Detail, path)
	}
}

func TestAResultSetThatBreaksOffIsNotTakenForWhole(t *testing.T) {
	f := &fakeResults{positions: one("0/10"), fail: failure.StreamUnavailable.Errorf("gone")}
	get := serve(t, f, nil)
	status, contentType, body := get("/api/v1/queries/totals/results")
	require.Equal(t, http.StatusServiceUnavailable, status, "nothing was sent yet")
	require.Equal(t, "application/problem+json", contentType)
	require.Contains(t, body, "StreamUnavailable")

	f.rows = 10_000
	_, _, body = get("/api/v1/queries/totals/results")
	require.Contains(t, body, "unexpected EOF")
}

// TestAReaderThatStopsReadingIsLetGo shows that it does not hold the result set for ever.
func TestAReaderThatStopsReadingIsLetGo(t *testing.T) {
	handler := httpapi.New(httpapi.Deps{
		Results:      func(string) reaction.Results { return &fakeResults{positions: one("0/10"), rows: 1_000_000} },
		WriteTimeout: 50 * time.Millisecond,
	})
	ended := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		handler.ServeHTTP(w, r)
	}))
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	require.NoError(t, err)
	defer conn.Close()
	_, err = io.WriteString(conn, "GET /api/v1/queries/totals/results HTTP/1.1\r\nHost: here\r\n\r\n")
	require.NoError(t, err)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("it still sends")
	}
}

func TestTheRest(t *testing.T) {
	get := serve(t, &fakeResults{positions: one("0/10")}, nil)
	for path, want := range map[string]string{
		"/livez":                           `{"status":"ok"}` + "\n",
		"/readyz":                          `{"status":"ok"}` + "\n",
		"/api/v1/health":                   `{"status":"ok"}` + "\n",
		"/api/v1/queries/eu.totals/events": "events of totals",
	} {
		status, _, body := get(path)
		require.Equal(t, http.StatusOK, status, path)
		require.Equal(t, want, body, path)
	}
	_, _, body := get("/api/v1/version")
	require.Contains(t, body, `"version":"dev"`)
}

func TestHealthListsLoops(t *testing.T) {
	var problem error
	loops := []activities.Loop{{
		Component: "source.default.shop", Generation: 3, Since: time.Unix(0, 0), Silent: 1240 * time.Millisecond,
		Status: pipeline.Status{Phase: "streaming", Position: "0/42", Offset: 7, Intake: &pipeline.IntakeStatus{Failures: 2}},
	}}
	server := httptest.NewServer(httpapi.New(httpapi.Deps{
		Ready: func(context.Context) error { return problem }, Alive: func() error { return problem }, Loops: func() []activities.Loop { return loops },
	}))
	defer server.Close()
	defer http.DefaultClient.CloseIdleConnections()
	get := func(path string, status int) string {
		res, err := http.Get(server.URL + path)
		require.NoError(t, err)
		defer res.Body.Close()
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.Equal(t, status, res.StatusCode)
		return string(body)
	}
	const listed = `"loops":[{"component":"source.default.shop","generation":"3","since":"1970-01-01T00:00:00Z","phase":"streaming","position":"0/42","offset":"7","intake":{"failures":2},"silentSeconds":1.2}]`
	require.Equal(t, `{"status":"ok",`+listed+"}\n", get("/api/v1/health", http.StatusOK))
	require.Equal(t, `{"status":"ok"}`+"\n", get("/livez", http.StatusOK))
	problem = failure.Stalled.Errorf("no progress of source.default.shop for 40s")
	require.Contains(t, get("/api/v1/health", http.StatusServiceUnavailable), listed)
	for _, path := range []string{"/readyz", "/livez"} {
		body := get(path, http.StatusServiceUnavailable)
		require.Contains(t, body, `"detail":"no progress of source.default.shop for 40s","code":"Stalled"`)
		require.NotContains(t, body, "loops")
	}
}
