// Package demo is `perdure demo`: the order-tracking example in one process. It creates a shop's tables, starts the
// example's components as any Temporal client would, writes to the tables, prints each difference as it arrives and
// compares the maintained results with SQL in the end.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/cmd/internal/stack"
)

// Options says how to run the demonstration.
type Options struct {
	Config config.Demo
	Data   *process.DataDir
	Out    io.Writer
	Colour bool
	Log    *zap.Logger
}

const (
	readyBound  = 90 * time.Second
	finishBound = 30 * time.Second
)

// Run runs the demonstration until its time is over or ctx ends. A result that differs from SQL's is an error.
func Run(ctx context.Context, o Options) error {
	return stack.Run(ctx, stack.Options{
		Data: o.Data, Namespace: "default", TemporalPort: o.Config.TemporalPort, UIPort: o.Config.UIPort,
		APIPort: o.Config.APIPort, Postgres: true, Log: o.Log,
	}, func(ctx context.Context, s *stack.Stack) error {
		d := &demo{Options: o, stack: s, paint: newPaint(o.Colour)}
		return d.run(ctx)
	})
}

type demo struct {
	Options
	stack *stack.Stack
	paint paint
}

func (d *demo) run(ctx context.Context) error {
	d.printf("Temporal UI  %s/namespaces/default/workflows\n", d.stack.UI)
	d.printf("API          %s/api/v1/queries/%s/results\n", d.stack.API, queries[0])
	d.printf("Postgres     %s\n", d.stack.PostgresURL)
	d.printf("reaction     %s\n\n", d.Data.Join(reactionLog))

	if err := d.stack.AwaitReady(ctx); err != nil {
		return err
	}
	shop, err := openShop(ctx, d.stack.PostgresURL)
	if err != nil {
		return fmt.Errorf("setting up the shop: %w", err)
	}
	defer shop.close()
	if err := d.startComponents(ctx); err != nil {
		return err
	}

	watching, stopWatching := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWatching()
	watch := newWatcher(d.stack.API, d.paint, d.Out)
	ended := make(chan error, len(queries))
	for _, query := range queries {
		go func() { ended <- watch.follow(watching, query) }()
	}
	began := time.Now()
	err = d.write(ctx, shop, ended)
	elapsed := time.Since(began)
	if err != nil {
		return err
	}

	finishing, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishBound)
	defer cancel()
	outcome, err := d.compare(finishing, shop)
	stopWatching()
	for range queries {
		<-ended
	}
	if err != nil {
		return err
	}
	return d.summarise(shop, watch, elapsed, outcome)
}

// write lets the shop's clients write until the time is over or ctx ends. A watcher that ends meanwhile is an error.
func (d *demo) write(ctx context.Context, shop *shop, ended <-chan error) error {
	writing, stop := context.WithCancel(ctx)
	defer stop()
	if seconds := d.Config.Seconds; seconds > 0 {
		writing, stop = context.WithTimeout(ctx, time.Duration(seconds)*time.Second)
		defer stop()
	}
	wrote := make(chan error, 1)
	go func() { wrote <- shop.write(writing, d.Config.Rate) }()
	select {
	case err := <-wrote:
		if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
			return nil // a part of the stack failed, and its error is the one that counts
		}
		return err
	case err := <-ended:
		stop()
		<-wrote
		return fmt.Errorf("watching differences: %w", err)
	}
}

func (d *demo) printf(format string, args ...any) { fmt.Fprintf(d.Out, format, args...) }
