package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

func newDoctor() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what is missing, and how to mend it",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newDoctorSource(), newDoctorStreams())
	return cmd
}

func newDoctorSource() *cobra.Command {
	var (
		file   string
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "source",
		Short: "Look at the system behind a source, and change nothing",
		Long: `Looks at each thing that a source depends on and says what it found, what is wanted and how to
mend it. It needs neither Temporal nor JetStream; secrets, PG* variables and files are those of
this machine. The exit status is 1 if something keeps the source from working. The workflow
CheckSource does the same where the workers are.`,
		Example: "  perdure doctor source --file deploy/examples/orders/source.json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return process.Run(cmd.Context(), process.StopBound, cmd.ErrOrStderr(), func(ctx context.Context) error {
				checks, err := checkSource(ctx, file)
				if err != nil {
					return err
				}
				if asJSON {
					err = json.NewEncoder(cmd.OutOrStdout()).Encode(checks)
				} else {
					err = printChecks(cmd.OutOrStdout(), checks)
				}
				return errors.Join(err, blocked(checks))
			})
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "file that starts the source, in JSON or YAML: spec: {...}")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

func checkSource(ctx context.Context, file string) ([]pipeline.Check, error) {
	if file == "" {
		return nil, usageError{errors.New("no source is named"), "Name the file that starts it with --file."}
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("reading the source: %w", err)
	}
	var in struct {
		Spec        component.SourceSpec `json:"spec"`
		Desired     string               `json:"desired"`
		RequestedBy string               `json:"requestedBy"`
	}
	if err := component.DecodeYAML(text, &in); err != nil {
		return nil, err
	}
	host, err := pipeline.NewHost(pipeline.Options{Sources: catalog.Sources()})
	if err != nil {
		return nil, err
	}
	return host.CheckSource(ctx, in.Spec)
}

func printChecks(out io.Writer, checks []pipeline.Check) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, c := range checks {
		state := string(c.Severity)
		if c.OK {
			state = "ok"
		}
		name := c.Name
		if c.Object != "" {
			name += " " + c.Object
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", state, name, strings.Join(strings.Fields(c.Found), " "))
		if c.Wanted != "" {
			fmt.Fprintf(w, "\t\t  wanted: %s\n", c.Wanted)
		}
		if c.Fix != "" {
			fmt.Fprintf(w, "\t\t  fix: %s\n", c.Fix)
		}
		for _, statement := range append(slices.Clone(c.SQL), c.Commands...) {
			fmt.Fprintf(w, "\t\t  %s\n", statement)
		}
	}
	return w.Flush()
}

// blocked is the failure of the first check that keeps the source from working.
func blocked(checks []pipeline.Check) error {
	for _, c := range checks {
		if c.Severity == pipeline.Blocking {
			return fmt.Errorf("the source cannot work: %s", c.Name)
		}
	}
	return nil
}
