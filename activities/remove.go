package activities

import (
	"context"
	"errors"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// RemoveInput is the input of Instances.RemoveComponent.
type RemoveInput struct {
	Component      string `json:"component"`
	KeepResources  bool   `json:"keepResources,omitempty"` // of a source; nothing else has any
	Force          bool   `json:"force,omitempty"`
	TimeoutSeconds int    `json:"timeoutSeconds,omitempty"` // bound of the component's teardown
}

// RemoveComponent deletes a component and returns when its workflow has ended. One that is gone already is no error. Where
// the workflow has ended otherwise, because somebody terminated or cancelled it, what it left is removed here.
func (i *Instances) RemoveComponent(ctx context.Context, in RemoveInput) error {
	return translate(beating(ctx, func(ctx context.Context) error {
		return patiently(ctx, func() error { return i.remove(ctx, in) })
	}))
}

func (i *Instances) remove(ctx context.Context, in RemoveInput) error {
	id, err := component.ParseID(in.Component)
	if err != nil {
		return failure.ConfigInvalid.Errorf("reading the input: %w", err)
	}
	c := newRemote(ctx, in.Component)
	status, err := c.status(ctx)
	if err == nil && (!status.Deleting || status.Health == HealthFailing || in.Force) {
		with := command{"force": in.Force, "timeoutSeconds": in.TimeoutSeconds}
		if id.Kind == component.Source {
			with["dropResources"] = !in.KeepResources
		}
		_, err = c.command(ctx, CommandDelete, with)
	}
	if err == nil {
		err = c.awaitClosed(ctx)
	}
	if err != nil && !errors.Is(err, errNoWorkflow) {
		return err
	}
	deleted, closed, err := c.end(ctx)
	if err != nil || deleted {
		return err
	}
	err = i.clear(ctx, id, in, closed)
	if err != nil && in.Force && ctx.Err() == nil {
		i.sources.runner.log.Warn("a component is deleted, and something of it is left", zap.String(telemetry.KeyComponent, in.Component), zap.Error(err))
		return nil
	}
	return err
}

// heardWithin is how long a loop may take to notice that it is shut out, or that its workflow is gone.
const heardWithin = 10 * time.Second

// clear removes what a component has left whose workflow ended, at a time, without being deleted. Its loop may not know of
// that yet, and would make anew what is removed.
func (i *Instances) clear(ctx context.Context, id component.ID, in RemoveInput, closed time.Time) error {
	store := i.sources.runner.store
	last, _, err := store.lastPlacement(ctx, in.Component)
	if err == nil {
		err = store.conn.BumpFence(ctx, in.Component, stream.Epoch{Generation: last.Generation + 1})
	}
	if err != nil {
		return err
	}
	if wait := time.Until(closed.Add(heardWithin)); wait > 0 {
		select {
		case <-time.After(min(wait, heardWithin)): // clocks differ
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	spec, err := bareSpec(id)
	if err != nil {
		return err
	}
	down := TeardownInput{Component: in.Component, Spec: spec, KeepResources: in.KeepResources && id.Kind == component.Source}
	switch id.Kind {
	case component.Query:
		return i.queries.tearDown(ctx, down)
	case component.Reaction:
		return i.reactions.tearDown(ctx, down)
	}
	if _, err := store.read(ctx, specsBucket, in.Component, &down.Spec); err != nil {
		return err
	}
	return i.sources.tearDown(ctx, down)
}

// end reports how the component's workflow has ended: because it was deleted, or at what time otherwise, which is zero where
// nothing is known of it any more.
func (r *remote) end(ctx context.Context) (deleted bool, closed time.Time, err error) {
	bounded, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	described, err := r.client.DescribeWorkflowExecution(bounded, r.id, "")
	var missing *serviceerror.NotFound
	if errors.As(err, &missing) {
		return false, time.Time{}, nil
	}
	if err != nil {
		return false, time.Time{}, r.classify(ctx, err, "asking how "+r.id+" ended")
	}
	info := described.GetWorkflowExecutionInfo()
	return info.GetStatus() == enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, info.GetCloseTime().AsTime(), nil
}
