package demo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/deploy/examples/orders"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/workflows"
)

// components are the example's files. Those of a group are started together, and all of them run before the next group
// is started: a reaction would otherwise complain that its queries have no results yet.
var components = []struct {
	kind  component.Kind
	files []string
}{
	{component.Source, []string{"source.json"}},
	{component.Query, []string{"query.json", "query-urgent.json", "query-lines.json"}},
	{component.Reaction, []string{"reaction.json"}},
}

// queries are the names of the example's queries; the question of each in SQL is in the file of the same name.
var queries = []string{"open-orders", "urgent-orders", "valuable-lines"}

// startComponents starts the workflow of each file, or finds it running since an earlier demonstration.
func (d *demo) startComponents(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, readyBound)
	defer cancel()
	for _, group := range components {
		ids := make([]string, len(group.files))
		for i, file := range group.files {
			input, err := orders.Files.ReadFile(file)
			if err == nil && group.kind == component.Reaction {
				input, err = logTo(d.Data.Join(reactionLog), input)
			}
			if err != nil {
				return fmt.Errorf("reading the example: %w", err)
			}
			if ids[i], err = d.start(ctx, group.kind, input); err != nil {
				return fmt.Errorf("starting the component of %s: %w", file, err)
			}
		}
		for _, id := range ids {
			if err := d.awaitRunning(ctx, id); err != nil {
				return fmt.Errorf("waiting for %s: %w", id, err)
			}
			d.printf("%s      %s\n", d.paint.good("running"), id)
		}
	}
	d.printf("\n")
	return nil
}

// reactionLog is where the example's reaction writes in a demonstration, which has the terminal for itself.
const reactionLog = "order-log.txt"

// logTo returns the input of a log reaction with another output.
func logTo(file string, input json.RawMessage) (json.RawMessage, error) {
	var in struct {
		Spec component.ReactionSpec `json:"spec"`
	}
	if err := json.Unmarshal(input, &in); err != nil {
		return nil, err
	}
	config := make(map[string]any)
	if len(in.Spec.Config) > 0 {
		if err := json.Unmarshal(in.Spec.Config, &config); err != nil {
			return nil, err
		}
	}
	config["output"] = file
	var err error
	if in.Spec.Config, err = json.Marshal(config); err != nil {
		return nil, err
	}
	return json.Marshal(in)
}

// start does what `tctl workflow start` does. A workflow that exists gets the signal resume, in case it was stopped.
func (d *demo) start(ctx context.Context, kind component.Kind, input json.RawMessage) (string, error) {
	var named struct {
		Spec struct{ Name string }
	}
	if err := json.Unmarshal(input, &named); err != nil {
		return "", err
	}
	id := component.ID{Kind: kind, Instance: component.DefaultInstance, Name: named.Spec.Name}.String()
	_, err := d.stack.Client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: id, TaskQueue: activities.QueueWorkflows,
		WorkflowIDConflictPolicy:                 enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL,
		WorkflowExecutionErrorWhenAlreadyStarted: true,
	}, workflows.WorkflowType(kind), input)
	var exists *serviceerror.WorkflowExecutionAlreadyStarted
	if errors.As(err, &exists) {
		err = d.stack.Client.SignalWorkflow(ctx, id, "", workflows.CommandResume, nil)
	}
	return id, err
}

func (d *demo) awaitRunning(ctx context.Context, id string) error {
	var s workflows.Status
	for {
		err := d.query(ctx, id, &s)
		switch {
		case err == nil && s.Phase == workflows.PhaseRunning:
			return nil
		case err == nil && s.Phase == workflows.PhaseNeedsOperator && s.Breaker.LastError != nil:
			e := s.Breaker.LastError
			return fmt.Errorf("it needs an operator: %s: %s (%s)", e.Code, e.Message, e.Fix)
		}
		select {
		case <-ctx.Done():
			if e := s.Breaker.LastError; e != nil && err == nil {
				err = fmt.Errorf("last error: %s: %s", e.Code, e.Message)
			}
			return fmt.Errorf("its phase is %s: %w", s.Phase, errors.Join(ctx.Err(), err))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (d *demo) query(ctx context.Context, id string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	value, err := d.stack.Client.QueryWorkflow(ctx, id, "", workflows.QueryStatus)
	if err != nil {
		return err
	}
	return value.Get(into)
}
