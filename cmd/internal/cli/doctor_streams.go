package cli

import (
	"context"
	"encoding/json"
	"log/slog"
	"os"

	"github.com/spf13/cobra"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/log"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workers"
)

func newDoctorStreams() *cobra.Command {
	var (
		c      config.Servers
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "streams",
		Short: "List what is left on JetStream of components without a workflow, and change nothing",
		Long: `Lists the streams, objects and keys on JetStream that belong to sources, queries and reactions
which have no workflow any more, because somebody terminated or cancelled it instead of deleting
the component. They take space, and a query's hold back the trimming of its sources' streams.
Says of each component how to remove them; "perdure doctor source" does so of Postgres. Workers
remove what is on their disks by themselves. Name the Temporal namespace of the workers: in another
one there is no workflow of any component.`,
		Example: `  perdure doctor streams --temporal-address temporal:7233 --nats-url nats://nats:4222
  perdure doctor streams --nats-url nats://127.0.0.1:4222 --json    # of perdure dev --nats-port 4222`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := config.Load(cmd.Flags(), os.LookupEnv, &c); err != nil {
				return err
			}
			return process.Run(cmd.Context(), process.StopBound, cmd.ErrOrStderr(), func(ctx context.Context) error {
				checks, err := leftovers(ctx, c)
				if err != nil {
					return err
				}
				if asJSON {
					return json.NewEncoder(cmd.OutOrStdout()).Encode(checks)
				}
				return printChecks(cmd.OutOrStdout(), checks)
			})
		},
	}
	config.AddFlags(cmd.Flags(), &c)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func leftovers(ctx context.Context, c config.Servers) ([]pipeline.Check, error) {
	bounded, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	temporal, err := client.DialContext(bounded, client.Options{
		HostPort: c.TemporalAddress, Namespace: c.TemporalNamespace, Logger: log.NewStructuredLogger(slog.New(slog.DiscardHandler)),
	})
	if err != nil {
		return nil, failure.Unreachable.Errorf("connecting to Temporal at %s: %w", c.TemporalAddress, err).
			WithFix("Check --temporal-address and that the server is up.")
	}
	defer temporal.Close()
	conn, err := stream.Connect(bounded, stream.Options{URL: c.NATSURL, Name: "perdure doctor", Log: zap.NewNop()})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return pipeline.Leftovers(ctx, conn, activities.Buckets(), func(ctx context.Context, id component.ID) (bool, error) {
		return workers.Exists(ctx, temporal, id)
	})
}
