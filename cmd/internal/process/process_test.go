package process

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/streaming/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func interrupt(t *testing.T) { require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGTERM)) }

func TestASignalEndsTheWork(t *testing.T) {
	err := Run(t.Context(), time.Minute, io.Discard, func(ctx context.Context) error {
		interrupt(t)
		<-ctx.Done()
		return ctx.Err()
	})
	require.NoError(t, err)
}

func TestErrorsOfTheWorkAreReturned(t *testing.T) {
	require.ErrorIs(t, Run(t.Context(), time.Minute, io.Discard, func(context.Context) error { return io.EOF }), io.EOF)
}

func TestWorkThatDoesNotEndIsAborted(t *testing.T) {
	for name, cause := range map[string]func(t *testing.T){
		"second signal": interrupt,
		"bound":         func(*testing.T) {},
	} {
		t.Run(name, func(t *testing.T) {
			bound := time.Minute
			if name == "bound" {
				bound = time.Millisecond
			}
			var out bytes.Buffer
			code := make(chan int, 1)
			release := make(chan struct{})
			ended := make(chan struct{})
			err := run(t.Context(), bound, &out, func(c int) { code <- c }, func(ctx context.Context) error {
				defer close(ended)
				interrupt(t)
				<-ctx.Done()
				cause(t)
				<-release
				return nil
			})
			require.NoError(t, err)
			require.Equal(t, ExitAborted, <-code)
			require.Contains(t, out.String(), "aborted: ")
			close(release)
			<-ended
		})
	}
}

func TestExplain(t *testing.T) {
	var out bytes.Buffer
	require.Equal(t, ExitOK, Explain(&out, nil))
	require.Equal(t, ExitFailed, Explain(&out, errors.New("odd")))
	require.Equal(t, ExitUsage, Explain(&out, failure.ConfigInvalid.Errorf("bad").WithFix("do better")))
	require.Equal(t, ExitFailed, Explain(&out, failure.PortInUse.Errorf("taken").WithFix("free it")))
	require.Equal(t, "error: odd\nerror: bad\n  fix: do better\nerror: taken\n  fix: free it\n", out.String())
}

func TestADataDirectoryKeepsItsIDAndBelongsToOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := OpenDataDir(path)
	require.NoError(t, err)
	require.Regexp(t, `^([a-z0-9-]+-)?h[0-9a-f]{8}$`, d.HostID)
	require.Equal(t, filepath.Join(path, "x", "y"), d.Join("x", "y"))
	_, err = OpenDataDir(path)
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	require.NoError(t, d.Close())
	again, err := OpenDataDir(path)
	require.NoError(t, err)
	require.Equal(t, d.HostID, again.HostID)
	require.NoError(t, again.Close())
}

func TestLoggerForms(t *testing.T) {
	var out bytes.Buffer
	log, err := NewLogger(config.Log{LogLevel: "warn", LogFormat: "json"}, &out)
	require.NoError(t, err)
	log.Info("silent")
	log.Warn("said", zap.Int("key", 1))
	require.Contains(t, out.String(), `"msg":"said","key":1`)
	require.NotContains(t, out.String(), "silent")
	out.Reset()
	log, err = NewLogger(config.Log{LogLevel: "info", LogFormat: "console"}, &out)
	require.NoError(t, err)
	log.Info("said")
	require.Regexp(t, `^\d\d:\d\d:\d\d\.\d{3}\tINFO\tsaid\n$`, out.String())
}
