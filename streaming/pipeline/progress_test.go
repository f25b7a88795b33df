package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// TestSignsOfLifeHaveNoTimeOfDay: they are told by the clock that only goes forward, so that one who sets the other neither
// makes a loop look hung nor hides one that is.
func TestSignsOfLifeHaveNoTimeOfDay(t *testing.T) {
	var p Progress
	require.Zero(t, p.LastTick())
	before := time.Now()
	p.Tick()
	last := p.LastTick()
	require.WithinRange(t, last, before, time.Now())
	require.NotEqual(t, last.Round(0), last, "its reading of that clock is in it") // Round takes it away
}

// TestApplyingIsASignOfLife: a query whose changes take long to apply does not look hung.
func TestApplyingIsASignOfLife(t *testing.T) {
	r := newRig(t)
	r.readySource()
	run, _ := r.loader(auto)
	q, err := run.openStore(t.Context(), run.plan, "late", query.Empty)
	require.NoError(t, err)
	defer func() { require.NoError(t, q.Close()) }()
	require.NoError(t, q.Begin(result.State{}))
	require.Zero(t, run.attempt.Progress.LastTick())
	_, err = q.Apply(query.Batch{Source: "shop", Offset: 1, Transactions: []graph.Transaction{{Changes: []graph.Change{item(graph.OpInsert, "Item", 1, "a", 1)}}}})
	require.NoError(t, err)
	require.NotZero(t, run.attempt.Progress.LastTick())
}

// TestInterruptionShows since when a source gets nothing and why, unless it drains; and that it is over.
func TestInterruptionShows(t *testing.T) {
	p := &Progress{status: Status{Phase: "streaming"}}
	s := &sink{progress: p}
	shows := func(phase string) IntakeStatus {
		t.Helper()
		require.Equal(t, phase, p.Snapshot().Phase)
		return *p.Snapshot().Intake
	}
	s.Interrupted(nil)
	require.Zero(t, shows("streaming"))
	s.Interrupted(failure.ConnectionLost.Errorf("cut"))
	first := shows("interrupted")
	s.Interrupted(failure.Unreachable.Errorf("away"))
	second := shows("interrupted")
	require.Equal(t, "Unreachable", second.LastError.Code)
	require.Equal(t, 2, second.Failures)
	require.Equal(t, first.FailingSince, second.FailingSince)
	s.Interrupted(nil)
	require.Zero(t, shows("streaming"))
	p.Set(func(s *Status) { s.Phase = "draining" })
	s.Interrupted(failure.Unreachable.Errorf("away"))
	require.Equal(t, 1, shows("draining").Failures)
}
