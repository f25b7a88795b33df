package workflows

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

const (
	sourceSpec   = `{"name":"orders","kind":"postgres","config":{"host":"db"},"policy":{"drainSeconds":36000}}`
	querySpec    = `{"name":"big","query":"MATCH (o:Order) RETURN o.id AS id","sources":["orders"]}`
	reactionSpec = `{"name":"lines","kind":"log","queries":["big"]}`
)

// harness is one run of a workflow under the test environment, with activities that do nothing until a test says
// otherwise.
type harness struct {
	*testsuite.TestWorkflowEnvironment
	t *testing.T

	attributes atomic.Bool // whether the namespace has them

	mu          sync.Mutex
	called      []string          // activities, in order
	queues      map[string]string // of activities
	heartbeats  map[string]time.Duration
	generations []uint64                  // of runs
	reloads     []string                  // that they were asked for
	phases      []string                  // as upserted
	healths     []string                  // with them
	shown       temporal.SearchAttributes // last
}

func newHarness(t *testing.T, id string) *harness {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	suite.SetLogger(log.NewStructuredLogger(slog.New(slog.NewTextHandler(t.Output(), nil)))) // shown if the test fails
	h := &harness{TestWorkflowEnvironment: suite.NewTestWorkflowEnvironment(), t: t, queues: map[string]string{}, heartbeats: map[string]time.Duration{}}
	h.intercepted(Interceptor(nil))
	h.attributes.Store(true)
	New(h.attributes.Load).Register(h)
	set := activities.New(activities.Options{})
	h.RegisterActivity(set.Sources)
	h.RegisterActivity(set.Queries)
	h.RegisterActivity(set.Reactions)
	h.RegisterActivity(set.Bootstraps)
	h.RegisterActivity(set.Control)
	h.RegisterActivity(set.Instances)
	h.SetStartWorkflowOptions(client.StartWorkflowOptions{ID: id, TaskQueue: activities.QueueWorkflows})
	h.SetTestTimeout(20 * time.Second)
	h.OnUpsertTypedSearchAttributes(mock.Anything).Run(func(args mock.Arguments) {
		attributes, _ := args.Get(0).(temporal.SearchAttributes)
		phase, _ := attributes.GetKeyword(attrPhase)
		h.mu.Lock()
		defer h.mu.Unlock()
		h.phases, h.shown = append(h.phases, phase), attributes
		health, _ := attributes.GetKeyword(attrHealth)
		h.healths = append(h.healths, health)
	}).Return(nil).Maybe()
	h.SetOnActivityStartedListener(func(info *activity.Info, _ context.Context, args converter.EncodedValues) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.called = append(h.called, info.ActivityType.Name)
		h.queues[info.ActivityType.Name], h.heartbeats[info.ActivityType.Name] = info.TaskQueue, info.HeartbeatTimeout
		switch info.ActivityType.Name {
		case "SourceRun", "QueryRun", "ReactionRun":
			var in activities.RunInput
			if args.Get(&in) == nil {
				h.generations, h.reloads = append(h.generations, in.Generation), append(h.reloads, in.Reload)
			}
		}
	})
	return h
}

// healthy makes every activity that a test did not set up do what it does when all is well.
func (h *harness) healthy() {
	var generation uint64
	h.OnActivity(sources.ValidateSource, mock.Anything, mock.Anything).Return(activities.Checks{}, nil).Maybe()
	h.OnActivity(queries.ValidateQuery, mock.Anything, mock.Anything).Return(activities.Checks{}, nil).Maybe()
	h.OnActivity(reactions.ValidateReaction, mock.Anything, mock.Anything).Return(activities.Checks{}, nil).Maybe()
	h.OnActivity(sources.ProvisionSource, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(queries.WaitForSources, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(sources.TeardownSource, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(queries.TeardownQuery, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(reactions.TeardownReaction, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(control.FenceBump, mock.Anything, mock.Anything).Return(nil).Maybe()
	h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.PlaceInput) (activities.Placement, error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			generation = max(generation, in.Generation) + 1
			if in.NeedsHost {
				return activities.Placement{Generation: generation, Host: "h1", Queue: activities.HostQueue("h1")}, nil
			}
			return activities.Placement{Generation: generation, Queue: activities.QueueRun}, nil
		}).Maybe()
	h.OnActivity(control.RequestDrain, mock.Anything, mock.Anything).Return(nil).Maybe()
}

// intercepted says through what signals come. A workflow task has the time that a busy machine needs for it.
func (h *harness) intercepted(by ...interceptor.WorkerInterceptor) {
	h.SetWorkerOptions(worker.Options{Interceptors: by, DeadlockDetectionTimeout: 20 * time.Second})
}

// loops makes runs end a while after they began. They take no notice of a drain: an activity that blocks would make the
// environment's clock stand still.
func (h *harness) loops(run any, after time.Duration, result activities.RunResult, err error) *testsuite.MockCallWrapper {
	return h.OnActivity(run, mock.Anything, mock.Anything).Return(result, err).After(after)
}

func (h *harness) status() (s Status) {
	h.t.Helper()
	h.statusInto(&s)
	return s
}

func (h *harness) statusInto(s any) {
	h.t.Helper()
	value, err := h.QueryWorkflow(QueryStatus)
	require.NoError(h.t, err)
	require.NoError(h.t, value.Get(s))
}

// at does something after a time of the workflow's clock.
func (h *harness) at(d time.Duration, f func()) { h.RegisterDelayedCallback(f, d) }

func (h *harness) signal(name string, payload any) { h.SignalWorkflow(name, payload) }

func (h *harness) count(activity string) (n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, name := range h.called {
		if name == activity {
			n++
		}
	}
	return n
}

func input(spec string) Input { return Input{Spec: json.RawMessage(spec), RequestedBy: "test"} }

var drained = activities.RunResult{Outcome: activities.OutcomeDrained, Position: "0/16B3748", Sequence: "7"}

// coded is an error as an activity's translation makes it.
func coded(code *failure.Code) error {
	report := failure.Describe(code.Errorf("opening: %w", errors.New("the cause")))
	return temporal.NewApplicationErrorWithOptions(report.Message, report.Code, temporal.ApplicationErrorOptions{
		NonRetryable: true, Details: []any{report},
	})
}

func continued(t *testing.T, err error) *Input {
	t.Helper()
	var in Input
	continuedInto(t, err, &in)
	return &in
}

func continuedInto(t *testing.T, err error, in any) {
	t.Helper()
	var c *workflow.ContinueAsNewError
	require.ErrorAs(t, err, &c)
	require.NoError(t, converter.GetDefaultDataConverter().FromPayloads(c.Input, in))
}
