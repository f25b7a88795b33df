package node

import (
	"strings"

	"go.temporal.io/sdk/log"
	"go.uber.org/zap"

	"github.com/perdure/perdure/workers"
)

// TemporalLogger is the logger of a client whose workers do our tasks. To the SDK a task that was cancelled has failed;
// here cancelling is how a snapshot is let go and how a process stops, so that such lines are for debugging only.
func TemporalLogger(l *zap.Logger) log.Logger {
	return calm{workers.Logger(l.WithOptions(zap.AddCallerSkip(1)))}
}

type calm struct{ log.Logger }

// Warn implements log.Logger.
func (c calm) Warn(msg string, pairs ...any) {
	if cancelled(pairs) {
		c.Debug(msg, pairs...)
		return
	}
	c.Logger.Warn(msg, pairs...)
}

// Error implements log.Logger.
func (c calm) Error(msg string, pairs ...any) {
	if cancelled(pairs) {
		c.Debug(msg, pairs...)
		return
	}
	c.Logger.Error(msg, pairs...)
}

// With implements log.WithLogger.
func (c calm) With(pairs ...any) log.Logger { return calm{log.With(c.Logger, pairs...)} }

// WithCallerSkip implements log.WithSkipCallers.
func (c calm) WithCallerSkip(depth int) log.Logger { return calm{log.Skip(c.Logger, depth)} }

func cancelled(pairs []any) bool {
	for i := 0; i+1 < len(pairs); i += 2 {
		if err, ok := pairs[i+1].(error); ok && pairs[i] == "Error" {
			text := err.Error()
			return text == "canceled" || strings.HasSuffix(text, "context canceled")
		}
	}
	return false
}
