package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/cmd/internal/codec"
	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/demo"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/cmd/internal/stack"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
)

func newDev() *cobra.Command {
	var c config.Dev
	cmd := &cobra.Command{
		Use:   "dev",
		Short: "Run everything in one process: Temporal, its UI, JetStream, a worker and the API",
		Long: `Runs everything that Perdure needs in one process, for one machine. What it keeps is in the
data directory; it listens on the loopback interface only.

SIGINT or SIGTERM stops it: workers drain first, then the servers stop. A second signal, or
--stop-timeout without an end, abort it; nothing is lost then either.`,
		Example: `  perdure dev
  perdure dev --with-postgres --data-dir /tmp/perdure
  perdure dev --no-worker --nats-port 4222     # then: NATS_URL=nats://127.0.0.1:4222 worker`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadSettings(cmd, &c); err != nil {
				return err
			}
			keys, err := codec.Open(c.PayloadKeys)
			if err != nil {
				return err
			}
			return withData(cmd, c.DataDir, c.StopTimeout, c.Log, func(ctx context.Context, own owned) error {
				return stack.Run(ctx, stack.Options{
					Data: own.data, Namespace: c.Namespace, TemporalPort: c.TemporalPort, UIPort: c.UIPort, APIPort: c.APIPort,
					NATSPort: c.NATSPort, Postgres: c.WithPostgres, NoWorker: c.NoWorker,
					Limits: workers.Limits{
						HeartbeatRate: c.HeartbeatRate, HeartbeatTimeout: c.HeartbeatTimeout, HandOver: c.HandOverTimeout,
						StopWithControlPlane: !c.OutliveControlPlane, StayOnStop: !c.MoveQueries, MaxLoops: c.MaxLoops, MaxCopies: c.MaxCopies,
					},
					StreamOptions: stream.Options{AckTimeout: c.AckTimeout, AppendTimeout: c.AppendTimeout, RequestTimeout: c.RequestTimeout},
					TraceRatio:    c.TraceRatio, Codec: keys, Log: own.log,
				}, func(ctx context.Context, s *stack.Stack) error {
					printAddresses(cmd.OutOrStdout(), c.Namespace, s)
					if err := s.AwaitReady(ctx); err != nil {
						return err
					}
					fmt.Fprint(cmd.OutOrStdout(), readyHint)
					<-ctx.Done()
					return nil
				})
			})
		},
	}
	config.AddFlags(cmd.Flags(), &c)
	return cmd
}

const readyHint = `ready. Start a source, a query and a reaction with any Temporal client, for example:
  tctl workflow start --tq perdure --wt Source -w source.default.shop --if deploy/examples/orders/source.json
`

func printAddresses(w io.Writer, namespace string, s *stack.Stack) {
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, value)
		}
	}
	line("Temporal UI", s.UI)
	line("Temporal", s.Temporal+", namespace "+namespace)
	line("API", s.API)
	line("NATS", s.NATS)
	line("Postgres", s.PostgresURL)
}

func newDemo() *cobra.Command {
	var c config.Demo
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Watch the answers of three queries follow a shop's orders, then compare them with SQL",
		Long: `Starts everything, a private Postgres server included, creates a shop's tables, starts the source,
queries and reaction of deploy/examples/orders, writes to the tables and prints every difference
as it arrives. It ends with a summary, and with exit status 1 if an answer differs from SQL's.`,
		Example: `  perdure demo
  DEMO_SECONDS=0 perdure demo      # until Ctrl-C
  NO_COLOR=1 perdure demo --seconds 5 --rate 100`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := loadSettings(cmd, &c); err != nil {
				return err
			}
			return withData(cmd, c.DataDir, process.StopBound, c.Log, func(ctx context.Context, own owned) error {
				return demo.Run(ctx, demo.Options{Config: c, Data: own.data, Out: cmd.OutOrStdout(), Colour: colourful(cmd.OutOrStdout(), os.Getenv), Log: own.log})
			})
		},
	}
	config.AddFlags(cmd.Flags(), &c)
	return cmd
}

// colourful reports whether text written to w may be coloured: on a terminal, unless NO_COLOR says no, and elsewhere only
// if CLICOLOR_FORCE says so.
func colourful(w io.Writer, getenv func(string) string) bool {
	if getenv("NO_COLOR") != "" {
		return false
	}
	if force := getenv("CLICOLOR_FORCE"); force != "" && force != "0" {
		return true
	}
	file, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := file.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
