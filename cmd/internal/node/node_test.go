package node

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/workers"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestAConnectionWithoutARequestIsNoFailure shows that a stop is clean also when somebody holds a connection, as browsers
// do that open one in advance.
func TestAConnectionWithoutARequestIsNoFailure(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	tells, err := NewTelemetry(t.Context(), "h1", 0, zap.NewNop())
	require.NoError(t, err)
	defer tells.Close()
	n := New(Options{API: listener, Telemetry: tells, Log: zap.NewNop()})
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

// TestOnlyThisProcessMakesItReady and neither the one before on this host nor a host whose id begins in the same way.
func TestOnlyThisProcessMakesItReady(t *testing.T) {
	mine := workers.Identity("h1")
	others := []*taskqueuepb.PollerInfo{{Identity: "h1@1000000000"}, {Identity: "h10@7"}, {Identity: "h1"}}
	require.False(t, asks(others, mine))
	require.True(t, asks(append(others, &taskqueuepb.PollerInfo{Identity: mine}), mine))
}

func TestSilentLoopsAreNamed(t *testing.T) {
	loops := []activities.Loop{
		{Component: "source.default.shop", Silent: time.Second},
		{Component: "query.default.totals", Silent: 34 * time.Second, Status: pipeline.Status{Phase: "following", Backpressure: "the result log"}},
		{Component: "reaction.default.mail", Silent: time.Minute},
	}
	require.NoError(t, silent(loops[:1], overdueAfter))
	err := silent(loops, overdueAfter)
	require.Equal(t, failure.Stalled, failure.CodeOf(err))
	require.EqualError(t, err, "no progress of query.default.totals for 34s while following, waiting for the result log; reaction.default.mail for 1m0s")
}

// TestLoopsThatDoNotEndAreNamed however long others may make no progress.
func TestLoopsThatDoNotEndAreNamed(t *testing.T) {
	loops := []activities.Loop{
		{Component: "query.default.slow", Silent: time.Hour},
		{Component: "query.default.totals", Silent: 5 * time.Minute, Ending: time.Minute},
		{Component: "source.default.shop", Silent: 5 * time.Minute, Ending: 4 * time.Minute, Status: pipeline.Status{Phase: "streaming"}},
		{Component: "source.default.shop", Silent: time.Second},
	}
	require.NoError(t, hung(loops[:2], brokenAfter))
	err := hung(loops, brokenAfter)
	require.Equal(t, failure.Stalled, failure.CodeOf(err))
	require.EqualError(t, err, "no end of source.default.shop, told 4m0s ago while streaming")
	shown := componentsOf(loops)
	require.Len(t, shown, 3, "of each component the newest, or a scrape would fail")
	require.Equal(t, time.Second, shown[2].Silent)
}
