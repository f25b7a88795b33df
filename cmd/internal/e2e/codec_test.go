package e2e

import (
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/log"
	"google.golang.org/protobuf/proto"

	"github.com/perdure/perdure/cmd/internal/codec"
)

// TestHistoriesAreEncrypted: with payload keys, what an encrypting client starts leaves nothing to read in any history, while
// plain JSON from tctl is obeyed and the codec endpoint shows everything.
func TestHistoriesAreEncrypted(t *testing.T) {
	keys := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	file := filepath.Join(t.TempDir(), "keys")
	require.NoError(t, os.WriteFile(file, []byte(keys+"\n"), 0o600))
	setting := "PERDURE_PAYLOAD_KEYS=file:" + file
	s := newSystem(t, func(s *system) { s.env = append(s.env, setting) })
	execSQL(t, s.connect(), schema)

	encrypting, err := codec.New(keys)
	require.NoError(t, err)
	o := client.Options{HostPort: fmt.Sprintf("127.0.0.1:%d", s.temporal), Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler))}
	encrypting.Apply(&o)
	c := dial(t, o)
	// As UI and command lines do, this one asks the endpoint.
	o.DataConverter = converter.NewRemoteDataConverter(converter.GetDefaultDataConverter(), converter.RemoteDataConverterOptions{Endpoint: s.url("/codec")})
	shower := dial(t, o)

	type shown struct {
		status
		Commands []struct{ Name, Outcome, Reason string }
	}
	ask := func(id string) (st shown, err error) {
		value, err := shower.QueryWorkflow(s.context(10*time.Second), id, "", "status")
		if err == nil {
			err = value.Get(&st)
		}
		return st, err
	}
	reaches := func(id, phase string) (st shown) {
		eventually(t, 2*time.Minute, id+" in phase "+phase, func() (err error) {
			if st, err = ask(id); err == nil && st.Phase != phase {
				err = fmt.Errorf("it is %s", st.Phase)
			}
			return err
		})
		return st
	}
	run := func(workflowType, id string, input object) {
		_, err := c.ExecuteWorkflow(s.context(10*time.Second), client.StartWorkflowOptions{ID: id, TaskQueue: "perdure"}, workflowType, input)
		require.NoError(t, err)
	}
	const source, query, bad = "source.default.shop", "query.default.open-orders", "source.default.bad"
	run("Source", source, sourceInput(s))
	run("Query", query, queryInput())
	run("Source", bad, object{"spec": object{"name": "bad", "kind": "postgres", "config": object{
		"url": object{"$secret": "env:PERDURE_E2E_DATABASE"}, "tables": []object{{"name": "public.nowhere"}},
	}}})
	reaches(source, "Running")
	reaches(query, "Running")
	require.Contains(t, reaches(bad, "NeedsOperator").Breaker.LastError.Message, "public.nowhere")

	s.signal(source, "pause", `{"reason":"as plain JSON"}`)
	require.Equal(t, "as plain JSON", reaches(source, "Paused").Commands[0].Reason)
	out, err := s.tctl("workflow", "list", "--query", fmt.Sprintf(`PerdureComponent = %q`, bad))
	require.NoError(t, err)
	require.Contains(t, out, bad, "search attributes are not encrypted")

	plain := s.client()
	for _, id := range []string{source, query, bad, "bootstrap.default.open-orders.shop.1"} {
		events := 0
		history := plain.GetWorkflowHistory(s.context(10*time.Second), id, "", false, enumspb.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
		for history.HasNext() {
			event, err := history.Next()
			require.NoError(t, err)
			raw, err := proto.Marshal(event)
			require.NoError(t, err)
			for _, clear := range []string{"public.", "nowhere", "MATCH", "PERDURE_E2E_DATABASE", "$secret", `"spec"`} {
				require.NotContains(t, string(raw), clear, "%s: %s", id, event)
			}
			events++
		}
		require.Greater(t, events, 5, id)
	}

	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/api/v1/settings", s.ui))
	require.NoError(t, err)
	settings, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Contains(t, string(settings), s.url("/codec"), "the UI knows the endpoint")

	// Without the key nothing goes on, and nothing breaks; with it everything does.
	withKeys := s.env
	s.dev.terminate(t, time.Minute)
	s.env = nil
	for _, v := range withKeys {
		if v != setting {
			s.env = append(s.env, v)
		}
	}
	s.startDev()
	s.signal(source, "resume")
	eventually(t, time.Minute, "a complaint", func() error {
		_, err := ask(source)
		if err == nil || !strings.Contains(s.dev.output.tail(1<<20), "a payload is encrypted with key") {
			return fmt.Errorf("the status is answered with %w", err)
		}
		return nil
	})
	s.dev.terminate(t, time.Minute)
	s.env = withKeys
	s.startDev()
	reaches(source, "Running")
	reaches(query, "Running")
}

func dial(t *testing.T, o client.Options) client.Client {
	t.Helper()
	c, err := client.Dial(o)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}
