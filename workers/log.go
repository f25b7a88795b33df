package workers

import (
	"go.temporal.io/sdk/log"
	"go.uber.org/zap"
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
func (l logger) Warn(msg string, keyvals ...any) { l.sugar.Warnw(msg, keyvals...) }

// Error implements log.Logger.
func (l logger) Error(msg string, keyvals ...any) { l.sugar.Errorw(msg, keyvals...) }

// With implements log.WithLogger.
func (l logger) With(keyvals ...any) log.Logger { return logger{l.sugar.With(keyvals...)} }

// WithCallerSkip implements log.WithSkipCallers.
func (l logger) WithCallerSkip(depth int) log.Logger {
	return logger{l.sugar.WithOptions(zap.AddCallerSkip(depth))}
}
