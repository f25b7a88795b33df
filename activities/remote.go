package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/streaming/failure"
)

// remote is the workflow of a component, seen from outside.
type remote struct {
	client  client.Client
	id      string
	request string // begins the ids of requests
}

// command is the payload of a command.
type command map[string]any

func (c command) with(field, value string) command {
	if value != "" {
		c[field] = value
	}
	return c
}

// remoteStatus is what an instance reads of a component's status.
type remoteStatus struct {
	Component   string `json:"component"`
	Desired     string `json:"desired"`
	Phase       string `json:"phase"`
	Health      string `json:"health"`
	Deleting    bool   `json:"deleting"`
	SpecVersion int    `json:"specVersion"`
	Breaker     struct {
		LastError *failure.Report `json:"lastError"`
	} `json:"breaker"`
}

// errNoWorkflow means that the component has no workflow that runs.
var errNoWorkflow = errors.New("there is no such workflow")

const (
	// answerWithin bounds a call that a worker answers at once, if there is one.
	answerWithin = 10 * time.Second
	// checkedWithin bounds a reconfigure, which is answered when the spec has been checked.
	checkedWithin = time.Minute
	// closedEvery is how often a workflow that is to end is asked whether it has.
	closedEvery = 250 * time.Millisecond
	// silentFor is how long a workflow may not answer before its instance goes on without it.
	silentFor  = 30 * time.Second
	askedEvery = time.Second

	maxComponentError = 400
)

// patiently does work again while the component's workflow does not answer, but not for ever: the instance names it then.
func patiently(ctx context.Context, work func() error) error {
	for began := time.Now(); ; {
		err := work()
		switch failure.CodeOf(err) {
		case failure.ComponentSilent, failure.Unreachable:
		default:
			return err
		}
		if time.Since(began) > silentFor {
			return exhausted(err)
		}
		select {
		case <-time.After(askedEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s remoteStatus) state() ComponentState {
	state := ComponentState{Component: s.Component, Desired: s.Desired, Phase: s.Phase, Health: s.Health, SpecVersion: s.SpecVersion}
	if last := s.Breaker.LastError; last != nil && s.Health == HealthFailing {
		state.Error = errorOf(*last)
	}
	return state
}

func errorOf(r failure.Report) ComponentError {
	return ComponentError{Code: r.Code, Message: cut(r.Message, maxComponentError), Fix: cut(r.Fix, maxComponentError)}
}

// start starts the workflow, unless somebody else was quicker.
func (r *remote) start(ctx context.Context, in EnsureInput, given command) error {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	_, err := r.client.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
		ID: r.id, TaskQueue: QueueWorkflows, StaticSummary: "started by " + in.RequestedBy,
		WorkflowIDReusePolicy:    enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		WorkflowIDConflictPolicy: enumspb.WORKFLOW_ID_CONFLICT_POLICY_USE_EXISTING,
	}, in.WorkflowType, given.with("desired", in.Desired).with("requestedBy", in.RequestedBy))
	if err != nil {
		return failure.Unreachable.Errorf("starting workflow %s: %w", r.id, err)
	}
	return nil
}

func (r *remote) status(ctx context.Context) (s remoteStatus, err error) {
	err = r.query(ctx, QueryStatus, &s)
	return s, err
}

// query asks a workflow that runs; the error is errNoWorkflow when there is none.
func (r *remote) query(ctx context.Context, name string, into any) error {
	bounded, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	answer, err := r.client.QueryWorkflowWithOptions(bounded, &client.QueryWorkflowWithOptionsRequest{
		WorkflowID: r.id, QueryType: name, QueryRejectCondition: enumspb.QUERY_REJECT_CONDITION_NOT_OPEN,
	})
	if err == nil && answer.QueryRejected != nil {
		return errNoWorkflow
	}
	if err == nil {
		err = answer.QueryResult.Get(into)
	}
	return r.classify(ctx, err, "asking "+r.id+" for its "+name)
}

// command sends a command and returns the status after it. It is done once, however often the activity is tried.
func (r *remote) command(ctx context.Context, name string, payload command) (s remoteStatus, err error) {
	within := answerWithin
	if name == CommandReconfigure {
		within = checkedWithin
	}
	bounded, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if payload == nil {
		payload = command{}
	}
	payload["requestId"] = r.request + name
	handle, err := r.client.UpdateWorkflow(bounded, client.UpdateWorkflowOptions{
		WorkflowID: r.id, UpdateName: name, UpdateID: r.request + name, Args: []any{payload},
		WaitForStage: client.WorkflowUpdateStageCompleted,
	})
	if err == nil {
		err = handle.Get(bounded, &s)
	}
	return s, r.classify(ctx, err, fmt.Sprintf("sending %s the command %s", r.id, name))
}

// awaitClosed returns when the workflow, which is being deleted, has ended, or its deletion is blocked.
func (r *remote) awaitClosed(ctx context.Context) error {
	ticker := time.NewTicker(closedEvery)
	defer ticker.Stop()
	heard := time.Now()
	for {
		switch s, err := r.status(ctx); {
		case errors.Is(err, errNoWorkflow):
			return nil
		case err != nil && (ctx.Err() != nil || time.Since(heard) > silentFor):
			return err
		case err != nil:
		case s.Deleting && s.Health == HealthFailing:
			why := "the teardown failed"
			if last := s.Breaker.LastError; last != nil {
				why = last.Code + ": " + last.Message
			}
			return exhausted(failure.ComponentRefused.Errorf("deleting %s is blocked: %s", r.id, why))
		default:
			heard = time.Now()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// state is what the workflow says of the component, given what is known of it.
func (r *remote) state(ctx context.Context, known ComponentState) (ComponentState, error) {
	s, err := r.status(ctx)
	switch {
	case err == nil:
		return s.state(), nil
	case ctx.Err() != nil:
		return known, ctx.Err()
	case errors.Is(err, errNoWorkflow):
		known.Phase = PhaseMissing
		err = failure.ComponentMissing.Errorf("workflow %s does not run", r.id)
	}
	known.Health, known.Error = HealthFailing, errorOf(failure.Describe(err))
	return known, nil
}

// classify says what it means that a workflow does not do as asked.
func (r *remote) classify(ctx context.Context, err error, doing string) error {
	var (
		missing *serviceerror.NotFound
		refused *temporal.ApplicationError
		failed  *serviceerror.QueryFailed
	)
	switch {
	case err == nil, ctx.Err() != nil:
		return err
	case errors.As(err, &missing):
		return errNoWorkflow
	case errors.As(err, &refused), errors.As(err, &failed):
		return exhausted(failure.ComponentRefused.Errorf("%s: %w", doing, err))
	}
	return failure.ComponentSilent.Errorf("%s: %w", doing, err)
}
