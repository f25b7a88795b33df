package workflows

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
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

// TestRunWaitsForHeartbeatsAsLongAsItsPlacementSays: what runs among many others beats less often.
func TestRunWaitsForHeartbeatsAsLongAsItsPlacementSays(t *testing.T) {
	for seconds, timeout := range map[int]time.Duration{0: 30 * time.Second, 90: 90 * time.Second} {
		h := newHarness(t, "source.default.orders")
		h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).
			Return(activities.Placement{Generation: 1, Queue: activities.QueueRun, HeartbeatSeconds: seconds}, nil)
		h.healthy()
		h.loops(sources.SourceRun, time.Minute, drained, nil)
		h.at(10*time.Second, h.CancelWorkflow)
		h.ExecuteWorkflow(TypeSource, input(sourceSpec))
		require.True(t, h.IsWorkflowCompleted())
		require.Equal(t, timeout, h.heartbeats["SourceRun"])
	}
}

// TestQuickCommandsKeepTheirOrder sends commands that all arrive before the workflow looks.
func TestQuickCommandsKeepTheirOrder(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, time.Hour, drained, nil)
	h.at(time.Minute, func() {
		h.signal(CommandStop, nil)
		h.signal(CommandResume, nil)
		h.signal(CommandPause, nil)
		h.signal(CommandStop, map[string]string{"requestId": "last"})
	})
	h.at(3*time.Hour, func() {
		s := h.status()
		require.Equal(t, Stopped, s.Desired)
		require.Equal(t, PhaseStopped, s.Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

func TestCommandsThatCannotBeDoneAreRecorded(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 100*time.Hour, drained, nil)
	type record struct{ name, outcome, problem string }
	want := []record{
		{"pause", Rejected, "decoding the payload"},
		{"pause", Rejected, `unknown field "reeson"`},
		{"stop", Rejected, "decoding the payload"},
		{"pauze", Rejected, `there is no command "pauze"`},
		{"setPosition", Rejected, "not available for source"},
		{"skip", Rejected, "not available for source"},
		{"rebootstrap", Rejected, "not available for source"},
		{"delete", Rejected, `confirm is "other"`},
		{"reconfigure", Rejected, "needs a spec"},
		{"reconfigure", Rejected, `the spec declares "source.default.others"`},
		{"resume", Noop, ""},
		{"resetBreaker", Noop, ""},
	}
	h.at(time.Minute, func() {
		h.signal("pause", []int{1, 2})
		h.signal("pause", map[string]string{"reeson": "x"})
		h.signal("stop", []byte{0xff, 0xfe})
		h.signal("pauze", nil)
		h.signal("setPosition", nil)
		h.signal("skip", nil)
		h.signal("rebootstrap", nil)
		h.signal("delete", map[string]string{"confirm": "other"})
		h.signal("reconfigure", nil)
		h.signal("reconfigure", map[string]any{"spec": map[string]string{"name": "others"}})
		h.signal("resume", nil)
		h.signal("resetBreaker", nil)
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Len(t, s.Commands, len(want))
		for i, w := range want {
			require.Equal(t, w.name, s.Commands[i].Name)
			require.Equal(t, w.outcome, s.Commands[i].Outcome, w.name)
			require.Contains(t, s.Commands[i].Error, w.problem)
		}
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestInputsThatCannotBeUsed shows that no input, however wrong, ends a workflow.
func TestInputsThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		id      string
		input   any
		problem string
	}{
		"nothing":           {"source.default.orders", nil, "without an input"},
		"not an object":     {"source.default.orders", "orders", "decoding the input"},
		"no spec":           {"source.default.orders", map[string]string{}, "spec: is missing"},
		"bad desired":       {"source.default.orders", map[string]any{"spec": map[string]string{"name": "orders"}, "desired": "Up"}, `is "Up"`},
		"bad name":          {"source.default.orders", map[string]any{"spec": map[string]string{"name": "Orders"}}, "name:"},
		"not the spec's":    {"source.default.other", map[string]any{"spec": map[string]string{"name": "orders"}}, `but the spec declares "source.default.orders"`},
		"not a component's": {"mine", map[string]any{"spec": map[string]string{"name": "orders"}}, `the workflow's id is "mine"`},
		"mistyped field":    {"source.default.orders", map[string]any{"spec": map[string]any{"name": 7}}, "decoding the spec"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t, c.id)
			h.healthy()
			h.at(time.Minute, func() {
				s := h.status()
				require.Equal(t, PhaseNeedsOperator, s.Phase)
				require.NotNil(t, s.Breaker.LastError)
				require.Equal(t, failure.ConfigInvalid.ID, s.Breaker.LastError.Code)
				require.Contains(t, s.Breaker.LastError.Message, c.problem)
				require.NotEmpty(t, s.Breaker.LastError.Fix)
				h.signal(CommandDelete, nil)
			})
			h.ExecuteWorkflow(TypeSource, c.input)
			require.True(t, h.IsWorkflowCompleted())
			require.NoError(t, h.GetWorkflowError())
			var r Result
			require.NoError(t, h.GetWorkflowResult(&r))
			require.Equal(t, "Deleted", r.Outcome)
			require.Empty(t, h.called, "nothing was provisioned, so nothing is torn down")
		})
	}
}

func TestUnknownFieldsOfTheInputReachTheValidation(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	var seen activities.SpecInput
	h.OnActivity(sources.ValidateSource, mock.Anything, mock.Anything).Return(
		func(_ context.Context, in activities.SpecInput) (activities.Checks, error) {
			seen = in
			return activities.Checks{}, coded(failure.ConfigInvalid)
		}).Once()
	h.healthy()
	h.at(time.Minute, func() {
		require.Equal(t, PhaseNeedsOperator, h.status().Phase)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, map[string]any{"spec": map[string]string{"name": "orders"}, "desird": "Paused", "x": 1})
	require.Equal(t, []string{"desird", "x"}, seen.Unexpected)
}

func TestPermanentFailuresWaitForAnOperator(t *testing.T) {
	codes := []*failure.Code{failure.ConfigInvalid, failure.AuthFailed, failure.BadRecord, failure.SlotMissing}
	for _, code := range codes {
		for _, command := range []string{CommandResume, CommandReconfigure} {
			t.Run(code.Class.String()+" "+command, func(t *testing.T) {
				h := newHarness(t, "source.default.orders")
				h.loops(sources.SourceRun, time.Minute, activities.RunResult{}, coded(code)).Once()
				h.healthy()
				h.loops(sources.SourceRun, 1000*time.Hour, drained, nil)
				h.at(100*time.Hour, func() {
					s := h.status()
					require.Equal(t, PhaseNeedsOperator, s.Phase)
					require.Equal(t, code.ID, s.Breaker.LastError.Code)
					require.Equal(t, []string{"the cause"}, s.Breaker.LastError.Causes)
					require.NotEmpty(t, s.Breaker.LastError.Fix)
					require.Equal(t, 1, h.count("SourceRun"), "nothing is retried")
					payload := map[string]any{}
					if command == CommandReconfigure {
						payload["spec"] = json.RawMessage(`{"name":"orders","kind":"postgres","config":{"host":"db2"}}`)
					}
					h.signal(command, payload)
				})
				h.at(101*time.Hour, func() {
					s := h.status()
					require.Equal(t, PhaseRunning, s.Phase)
					require.Equal(t, 2, h.count("ProvisionSource"), "the environment is checked again")
					h.CancelWorkflow()
				})
				h.ExecuteWorkflow(TypeSource, input(sourceSpec))
				require.True(t, h.IsWorkflowCompleted())
			})
		}
	}
}

func TestBreakerTriesLessAndLessOften(t *testing.T) {
	h := newHarness(t, "reaction.default.lines")
	h.healthy()
	h.loops(reactions.ReactionRun, time.Second, activities.RunResult{}, coded(failure.Unreachable)).Times(8)
	h.loops(reactions.ReactionRun, 1000*time.Hour, drained, nil)
	var opened []time.Time
	tried := 0 // half-open, after all that failed
	for i := range 200 {
		h.at(time.Duration(i+1)*time.Minute, func() {
			s := h.status()
			if s.Phase == PhaseRunning && s.Breaker.State == breakerHalfOpen && s.Breaker.Failures == 8 {
				tried++
			}
			if s.Phase == PhaseBreakerOpen && (len(opened) == 0 || !opened[len(opened)-1].Equal(*s.Breaker.OpenUntil)) {
				opened = append(opened, *s.Breaker.OpenUntil)
			}
		})
	}
	h.at(201*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, breakerClosed, s.Breaker.State, "the run has lasted")
		require.Zero(t, s.Breaker.Failures)
		require.Equal(t, failure.Unreachable.ID, s.Breaker.LastError.Code, "for people to read")
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.True(t, h.IsWorkflowCompleted())
	require.GreaterOrEqual(t, len(opened), 6)
	require.InDelta(t, healthyFor.Minutes(), tried, 1)
	require.Equal(t, 9, h.count("ReactionRun"))
}

// A system that has never answered is shown to the operator, and tried again by itself; one that has answered before is
// expected to come back.
func TestSourceThatCannotBeReached(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.OnActivity(sources.ProvisionSource, mock.Anything, mock.Anything).Return(coded(failure.Unreachable)).Twice()
	h.healthy()
	h.loops(sources.SourceRun, time.Hour, activities.RunResult{}, coded(failure.Unreachable)).Once()
	h.loops(sources.SourceRun, 1000*time.Hour, drained, nil)
	for _, after := range []time.Duration{10 * time.Second, 90 * time.Second} {
		h.at(after, func() {
			s := h.status()
			require.Equal(t, PhaseNeedsOperator, s.Phase)
			require.Equal(t, failure.Unreachable.ID, s.Breaker.LastError.Code)
			require.NotNil(t, s.Breaker.OpenUntil, "it is tried again")
		})
	}
	h.at(30*time.Minute, func() { require.Equal(t, PhaseRunning, h.status().Phase) })
	h.at(2*time.Hour, func() {
		require.Equal(t, PhaseRunning, h.status().Phase)
		ran := slices.Index(h.phases, string(PhaseRunning))
		require.NotContains(t, h.phases[:ran], string(PhaseBreakerOpen))
		require.Contains(t, h.phases[ran:], string(PhaseBreakerOpen))
		require.NotContains(t, h.phases[ran:], string(PhaseNeedsOperator))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

func TestBreakerWaits(t *testing.T) {
	var b Breaker
	now := time.Unix(0, 0)
	for _, want := range []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 30 * time.Minute, 30 * time.Minute} {
		b.fail(now, "source.default.orders", waits{breakerFirst, breakerMost})
		require.InEpsilon(t, want, b.OpenUntil.Sub(now), 0.21)
		b.probe()
		require.Equal(t, breakerHalfOpen, b.State)
	}
	b.reset()
	require.Equal(t, Breaker{State: breakerClosed}, b)

	d, err := declare(component.Reaction, json.RawMessage(`{"name":"lines","policy":{"breakerSeconds":10,"breakerMostSeconds":25}}`))
	require.NoError(t, err)
	for failures, want := range map[int]time.Duration{1: 10 * time.Second, 2: 20 * time.Second, 3: 25 * time.Second, 1000: 25 * time.Second} {
		require.Equal(t, want, d.waits.wait(failures))
	}
}

func TestCommandsEndTheBreakersWait(t *testing.T) {
	for _, command := range []string{CommandResume, CommandResetBreaker, CommandRestart} {
		t.Run(command, func(t *testing.T) {
			h := newHarness(t, "reaction.default.lines")
			h.healthy()
			h.loops(reactions.ReactionRun, time.Second, activities.RunResult{}, coded(failure.Unreachable)).Once()
			h.loops(reactions.ReactionRun, 1000*time.Hour, drained, nil)
			h.at(10*time.Second, func() {
				require.Equal(t, PhaseBreakerOpen, h.status().Phase)
				h.signal(command, nil)
			})
			h.at(11*time.Second, func() {
				require.Equal(t, PhaseRunning, h.status().Phase)
				h.CancelWorkflow()
			})
			h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
			require.True(t, h.IsWorkflowCompleted())
		})
	}
}

func TestDelete(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.OnActivity(sources.TeardownSource, mock.Anything, mock.MatchedBy(func(in activities.TeardownInput) bool {
		return in.KeepResources && in.Component == "source.default.orders"
	})).Return(nil).Once()
	h.OnActivity(sources.TeardownSource, mock.Anything, mock.Anything).Return(coded(failure.Panic)).Maybe()
	h.healthy()
	h.loops(sources.SourceRun, time.Minute, drained, nil)
	h.at(30*time.Second, func() { h.signal(CommandDelete, map[string]any{"confirm": "orders", "dropResources": false}) })
	h.at(40*time.Second, func() { h.signal(CommandPause, nil) })
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.NoError(t, h.GetWorkflowError())
	var r Result
	require.NoError(t, h.GetWorkflowResult(&r))
	require.Equal(t, "Deleted", r.Outcome)
	require.Equal(t, "0/16B3748", r.Position)
	require.Equal(t, 1, h.count("TeardownSource"))
}

// TestNothingToKeep: a query and a reaction refuse to keep what they do not have.
func TestNothingToKeep(t *testing.T) {
	keep := map[string]any{"dropResources": false}
	h := newHarness(t, "reaction.default.lines")
	h.healthy()
	h.loops(reactions.ReactionRun, time.Minute, drained, nil)
	var refused error
	h.at(20*time.Second, func() { h.signal(CommandDelete, keep) })
	h.at(30*time.Second, func() {
		h.UpdateWorkflow(CommandDelete, "keep", callbacks(t, nil, &refused), keep)
	})
	h.at(40*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, Rejected, s.Commands[0].Outcome)
		require.Contains(t, s.Commands[0].Error, "only a source knows dropResources")
		h.signal(CommandDelete, map[string]any{"dropResources": true})
	})
	h.ExecuteWorkflow(TypeReaction, input(reactionSpec))
	require.NoError(t, h.GetWorkflowError())
	require.ErrorContains(t, refused, "only a source knows dropResources")
}

func TestDeleteThatIsBlocked(t *testing.T) {
	for _, force := range []bool{false, true} {
		h := newHarness(t, "source.default.orders")
		h.OnActivity(sources.TeardownSource, mock.Anything, mock.Anything).Return(coded(failure.PermissionDenied)).Once()
		h.healthy()
		h.loops(sources.SourceRun, time.Minute, drained, nil)
		h.at(30*time.Second, func() { h.signal(CommandDelete, nil) })
		h.at(time.Hour, func() {
			s := h.status()
			require.Equal(t, PhaseDeleteBlocked, s.Phase)
			require.Equal(t, failure.PermissionDenied.ID, s.Breaker.LastError.Code)
			h.signal(CommandDelete, map[string]any{"force": force})
		})
		h.ExecuteWorkflow(TypeSource, input(sourceSpec))
		require.NoError(t, h.GetWorkflowError())
		want := 2
		if force {
			want = 1
		}
		require.Equal(t, want, h.count("TeardownSource"))
		var r Result
		require.NoError(t, h.GetWorkflowResult(&r))
		require.Equal(t, force, strings.HasPrefix(r.Left, failure.PermissionDenied.ID), "what is left is told of: %q", r.Left)
	}
}

func TestReconfigure(t *testing.T) {
	const better = `{"name":"orders","kind":"postgres","config":{"host":"db2"},"policy":{"drainSeconds":36000}}`
	h := newHarness(t, "source.default.orders")
	h.OnActivity(sources.ValidateSource, mock.Anything, mock.MatchedBy(func(in activities.SpecInput) bool {
		return string(in.Spec) == `{"name":"orders","kind":"nonsense"}`
	})).Return(activities.Checks{}, coded(failure.ConfigInvalid))
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	h.at(time.Minute, func() {
		h.signal(CommandReconfigure, map[string]any{"spec": json.RawMessage(`{"name":"orders","kind":"nonsense"}`), "requestId": "bad"})
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase, "a spec that is not valid does no harm")
		require.Equal(t, 1, s.SpecVersion)
		require.Equal(t, Rejected, s.Commands[0].Outcome)
		require.Contains(t, s.Commands[0].Error, "ConfigInvalid")
		h.signal(CommandReconfigure, map[string]any{"spec": json.RawMessage(better), "baseSpecVersion": 1})
	})
	h.at(15*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, 2, s.SpecVersion)
		require.Equal(t, uint64(2), s.Generation)
		value, err := h.QueryWorkflow(QuerySpec)
		require.NoError(t, err)
		var spec json.RawMessage
		require.NoError(t, value.Get(&spec))
		require.JSONEq(t, better, string(spec))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.True(t, h.IsWorkflowCompleted())
}

// TestContinueAsNew runs a component over two histories.
func TestContinueAsNew(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	h.at(time.Minute, func() { h.signal(CommandRestart, map[string]string{"requestId": "r1"}) })
	h.at(15*time.Minute, func() { h.signal(CommandUpgrade, nil) })
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	in := continued(t, h.GetWorkflowError())
	require.NotNil(t, in.Carry)
	require.Equal(t, uint64(2), in.Carry.Generation)

	h = newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 1000*time.Hour, drained, nil)
	h.at(time.Minute, func() { h.signal(CommandRestart, map[string]string{"requestId": "r1"}) })
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, uint64(3), s.Generation)
		require.Equal(t, "0/16B3748", s.Position)
		require.Len(t, s.Commands, 2, "the first history's commands are known, and a repeated request is not done again")
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, in)
	require.Zero(t, h.count("ValidateSource"))
	require.Zero(t, h.count("ProvisionSource"))
}

func TestContinueAsNewWhereItCostsNothing(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.SetCurrentHistoryLength(longHistory + 1)
	h.ExecuteWorkflow(TypeSource, Input{Spec: json.RawMessage(sourceSpec), Desired: Stopped})
	in := continued(t, h.GetWorkflowError())
	require.Equal(t, Stopped, in.Desired)
	require.Zero(t, h.count("SourceRun"))
}

func TestContinueAsNewWhenSuggestedDrainsFirst(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	h.at(time.Minute, func() {
		h.SetContinueAsNewSuggested(true)
		h.signal(CommandResume, nil) // something happens
	})
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	in := continued(t, h.GetWorkflowError())
	require.Equal(t, "0/16B3748", in.Carry.Position)
	require.Equal(t, 1, h.count("RequestDrain"))
}

func TestUpdatesAnswer(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	var paused, resumed, again Status
	var refused error
	h.at(time.Minute, func() {
		h.UpdateWorkflow(CommandPause, "u1", callbacks(t, &paused, nil), map[string]string{"requestId": "p"})
		h.UpdateWorkflow(CommandResume, "u4", callbacks(t, &resumed, nil))
		h.UpdateWorkflow(CommandPause, "u2", callbacks(t, &again, nil), map[string]string{"requestId": "p"})
		h.UpdateWorkflow(CommandSkip, "u3", callbacks(t, nil, &refused))
	})
	h.at(20*time.Minute, func() { h.CancelWorkflow() })
	h.ExecuteWorkflow(TypeSource, input(sourceSpec))
	require.Equal(t, Paused, paused.Desired)
	require.Equal(t, Running, resumed.Desired)
	require.Equal(t, Paused, again.Desired, "what is sent again is answered as it was")
	require.Len(t, again.Commands, 2)
	require.ErrorContains(t, refused, "not available for source")
}

// TestUpdateThatIsSentAgainToTheNextRun: what the run before has done is answered as it was then, though the spec has another
// version by now.
func TestUpdateThatIsSentAgainToTheNextRun(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.healthy()
	h.loops(sources.SourceRun, 10*time.Minute, drained, nil)
	before := State{core: begin(Running, nil)}
	before.Phase, before.SpecVersion = PhaseRunning, 3
	before.record(Command{RequestID: "u1", Name: CommandReconfigure, Outcome: Applied})
	var again Status
	var refused error
	change := CommandInput{Spec: json.RawMessage(`{"name":"orders","kind":"other"}`), BaseSpecVersion: 2}
	h.at(time.Minute, func() {
		h.UpdateWorkflow(CommandReconfigure, "u1", callbacks(t, &again, nil), change)
		h.UpdateWorkflow(CommandReconfigure, "u2", callbacks(t, nil, &refused), change)
	})
	h.at(20*time.Minute, func() { h.CancelWorkflow() })
	h.ExecuteWorkflow(TypeSource, Input{Spec: json.RawMessage(sourceSpec), Carry: &before})
	require.Equal(t, 3, again.SpecVersion)
	require.Len(t, again.Commands, 1)
	require.ErrorContains(t, refused, "the spec is at version 3, not 2")
}

func callbacks(t *testing.T, status *Status, refused *error) *testsuite.TestUpdateCallback {
	return &testsuite.TestUpdateCallback{
		OnAccept: func() { require.Nil(t, refused) },
		OnReject: func(err error) {
			require.NotNil(t, refused)
			*refused = err
		},
		OnComplete: func(answer any, err error) {
			require.NoError(t, err)
			*status, _ = answer.(Status)
		},
	}
}

// stubborn keeps from runs that they are cancelled, of which the test environment would make their end.
type stubborn struct {
	interceptor.WorkerInterceptorBase
}

func (*stubborn) InterceptWorkflow(_ workflow.Context, next interceptor.WorkflowInboundInterceptor) interceptor.WorkflowInboundInterceptor {
	return &stubbornInbound{interceptor.WorkflowInboundInterceptorBase{Next: next}}
}

type stubbornInbound struct {
	interceptor.WorkflowInboundInterceptorBase
}

func (i *stubbornInbound) Init(next interceptor.WorkflowOutboundInterceptor) error {
	return i.Next.Init(&stubbornOutbound{interceptor.WorkflowOutboundInterceptorBase{Next: next}})
}

type stubbornOutbound struct {
	interceptor.WorkflowOutboundInterceptorBase
}

func (o *stubbornOutbound) ExecuteActivity(ctx workflow.Context, name string, args ...any) workflow.Future {
	if name == "SourceRun" {
		ctx, _ = workflow.NewDisconnectedContext(ctx)
	}
	return o.Next.ExecuteActivity(ctx, name, args...)
}

// TestLoopThatDoesNotEnd goes through all steps of ending it, each of which waits for its bound.
func TestLoopThatDoesNotEnd(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.intercepted(Interceptor(nil), &stubborn{})
	h.healthy()
	h.loops(sources.SourceRun, 1000*time.Hour, drained, nil)
	h.at(time.Minute, func() { h.signal(CommandStop, nil) })
	reached := func(act action, fences int) func() {
		return func() {
			value, err := h.QueryWorkflow(QueryExplain)
			require.NoError(t, err)
			var last explanation
			require.NoError(t, value.Get(&last))
			require.Equal(t, act, last.Action)
			require.Equal(t, PhaseDraining, h.status().Phase)
			require.Equal(t, 1, h.count("RequestDrain"))
			require.Equal(t, fences, h.count("FenceBump"))
		}
	}
	cancelled := time.Minute + defaultDrain + drainGrace
	h.at(cancelled-time.Second, reached(actDrain, 0))
	h.at(cancelled+time.Second, reached(actCancel, 0))
	h.at(cancelled+cancelWithin-time.Second, reached(actCancel, 0))
	h.at(cancelled+cancelWithin+time.Second, func() {
		require.Equal(t, PhaseStopped, h.status().Phase)
		require.Equal(t, 1, h.count("FenceBump"))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, input(`{"name":"orders"}`))
	require.Equal(t, 1, h.count("RequestDrain"))
	require.Equal(t, 1, h.count("FenceBump"))
}

func TestHostThatDoesNotTakeTheRun(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(activities.RunResult{},
		temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)).Once()
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, 2, h.count("PlaceComponent"))
		require.Nil(t, s.Breaker.LastError)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
}

// TestQueryThatIsHandedOver is placed anew each time, which is neither a failure nor takes many events.
func TestQueryThatIsHandedOver(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.healthy()
	h.loops(queries.QueryRun, time.Second, activities.RunResult{Outcome: activities.OutcomeHandedOver, Sequence: "7", Host: "h1"}, nil).Times(5)
	h.loops(queries.QueryRun, 1000*time.Hour, drained, nil)
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, "7", s.Sequence)
		require.Equal(t, uint64(6), s.Generation)
		require.Equal(t, 6, h.count("PlaceComponent"))
		require.Equal(t, breakerClosed, s.Breaker.State)
		require.Nil(t, s.Breaker.LastError)
		require.Zero(t, h.count("FenceBump")+h.count("RequestDrain"))
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
}

// TestPlacingWaitsForAHost for as long as there is none, without a failure; what else keeps a component from being placed is one.
func TestPlacingWaitsForAHost(t *testing.T) {
	h := newHarness(t, "query.default.big")
	h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).Return(activities.Placement{}, coded(failure.NoHost)).Once()
	nobody := temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, nil)
	h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).Return(activities.Placement{}, nobody).Once()
	silent := temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_CLOSE, temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_START_TO_CLOSE, nil))
	h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).Return(activities.Placement{}, silent).After(time.Minute).Once()
	h.healthy()
	h.at(30*time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseStarting, s.Phase)
		require.Equal(t, 3, h.count("PlaceComponent"))
		require.Equal(t, breakerClosed, s.Breaker.State)
		require.Nil(t, s.Breaker.LastError)
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseBreakerOpen, s.Phase)
		require.Equal(t, failure.Timeout.ID, s.Breaker.LastError.Code)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
}

// TestHostsThatStopOneAfterTheOther: the run is moved each time, also back to the only host that there is; one that never takes
// it though it is avoided is a failure.
func TestHostsThatStopOneAfterTheOther(t *testing.T) {
	h := newHarness(t, "query.default.big")
	hosts := []string{"h1", "h2", "h1", "h1", "h1"}
	h.OnActivity(control.PlaceComponent, mock.Anything, mock.Anything).Return(func(_ context.Context, in activities.PlaceInput) (activities.Placement, error) {
		host := hosts[min(h.count("PlaceComponent"), len(hosts))-1]
		return activities.Placement{Generation: in.Generation + 1, Host: host, Queue: activities.HostQueue(host)}, nil
	})
	h.healthy()
	notTaken := temporal.NewTimeoutError(enumspb.TIMEOUT_TYPE_SCHEDULE_TO_START, nil)
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(activities.RunResult{}, notTaken).Times(3)
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(activities.RunResult{}, notTaken).After(2 * time.Minute).Once()
	h.OnActivity(queries.QueryRun, mock.Anything, mock.Anything).Return(activities.RunResult{}, notTaken).Once()
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, 4, h.count("PlaceComponent"))
		require.Nil(t, s.Breaker.LastError)
	})
	h.at(2*time.Minute+time.Second, func() {
		s := h.status()
		require.Equal(t, PhaseBreakerOpen, s.Phase)
		require.Equal(t, len(hosts), h.count("PlaceComponent"))
		require.NotNil(t, s.Breaker.LastError)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeQuery, input(querySpec))
}
