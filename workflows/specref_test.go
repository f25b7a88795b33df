package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// reads makes a reference stand for a spec of which the workflow needs to know so much.
func (h *harness) reads(ref string, head activities.SpecHead) {
	h.OnActivity(control.ReadSpec, mock.Anything, activities.SpecRefInput{SpecRef: ref}).Return(head, nil).Maybe()
}

// specInputOf matches the input of a validation that has a reference, and nothing of a spec.
func specInputOf(ref string) any {
	return mock.MatchedBy(func(in activities.SpecInput) bool { return in.SpecRef == ref && !hasSpec(in.Spec) })
}

// TestSpecRefIsCarriedOver with what is known of the spec, so that the next run need not read it again.
func TestSpecRefIsCarriedOver(t *testing.T) {
	const id = "query.default.big"
	head := activities.SpecHead{Name: "big", Sources: []string{"orders"}, Bootstrap: "none", Policy: activities.PolicyHead{DrainSeconds: 7}}
	h := newHarness(t, id)
	h.reads("big@1", head)
	h.OnActivity(queries.ValidateQuery, mock.Anything, specInputOf("big@1")).Return(activities.Checks{}, nil).Once()
	h.OnActivity(queries.QueryRun, mock.Anything, mock.MatchedBy(func(in activities.RunInput) bool {
		return in.SpecRef == "big@1" && !hasSpec(in.Spec)
	})).Return(drained, nil).After(time.Hour)
	h.healthy()
	h.at(time.Minute, func() {
		s := h.status()
		require.Equal(t, []any{PhaseRunning, "big@1", 1}, []any{s.Phase, s.SpecRef, s.SpecVersion})
		value, err := h.QueryWorkflow(QuerySpec)
		require.NoError(t, err)
		var shown activities.SpecAnswer
		require.NoError(t, value.Get(&shown))
		require.Equal(t, activities.SpecAnswer{SpecRef: "big@1", Shown: "perdure spec get big@1", SpecHead: &head}, shown)
		h.signal(CommandUpgrade, nil)
	})
	h.ExecuteWorkflow(TypeQuery, Input{SpecRef: "big@1"})
	h.AssertExpectations(t)
	in := continued(t, h.GetWorkflowError())
	require.Equal(t, []any{"big@1", &head}, []any{in.SpecRef, in.Carry.Head})
	require.False(t, hasSpec(in.Spec))

	next := newHarness(t, id)
	next.reads("big@2", activities.SpecHead{Name: "big", Sources: []string{"orders"}})
	next.healthy()
	next.loops(queries.QueryRun, time.Hour, drained, nil)
	next.at(time.Minute, func() {
		require.Equal(t, PhaseRunning, next.status().Phase)
		require.Zero(t, next.count("ReadSpec"))
		next.signal(CommandReconfigure, CommandInput{SpecRef: "big@2"})
	})
	next.at(2*time.Hour, func() {
		s := next.status()
		require.Equal(t, []any{PhaseRunning, "big@2", 2}, []any{s.Phase, s.SpecRef, s.SpecVersion})
		next.reconfigure(querySpec) // small again
	})
	next.at(4*time.Hour, func() {
		s := next.status()
		require.Equal(t, []any{PhaseRunning, "", 3}, []any{s.Phase, s.SpecRef, s.SpecVersion})
		next.signal(CommandPause, map[string]string{"specRef": "big@1"})
	})
	next.at(5*time.Hour, func() {
		require.Equal(t, []string{Applied, Applied, Applied, Rejected}, outcomes(next.status().Commands))
		next.CancelWorkflow()
	})
	next.ExecuteWorkflow(TypeQuery, in)
	require.True(t, next.IsWorkflowCompleted())
	require.Equal(t, 1, next.count("ReadSpec"))
}

// TestSpecRefThatCannotBeRead is tried again by itself where the server is away; one that leads to nothing needs an operator.
func TestSpecRefThatCannotBeRead(t *testing.T) {
	for code, want := range map[*failure.Code]Phase{failure.StreamUnavailable: PhaseBreakerOpen, failure.ConfigInvalid: PhaseNeedsOperator} {
		h := newHarness(t, "reaction.default.lines")
		h.OnActivity(control.ReadSpec, mock.Anything, mock.Anything).Return(activities.SpecHead{}, coded(code)).Once()
		h.reads("lines@1", activities.SpecHead{Name: "lines"})
		h.healthy()
		h.loops(reactions.ReactionRun, 1000*time.Hour, drained, nil)
		h.at(time.Second, func() {
			s := h.status()
			require.Equal(t, want, s.Phase)
			require.Equal(t, code.ID, s.Breaker.LastError.Code)
		})
		h.at(time.Hour, func() {
			require.Equal(t, want == PhaseBreakerOpen, h.status().Phase == PhaseRunning)
			h.signal(CommandResume, nil)
		})
		h.at(2*time.Hour, func() {
			require.Equal(t, PhaseRunning, h.status().Phase)
			h.CancelWorkflow()
		})
		h.ExecuteWorkflow(TypeReaction, Input{SpecRef: "lines@1"})
		require.True(t, h.IsWorkflowCompleted())
	}
}

// TestSpecRefInHistoriesOfEarlierBuilds is the unknown field that it was for them.
func TestSpecRefInHistoriesOfEarlierBuilds(t *testing.T) {
	h := newHarness(t, "source.default.orders")
	h.OnGetVersion(changeSpecRef, workflow.DefaultVersion, workflow.Version(1)).Return(workflow.DefaultVersion)
	h.at(time.Minute, func() {
		require.Equal(t, PhaseNeedsOperator, h.status().Phase)
		h.signal(CommandReconfigure, map[string]string{"specRef": "orders@1"})
	})
	h.at(2*time.Minute, func() {
		s := h.status()
		require.Equal(t, []string{Rejected}, outcomes(s.Commands))
		require.Equal(t, `decoding the payload: json: unknown field "specRef"`, s.Commands[0].Error)
		h.CancelWorkflow()
	})
	h.ExecuteWorkflow(TypeSource, map[string]string{"specRef": "orders@1"})
	require.True(t, h.IsWorkflowCompleted())
	require.Empty(t, h.called)
}

// TestInstanceBySpecRef knows its components and none of their specs.
func TestInstanceBySpecRef(t *testing.T) {
	w := newWorld(t, testInstance)
	validates := func(ref string, members ...string) {
		w.OnActivity(instances.ValidateInstance, mock.Anything, specInputOf(ref)).
			Return(activities.InstanceChecks{Members: members}, nil).Once()
	}
	validates("shop@1", "source.default.s", "query.default.q")
	validates("shop@2", "source.default.s", "reaction.default.r")
	w.watched()
	w.at(time.Second, func() {
		s := w.instance()
		require.Equal(t, []any{PhaseRunning, "shop@1"}, []any{s.Phase, s.SpecRef})
		require.Equal(t, []string{"Running source.default.s", "Running query.default.q"}, w.took())
		w.signal(CommandApply, CommandInput{SpecRef: "shop@2", BaseSpecVersion: 1})
		w.signal(CommandApply, CommandInput{SpecRef: "shop@2"})
		w.signal(CommandApply, CommandInput{SpecRef: "shop"})
		w.signal(CommandApply, CommandInput{SpecRef: "shop@3", Spec: instanceSpec(nil, nil, nil)})
	})
	w.at(time.Minute, func() {
		s := w.instance()
		require.Equal(t, []any{PhaseRunning, "shop@2", 2}, []any{s.Phase, s.SpecRef, s.SpecVersion})
		require.ElementsMatch(t, []string{Applied, Noop, Rejected, Rejected}, outcomes(s.Commands))
		require.ElementsMatch(t, []string{"Running source.default.s", "Running reaction.default.r", "delete query.default.q"}, w.took())
		w.signal(CommandUpgrade, nil)
	})
	w.ExecuteWorkflow(TypeInstance, InstanceInput{SpecRef: "shop@1"})
	var in InstanceInput
	continuedInto(t, w.GetWorkflowError(), &in)
	require.Equal(t, "shop@2", in.SpecRef)

	next := newWorld(t, testInstance)
	next.watched()
	next.OnActivity(control.ForgetSpecs, mock.Anything, activities.OwnerInput{Owner: testInstance}).Return(nil).Once()
	next.at(time.Second, func() { next.signal(CommandRestart, nil) })
	next.at(time.Minute, func() {
		require.Equal(t, []string{"restart source.default.s", "restart reaction.default.r"}, next.took())
		next.signal(CommandDelete, nil)
	})
	next.ExecuteWorkflow(TypeInstance, in)
	require.NoError(t, next.GetWorkflowError())
	require.Equal(t, 1, next.count("ForgetSpecs"))
}

// TestSpecsOfAnInstanceGoWithIt, also of one that has no components.
func TestSpecsOfAnInstanceGoWithIt(t *testing.T) {
	for _, err := range []error{nil, coded(failure.StreamUnavailable)} {
		w := newWorld(t, testInstance)
		w.valid()
		w.OnActivity(control.ForgetSpecs, mock.Anything, activities.OwnerInput{Owner: testInstance}).Return(err).Once()
		w.at(time.Minute, func() { w.signal(CommandDelete, nil) })
		w.ExecuteWorkflow(TypeInstance, InstanceInput{SpecRef: "none@1"})
		require.NoError(t, w.GetWorkflowError())
		require.Equal(t, 1, w.count("ForgetSpecs"))
	}
}
