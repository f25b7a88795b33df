package httpapi_test

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/httpapi"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/reaction"
	hook "github.com/perdure/perdure/streaming/reaction/http"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

// hurriedWriter notes until when a response must be written.
type hurriedWriter struct {
	*httptest.ResponseRecorder
	deadline time.Time
}

func (w *hurriedWriter) SetWriteDeadline(t time.Time) error {
	w.deadline = t
	return nil
}

// TestDeadLetters lists what a real target refused.
func TestDeadLetters(t *testing.T) {
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		http.NotFound(w, r)
	}))
	defer target.Close()
	conn := streamtest.Start(t)
	log, err := conn.EnsureLog(t.Context(), stream.LogOptions{Name: "RES_eu_late"})
	require.NoError(t, err)
	for sequence, source := range []string{"shop", "shop", "shop", strings.Repeat("x", 3<<19), strings.Repeat("y", 3<<19)} {
		event := &result.Event{Sequence: uint64(sequence) + 1, Source: source}
		_, err := log.NewSharedWriter().Append(t.Context(), source[:1]+strconv.Itoa(sequence), result.AppendMessage(nil, event))
		require.NoError(t, err)
	}
	host, err := pipeline.NewHost(pipeline.Options{Stream: conn, Reactions: []reaction.Factory{hook.Factory{}}, HostID: "host"})
	require.NoError(t, err)
	spec := component.ReactionSpec{
		Name: "notify", Instance: "eu", Kind: "http", Queries: []string{"late"}, Config: json.RawMessage(`{"url":"` + target.URL + `"}`),
	}
	drain, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- host.RunReaction(t.Context(), pipeline.Attempt{ID: spec.ID(), Epoch: stream.Epoch{Generation: 1}, Drain: drain}, spec)
	}()

	handler := httpapi.New(httpapi.Deps{DeadLetters: pipeline.NewDeadLetters(conn)})
	api := httptest.NewServer(handler)
	defer api.Close()
	get := func(path string) (status int, body map[string]any) {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, api.URL+"/api/v1/"+path, nil)
		require.NoError(t, err)
		response, err := api.Client().Do(request)
		require.NoError(t, err)
		defer response.Body.Close()
		text, err := io.ReadAll(response.Body)
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(text, &body), string(text))
		return response.StatusCode, body
	}
	require.Eventually(t, func() bool {
		_, body := get("reactions/eu.notify/dead-letters")
		return body["count"] == "5"
	}, 20*time.Second, 10*time.Millisecond)
	close(drain)
	require.NoError(t, <-done)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, host.Close(ctx))

	status, body := get("reactions/eu.notify/dead-letters?limit=2")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "reaction.eu.notify", body["component"])
	require.NotEmpty(t, body["oldest"])
	require.Equal(t, "2", body["next"])
	letters := body["deadLetters"].([]any)
	require.Len(t, letters, 2)
	first := letters[0].(map[string]any)
	require.Equal(t, "1", first["id"])
	require.Regexp(t, "^eu.notify:late:[0-9a-z]+:1$", first["key"])
	require.Equal(t, "late", first["query"])
	require.EqualValues(t, 1, first["attempts"])
	require.Equal(t, "DeliveryRejected", first["failure"].(map[string]any)["code"])
	require.EqualValues(t, 1, first["event"].(map[string]any)["sequence"])

	_, body = get("reactions/eu.notify/dead-letters?after=2")
	require.Len(t, body["deadLetters"], 2, "the last makes it too long")
	require.Equal(t, "4", body["next"])
	_, body = get("reactions/eu.notify/dead-letters?after=4")
	require.Len(t, body["deadLetters"], 1)
	require.NotContains(t, body, "next")
	hurried := &hurriedWriter{ResponseRecorder: httptest.NewRecorder()}
	handler.ServeHTTP(hurried, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/v1/reactions/eu.notify/dead-letters", nil))
	require.WithinDuration(t, time.Now().Add(30*time.Second), hurried.deadline, 20*time.Second)
	status, body = get("sources/shop/dead-letters")
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "0", body["count"])
	require.Empty(t, body["deadLetters"])
	for _, path := range []string{"reactions/A/dead-letters", "reactions/x/dead-letters?after=y", "reactions/x/dead-letters?limit=0"} {
		status, body = get(path)
		require.Equal(t, http.StatusBadRequest, status, path)
		require.Equal(t, "ConfigInvalid", body["code"])
	}
}
