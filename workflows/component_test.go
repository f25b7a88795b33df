package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSourceStartsStopsAndResumes(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 61*time.Second, drained, nil)
	h.at(10*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(1), s.Generation)
		require.Less(t, s.History.Events, 60)
	})
	h.at(60*time.Second, func() { h.signal(CommandStop, nil) })
	h.at(60*time.Second+500*time.Millisecond, func() { require.Equal(t, PhaseDraining, h.status().Phase) })
	h.at(70*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseStopped, s.Phase)
		require.Equal(t, "0/16B3748", s.Position)
		h.signal(CommandResume, map[string]string{"reason": "again"})
	})
	h.at(80*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(2), s.Generation)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Error(t, h.GetWorkflowError())
	require.Equal(t, []uint64{1, 2}, h.generations)
	require.Equal(t, []string{"Validating", "Provisioning", "Starting", "Running", "Draining", "Stopped", "Starting", "Running", "Draining"}, h.phases)
}
