// Package node runs a process's share of the work: workers that do the tasks of workflows, and the API. It is the same
// in a worker process and inside `perdure dev`; only the addresses of Temporal and JetStream differ.
package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"go.temporal.io/sdk/client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/cmd/internal/httpapi"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/reaction/sse"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
)

// closeBound is how long the API waits for requests in flight.
const closeBound = 5 * time.Second

// Options says what a node works with. The caller keeps all of it and closes it after Run has returned.
type Options struct {
	Client    client.Client
	Namespace string
	Stream    *stream.Conn
	Data      *process.DataDir
	// API is where the API is served; nil for none. Run closes it.
	API net.Listener
	// Worker says whether tasks are done here; without it, only the API is served.
	Worker bool
	// Secret reads what a reference such as "env:ORDERS_PW" stands for; component.ResolveSecret when nil.
	Secret func(ref string) (string, error)
	Log    *zap.Logger
}

// Run works until ctx ends or something fails for good. It stops in order: first the workers, which drain what they
// have, then the API, so that readers see everything that was done.
func Run(ctx context.Context, o Options) error {
	if o.Secret == nil {
		o.Secret = component.ResolveSecret
	}
	group, ctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	group.Go(func() error {
		defer close(drained)
		if !o.Worker {
			<-ctx.Done()
			return nil
		}
		return work(ctx, o)
	})
	if o.API != nil {
		group.Go(func() error { return serve(o, drained) })
	}
	return group.Wait()
}

func work(ctx context.Context, o Options) error {
	host, err := pipeline.NewHost(pipeline.Options{
		Stream:    o.Stream,
		Sources:   catalog.Sources(),
		Reactions: catalog.Reactions(),
		Index:     pebble.New(pebble.Options{Dir: o.Data.Join("index"), Log: o.Log}),
		HostID:    o.Data.HostID,
		Log:       o.Log,
		Secret:    o.Secret,
	})
	if err != nil {
		return fmt.Errorf("making the host of stages: %w", err)
	}
	err = workers.Run(ctx, workers.Options{
		Client: o.Client, Host: host, HostID: o.Data.HostID, Namespace: o.Namespace, Stream: o.Stream, Log: o.Log,
	})
	if err != nil {
		err = fmt.Errorf("running workers: %w", err)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	return errors.Join(err, host.Close(closing))
}

// serve serves the API until drained is closed. Streams of events end then, and their clients resume elsewhere.
func serve(o Options, drained <-chan struct{}) error {
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := &http.Server{
		Handler: httpapi.New(httpapi.Deps{
			Results: func(instance string) reaction.Results { return pipeline.NewResults(o.Stream, instance) },
			Events:  func(results reaction.Results) http.Handler { return sse.NewHandler(results, sse.Options{Log: o.Log}) },
			Ready:   func(ctx context.Context) error { return ready(ctx, o) },
			Log:     o.Log,
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          zap.NewStdLog(o.Log.Named("http")),
	}
	stopped := make(chan error, 1)
	go func() {
		<-drained
		cancel()
		bounded, done := context.WithTimeout(context.Background(), closeBound)
		defer done()
		stopped <- server.Shutdown(bounded)
	}()
	if err := server.Serve(o.API); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the API: %w", err)
	}
	if err := <-stopped; err != nil {
		return errors.Join(fmt.Errorf("closing the API: %w", err), server.Close())
	}
	return nil
}

// ready reports whether both servers that everything depends on answer.
func ready(ctx context.Context, o Options) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	if _, err := o.Client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return failure.Unreachable.Errorf("asking Temporal for its health: %w", err)
	}
	if !o.Stream.NATS().IsConnected() {
		return failure.StreamUnavailable.Errorf("the JetStream server does not answer")
	}
	return nil
}
