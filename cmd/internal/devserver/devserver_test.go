package devserver_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	sdklog "go.temporal.io/sdk/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/perdure/perdure/cmd/internal/devserver"
	"github.com/perdure/perdure/streaming/failure"
)

func start(t *testing.T, o devserver.Options) *devserver.Server {
	t.Helper()
	s, err := devserver.Start(t.Context(), o)
	require.NoError(t, err)
	return s
}

func stop(t *testing.T, s *devserver.Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
}

func dial(t *testing.T, s *devserver.Server, namespace string) client.Client {
	t.Helper()
	c, err := client.Dial(client.Options{HostPort: s.Address(), Namespace: namespace,
		Logger: sdklog.NewStructuredLogger(slog.New(slog.DiscardHandler))})
	require.NoError(t, err)
	return c
}

func TestWorkflowsSurviveARestart(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	options := devserver.Options{
		DBFile:       filepath.Join(t.TempDir(), "a folder?", "temporal.db"), // characters that mean something in a URI
		FrontendAddr: "127.0.0.1:0", UIAddr: "127.0.0.1:0", Namespace: "shop", Log: zap.New(core),
	}
	began := time.Now()
	s := start(t, options)
	t.Logf("first start: %s", time.Since(began))
	c := dial(t, s, "shop")
	run, err := c.ExecuteWorkflow(t.Context(), client.StartWorkflowOptions{ID: "waits", TaskQueue: "nobody"}, "Waits")
	require.NoError(t, err)
	ns, err := c.WorkflowService().DescribeNamespace(t.Context(), &workflowservice.DescribeNamespaceRequest{Namespace: "shop"})
	require.NoError(t, err)
	require.Equal(t, 7*24*time.Hour, ns.GetConfig().GetWorkflowExecutionRetentionTtl().AsDuration())
	info, err := c.WorkflowService().GetClusterInfo(t.Context(), &workflowservice.GetClusterInfoRequest{})
	require.NoError(t, err)
	c.Close()
	res, err := http.Get(s.UIURL())
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.Equal(t, http.StatusOK, res.StatusCode)
	stop(t, s)

	began = time.Now()
	s = start(t, options)
	t.Logf("second start: %s", time.Since(began))
	c = dial(t, s, "shop")
	again, err := c.DescribeWorkflowExecution(t.Context(), "waits", run.GetRunID())
	require.NoError(t, err)
	require.Equal(t, "Waits", again.GetWorkflowExecutionInfo().GetType().GetName())
	infoAgain, err := c.WorkflowService().GetClusterInfo(t.Context(), &workflowservice.GetClusterInfoRequest{})
	require.NoError(t, err)
	require.Equal(t, info.GetClusterId(), infoAgain.GetClusterId())
	c.Close()
	began = time.Now()
	stop(t, s)
	t.Logf("stop: %s", time.Since(began))
	for _, entry := range logs.All() {
		t.Errorf("a healthy server logged: %s %s %v", entry.Level, entry.Message, entry.ContextMap())
	}
}

func TestTakenPortsAreRefusedBeforeAnythingStarts(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	file := filepath.Join(t.TempDir(), "temporal.db")

	_, err = devserver.Start(t.Context(), devserver.Options{DBFile: file, FrontendAddr: l.Addr().String()})
	require.Equal(t, failure.PortInUse, failure.CodeOf(err))
	require.Contains(t, failure.Of(err).Fix(), "--temporal-port")
	require.NoFileExists(t, file)

	_, err = devserver.Start(t.Context(), devserver.Options{DBFile: file, FrontendAddr: "127.0.0.1:0", UIAddr: l.Addr().String()})
	require.Equal(t, failure.PortInUse, failure.CodeOf(err))
	require.Contains(t, failure.Of(err).Fix(), "--ui-port")
	require.NoFileExists(t, file)
}

func TestOnlyLoopbackIsListenedOn(t *testing.T) {
	_, err := devserver.Start(t.Context(), devserver.Options{DBFile: filepath.Join(t.TempDir(), "t.db"), FrontendAddr: "0.0.0.0:0"})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
}
