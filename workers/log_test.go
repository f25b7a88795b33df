package workers

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestLoggerIsQuietWhenHealthy(t *testing.T) {
	core, seen := observer.New(zapcore.DebugLevel)
	l := log.With(Logger(zap.New(core)), "queue", "perdure")
	l.Info("Started Worker")
	l.Warn("heartbeat", "Error", fmt.Errorf("sending: %w", context.Canceled))
	l.Warn("heartbeat", "Error", serviceerror.NewCanceled("context canceled"))
	l.Error("activity", "Error", temporal.NewCanceledError())
	for _, e := range seen.TakeAll() {
		require.Equal(t, zapcore.DebugLevel, e.Level, e.Message)
		require.Equal(t, "perdure", e.ContextMap()["queue"])
	}
	l.Error("activity", "Error", errors.New("broken"))
	require.Equal(t, zapcore.ErrorLevel, seen.TakeAll()[0].Level)
}
