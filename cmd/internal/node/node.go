// Package node runs a process's share of the work: workers that do the tasks of workflows, and the API. It is the same
// in a worker process and inside `perdure dev`; only the addresses of Temporal and JetStream differ.
package node

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	taskqueuepb "go.temporal.io/api/taskqueue/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/codec"
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

const (
	// closeBound is how long the API waits for requests in flight, and the stages for what they hold.
	closeBound = 5 * time.Second
	// readyWithin is how long the servers may take to say that they are well.
	readyWithin = 3 * time.Second
	// headerTimeout is how long a client of the API may take to ask, and idleTimeout how long it may ask nothing.
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Options says what a node works with. The caller keeps all of it and closes it after Run has returned.
type Options struct {
	Client    client.Client
	Codec     *codec.Codec // that the client has; nil for none
	Namespace string
	Stream    *stream.Conn
	Data      *process.DataDir
	// API is where the API is served; nil for none. Run closes it.
	API net.Listener
	// UIs are the origins of Temporal UIs whose pages may ask the API to decrypt payloads.
	UIs []string
	// Worker says whether tasks are done here; without it, only the API is served.
	Worker bool
	// Secret reads what a reference such as "env:ORDERS_PW" stands for; component.ResolveSecret when nil.
	Secret    func(ref string) (string, error)
	Limits    workers.Limits
	Telemetry *Telemetry
	Log       *zap.Logger
}

// Node is one process's share of the work.
type Node struct {
	Options
	loops activities.Loops
	polls atomic.Bool // the workers have been seen to ask for tasks
}

// New returns a node that does nothing yet.
func New(o Options) *Node {
	if o.Secret == nil {
		o.Secret = component.ResolveSecret
	}
	n := &Node{Options: o}
	n.Telemetry.Metrics.Components(n.components)
	n.Telemetry.Metrics.StreamSpace(n.Stream.ShortOfSpace)
	return n
}

// Run works until ctx ends or something fails for good. It stops in order: first the workers, which drain what they
// have, then the API, so that readers see everything that was done. It is called once.
func (n *Node) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	group.Go(func() error {
		defer close(drained)
		if !n.Worker {
			<-ctx.Done()
			return nil
		}
		return failure.Guard(func() error { return n.work(ctx) })
	})
	group.Go(func() error {
		return failure.Guard(func() error { process.Notify(ctx, n.Ready, n.Alive, n.Log); return nil })
	})
	if n.API != nil {
		group.Go(func() error { return failure.Guard(func() error { return n.serve(drained) }) })
	}
	return group.Wait()
}

// overdueAfter is when a loop that makes no progress makes the process unready: it beats every few seconds. brokenAfter is
// how long after it was told to end a loop should have ended long ago, so that only a new process helps.
const (
	overdueAfter = 20 * time.Second
	brokenAfter  = 3 * time.Minute
)

// silent returns a failure that names the loops that have made no progress for longer than a bound.
func silent(loops []activities.Loop, bound time.Duration) error {
	var names []string
	for _, l := range loops {
		if l.Silent < bound {
			continue
		}
		names = append(names, fmt.Sprintf("%s for %s", l.Component, l.Silent.Round(time.Second))+doing(l))
	}
	if names == nil {
		return nil
	}
	return failure.Stalled.Errorf("no progress of %s", strings.Join(names, "; "))
}

// hung returns a failure that names the loops that were told to end longer than a bound ago and have not. How long a loop
// that was not told makes no progress is its policy's affair.
func hung(loops []activities.Loop, bound time.Duration) error {
	var names []string
	for _, l := range loops {
		if l.Ending >= bound {
			names = append(names, fmt.Sprintf("%s, told %s ago", l.Component, l.Ending.Round(time.Second))+doing(l))
		}
	}
	if names == nil {
		return nil
	}
	return failure.Stalled.Errorf("no end of %s", strings.Join(names, "; "))
}

// doing is what a loop was last seen to do.
func doing(l activities.Loop) (text string) {
	if l.Status.Phase != "" {
		text = " while " + l.Status.Phase
	}
	if l.Status.Backpressure != "" {
		text += ", waiting for " + l.Status.Backpressure
	}
	return text
}

// Alive reports whether the process can go on without being started anew: a loop that was told to end long ago and does
// not holds what it has for ever. It is safe for concurrent use.
func (n *Node) Alive() error { return hung(n.loops.List(), brokenAfter) }

// Ready reports whether both servers that everything depends on answer, this node asks for tasks, and its loops get on
// with their work. It is safe for concurrent use.
func (n *Node) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyWithin)
	defer cancel()
	if _, err := n.Client.CheckHealth(ctx, &client.CheckHealthRequest{}); err != nil {
		return failure.Unreachable.Errorf("asking Temporal for its health: %w", err)
	}
	if !n.Stream.NATS().IsConnected() {
		return failure.StreamUnavailable.Errorf("the JetStream server does not answer")
	}
	if err := silent(n.loops.List(), overdueAfter); err != nil {
		return err
	}
	if !n.Worker || n.polls.Load() {
		return nil
	}
	queue, err := n.Client.DescribeTaskQueue(ctx, activities.QueueWorkflows, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil {
		return failure.Unreachable.Errorf("asking Temporal for the workers of task queue %s: %w", activities.QueueWorkflows, err)
	}
	if asks(queue.GetPollers(), workers.Identity(n.Data.HostID)) {
		n.polls.Store(true)
		return nil
	}
	return failure.Unreachable.Errorf("this process does not ask for tasks yet")
}

// asks reports whether a process is among those that ask for tasks. The server remembers them for minutes: also the process
// that ran on this host before.
func asks(pollers []*taskqueuepb.PollerInfo, identity string) bool {
	return slices.ContainsFunc(pollers, func(p *taskqueuepb.PollerInfo) bool { return p.GetIdentity() == identity })
}

func (n *Node) work(ctx context.Context) error {
	host, err := pipeline.NewHost(pipeline.Options{
		Stream:    n.Stream,
		Sources:   catalog.Sources(),
		Reactions: catalog.Reactions(),
		Index:     pebble.New(pebble.Options{Dir: n.Data.Join("index"), Log: n.Log}),
		SpillDir:  n.Data.Join("spill"),
		HostID:    n.Data.HostID,
		Log:       n.Log,
		Metrics:   n.Telemetry.Metrics,
		Traces:    n.Telemetry.Traces,
		Secret:    n.Secret,
	})
	if err != nil {
		return fmt.Errorf("making the host of stages: %w", err)
	}
	err = workers.Run(ctx, workers.Options{
		Client: n.Client, Host: host, HostID: n.Data.HostID, Loops: &n.loops, Metrics: n.Telemetry.Metrics, Namespace: n.Namespace,
		Data: n.Codec.DataConverter(), Stream: n.Stream, Limits: n.Limits, Log: n.Log,
	})
	if err != nil {
		err = fmt.Errorf("running workers: %w", err)
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeBound)
	defer cancel()
	return errors.Join(err, host.Close(closing))
}

// serve serves the API until drained is closed. Streams of events end then, and their clients resume elsewhere.
func (n *Node) serve(drained <-chan struct{}) error {
	base, cancel := context.WithCancel(context.Background())
	defer cancel()
	var decrypts http.Handler
	if n.Codec != nil {
		decrypts = n.Codec.Handler(n.UIs...)
	}
	server := &http.Server{
		Handler: httpapi.New(httpapi.Deps{
			Results:     func(instance string) reaction.Results { return pipeline.NewResults(n.Stream, instance) },
			Events:      func(results reaction.Results) http.Handler { return sse.NewHandler(results, sse.Options{Log: n.Log}) },
			DeadLetters: pipeline.NewDeadLetters(n.Stream),
			Ready:       n.Ready,
			Alive:       n.Alive,
			Loops:       n.loops.List,
			Metrics:     n.Telemetry.Metrics.Handler(),
			Codec:       decrypts,
			Log:         n.Log,
		}),
		BaseContext:       func(net.Listener) context.Context { return base },
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		ErrorLog:          zap.NewStdLog(n.Log.Named("http")),
	}
	stopped := failure.Go(func() error {
		<-drained
		cancel()
		bounded, done := context.WithTimeout(context.Background(), closeBound)
		defer done()
		return server.Shutdown(bounded)
	})
	if err := server.Serve(n.API); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving the API: %w", err)
	}
	err := <-stopped
	if errors.Is(err, context.DeadlineExceeded) { // a client that does not let go is no failure of ours
		err = server.Close()
	}
	if err != nil {
		return fmt.Errorf("closing the API: %w", err)
	}
	return nil
}
