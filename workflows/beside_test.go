package workflows

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// besides has each bootstrap take a while and end with what next returns, and returns the inputs as they come.
func (h *harness) besides(take time.Duration, next func(BootstrapInput) error) (begun *[]BootstrapInput) {
	begun = new([]BootstrapInput)
	h.OnWorkflow(TypeBootstrap, mock.Anything, mock.Anything).Return(
		func(ctx workflow.Context, raw converter.RawValue) (*BootstrapResult, error) {
			var in BootstrapInput
			if err := json.Unmarshal(payloadData(raw), &in); err != nil {
				return nil, err
			}
			*begun = append(*begun, in)
			if err := workflow.Sleep(ctx, take); err != nil {
				return nil, err
			}
			return &BootstrapResult{}, next(in)
		})
	return begun
}

// TestQueryIsReadAgainWhileItRuns: the run is begun anew with the request, asks for a bootstrap and goes on while there is
// one, whatever becomes of that.
func TestQueryIsReadAgainWhileItRuns(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 24*time.Hour, drained, nil)
	failures := 1
	begun := h.besides(10*time.Minute, func(BootstrapInput) error {
		if failures--; failures >= 0 {
			return coded(failure.PermissionDenied)
		}
		return nil
	})
	need := activities.Need{Generation: 2, Outcome: activities.OutcomeNeedsResync}
	h.at(time.Minute, func() { h.signal(CommandRebootstrap, nil) })
	h.at(4*time.Hour, func() {
		require.Equal(t, uint64(2), h.status().Generation)
		h.signal(activities.SignalNeed, activities.Need{Generation: 1, Outcome: activities.OutcomeNeedsResync}) // of an earlier run
		h.signal(activities.SignalNeed, "nonsense")
	})
	h.at(4*time.Hour+time.Minute, func() {
		require.Empty(t, *begun)
		h.signal(activities.SignalNeed, need)
		h.signal(activities.SignalNeed, need) // of the next attempt
	})
	h.at(4*time.Hour+5*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, activities.HealthHealthy, s.Health)
		require.Equal(t, BootstrapsState{Beside: true, WorkflowIDs: []string{"bootstrap.default.big.orders.1"}}, s.Bootstrap)
	})
	h.at(4*time.Hour+11*time.Minute+10*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.True(t, s.Bootstrap.Beside)
		require.Equal(t, failure.PermissionDenied.ID, s.Breaker.LastError.Code)
		require.Equal(t, activities.HealthDegraded, s.Health)
		require.Equal(t, activities.HealthDegraded, h.healths[len(h.healths)-1])
	})
	h.at(4*time.Hour+23*time.Minute, func() {
		require.Len(t, *begun, 2, "tried again")
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, activities.HealthHealthy, s.Health)
		require.Equal(t, activities.HealthHealthy, h.healths[len(h.healths)-1])
		require.Zero(t, s.Bootstrap)
		require.Len(t, s.Commands, 2, "the one, and the signal that cannot be read")
		require.Equal(t, []string{Applied, Rejected}, outcomes(s.Commands))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Equal(t, []string{"", "generation 2"}, h.reloads)
}

// TestResultOfAQueryIsHeld: a query that cannot apply changes is degraded until the bootstrap that it asked for is done, of
// which only what it misses is read. A stop ends both.
func TestResultOfAQueryIsHeld(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, 3*time.Hour, drained, nil)
	begun := h.besides(90*time.Minute, func(BootstrapInput) error { return nil })
	need := activities.Need{Generation: 1, Outcome: activities.OutcomeNeedsResync, Missing: &activities.Missing{Source: "orders", Labels: []string{"Order"}}, Held: true}
	h.at(time.Minute, func() { h.signal(activities.SignalNeed, need) })
	h.at(time.Hour, func() {
		require.Equal(t, activities.HealthDegraded, h.status().Health)
		require.True(t, h.status().Bootstrap.Held)
		require.Len(t, *begun, 1)
		require.Equal(t, []string{"Order"}, (*begun)[0].Labels)
	})
	h.at(2*time.Hour, func() {
		require.Equal(t, activities.HealthHealthy, h.status().Health)
		h.signal(activities.SignalNeed, activities.Need{Generation: 1, Outcome: activities.OutcomeNeedsRebuild, Held: true})
	})
	h.at(2*time.Hour+time.Minute, func() {
		require.Len(t, *begun, 2)
		require.Equal(t, []string{"bootstrap.default.big.orders.2"}, h.status().Bootstrap.WorkflowIDs)
		require.True(t, (*begun)[1].Rebuild)
		require.Empty(t, (*begun)[1].Labels)
	})
	h.at(4*time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(2), s.Generation)
		require.Equal(t, activities.HealthHealthy, s.Health)
		require.Zero(t, s.Bootstrap)
		h.signal(activities.SignalNeed, activities.Need{Generation: 2, Outcome: activities.OutcomeNeedsRebuild, Held: true})
		h.signal(CommandStop, nil)
	})
	h.at(6*time.Hour, func() {
		s := h.status()
		require.Equal(t, PhaseStopped, s.Phase)
		require.Equal(t, activities.HealthIdle, s.Health)
		require.Zero(t, s.Bootstrap)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
	require.True(t, h.IsWorkflowCompleted())
}
