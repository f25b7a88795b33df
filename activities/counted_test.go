package activities

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// TestFailuresOfShortActivitiesAreCounted, each attempt once, and those of loops not twice.
func TestFailuresOfShortActivitiesAreCounted(t *testing.T) {
	b := newBench(t)
	tries := 0
	b.host.provision = func(context.Context) error {
		if tries++; tries < 3 {
			return failure.Unreachable.Errorf("connecting")
		}
		return nil
	}
	b.host.validate = func() error { return failure.ConfigInvalid.Errorf("spec") }
	b.host.loop = func(context.Context, pipeline.Attempt) error { return failure.SlotMissing.Errorf("reading") }
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{Counter(b.Sources.runner.metrics)}})
	env.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: orders, TaskQueue: QueueWorkflows})
	env.RegisterActivity(b.Sources)
	env.ExecuteWorkflow(func(ctx workflow.Context) error {
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
			StartToCloseTimeout: time.Minute, RetryPolicy: &temporal.RetryPolicy{InitialInterval: time.Second, MaximumAttempts: 5},
		})
		in := SpecInput{Component: orders, Spec: runInput(1).Spec}
		require.Error(t, workflow.ExecuteActivity(ctx, b.Sources.ValidateSource, in).Get(ctx, nil))
		require.NoError(t, workflow.ExecuteActivity(ctx, b.Sources.ProvisionSource, in).Get(ctx, nil))
		require.Error(t, workflow.ExecuteActivity(ctx, b.Sources.SourceRun, runInput(1)).Get(ctx, nil))
		return nil
	})
	require.NoError(t, env.GetWorkflowError())
	require.Equal(t, []string{
		`perdure_component_failures_total{code="ConfigInvalid",component="source.default.orders"} 1`,
		`perdure_component_failures_total{code="SlotMissing",component="source.default.orders"} 1`,
		`perdure_component_failures_total{code="Unreachable",component="source.default.orders"} 2`,
	}, b.measured("perdure_component_failures_total"))
}

func TestFailuresCountForTheComponentConcerned(t *testing.T) {
	for id, want := range map[string]string{
		"reaction.default.lines": "reaction.default.lines", "bootstrap.default.big.orders.3": "query.default.big", "instance.shop": "instance.shop",
		"check-2026": "", "bootstrap.x": "",
	} {
		require.Equal(t, want, countedFor(id), id)
	}
}
