package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

func newSpec() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "spec",
		Short: "Store specs that are too large for the input of a workflow",
		Long: `An input of a workflow, and the payload of a command, is at most 64 KiB. A larger spec is stored on the
JetStream server and given by reference: {"specRef":"orders@3"} in place of {"spec":{...}}. A reference
stands for one version of the spec, which never changes.

"perdure apply" stores what is too large by itself.`,
		Example: `  perdure spec put orders.yaml                     # prints orders@1
  tctl workflow signal -w source.default.orders --name reconfigure --input '{"specRef":"orders@1"}'`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newSpecPut(), newSpecGet(), newSpecList(), newSpecDelete())
	return cmd
}

func newSpecPut() *cobra.Command {
	var (
		name   string
		asJSON bool
	)
	cmd := specCommand(1, func(ctx context.Context, cmd *cobra.Command, args []string, conn *stream.Conn) error {
		d, err := readDeclared(args[0], cmd.InOrStdin())
		if err == nil {
			err = d.check(ctx, conn)
		}
		if err != nil {
			return err
		}
		if name == "" {
			name = d.name
		}
		if !component.ValidName(name) {
			return usageError{fmt.Errorf("%q is not a name of lower-case letters, digits and dashes", name), "Give another one with --name."}
		}
		ref, err := activities.NewStore(conn).PutSpec(ctx, name, d.spec)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{"specRef": ref})
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), ref)
		return err
	})
	cmd.Use = "put FILE"
	cmd.Short = "Store a spec and print the reference to it"
	cmd.Long = `Stores the spec of a component or of an instance, in YAML or JSON, alone or as the input of a workflow, and
prints the reference to it. FILE may be -, the standard input. Everything that is wrong with the spec is
said first; secrets must be references, and are not read here. The same content gets the same reference.`
	cmd.Example = `  perdure spec put orders.yaml
  perdure spec put --name shop - < instance.json
  perdure spec put --json orders.yaml > input.json    # {"specRef":"orders@1"} is the input of a workflow`
	cmd.Flags().StringVar(&name, "name", "", "name to store it under; that in the spec when left out")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func newSpecGet() *cobra.Command {
	cmd := specCommand(1, func(ctx context.Context, cmd *cobra.Command, args []string, conn *stream.Conn) error {
		spec, err := activities.NewStore(conn).GetSpec(ctx, args[0])
		if err != nil {
			return err
		}
		var text bytes.Buffer
		if err := json.Indent(&text, spec, "", "  "); err != nil {
			return err
		}
		_, err = fmt.Fprintln(cmd.OutOrStdout(), text.String())
		return err
	})
	cmd.Use = "get REF"
	cmd.Short = "Print a stored spec as JSON"
	cmd.Example = "  perdure spec get orders@3"
	return cmd
}

func newSpecList() *cobra.Command {
	var asJSON bool
	cmd := specCommand(0, func(ctx context.Context, cmd *cobra.Command, _ []string, conn *stream.Conn) error {
		list, err := activities.NewStore(conn).ListSpecs(ctx)
		if err != nil {
			return err
		}
		if asJSON {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(list)
		}
		w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		fmt.Fprintln(w, "REFERENCE\tBYTES\tSTORED\tUSED BY")
		for _, s := range list {
			used := strings.Join(s.UsedBy, ", ")
			if s.Incomplete {
				used = "incomplete"
			}
			fmt.Fprintf(w, "%s\t%d\t%s\t%s\n", s.Ref, s.Bytes, s.At.UTC().Format(time.RFC3339), used)
		}
		return w.Flush()
	})
	cmd.Use = "list"
	cmd.Short = "List the stored specs, with what last ran with each"
	cmd.Example = "  perdure spec list --json"
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func newSpecDelete() *cobra.Command {
	var force bool
	cmd := specCommand(1, func(ctx context.Context, _ *cobra.Command, args []string, conn *stream.Conn) error {
		return activities.NewStore(conn).DeleteSpec(ctx, args[0], force)
	})
	cmd.Use = "delete REF"
	cmd.Short = "Delete a stored spec"
	cmd.Long = `Deletes a stored spec. One that a component or an instance works with is kept. What perdure apply and
instances store goes by itself, with what it was stored for.`
	cmd.Example = "  perdure spec delete orders@2"
	cmd.Flags().BoolVar(&force, "force", false, "delete it though it is used: what uses it needs another one when it is started anew")
	return cmd
}

// specCommand is a command with so many arguments that works with a connection to the stream server.
func specCommand(args int, work func(context.Context, *cobra.Command, []string, *stream.Conn) error) *cobra.Command {
	var c config.Specs
	cmd := &cobra.Command{
		Args: exactArgs(args),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &c); err != nil {
				return err
			}
			return process.Run(cmd.Context(), process.StopBound, cmd.ErrOrStderr(), func(ctx context.Context) error {
				conn, err := connectStream(ctx, c)
				if err != nil {
					return err
				}
				defer conn.Close()
				return work(ctx, cmd, args, conn)
			})
		},
	}
	config.AddFlags(cmd.Flags(), &c)
	return cmd
}

func exactArgs(want int) cobra.PositionalArgs {
	if want == 0 {
		return noArgs
	}
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == want {
			return nil
		}
		return usageError{fmt.Errorf("%s takes %d argument, got %d", cmd.CommandPath(), want, len(args)), "See " + cmd.CommandPath() + " --help."}
	}
}

func connectStream(ctx context.Context, c config.Specs) (*stream.Conn, error) {
	bounded, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	conn, err := stream.Connect(bounded, stream.Options{URL: c.NATSURL, Name: "perdure", Log: zap.NewNop()})
	if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		err = failure.StreamUnavailable.Errorf("connecting to JetStream: no answer within %s", c.ConnectTimeout)
	}
	if failure.CodeOf(err) == failure.StreamUnavailable {
		return nil, failure.StreamUnavailable.Errorf("%w", err).
			WithFix("Check NATS_URL and that the server is up; perdure dev serves other processes with --nats-port 4222.")
	}
	return conn, err
}
