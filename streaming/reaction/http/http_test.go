package http

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/reaction/reactiontest"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// receiver is a real HTTP server that remembers what it was sent.
type receiver struct {
	server *httptest.Server

	mu     sync.Mutex
	got    []reactiontest.Got
	bodies []string
	header []http.Header
	status int
	reply  http.Header
	hang   chan struct{} // while not nil, requests wait for it
}

func newReceiver(t *testing.T) *receiver {
	r := &receiver{status: http.StatusNoContent}
	r.server = httptest.NewServer(r)
	t.Cleanup(r.server.Close)
	return r
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, request *http.Request) {
	body, err := io.ReadAll(request.Body)
	if err != nil {
		return
	}
	r.mu.Lock()
	hang := r.hang
	r.mu.Unlock()
	if hang != nil {
		select {
		case <-hang:
		case <-request.Context().Done():
			return
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.bodies, r.header = append(r.bodies, string(body)), append(r.header, request.Header)
	for name, values := range r.reply {
		w.Header()[name] = values
	}
	if r.status < 300 {
		var event struct {
			Query    string
			Sequence uint64
			Diffs    []struct{ After struct{ ID int64 } }
		}
		if err := json.Unmarshal(body, &event); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		for _, d := range event.Diffs {
			r.got = append(r.got, reactiontest.Got{Query: event.Query, Sequence: event.Sequence, ID: d.After.ID})
		}
	}
	w.WriteHeader(r.status)
	_, _ = io.WriteString(w, "said")
}

func (r *receiver) answer(status int, header http.Header) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.reply = status, header
}

func (r *receiver) Config() json.RawMessage {
	return json.RawMessage(`{"url":"` + r.server.URL + `/hook"}`)
}

func (r *receiver) Got(*testing.T) []reactiontest.Got {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]reactiontest.Got(nil), r.got...)
}

func (r *receiver) Break(_ *testing.T, hang bool) (mend func(), ok bool) {
	if !hang {
		r.answer(http.StatusServiceUnavailable, nil)
		return func() { r.answer(http.StatusNoContent, nil) }, true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	hanging := make(chan struct{})
	r.hang = hanging
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.hang = nil
		close(hanging)
	}, true
}

func TestConformance(t *testing.T) {
	reactiontest.Run(t, reactiontest.Fixture{
		Factory: Factory{},
		Target:  func(t *testing.T) reactiontest.Target { return newReceiver(t) },
		Bad: []reactiontest.BadConfig{
			{Config: `{}`, Problems: []string{"url: is required"}},
			{
				Config:   `{"url":"ftp://x","token":"hunter2","headers":{"a b":"","idempotency-key":"1","X":"a\nb","Y":"a\u0001b"}}`,
				Problems: []string{"url: must begin with http", "token: must be a reference", `"a b" is not the name of a header`, "headers.idempotency-key: is set", "headers.X: must hold no control", "headers.Y: must hold no control"},
			},
			{Config: `{"url":"https://me:pw@host/"}`, Problems: []string{"url: must hold no user"}},
		},
	})
}

func start(t *testing.T, config string) reaction.Deliverer {
	r, err := Factory{}.New(json.RawMessage(config), reaction.Settings{Name: "notify", Secret: component.ResolveSecret})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, r.Close(t.Context())) })
	return r.(reaction.Deliverer)
}

var late = reaction.Delivery{Query: "late", Key: "default.notify:late:17", Event: &result.Event{
	Sequence: 17, Source: "shop", Position: "0/1A", CommitTime: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Columns: []string{"id"},
	Diffs: []result.Diff{{Op: result.Deleted, Before: []graph.Value{graph.Int(4)}}},
}}

func TestPost(t *testing.T) {
	t.Setenv("HOOK_TOKEN", "s3cret")
	target := newReceiver(t)
	r := start(t, `{"url":"`+target.server.URL+`/hook","token":{"$secret":"env:HOOK_TOKEN"},"headers":{"X-Team":"blue"}}`)
	require.NoError(t, r.Deliver(t.Context(), late))
	require.JSONEq(t, `{
		"reaction": "notify", "query": "late", "sequence": 17, "source": "shop", "position": "0/1A",
		"commitTime": "2026-01-02T03:04:05Z", "snapshot": false,
		"diffs": [{"op": "deleted", "key": "00000000000000000000000000000000", "before": {"id": 4}}]}`, target.bodies[0])
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Authorization": "Bearer s3cret", "X-Team": "blue",
		"Idempotency-Key": "default.notify:late:17", "Perdure-Query": "late", "Perdure-Sequence": "17",
	} {
		require.Equal(t, want, target.header[0].Get(name), name)
	}
	require.Empty(t, target.header[0].Get("Traceparent"))
	t.Setenv("HOOK_TOKEN", "other")
	followed := telemetry.Transaction{Instance: "default", Source: "shop", Position: "0/1A"}
	require.NoError(t, r.Deliver(followed.DeliveryContext(t.Context(), late.Key), late))
	require.Contains(t, target.header[1].Get("Traceparent"), "00-"+followed.TraceID().String()+"-")
	require.Equal(t, "Bearer other", target.header[1].Get("Authorization"), "the token was rotated")

	missing := start(t, `{"url":"`+target.server.URL+`","token":{"$secret":"env:PERDURE_TEST_NONE"}}`)
	require.Equal(t, failure.SecretMissing, failure.CodeOf(missing.Deliver(t.Context(), late)))

	t.Setenv("HOOK_TOKEN", "s3cret\nand another line")
	err := r.Deliver(t.Context(), late)
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), "no try can succeed")
	require.ErrorContains(t, err, "env:HOOK_TOKEN")
	require.NotContains(t, err.Error(), "s3cret")
}

func TestAnswers(t *testing.T) {
	target := newReceiver(t)
	r := start(t, string(target.Config()))
	for status, want := range map[int]*failure.Code{
		200: nil, 201: nil, 204: nil,
		301: failure.ConfigInvalid, 307: failure.ConfigInvalid,
		400: failure.DeliveryRejected, 404: failure.DeliveryRejected, 409: failure.DeliveryRejected, 422: failure.DeliveryRejected,
		401: failure.AuthFailed, 403: failure.AuthFailed, 407: failure.AuthFailed,
		408: failure.DeliveryFailed, 425: failure.DeliveryFailed, 429: failure.DeliveryFailed,
		500: failure.DeliveryFailed, 502: failure.DeliveryFailed, 503: failure.DeliveryFailed,
	} {
		target.answer(status, http.Header{"Location": {"http://elsewhere.test/"}})
		err := r.Deliver(t.Context(), late)
		if want == nil {
			require.NoError(t, err)
			continue
		}
		require.Equal(t, want, failure.CodeOf(err), "%d: %v", status, err)
		require.ErrorContains(t, err, "said")
	}
	target.answer(429, http.Header{"Retry-After": {"7"}})
	var wait reaction.Wait
	require.ErrorAs(t, r.Deliver(t.Context(), late), &wait)
	require.Equal(t, 7*time.Second, time.Duration(wait))
}

// TestTakenAndNotEnded: that it was taken counts at once, whether or not the answer ends.
func TestTakenAndNotEnded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer server.Close()
	r := start(t, `{"url":"`+server.URL+`"}`)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, r.Deliver(ctx, late))
	require.NoError(t, ctx.Err(), "it did not wait for the end of the answer")
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "120": 2 * time.Minute, "-1": 0, "soon": 0, "99999999999": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Fri, 02 Jan 2026 03:00:00 GMT": 0,
	} {
		require.Equal(t, want, retryAfter(text, now), text)
	}
}

func TestNoAnswer(t *testing.T) {
	target := newReceiver(t)
	r := start(t, string(target.Config()))
	target.server.Close()
	err := r.Deliver(t.Context(), late)
	require.Equal(t, failure.DeliveryFailed, failure.CodeOf(err))
	require.ErrorContains(t, err, "refused")

	secure := httptest.NewTLSServer(http.NotFoundHandler())
	defer secure.Close()
	err = start(t, `{"url":"`+secure.URL+`"}`).Deliver(t.Context(), late)
	require.Equal(t, failure.ServerUntrusted, failure.CodeOf(err))
}
