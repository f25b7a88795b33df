package workflows

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

const lines = "reaction.default.lines"

// TestDeadLetterCommands shows what becomes of each command, and that they are done one after the other.
func TestDeadLetterCommands(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.loops(reactions.ReactionRun, 100*time.Hour, drained, nil)
	var inputs []activities.LettersInput
	results := []activities.LettersResult{
		{Delivered: 2, Refused: 1, Left: activities.DeadLetters{Count: "7"}},
		{Refused: 1, Left: activities.DeadLetters{Count: "7"}},
		{Delivered: 1, Left: activities.DeadLetters{Count: "6"}, Failure: &failure.Report{Code: "DeliveryFailed", Message: "down"}},
		{Left: activities.DeadLetters{Count: "6"}, Failure: &failure.Report{Code: "LetterMissing", Message: "none"}},
	}
	h.OnActivity(reactions.RetryDeadLetters, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.LettersInput) (activities.LettersResult, error) {
			inputs = append(inputs, in)
			return results[len(inputs)-1], nil
		})
	h.OnActivity(control.DropDeadLetters, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.LettersInput) (activities.LettersResult, error) {
			require.Equal(t, activities.LettersInput{Component: lines}, in)
			return activities.LettersResult{}, nil
		})
	h.at(time.Minute, func() {
		h.signal("retry", nil)
		h.signal("retry", map[string]any{"ids": []string{"12"}, "requestId": "once"})
		h.signal("retry", map[string]any{"ids": []string{"12"}, "requestId": "once"})
		h.signal("retry", map[string]any{"all": true})
		h.signal("retry", map[string]any{"ids": []string{"99"}})
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, "6", s.DeadLetters.Count)
		require.Len(t, s.Commands, 4)
		for i, want := range []Command{
			{Name: "retry", Outcome: Applied, Result: "2 delivered, 1 refused again, 7 left"},
			{Name: "retry", Outcome: Applied, Result: "1 refused again, 7 left", RequestID: "once"},
			{Name: "retry", Outcome: Applied, Result: "1 delivered, 6 left", Error: "DeliveryFailed: down", Code: "DeliveryFailed"},
			{Name: "retry", Outcome: Rejected, Result: "6 left", Error: "LetterMissing: none", Code: "LetterMissing"},
		} {
			want.At = s.Commands[i].At
			require.Equal(t, want, s.Commands[i])
		}
		require.Equal(t, [][]string{nil, {"12"}, nil, {"99"}}, [][]string{inputs[0].IDs, inputs[1].IDs, inputs[2].IDs, inputs[3].IDs})
		require.JSONEq(t, reactionSpec, string(inputs[0].Spec))

		h.signal("drop", map[string]any{"all": true})
		h.signal("drop", nil)
		h.signal("drop", map[string]any{"all": true, "ids": []string{"1"}})
		h.signal("drop", map[string]any{"ids": []string{"x"}})
		h.signal("pause", map[string]any{"ids": []string{"1"}})
	})
	h.at(3*time.Minute, func() {
		s := h.status()
		got := make(map[string]string) // by outcome, since those that are refused need no activity
		for _, c := range s.Commands[4:] {
			got[c.Error] = c.Outcome
		}
		require.Equal(t, map[string]string{
			"": Noop, `drop needs ids, or "all":true`: Rejected, "give either ids or all": Rejected,
			`ids[0]: "x" is not the id of a dead letter`: Rejected, "ids and all are for retry and drop": Rejected,
		}, got)
		require.Equal(t, PhaseRunning, s.Phase)
		require.Empty(t, s.DeadLetters.Count)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestDeadLetterCommandsOfOthers: a source has dead letters to drop, a query has none.
func TestDeadLetterCommandsOfOthers(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 100*time.Hour, drained, nil)
	h.OnActivity(control.DropDeadLetters, mock.Anything, mock.Anything).Return(activities.LettersResult{Dropped: 3}, nil)
	h.at(time.Minute, func() {
		h.signal("drop", map[string]any{"all": true})
		h.signal("retry", nil)
	})
	h.at(2*time.Minute, func() {
		commands := h.status().Commands
		i := slices.IndexFunc(commands, func(c Command) bool { return c.Name == "drop" })
		require.Equal(t, "3 dropped, 0 left", commands[i].Result)
		require.Equal(t, "not available for source", commands[1-i].Error)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Error(t, (&entity{kind: queryKind()}).refuse(CommandDrop, CommandInput{All: true}))
}

// TestHistoriesOfBuildsWithoutDeadLetterCommands: such a build refused them, and did nothing else.
func TestHistoriesOfBuildsWithoutDeadLetterCommands(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.OnGetVersion("dead letters", workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	h.loops(reactions.ReactionRun, 100*time.Hour, drained, nil)
	h.at(time.Minute, func() { h.signal("retry", nil) })
	h.at(2*time.Minute, func() {
		c := h.status().Commands[0]
		require.Equal(t, Rejected, c.Outcome)
		require.Equal(t, `there is no command "retry"`, c.Error)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.Zero(t, h.count("RetryDeadLetters"))
}

// TestConditionOfASource: why it gets nothing shows with what to do, until it is over. Its dead letters are another matter.
func TestConditionOfASource(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 100*time.Hour, drained, nil)
	h.OnActivity(control.DropDeadLetters, mock.Anything, mock.Anything).Return(activities.LettersResult{Left: activities.DeadLetters{Count: "2"}}, nil)
	tell := func(why *activities.Interruption) {
		h.signal(activities.SignalCondition, activities.Condition{Generation: 1, Target: "closed", Host: "h7", Attempt: 3, Interruption: why})
	}
	h.at(time.Minute, func() {
		h.signal("drop", map[string]any{"ids": []string{"1"}})
		tell(&activities.Interruption{Failures: 7, LastError: failure.Describe(failure.Unreachable.Errorf("nobody there"))})
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, "h7", s.Host, "while it runs")
		require.EqualValues(t, 3, s.Attempt)
		require.Equal(t, activities.HealthDegraded, s.Health)
		require.Equal(t, failure.Unreachable.ID, s.Interruption.LastError.Code)
		require.Equal(t, failure.Unreachable.Fix, s.Interruption.LastError.Fix)
		require.Equal(t, "2", s.DeadLetters.Count)
		require.Equal(t, activities.HealthDegraded, h.healths[len(h.healths)-1], "in the list")
		tell(nil)
	})
	h.at(3*time.Minute, func() {
		s := h.status()
		require.Equal(t, activities.HealthHealthy, s.Health)
		require.Nil(t, s.Interruption)
		require.Equal(t, "2", s.DeadLetters.Count)
		require.Equal(t, activities.HealthHealthy, h.healths[len(h.healths)-1], "in the list")
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestConditionOfAReaction: what the loop tells shows until the run ends; what an earlier one told does not.
func TestConditionOfAReaction(t *testing.T) {
	h := newHarness(t, lines)
	h.healthy()
	h.loops(reactions.ReactionRun, time.Hour, drained, nil)
	tell := func(generation uint64) {
		h.signal(activities.SignalCondition, activities.Condition{
			Generation: generation, Target: "open", LastError: &failure.Report{Code: "DeliveryFailed", Message: "down"},
			Queries:     []activities.QueryCondition{{Query: "big", State: "failed", Code: "StreamTrimmed"}},
			DeadLetters: activities.DeadLetters{Count: "3"},
		})
	}
	degraded := func() bool {
		value, err := h.QueryWorkflow(QueryStatus)
		require.NoError(t, err)
		var s struct{ Delivery json.RawMessage }
		require.NoError(t, value.Get(&s))
		return len(s.Delivery) > 0
	}
	h.at(time.Minute, func() { tell(7) })
	h.at(2*time.Minute, func() {
		require.False(t, degraded(), "of another run")
		tell(1)
		h.signal(activities.SignalCondition, "nonsense")
	})
	h.at(3*time.Minute, func() {
		s := h.status()
		require.Equal(t, "open", s.Delivery.Target)
		require.Equal(t, "StreamTrimmed", s.Delivery.Queries[0].Code)
		require.Equal(t, "3", s.DeadLetters.Count)
		require.Len(t, s.Commands, 1, "it is no command, unless it cannot be read")
		require.Equal(t, activities.SignalCondition, s.Commands[0].Name)
		require.Equal(t, Rejected, s.Commands[0].Outcome)
	})
	h.at(90*time.Minute, func() {
		require.False(t, degraded(), "the next run has told nothing")
		require.Equal(t, "3", h.status().DeadLetters.Count)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
}
