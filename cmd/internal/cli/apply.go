package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"go.uber.org/zap"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/cmd/internal/codec"
	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/workers"
	"github.com/perdure/perdure/workflows"
)

const (
	// answerWithin is how long Temporal may take to start a workflow, checkedWithin how long a workflow may take to check
	// another spec, begunWithin how long one that was started is waited for until its first spec is checked.
	answerWithin  = 10 * time.Second
	checkedWithin = 5 * time.Minute
	begunWithin   = 10 * time.Second
)

func newApply() *cobra.Command {
	var (
		c      config.Apply
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:   "apply FILE",
		Short: "Start a component or an instance, or give it another spec",
		Long: `Starts the workflow of the component or the instance that FILE declares or, if it runs, gives it that spec.
FILE holds a spec in YAML or JSON, alone or as the input of a workflow, and may be -, the standard input.
Everything that is wrong with the spec is said, and then the status is 1.

A spec that is too large for a workflow is stored on the JetStream server, which is needed for nothing
else, and given by reference. It is removed with the component or the instance.`,
		Example: `  perdure apply deploy/examples/orders/source.json
  TEMPORAL_ADDRESS=temporal:7233 NATS_URL=nats://nats:4222 perdure apply - < instance.yaml`,
		Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := loadSettings(cmd, &c); err != nil {
				return err
			}
			d, err := readDeclared(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			if !component.ValidName(d.name) {
				return failure.ConfigInvalid.Errorf("name: must be lower-case letters, digits and dashes, is %q", d.name)
			}
			return process.Run(cmd.Context(), process.StopBound, cmd.ErrOrStderr(), func(ctx context.Context) error {
				done, err := apply(ctx, c, d)
				if err != nil {
					return err
				}
				return done.print(cmd.OutOrStdout(), asJSON)
			})
		},
	}
	config.AddFlags(cmd.Flags(), &c)
	cmd.Flags().BoolVar(&asJSON, "json", false, "print as JSON")
	return cmd
}

// applied is what became of a spec.
type applied struct {
	Component   string `json:"component"` // or the instance
	Outcome     string `json:"outcome"`   // started, applied, or noop where it had the spec already
	SpecVersion int    `json:"specVersion"`
	SpecRef     string `json:"specRef,omitempty"`
	// Phase is what one that was started does then, empty if nobody has looked at it yet.
	Phase workflows.Phase `json:"phase,omitempty"`
}

const outcomeStarted = "started"

func (a applied) print(out io.Writer, asJSON bool) error {
	if asJSON {
		return json.NewEncoder(out).Encode(a)
	}
	what := map[string]string{outcomeStarted: "started", workflows.Applied: "has another spec", workflows.Noop: "has this spec already"}[a.Outcome]
	text := fmt.Sprintf("%s %s, version %d", a.Component, what, a.SpecVersion)
	if a.SpecRef != "" {
		text += ", stored as " + a.SpecRef
	}
	if a.Outcome == outcomeStarted && a.Phase == "" {
		text += fmt.Sprintf("; no worker has checked it within %s", begunWithin)
	}
	_, err := fmt.Fprintln(out, text)
	return err
}

func apply(ctx context.Context, c config.Apply, d declared) (applied, error) {
	server, err := connectTemporal(ctx, c)
	if err != nil {
		return applied{}, err
	}
	defer server.Close()
	given, err := d.given(ctx, c.Specs)
	if err != nil {
		return applied{}, err
	}
	for {
		started, err := d.start(ctx, server, given)
		if err != nil {
			return applied{}, err
		}
		if started {
			phase, err := d.begun(ctx, server)
			return applied{Component: d.id, Outcome: outcomeStarted, SpecVersion: 1, SpecRef: given["specRef"], Phase: phase}, err
		}
		done, err := d.change(ctx, server, given)
		var gone *serviceerror.NotFound
		if errors.As(err, &gone) && ctx.Err() == nil { // it ended in between
			continue
		}
		return done, err
	}
}

// given is the spec as a workflow is given it, which it is by reference where it is too large.
func (d *declared) given(ctx context.Context, c config.Specs) (payload, error) {
	if len(d.spec) <= activities.MostInline {
		return payload{"spec": string(d.spec)}, nil
	}
	conn, err := connectStream(ctx, c)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if err := d.check(ctx, conn); err != nil {
		return nil, err
	}
	ref, err := activities.NewStore(conn).PutSpec(ctx, d.id, d.spec)
	return payload{"specRef": ref}, err
}

// payload is the spec, or specRef, of an input or a command.
type payload map[string]string

// with returns the payload with a further field, if that has a value.
func (p payload) with(name, value string) map[string]any {
	all := make(map[string]any)
	for field, text := range p {
		if all[field] = text; field == "spec" {
			all[field] = json.RawMessage(text)
		}
	}
	if value != "" {
		all[name] = value
	}
	return all
}

// start starts the workflow, and reports false if it runs already.
func (d *declared) start(ctx context.Context, c client.Client, given payload) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := c.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: d.id, TaskQueue: workers.TaskQueue, StaticSummary: "started by perdure apply",
		WorkflowIDReusePolicy:                    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, d.workflowType(), given.with("desired", d.desired))
	var runs *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &runs) {
		return false, nil
	}
	if err != nil {
		return false, failure.Unreachable.Errorf("starting workflow %s: %w", d.id, err)
	}
	return true, nil
}

// begun waits, for a while, until the workflow that was started has checked its spec. The error is what is wrong with that.
func (d *declared) begun(ctx context.Context, c client.Client) (workflows.Phase, error) {
	bounded, cancel := context.WithTimeout(ctx, begunWithin)
	defer cancel()
	for {
		var status struct {
			Phase   workflows.Phase   `json:"phase"`
			Breaker workflows.Breaker `json:"breaker"`
		}
		// An error is that no worker is there to answer, or that none has begun yet.
		if answer, err := c.QueryWorkflow(bounded, d.id, "", workflows.QueryStatus); err == nil {
			if err := answer.Get(&status); err != nil {
				return "", fmt.Errorf("reading the status of %s: %w", d.id, err)
			}
		}
		switch failed := status.Breaker.LastError; {
		case status.Phase == workflows.PhaseNeedsOperator && failed != nil:
			return "", fmt.Errorf("%s is started and waits for another spec: %w", d.id, reported(failed.Report))
		case status.Phase != "" && status.Phase != workflows.PhaseCreated && status.Phase != workflows.PhaseValidating:
			return status.Phase, nil
		}
		select {
		case <-bounded.Done():
			return "", ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// change gives the workflow, which runs, another spec.
func (d *declared) change(ctx context.Context, c client.Client, given payload) (applied, error) {
	command := workflows.CommandReconfigure
	if d.kind == "" {
		command = workflows.CommandApply
	}
	bounded, cancel := context.WithTimeout(ctx, checkedWithin)
	defer cancel()
	var status struct {
		SpecVersion int                 `json:"specVersion"`
		SpecRef     string              `json:"specRef"`
		Commands    []workflows.Command `json:"commands"`
	}
	handle, err := c.UpdateWorkflow(bounded, client.UpdateWorkflowOptions{
		WorkflowID: d.id, UpdateName: command, Args: []any{given.with("", "")}, WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(bounded, &status)
	}
	var refused *temporal.ApplicationError
	switch {
	case errors.As(err, &refused):
		return applied{}, fmt.Errorf("%s refuses the spec: %w", d.id, plain(err))
	case err != nil && bounded.Err() != nil && ctx.Err() == nil:
		return applied{}, failure.ComponentSilent.Errorf("%s does not answer: %w", d.id, err)
	case err != nil:
		return applied{}, err
	}
	done := applied{Component: d.id, Outcome: workflows.Applied, SpecVersion: status.SpecVersion, SpecRef: status.SpecRef}
	if n := len(status.Commands); n > 0 {
		done.Outcome = status.Commands[n-1].Outcome
	}
	return done, nil
}

func connectTemporal(ctx context.Context, c config.Apply) (client.Client, error) {
	keys, err := codec.Open(c.PayloadKeys)
	if err != nil {
		return nil, err
	}
	bounded, cancel := context.WithTimeout(ctx, c.ConnectTimeout)
	defer cancel()
	options := client.Options{HostPort: c.TemporalAddress, Namespace: c.TemporalNamespace, Identity: "perdure apply", Logger: workers.Logger(zap.NewNop())}
	keys.Apply(&options)
	connected, err := client.DialContext(bounded, options)
	if err != nil {
		return nil, failure.Unreachable.Errorf("connecting to Temporal at %s: %w", c.TemporalAddress, err).
			WithFix("Check TEMPORAL_ADDRESS and that the server is up.")
	}
	return connected, nil
}
