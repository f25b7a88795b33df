package log

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
)

// Factory makes log reactions.
type Factory struct {
	Stdout, Stderr io.Writer // those of the process when nil
}

// Config is what a spec may say.
type Config struct {
	Template string `json:"template" doc:"Handlebars template of a line, for all kinds of differences."`
	Added    string `json:"added" doc:"Template for rows that were added, instead of template."`
	Updated  string `json:"updated" doc:"Template for rows that were updated, instead of template."`
	Deleted  string `json:"deleted" doc:"Template for rows that were deleted, instead of template."`
	Output   string `json:"output" doc:"stdout, stderr or the absolute path of a file to append to." default:"stdout"`
}

// Validate implements component.Validator.
func (c *Config) Validate(p *component.Problems) {
	if c.Output != "stdout" && c.Output != "stderr" && !filepath.IsAbs(c.Output) {
		p.Addf("output", "must be stdout, stderr or an absolute path, is %q", c.Output)
	}
}

// Kind implements reaction.Factory.
func (f Factory) Kind() string { return "log" }

// New implements reaction.Factory.
func (f Factory) New(config json.RawMessage, _ reaction.Settings) (reaction.Reaction, error) {
	var c Config
	if err := component.DecodeConfig(config, &c); err != nil {
		return nil, err
	}
	lines, err := compile(c)
	if err != nil {
		return nil, err
	}
	l := &logger{lines: lines}
	switch c.Output {
	case "stdout":
		l.out = writerOr(f.Stdout, os.Stdout)
	case "stderr":
		l.out = writerOr(f.Stderr, os.Stderr)
	default:
		l.path = c.Output
	}
	return l, nil
}

func writerOr(w, other io.Writer) io.Writer {
	if w == nil {
		return other
	}
	return w
}

// logger implements reaction.Deliverer.
type logger struct {
	lines lines
	path  string // of the file to append to, opened by the first delivery

	mu   sync.Mutex // queries are delivered at the same time
	out  io.Writer
	file *os.File
	buf  []byte
}

// Deliver implements reaction.Deliverer.
func (l *logger) Deliver(_ context.Context, d reaction.Delivery) error {
	e := d.Event
	if len(e.Diffs) == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.out == nil {
		file, err := os.OpenFile(l.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o640)
		if err != nil {
			return classify(fmt.Errorf("opening the log: %w", err))
		}
		l.file, l.out = file, file
	}
	l.buf = l.buf[:0]
	for i := range e.Diffs {
		line, err := l.lines.append(l.buf, d.Query, e, &e.Diffs[i])
		if err != nil {
			return err
		}
		l.buf = append(line, '\n')
	}
	if _, err := l.out.Write(l.buf); err != nil {
		return classify(fmt.Errorf("writing a line: %w", err))
	}
	return nil
}

// Close implements reaction.Reaction.
func (l *logger) Close(context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.file == nil {
		return nil
	}
	file := l.file
	l.file, l.out = nil, nil
	return file.Close()
}

func classify(err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC):
		return failure.DiskFull.Errorf("%w", err)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.ENOTDIR):
		return failure.ConfigInvalid.Errorf("output: %w", err)
	case errors.Is(err, fs.ErrPermission):
		return failure.PermissionDenied.Errorf("%w", err).WithFix("Let the worker's user write to the file that output names, then signal resume.")
	}
	return failure.DeliveryFailed.Errorf("%w", err)
}
