package node

import (
	"net"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAConnectionWithoutARequestIsNoFailure shows that a stop is clean also when somebody holds a connection, as browsers
// do that open one in advance.
func TestAConnectionWithoutARequestIsNoFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	n := New(Options{API: listener, Log: zap.NewNop()})
	drained, served := make(chan struct{}), make(chan error, 1)
	go func() { served <- n.serve(drained) }()

	silent, err := net.Dial("tcp", listener.Addr().String())
	require.NoError(t, err)
	defer silent.Close()
	res, err := http.Get("http://" + listener.Addr().String() + "/livez") // accepted after the silent one
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	http.DefaultClient.CloseIdleConnections()
	close(drained)
	require.NoError(t, <-served)
}
