// Package stack runs everything that Perdure needs in this process: a Temporal server with its UI, a JetStream server, if
// wanted a Postgres server, and a node that works with them. It is what `perdure dev` and `perdure demo` share.
package stack

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/cmd/internal/codec"
	"github.com/perdure/perdure/cmd/internal/devserver"
	"github.com/perdure/perdure/cmd/internal/node"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source/postgres/cluster"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
)

// PostgresSecret is the reference by which specs name the URL of the private Postgres server.
const PostgresSecret = "env:PERDURE_POSTGRES_URL"

// stopBound is how long each server may take to stop.
const stopBound = 10 * time.Second

// readyBound is how long the workers may take to begin.
const readyBound = 30 * time.Second

// Options says what to run. Ports are those of the loopback interface; 0 takes a free one.
type Options struct {
	Data          *process.DataDir
	Namespace     string
	TemporalPort  int
	UIPort        int
	APIPort       int
	NATSPort      int  // 0: not reachable from other processes
	Postgres      bool // run a private server
	NoWorker      bool // do no tasks here
	Limits        workers.Limits
	StreamOptions stream.Options // its timeouts
	TraceRatio    float64
	Codec         *codec.Codec // encrypts what histories hold; nil: nothing does
	Log           *zap.Logger
}

// Stack is what runs.
type Stack struct {
	Client      client.Client
	Temporal    string // host:port
	UI          string // URL
	API         string // URL
	NATS        string // URL, "" when other processes cannot reach it
	PostgresURL string // "" when none was asked for

	ready func(context.Context) error
}

// Run starts everything and calls body, whose context ends with ctx or when a part fails. When body has returned,
// everything is stopped, each part within a bound: workers, API, UI, Temporal, JetStream, Postgres.
func Run(ctx context.Context, o Options, body func(context.Context, *Stack) error) (err error) {
	var stops []func(context.Context) error
	defer func() {
		for i := len(stops) - 1; i >= 0; i-- {
			bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopBound)
			err = errors.Join(err, stops[i](bounded))
			cancel()
		}
	}()
	stopLater := func(stop func(context.Context) error) { stops = append(stops, stop) }
	s := &Stack{}
	secret := component.ResolveSecret

	listener, err := net.Listen("tcp", loopback(o.APIPort))
	if err != nil {
		return failure.PortInUse.Errorf("listening for the API: %w", err).WithFix("Free the port or choose another one with --api-port.")
	}
	closeListener := true // until the node has it
	stopLater(func(context.Context) error {
		if closeListener {
			return listener.Close()
		}
		return nil
	})
	s.API = "http://" + listener.Addr().String()

	codecURL := ""
	if o.Codec != nil {
		codecURL = s.API + "/codec"
	}

	// The servers do not depend on each other, and each takes a moment.
	var postgres *cluster.Cluster
	var jetstream *stream.Server
	var temporal *devserver.Server
	starting, startContext := errgroup.WithContext(ctx)
	starting.Go(func() (err error) {
		if o.Postgres {
			postgres, err = cluster.Start(startContext, cluster.Options{Dir: o.Data.Join("postgres")})
		}
		return err
	})
	starting.Go(func() (err error) {
		jetstream, err = stream.Serve(stream.ServerOptions{Dir: o.Data.Join("stream"), Listen: natsListen(o.NATSPort), Log: o.Log})
		return err
	})
	starting.Go(func() (err error) {
		temporal, err = devserver.Start(startContext, devserver.Options{
			DBFile: o.Data.Join("temporal.db"), FrontendAddr: loopback(o.TemporalPort), UIAddr: loopback(o.UIPort),
			Namespace: o.Namespace, CodecURL: codecURL, Log: o.Log,
		})
		return err
	})
	err = starting.Wait()
	if postgres != nil {
		stopLater(postgres.Stop)
		s.PostgresURL = postgres.URL()
		secret = withPostgres(s.PostgresURL)
	}
	if jetstream != nil {
		stopLater(jetstream.Close)
		s.NATS = jetstream.URL()
	}
	if temporal != nil {
		stopLater(temporal.Stop)
		s.Temporal, s.UI = temporal.Address(), temporal.UIURL()
	}
	if err != nil {
		return err
	}

	o.StreamOptions.Server, o.StreamOptions.Name, o.StreamOptions.Log = jetstream, "perdure", o.Log
	conn, err := stream.Connect(ctx, o.StreamOptions)
	if err != nil {
		return fmt.Errorf("connecting to JetStream: %w", err)
	}
	stopLater(func(context.Context) error { conn.Close(); return nil })
	tells, err := node.NewTelemetry(ctx, o.Data.HostID, o.TraceRatio, o.Log)
	if err != nil {
		return err
	}
	stopLater(func(context.Context) error { tells.Close(); return nil })
	options := client.Options{
		HostPort: s.Temporal, Namespace: o.Namespace, Identity: o.Data.HostID, Logger: workers.Logger(o.Log), MetricsHandler: tells.Temporal,
	}
	o.Codec.Apply(&options)
	s.Client, err = client.DialContext(ctx, options)
	if err != nil {
		return fmt.Errorf("connecting to Temporal: %w", err)
	}
	stopLater(func(context.Context) error { s.Client.Close(); return nil })
	if err := workers.RegisterSearchAttributes(ctx, s.Client, o.Namespace); err != nil {
		o.Log.Warn("search attributes cannot be registered; workers try again", zap.Error(err))
	}

	closeListener = false
	n := node.New(node.Options{
		Client: s.Client, Codec: o.Codec, Namespace: o.Namespace, Stream: conn, Data: o.Data, API: listener, Worker: !o.NoWorker,
		UIs: []string{s.UI, strings.Replace(s.UI, "127.0.0.1", "localhost", 1)}, Secret: secret, Limits: o.Limits, Telemetry: tells, Log: o.Log,
	})
	s.ready = n.Ready
	return work(ctx, n, temporal.Quiet, func(ctx context.Context) error { return body(ctx, s) })
}

// work runs the node until body has returned; ending is called then.
func work(ctx context.Context, n *node.Node, ending func(), body func(context.Context) error) error {
	working, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	group, failed := errgroup.WithContext(ctx)
	group.Go(func() error { return n.Run(working) })
	group.Go(func() error {
		defer func() { ending(); stopWork() }()
		return body(failed)
	})
	return group.Wait()
}

// AwaitReady returns when everything works.
func (s *Stack) AwaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyBound)
	defer cancel()
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting to be ready: %w (%w)", ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }

func natsListen(port int) string {
	if port == 0 {
		return ""
	}
	return loopback(port)
}

// withPostgres resolves references as usual, and the one to the private server.
func withPostgres(url string) func(string) (string, error) {
	return func(ref string) (string, error) {
		if ref == PostgresSecret {
			return url, nil
		}
		return component.ResolveSecret(ref)
	}
}
