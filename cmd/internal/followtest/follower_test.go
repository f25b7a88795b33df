package followtest_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/followtest"
)

// TestBrokenConnection: an event that breaks off is none, wherever that is, and comes again with the next connection.
func TestBrokenConnection(t *testing.T) {
	const event = "id: 2\nevent: diff\ndata: {\"sequence\":2,\"diffs\":[{\"op\":\"added\",\"key\":\"a\",\"after\":{\"n\":1}}]}\n\n"
	begin := len("id: 2\nevent: diff\ndata:")
	for at := begin; at < len(event); at++ {
		connections := 0
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if connections++; connections == 1 {
				fmt.Fprint(w, "retry: 1000\n\nid: 1\nevent: snapshot\ndata: {\"sequence\":1,\"rows\":[]}\n\n"+event[:at])
				return
			}
			if r.Header.Get("Last-Event-ID") == "1" {
				fmt.Fprint(w, event)
			}
			http.NewResponseController(w).Flush() //nolint:errcheck // then nothing comes
			<-r.Context().Done()
		}))
		f := followtest.New(followtest.NewReplay("q"), s.URL)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); f.Run(ctx) }()
		require.Eventually(t, func() bool { sequence, _, _ := f.State(); return sequence == 2 }, 10*time.Second, time.Millisecond, "broken off at %q", event[:at])
		_, rows, faults := f.State()
		require.Equal(t, []string{`{"n":1}`}, rows)
		require.Empty(t, faults, "broken off at %q", event[:at])
		cancel()
		<-done
		s.Close()
	}
}
