package workflows

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// TestStaleGeneration: a command that is meant for another run is refused, and told which one there is.
func TestStaleGeneration(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	var refused error
	var done Status
	h.at(time.Minute, func() {
		h.signal(CommandPause, map[string]any{"generation": 7})
		h.signal(CommandPause, map[string]any{"generation": 0})
		h.UpdateWorkflow(CommandRestart, "u1", callbacks(t, nil, &refused), map[string]any{"generation": 2})
		h.signal(CommandRestart, map[string]any{"generation": 1})
	})
	h.at(15*time.Minute, func() {
		require.Equal(t, uint64(2), h.status().Generation)
		h.signal(CommandPause, map[string]any{"generation": 1})
		h.signal(CommandPause, map[string]any{"generation": "2"})
		h.UpdateWorkflow(CommandStop, "u2", callbacks(t, &done, nil), map[string]any{"generation": 2})
	})
	h.at(16*time.Minute, func() {
		var said []string
		for _, c := range h.status().Commands {
			said = append(said, c.Name+" "+c.Outcome+" "+c.Error)
		}
		require.Equal(t, []string{
			"pause rejected the generation is 1, not 7: the component was started anew since",
			"pause rejected the generation is 1, not 0: the component was started anew since",
			"restart applied ",
			"pause rejected the generation is 2, not 1: the component was started anew since",
			"pause rejected decoding the payload: json: cannot unmarshal string into Go struct field CommandInput.generation of type uint64",
			"stop applied ",
		}, said)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.ErrorContains(t, refused, "the generation is 1, not 2")
	require.Equal(t, Stopped, done.Desired)
}

// TestGenerationOfAnInstance: it has none, and says what to use instead.
func TestGenerationOfAnInstance(t *testing.T) {
	w := newWorld(t, testInstance)
	w.valid()
	w.watched()
	w.at(time.Second, func() { w.signal(CommandPause, map[string]any{"generation": 1}) })
	w.at(2*time.Second, func() {
		require.Equal(t, "an instance has no generation; apply takes baseSpecVersion", w.instance().Commands[0].Error)
		w.CancelWorkflow()
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, nil, nil)})
	require.True(t, w.IsWorkflowCompleted())
}

// TestHistoriesOfBuildsWithoutTheseFields: such a build refused the payload as a whole, and did nothing else.
func TestHistoriesOfBuildsWithoutTheseFields(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.OnGetVersion("command fields", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	h.loops(reactions.ReactionRun, 100*time.Hour, drained, nil)
	h.at(time.Minute, func() {
		h.signal(CommandPause, map[string]any{"generation": 1, "requestId": "x"})
		h.signal(CommandSkip, map[string]any{"query": "big", "seq": "7", "confirm": "lines"})
		h.signal(CommandSkip, nil)
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, `decoding the payload: json: unknown field "generation"`, s.Commands[0].Error)
		require.Empty(t, s.Commands[0].RequestID, "another one with it may come")
		require.Equal(t, []string{Rejected, Rejected, Rejected}, outcomes(s.Commands))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Zero(t, h.count("SkipResult"))
}

// TestSkip: a reaction that waits for a person because of one result goes on without it.
func TestSkip(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.loops(reactions.ReactionRun, time.Minute, activities.RunResult{}, coded(failure.DeliveryExhausted)).Once()
	h.loops(reactions.ReactionRun, 100*time.Hour, drained, nil)
	var asked []activities.ResultInput
	h.OnActivity(reactions.SkipResult, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.ResultInput) error {
		if asked = append(asked, in); in.Seq != "7" {
			return coded(failure.PlaceInvalid)
		}
		return nil
	})
	h.at(10*time.Minute, func() {
		require.Equal(t, PhaseNeedsOperator, h.status().Phase)
		h.signal(CommandSkip, nil)
		h.signal(CommandSkip, map[string]any{"query": "big", "seq": "7"})
		h.signal(CommandSkip, map[string]any{"query": "big", "seq": "latest", "confirm": "lines"})
		h.signal(CommandPause, map[string]any{"seq": "7"})
	})
	h.at(11*time.Minute, func() {
		h.signal(CommandSkip, map[string]any{"query": "big", "seq": "8", "confirm": "lines"})
	})
	h.at(12*time.Minute, func() {
		require.Equal(t, PhaseNeedsOperator, h.status().Phase)
		skip := map[string]any{"query": "big", "seq": "7", "confirm": "lines", "generation": 1, "requestId": "once"}
		h.signal(CommandSkip, skip)
		h.signal(CommandSkip, skip)
	})
	h.at(13*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(2), s.Generation)
		require.Equal(t, []string{Rejected, Rejected, Rejected, Rejected, Rejected, Applied}, outcomes(s.Commands))
		require.Equal(t, `skip needs {"query":"...","seq":"...","confirm":"lines"}`, s.Commands[1].Error)
		require.Equal(t, `seq: "latest" is not the number of an event`, s.Commands[2].Error)
		require.Equal(t, "query and seq are for skip and setPosition", s.Commands[3].Error)
		require.Equal(t, "PlaceInvalid", s.Commands[4].Code)
		require.NotEmpty(t, s.Commands[4].Fix)
		require.Equal(t, []string{"the cause"}, s.Commands[4].Causes)
		require.Equal(t, "event 7 of big is tried once more; if it fails, it goes to the dead letters", s.Commands[5].Result)
		require.Len(t, asked, 2)
		require.Equal(t, activities.ResultInput{Component: lines, Spec: json.RawMessage(reactionSpec), Query: "big", Seq: "7", Generation: 1}, asked[1])
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestSetPosition is for reactions that do not run.
func TestSetPosition(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.loops(reactions.ReactionRun, 5*time.Minute, drained, nil)
	var asked []activities.ResultInput
	h.OnActivity(reactions.SetPosition, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.ResultInput) (activities.PositionResult, error) {
			asked = append(asked, in)
			return activities.PositionResult{Seq: "41"}, nil
		})
	latest := map[string]any{"query": "big", "seq": "latest", "confirm": "lines"}
	h.at(time.Minute, func() { h.signal(CommandSetPosition, latest) })
	h.at(2*time.Minute, func() {
		require.Equal(t, "the reaction is Running: signal pause first, and then resume", h.status().Commands[0].Error)
		h.signal(CommandPause, nil)
		h.signal(CommandSetPosition, latest) // it has not ended yet
	})
	h.at(10*time.Minute, func() {
		require.Equal(t, Rejected, h.status().Commands[2].Outcome)
		h.signal(CommandSetPosition, latest)
		h.signal(CommandSetPosition, map[string]any{"query": "big", "seq": "last", "confirm": "lines"})
	})
	h.at(11*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhasePaused, s.Phase)
		require.Equal(t, `seq: "last" is neither earliest, latest nor the number of an event`, s.Commands[3].Error)
		require.Equal(t, "goes on behind event 41 of big", s.Commands[4].Result)
		require.Equal(t, uint64(1), asked[0].Generation)
		require.Equal(t, "latest", asked[0].Seq)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Len(t, asked, 1)
}
