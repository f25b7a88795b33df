package process

import (
	"fmt"
	"io"

	sdklog "go.temporal.io/sdk/log"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/perdure/perdure/cmd/internal/config"
)

// NewLogger returns a logger that writes to w, in one form for people and in another for machines.
func NewLogger(c config.Log, w io.Writer) (*zap.Logger, error) {
	level, err := zapcore.ParseLevel(c.LogLevel)
	if err != nil {
		return nil, fmt.Errorf("parsing the log level: %w", err)
	}
	form := zap.NewProductionEncoderConfig()
	form.EncodeTime = zapcore.RFC3339NanoTimeEncoder
	form.TimeKey = "time"
	encoder := zapcore.NewJSONEncoder(form)
	if c.LogFormat == "console" {
		form.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		form.EncodeLevel = zapcore.CapitalLevelEncoder
		encoder = zapcore.NewConsoleEncoder(form)
	}
	return zap.New(zapcore.NewCore(encoder, zapcore.Lock(zapcore.AddSync(w)), level)), nil
}

// TemporalLogger lets the Temporal SDK write to log.
func TemporalLogger(log *zap.Logger) sdklog.Logger {
	return temporalLogger{log.Named("temporal").WithOptions(zap.AddCallerSkip(1)).Sugar()}
}

type temporalLogger struct{ log *zap.SugaredLogger }

func (l temporalLogger) Debug(msg string, pairs ...any) { l.log.Debugw(msg, pairs...) }
func (l temporalLogger) Info(msg string, pairs ...any)  { l.log.Infow(msg, pairs...) }
func (l temporalLogger) Warn(msg string, pairs ...any)  { l.log.Warnw(msg, pairs...) }
func (l temporalLogger) Error(msg string, pairs ...any) { l.log.Errorw(msg, pairs...) }

// With implements sdklog.WithLogger.
func (l temporalLogger) With(pairs ...any) sdklog.Logger { return temporalLogger{l.log.With(pairs...)} }
