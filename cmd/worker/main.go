// Worker does the tasks of Perdure's workflows: it runs sources, queries and reactions for a Temporal cluster and a
// JetStream server that run elsewhere. Start as many as the work needs.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/cmd/internal/codec"
	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/node"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/cmd/internal/version"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
)

func main() {
	os.Exit(run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	var usage error
	cmd := newCommand(func(err error) { usage = err })
	cmd.SetArgs(args)
	cmd.SetOut(stdout)
	cmd.SetErr(stderr)
	err := cmd.ExecuteContext(ctx)
	if usage != nil {
		fmt.Fprintf(stderr, "error: %v\n  fix: See worker --help.\n", usage)
		return process.ExitUsage
	}
	return process.Explain(stderr, err)
}

func newCommand(misused func(error)) *cobra.Command {
	var c config.Worker
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Do the tasks of Perdure's workflows",
		Long: `Runs sources, queries and reactions for a Temporal cluster and a JetStream server that run
elsewhere. The data directory holds the state of queries and this worker's identity: keep it,
and give each worker its own.

SIGINT or SIGTERM stops it: what runs is drained and handed over to other workers. A second
signal, or --stop-timeout without an end, abort it; nothing is lost then either.`,
		Example: `  TEMPORAL_ADDRESS=temporal:7233 NATS_URL=nats://nats:4222 worker --data-dir /var/lib/perdure
  worker --listen 127.0.0.1:8080     # also serve the API`,
		Version:       version.Get().String(),
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				err := fmt.Errorf("worker takes no arguments, got %q", args[0])
				misused(err)
				return err
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(cmd.Flags(), os.LookupEnv, &c); err != nil {
				return err
			}
			log, err := process.NewLogger(c.Log, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer log.Sync() //nolint:errcheck // a terminal cannot be synchronised
			return process.Run(cmd.Context(), c.StopTimeout, cmd.ErrOrStderr(), func(ctx context.Context) error { return work(ctx, c, log) })
		},
	}
	cmd.SetVersionTemplate("{{.Version}}\n")
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error {
		misused(err)
		return err
	})
	config.AddFlags(cmd.Flags(), &c)
	return cmd
}

func work(ctx context.Context, c config.Worker, log *zap.Logger) (err error) {
	keys, err := codec.Open(c.PayloadKeys)
	if err != nil {
		return err
	}
	data, err := process.OpenDataDir(c.DataDir)
	if err != nil {
		return err
	}
	defer data.Close()
	var listener net.Listener
	if c.Listen != "" {
		listener, err = net.Listen("tcp", c.Listen)
		switch {
		case errors.Is(err, syscall.EADDRINUSE):
			return failure.PortInUse.Errorf("listening for the API: %w", err).WithFix("Free the port or choose another one with --listen.")
		case err != nil:
			return failure.ConfigInvalid.Errorf("listening for the API: %w", err).WithFix("Give --listen an address of this machine as host:port.")
		}
		defer listener.Close()
	}
	tells, err := node.NewTelemetry(ctx, data.HostID, c.TraceRatio, log)
	if err != nil {
		return err
	}
	defer tells.Close()
	temporal, conn, err := connect(ctx, c, data.HostID, keys, tells.Temporal, log)
	if err != nil {
		return err
	}
	defer temporal.Close()
	defer conn.Close()
	log.Info("working", zap.String("host", data.HostID))
	return node.New(node.Options{
		Client: temporal, Codec: keys, UIs: []string{c.PayloadOrigin}, Namespace: c.TemporalNamespace, Stream: conn, Data: data, API: listener, Worker: true,
		Limits: workers.Limits{
			HeartbeatRate: c.HeartbeatRate, HeartbeatTimeout: c.HeartbeatTimeout, HandOver: c.HandOverTimeout,
			StopWithControlPlane: !c.OutliveControlPlane, StayOnStop: !c.MoveQueries, MaxLoops: c.MaxLoops, MaxCopies: c.MaxCopies,
		},
		Telemetry: tells, Log: log,
	}).Run(ctx)
}

// withoutSecrets hides who a list of URLs logs in as: that may be a token.
func withoutSecrets(urls string) string {
	shown := strings.Split(urls, ",")
	for i, one := range shown {
		u, err := url.Parse(strings.TrimSpace(one))
		switch {
		case err != nil:
			shown[i] = "an address that is no URL"
		case u.User != nil:
			u.User = url.User("xxxxx")
			shown[i] = u.String()
		}
	}
	return strings.Join(shown, ",")
}

// connect reaches both servers within the time that the settings allow, or says which of them did not answer: whoever
// started the worker sees a wrong address at once, while servers that fail later are waited for.
func connect(
	ctx context.Context, c config.Worker, identity string, keys *codec.Codec, metrics client.MetricsHandler, log *zap.Logger,
) (temporal client.Client, conn *stream.Conn, err error) {
	bounded, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	var temporalErr, streamErr error
	var group errgroup.Group
	group.Go(func() error {
		options := client.Options{
			HostPort: c.TemporalAddress, Namespace: c.TemporalNamespace, Identity: identity, Logger: workers.Logger(log), MetricsHandler: metrics,
		}
		keys.Apply(&options)
		temporal, temporalErr = client.DialContext(bounded, options)
		if temporalErr != nil {
			temporalErr = failure.Unreachable.Errorf("connecting to Temporal at %s: %w", c.TemporalAddress, temporalErr).
				WithFix("Check TEMPORAL_ADDRESS and that the server is up.")
		}
		return nil
	})
	group.Go(func() error {
		conn, streamErr = stream.Connect(bounded, stream.Options{
			URL: c.NATSURL, Name: identity, Log: log,
			AckTimeout: c.AckTimeout, AppendTimeout: c.AppendTimeout, RequestTimeout: c.RequestTimeout,
		})
		if streamErr != nil {
			streamErr = failure.StreamUnavailable.Errorf("connecting to JetStream at %s: %w", withoutSecrets(c.NATSURL), streamErr)
		}
		return nil
	})
	_ = group.Wait() // both goroutines return nil: both errors are wanted
	if temporalErr == nil && streamErr == nil {
		return temporal, conn, nil
	}
	if temporal != nil {
		temporal.Close()
	}
	if conn != nil {
		conn.Close()
	}
	return nil, nil, errors.Join(temporalErr, streamErr)
}
