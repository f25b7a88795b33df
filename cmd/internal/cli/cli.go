// Package cli is the command line of perdure. It is thin: commands read their settings and call the packages that do
// the work.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/cmd/internal/version"
)

// Main runs the command line and returns the exit code.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	if errors.As(err, &usage) {
		fmt.Fprintf(stderr, "error: %v\n  fix: %s\n", err, usage.hint)
		return process.ExitUsage
	}
	return process.Explain(stderr, err)
}

// usageError is a mistake on the command line.
type usageError struct {
	error
	hint string
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "perdure",
		Short: "Keeps the answers of graph queries over changing databases up to date",
		Long: `Perdure watches databases, keeps the answers of standing graph queries up to date,
and acts on every difference. Everything it does is a Temporal workflow.`,
		Example: `  perdure demo                   # see it work, with everything it needs
  perdure dev --with-postgres    # a place to build your own
  perdure apply instance.yaml    # start what a file declares, or give it another spec`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			text := fmt.Sprintf("there is no command %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				text += "; did you mean " + strings.Join(near, " or ") + "?"
			}
			return usageError{errors.New(text), "See perdure --help."}
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{err, "See " + cmd.CommandPath() + " --help."}
	})
	root.AddCommand(newDev(), newDemo(), newApply(), newSpec(), newDoctor(), newVersion())
	return root
}

func newVersion() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:     "version",
		Short:   "Print which build this is",
		Example: "  perdure version --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if asJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(version.Get())
			}
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Get())
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0]), "See " + cmd.CommandPath() + " --help."}
	}
	return nil
}

// owned is what a command that keeps data works with.
type owned struct {
	data *process.DataDir
	log  *zap.Logger
}

// withData calls work with a logger and the data directory, and stops it on signals within a bound.
func withData(cmd *cobra.Command, dir string, bound time.Duration, log config.Log, work func(context.Context, owned) error) error {
	logger, err := process.NewLogger(log, cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	defer logger.Sync() //nolint:errcheck // a terminal cannot be synchronised
	data, err := process.OpenDataDir(dir)
	if err != nil {
		return err
	}
	defer data.Close()
	return process.Run(cmd.Context(), bound, cmd.ErrOrStderr(), func(ctx context.Context) error {
		return work(ctx, owned{data, logger})
	})
}

func loadSettings(cmd *cobra.Command, into any) error {
	return config.Load(cmd.Flags(), os.LookupEnv, into)
}
