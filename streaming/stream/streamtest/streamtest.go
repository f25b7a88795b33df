// Package streamtest gives tests of other packages a real stream server of their own.
package streamtest

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/stream"
)

// Start returns a connection to an embedded server in a directory of its own; both end with the test.
func Start(t testing.TB) *stream.Conn {
	t.Helper()
	log := zaptest.NewLogger(t)
	server, err := stream.Serve(stream.ServerOptions{Dir: t.TempDir(), Log: log})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		require.NoError(t, server.Close(ctx))
	})
	conn, err := stream.Connect(t.Context(), stream.Options{Server: server, Name: t.Name(), Log: log})
	require.NoError(t, err)
	t.Cleanup(conn.Close)
	return conn
}
