package workers

import (
	"context"
	"errors"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Logger lets the Temporal SDK log through zap. Give it to the client that the workers use. What the SDK calls
// information is debugging for everybody else: a healthy worker is quiet.
func Logger(l *zap.Logger) log.Logger {
	return logger{l.WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

type logger struct{ sugar *zap.SugaredLogger }

// Debug implements log.Logger.
func (l logger) Debug(msg string, keyvals ...any) { l.sugar.Debugw(msg, keyvals...) }

// Info implements log.Logger.
func (l logger) Info(msg string, keyvals ...any) { l.sugar.Debugw(msg, keyvals...) }

// Warn implements log.Logger.
func (l logger) Warn(msg string, keyvals ...any) {
	l.sugar.Logw(unlessCancelled(zapcore.WarnLevel, keyvals), msg, keyvals...)
}

// Error implements log.Logger.
func (l logger) Error(msg string, keyvals ...any) {
	l.sugar.Logw(unlessCancelled(zapcore.ErrorLevel, keyvals), msg, keyvals...)
}

// unlessCancelled keeps quiet about what ended because it was asked to.
func unlessCancelled(level zapcore.Level, keyvals []any) zapcore.Level {
	for _, v := range keyvals {
		err, ok := v.(error)
		if !ok {
			continue
		}
		var call *serviceerror.Canceled
		if errors.Is(err, context.Canceled) || temporal.IsCanceledError(err) || errors.As(err, &call) {
			return zapcore.DebugLevel
		}
	}
	return level
}

// With implements log.WithLogger.
func (l logger) With(keyvals ...any) log.Logger { return logger{l.sugar.With(keyvals...)} }

// WithCallerSkip implements log.WithSkipCallers.
func (l logger) WithCallerSkip(depth int) log.Logger {
	return logger{l.sugar.WithOptions(zap.AddCallerSkip(depth))}
}
