package workflows

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

func (h *harness) reconfigure(spec string) {
	h.signal(CommandReconfigure, map[string]any{"spec": json.RawMessage(spec)})
}

// TestTasksForAnotherSpec shows that what is done for a spec does not count for the next one: a task that is asked to end
// may be done before it learns of it.
func TestTasksForAnotherSpec(t *testing.T) {
	for _, task := range []task{taskValidate, taskProvision, taskAwaitSources, taskBootstrap} {
		for _, err := range []error{nil, coded(failure.ConfigInvalid)} {
			e := &entity{desk: &desk{}, task: task, version: 1, state: State{core: core{SpecVersion: 2}, Missing: []string{"orders"}}}
			before := e.state
			e.ended(err)
			require.Equal(t, before, e.state, task)
			require.Equal(t, noTask, e.task)
		}
	}
}

// TestReconfigureJustAfterABootstrap shows that a query whose text is changed gets the bootstrap that it then needs.
func TestReconfigureJustAfterABootstrap(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	needs := activities.RunResult{Outcome: activities.OutcomeNeedsBootstrap}
	h.loops(queries.QueryRun, time.Second, needs, nil).Once()
	h.loops(queries.QueryRun, 20*time.Second, drained, nil).Once()
	h.loops(queries.QueryRun, time.Second, needs, nil).Once()
	h.loops(queries.QueryRun, 100*time.Hour, drained, nil)
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(&BootstrapResult{}, nil).After(time.Minute)
	h.at(70*time.Second, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		h.reconfigure(`{"name":"big","query":"MATCH (o:Order) RETURN o.total AS total","sources":["orders"]}`)
	})
	h.at(10*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Nil(t, s.Breaker.LastError)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestReconfigureKeepsARebootstrap that the run which it ends was asked for, or has not got to.
func TestReconfigureKeepsARebootstrap(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, time.Hour, drained, nil)
	h.at(30*time.Minute, func() {
		h.signal(CommandRebootstrap, nil)
		h.reconfigure(`{"name":"big","query":"MATCH (o:Order) RETURN o.id AS id","sources":["orders"],"checkpoint":{"seconds":7}}`)
	})
	h.at(90*time.Minute, func() {
		h.reconfigure(`{"name":"big","query":"MATCH (o:Order) RETURN o.id AS id","sources":["orders"],"bootstrap":"none"}`)
	})
	h.at(150*time.Minute, h.CancelWorkflow)
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Equal(t, []string{"", "generation 2", ""}, h.reloads)
}

// TestReconfigureToNoBootstrap shows that a snapshot is given up that is no longer wanted.
func TestReconfigureToNoBootstrap(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.needsBootstrap()
	h.healthy()
	h.holds(72*time.Hour, nil)
	h.bootstraps(100)
	h.at(time.Minute, func() {
		require.Equal(t, PhaseBootstrapping, h.status().Phase)
		h.reconfigure(`{"name":"big","query":"MATCH (o:Order) RETURN o.id AS id","sources":["orders"],"bootstrap":"none"}`)
	})
	h.at(5*time.Minute, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		require.Equal(t, 1, h.count("HoldSnapshot"))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestReconfiguresKeepTheirOrder shows that the last spec sent stays, also when it is checked more quickly than the one
// before, and that a repeated one counts once.
func TestReconfiguresKeepTheirOrder(t *testing.T) {
	const (
		slow = `{"name":"orders","kind":"postgres","config":{"host":"db2"},"policy":{"drainSeconds":36000}}`
		last = `{"name":"orders","kind":"postgres","config":{"host":"db3"},"policy":{"drainSeconds":36000}}`
	)
	h := newHarness(t, "source.default.orders")
	h.OnActivity(sources.ValidateSource, mock.Anything, mock.MatchedBy(func(in activities.SpecInput) bool {
		return string(in.Spec) == slow
	})).Return(activities.Checks{}, nil).After(30 * time.Second)
	h.healthy()
	h.loops(sources.SourceRun, 5*time.Minute, drained, nil)
	h.at(time.Minute, func() {
		for range 2 {
			h.signal(CommandReconfigure, map[string]any{"spec": json.RawMessage(slow), "requestId": "once"})
		}
		h.reconfigure(last)
	})
	h.at(10*time.Minute, func() {
		require.Equal(t, 3, h.status().SpecVersion)
		value, err := h.QueryWorkflow(QuerySpec)
		require.NoError(t, err)
		var spec json.RawMessage
		require.NoError(t, value.Get(&spec))
		require.JSONEq(t, last, string(spec))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}
