package process

import (
	"fmt"
	"io"

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
