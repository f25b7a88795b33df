package main

import (
	"bytes"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/process"
)

// TestTheWorkerDoesNotCarryTheServer keeps the worker small: the Temporal server and its UI belong to `perdure dev`.
func TestTheWorkerDoesNotCarryTheServer(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	require.NoError(t, err)
	for dep := range strings.Lines(string(out)) {
		require.False(t, strings.HasPrefix(dep, "go.temporal.io/server") || strings.HasPrefix(dep, "github.com/temporalio/ui-server"), dep)
	}
	require.Contains(t, string(out), "go.temporal.io/sdk/worker")
}

func TestServersThatDoNotAnswerAreNamedInTime(t *testing.T) {
	t.Setenv("TEMPORAL_ADDRESS", "127.0.0.1:1")
	t.Setenv("NATS_URL", "nats://me:hunter2@127.0.0.1:1,nats://t0ken@127.0.0.1:2")
	t.Setenv("PERDURE_CONNECT_TIMEOUT", "1s")
	t.Setenv("PERDURE_LOG_LEVEL", "error")
	var out, errs bytes.Buffer
	began := time.Now()
	require.Equal(t, process.ExitFailed, run(t.Context(), []string{"--data-dir", t.TempDir()}, &out, &errs))
	require.Less(t, time.Since(began), 10*time.Second)
	require.Contains(t, errs.String(), "connecting to Temporal at 127.0.0.1:1: ")
	require.Contains(t, errs.String(), "connecting to JetStream at nats://xxxxx@127.0.0.1:1,nats://xxxxx@127.0.0.1:2: ")
	require.NotContains(t, errs.String(), "hunter2")
	require.NotContains(t, errs.String(), "t0ken")
	require.Contains(t, errs.String(), "TEMPORAL_ADDRESS")
}

func TestMistakesAreUsageErrors(t *testing.T) {
	for _, args := range [][]string{{"now"}, {"--tempral-address", "x"}, {"--connect-timeout", "soon"}} {
		var out, errs bytes.Buffer
		require.Equal(t, process.ExitUsage, run(t.Context(), args, &out, &errs), "%v", args)
		require.Contains(t, errs.String(), "fix: ")
	}
}

func TestAddressesOfTheAPI(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer taken.Close()
	for address, want := range map[string]struct {
		exit int
		text string
	}{
		"8080":                {process.ExitUsage, "missing port in address"},
		"127.0.0.1:70000":     {process.ExitUsage, "host:port"},
		taken.Addr().String(): {process.ExitFailed, "Free the port"},
	} {
		var out, errs bytes.Buffer
		require.Equal(t, want.exit, run(t.Context(), []string{"--data-dir", t.TempDir(), "--listen", address}, &out, &errs), address)
		require.Contains(t, errs.String(), want.text)
	}
}

func TestVersion(t *testing.T) {
	var out, errs bytes.Buffer
	require.Equal(t, process.ExitOK, run(t.Context(), []string{"--version"}, &out, &errs))
	require.Contains(t, out.String(), "perdure dev")
}
