package node

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestCancellationsAreNotReported(t *testing.T) {
	core, logs := observer.New(zap.WarnLevel)
	l := log.Skip(log.With(TemporalLogger(zap.New(core)), "ActivityType", "HoldSnapshot"), 1)
	for _, err := range []error{context.Canceled, temporal.NewCanceledError(), fmt.Errorf("reading: %w", context.Canceled)} {
		l.Warn("heartbeat", "Error", err)
		l.Error("activity", "Attempt", 1, "Error", err)
	}
	require.Zero(t, logs.Len())
	l.Warn("heartbeat", "Error", errors.New("unreachable"))
	l.Error("activity", "Error", errors.New("broken"))
	require.Equal(t, 2, logs.Len())
}
