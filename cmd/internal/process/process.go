// Package process is what the binaries do around their work: they stop on signals in bounded stages, log, own a data
// directory, and turn errors into exit codes.
package process

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// Exit codes.
const (
	ExitOK      = 0
	ExitFailed  = 1
	ExitUsage   = 2 // a flag, an argument or a setting is wrong
	ExitAborted = 3 // a stop took longer than its bound, or was asked for twice
)

// StopBound is how long a process may take to stop before it is aborted. It is longer than all its stages together:
// draining workers, closing the API, stopping embedded servers.
const StopBound = 90 * time.Second

// Run calls work with a context that ends at the first SIGINT or SIGTERM, upon which work drains and returns. Should it
// take longer than bound, or a second signal come, the process exits at once with ExitAborted: everything that matters
// is durable at any moment, so that an abort costs time at the next start and nothing else.
func Run(ctx context.Context, bound time.Duration, warnings io.Writer, work func(ctx context.Context) error) error {
	TuneMemory()
	return run(ctx, bound, warnings, os.Exit, work)
}

func run(ctx context.Context, bound time.Duration, warnings io.Writer, exit func(int), work func(ctx context.Context) error) error {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	done := make(chan error, 1)
	go func() { done <- work(ctx) }()
	select {
	case err := <-done:
		return err
	case <-signals:
		stop()
	}
	timer := time.NewTimer(bound)
	defer timer.Stop()
	var why string
	select {
	case err := <-done:
		if errors.Is(err, context.Canceled) {
			return nil // it was asked to stop, and says so
		}
		return err
	case <-signals:
		why = "a second signal came"
	case <-timer.C:
		why = fmt.Sprintf("stopping took longer than %s", bound)
	}
	fmt.Fprintf(warnings, "aborted: %s\n", why)
	exit(ExitAborted)
	return nil
}

// Explain writes err for the person at the terminal, with what to do about it, and returns the exit code.
func Explain(w io.Writer, err error) int {
	if err == nil {
		return ExitOK
	}
	coded := failure.Of(err)
	if coded == nil {
		fmt.Fprintf(w, "error: %v\n", err)
		return ExitFailed
	}
	fmt.Fprintf(w, "error: %v\n", err)
	if fix := coded.Fix(); fix != "" {
		fmt.Fprintf(w, "  fix: %s\n", fix)
	}
	if coded.Code() == failure.ConfigInvalid {
		return ExitUsage
	}
	return ExitFailed
}
