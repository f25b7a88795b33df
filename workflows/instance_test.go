package workflows

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

const testInstance = "instance.default"

func instanceSpec(sources, queries, reactions []string) json.RawMessage {
	declare := func(names []string) []map[string]string {
		all := []map[string]string{}
		for _, name := range names {
			name, text, _ := strings.Cut(name, "=")
			all = append(all, map[string]string{"name": name, "text": text})
		}
		return all
	}
	raw, _ := json.Marshal(map[string]any{"sources": declare(sources), "queries": declare(queries), "reactions": declare(reactions)})
	return raw
}

// world is what the components of an instance are, as its activities show it. It obeys at once.
type world struct {
	*harness
	mu         sync.Mutex
	components map[string]activities.ComponentState
	specs      map[string]string
	asked      []string // in order
	broken     map[string]*failure.Code
}

func newWorld(t *testing.T, id string) *world {
	w := &world{
		harness: newHarness(t, id), components: map[string]activities.ComponentState{}, specs: map[string]string{}, broken: map[string]*failure.Code{},
	}
	w.OnActivity(instances.EnsureComponent, mock.Anything, mock.Anything).Return(w.ensure).Maybe()
	w.OnActivity(instances.RemoveComponent, mock.Anything, mock.Anything).Return(w.remove).Maybe()
	return w
}

func (w *world) valid() {
	w.OnActivity(instances.ValidateInstance, mock.Anything, mock.Anything).Return(activities.InstanceChecks{}, nil).Maybe()
}

// watched makes watches return nothing new for a long time.
func (w *world) watched() {
	w.OnActivity(instances.WatchComponents, mock.Anything, mock.Anything).Return([]activities.ComponentState{}, nil).After(1000 * time.Hour).Maybe()
}

func (w *world) ensure(_ context.Context, in activities.EnsureInput) (activities.ComponentState, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	what := in.Desired + " " + in.Component
	if in.Restart {
		what = "restart " + in.Component
	}
	w.asked = append(w.asked, what)
	if code := w.broken[in.Component]; code != nil {
		return activities.ComponentState{}, coded(code)
	}
	state := w.components[in.Component]
	if text := string(in.Spec); w.specs[in.Component] != text {
		w.specs[in.Component] = text
		state.SpecVersion++
	}
	state.Component, state.Desired, state.Phase, state.Health = in.Component, in.Desired, in.Desired, activities.HealthIdle
	if in.Desired == string(Running) {
		state.Health = activities.HealthHealthy
	}
	w.components[in.Component] = state
	return state, nil
}

func (w *world) remove(_ context.Context, in activities.RemoveInput) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked = append(w.asked, "delete "+in.Component)
	if code := w.broken[in.Component]; code != nil && !in.Force {
		return coded(code)
	}
	delete(w.components, in.Component)
	delete(w.specs, in.Component)
	return nil
}

// took returns what the components were asked for since it was last called.
func (w *world) took() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	asked := w.asked
	w.asked = nil
	return asked
}

func (w *world) breaks(id string, code *failure.Code) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.broken[id] = code
}

func (w *world) instance() (s InstanceStatus) {
	w.t.Helper()
	w.statusInto(&s)
	return s
}

func TestInstanceBringsUpAndDeletesInOrder(t *testing.T) {
	w := newWorld(t, testInstance)
	w.valid()
	w.watched()
	w.at(time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Empty(t, s.Failing)
		require.Equal(t, []string{"Running source.default.s", "Running query.default.q", "Running reaction.default.r"}, w.took())
		require.Equal(t, ComponentStatus{ID: "query.default.q", Desired: "Running", Phase: "Running", SpecVersion: 1}, s.Components[1])
		w.signal(CommandStop, nil)
	})
	w.at(2*time.Second, func() {
		require.Equal(t, PhaseStopped, w.instance().Phase)
		require.Equal(t, []string{"Stopped source.default.s", "Stopped query.default.q", "Stopped reaction.default.r"}, w.took())
		w.signal(CommandRestart, nil) // not while stopped
		w.signal(CommandResume, nil)
		w.signal(CommandRestart, nil)
	})
	w.at(3*time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseRunning, s.Phase)
		resumed := func(took string) bool { return strings.HasPrefix(took, "Running ") } // as far as it came before the restart
		require.Equal(t, []string{"restart source.default.s", "restart query.default.q", "restart reaction.default.r"}, slices.DeleteFunc(w.took(), resumed))
		require.Equal(t, []string{Applied, Rejected, Applied, Applied}, outcomes(s.Commands))
		w.signal(CommandDelete, nil)
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, []string{"q"}, []string{"r"})})
	var result Result
	require.NoError(t, w.GetWorkflowResult(&result))
	require.Equal(t, "Deleted", result.Outcome)
	require.Equal(t, []string{"delete reaction.default.r", "delete query.default.q", "delete source.default.s"}, w.took())
	for _, waits := range []string{"EnsureComponent", "RemoveComponent"} {
		require.Equal(t, activities.QueueRun, w.queues[waits], "where they do not keep from running what they wait for")
	}
	require.Equal(t, []string{"Validating", "Starting", "Running", "Draining", "Stopped", "Starting", "Running", "TearingDown", "Deleted"}, w.phases)
}

func outcomes(commands []Command) (all []string) {
	for _, c := range commands {
		all = append(all, c.Outcome)
	}
	return all
}

// Nothing is started while anything is wrong, and all of it is said.
func TestInstanceThatIsNotValidStartsNothing(t *testing.T) {
	w := newWorld(t, testInstance)
	problems := []activities.Problem{
		{Component: "query q", Code: "ConfigInvalid", Message: "sources[0]: the instance has no source s"},
		{Component: "reaction r", Code: "ConfigInvalid", Message: "kind: is required"},
	}
	w.OnActivity(instances.ValidateInstance, mock.Anything, mock.Anything).Return(activities.InstanceChecks{Problems: problems}, nil).Times(2)
	w.valid()
	w.watched()
	refused := CommandInput{Spec: instanceSpec(nil, []string{"q2"}, nil)}
	w.at(time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseNeedsOperator, s.Phase)
		require.Equal(t, problems, s.Problems)
		require.Equal(t, "query q: sources[0]: the instance has no source s\nreaction r: kind: is required", s.Breaker.LastError.Message)
		w.signal(CommandApply, refused)
	})
	w.at(2*time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseNeedsOperator, s.Phase)
		require.Equal(t, []string{Rejected}, outcomes(s.Commands))
		require.Contains(t, s.Commands[0].Error, "sources[0]: the instance has no source s")
		require.Empty(t, w.took())
		w.signal(CommandApply, CommandInput{Spec: instanceSpec([]string{"s"}, nil, nil)})
	})
	w.at(3*time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, 2, s.SpecVersion)
		require.Empty(t, s.Problems)
		require.Equal(t, []string{"Running source.default.s"}, w.took())
		w.CancelWorkflow()
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec(nil, []string{"q"}, []string{"r"})})
	require.True(t, w.IsWorkflowCompleted())
	require.Empty(t, w.took(), "a cancelled instance leaves its components as they are")
}

func TestApplyAddsChangesAndRemoves(t *testing.T) {
	w := newWorld(t, testInstance)
	w.valid()
	w.watched()
	var refused error
	w.at(time.Second, func() {
		w.took()
		w.UpdateWorkflow(CommandApply, "1", w.answer(&refused), CommandInput{Spec: instanceSpec(nil, nil, nil), BaseSpecVersion: 7})
		w.signal(CommandApply, CommandInput{
			Spec: instanceSpec([]string{"s"}, []string{"q=other", "new"}, []string{"r2"}), BaseSpecVersion: 1,
		})
	})
	w.at(2*time.Second, func() {
		require.ErrorContains(t, refused, "the spec is at version 1, not 7")
		s := w.instance()
		require.Equal(t, PhaseRunning, s.Phase)
		require.Equal(t, 2, s.SpecVersion)
		took := w.took()
		slices.Sort(took)
		require.Equal(t, []string{
			"Running query.default.new", "Running query.default.q", "Running reaction.default.r2", "Running source.default.s", "delete query.default.gone", "delete reaction.default.r",
		}, took)
		versions := map[string]int{}
		for _, c := range s.Components {
			versions[c.ID] = c.SpecVersion
		}
		require.Equal(t, map[string]int{"source.default.s": 1, "query.default.q": 2, "query.default.new": 1, "reaction.default.r2": 1}, versions)
		w.CancelWorkflow()
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, []string{"q", "gone"}, []string{"r"})})
	require.True(t, w.IsWorkflowCompleted())
}

// answer makes the callback of an update that keeps why it was refused.
func (w *world) answer(refused *error) *updateAnswer { return &updateAnswer{refused} }

type updateAnswer struct{ refused *error }

func (*updateAnswer) Accept()                     {}
func (a *updateAnswer) Reject(err error)          { *a.refused = err }
func (a *updateAnswer) Complete(_ any, err error) { *a.refused = err }

// One of ten fails to stop: the others do, it is named, and it is tried again until it does too.
func TestOneOfTenFails(t *testing.T) {
	const lame = "reaction.default.r7"
	var names []string
	for n := range 8 {
		names = append(names, fmt.Sprintf("r%d", n))
	}
	w := newWorld(t, testInstance)
	w.valid()
	w.watched()
	w.at(time.Second, func() {
		w.breaks(lame, failure.ComponentSilent)
		w.signal(CommandStop, nil)
	})
	w.at(2*time.Second, func() {
		s := w.instance()
		require.Equal(t, PhaseDegraded, s.Phase)
		require.Equal(t, []string{lame}, s.Failing)
		require.Equal(t, failure.ComponentSilent.ID, s.Breaker.LastError.Code)
		require.Contains(t, s.Breaker.LastError.Message, lame)
		require.NotNil(t, s.Breaker.OpenUntil)
		for _, c := range s.Components {
			require.Equal(t, c.ID != lame, c.Phase == "Stopped", c.ID)
		}
		w.took()
	})
	w.at(5*time.Minute, func() { w.breaks(lame, nil) })
	w.at(15*time.Minute, func() {
		s := w.instance()
		require.Equal(t, PhaseStopped, s.Phase)
		require.Empty(t, s.Failing)
		for _, asked := range w.took() {
			require.Equal(t, "Stopped "+lame, asked, "the others are left alone")
		}
		w.breaks(lame, failure.ComponentRefused)
		w.signal(CommandDelete, nil)
	})
	w.at(16*time.Minute, func() {
		s := w.instance()
		require.Equal(t, PhaseDeleteBlocked, s.Phase)
		require.Len(t, s.Components, 1)
		require.Equal(t, []string{lame}, s.Failing)
		w.signal(CommandDelete, CommandInput{Force: true})
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, []string{"q"}, names)})
	require.NoError(t, w.GetWorkflowError())
	require.Empty(t, w.components)
}

func TestInstanceFollowsItsComponents(t *testing.T) {
	w := newWorld(t, testInstance)
	w.valid()
	broke := activities.ComponentState{
		Component: "source.default.s", Desired: "Running", Phase: "NeedsOperator", Health: activities.HealthFailing, SpecVersion: 1,
		Error: activities.ComponentError{Code: "AuthFailed", Message: "no"},
	}
	w.OnActivity(instances.WatchComponents, mock.Anything, mock.Anything).Return([]activities.ComponentState{broke}, nil).After(time.Minute).Once()
	w.watched()
	w.at(30*time.Second, func() { require.Equal(t, PhaseRunning, w.instance().Phase) })
	w.at(2*time.Minute, func() {
		s := w.instance()
		require.Equal(t, PhaseDegraded, s.Phase)
		require.Equal(t, []string{"source.default.s"}, s.Failing)
		require.Equal(t, "AuthFailed", s.Components[0].Error.Code)
		w.took()
		w.signal(CommandResume, nil)
	})
	w.at(3*time.Minute, func() {
		require.Equal(t, PhaseRunning, w.instance().Phase)
		require.Equal(t, []string{"Running source.default.s"}, w.took())
		w.signal(CommandResume, nil)
	})
	w.at(4*time.Minute, func() {
		require.Equal(t, []string{Applied, Noop}, outcomes(w.instance().Commands))
		w.CancelWorkflow()
	})
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, nil, nil)})
	require.True(t, w.IsWorkflowCompleted())
}

func TestInstanceInputsThatCannotBeUsed(t *testing.T) {
	for name, c := range map[string]struct {
		id      string
		input   any
		problem string
	}{
		"nothing":    {testInstance, nil, "without an input"},
		"no spec":    {testInstance, map[string]string{}, "spec: is missing"},
		"not a list": {testInstance, map[string]any{"spec": map[string]any{"sources": 1}}, "decoding the spec"},
		"id":         {"mine", Input{Spec: instanceSpec(nil, nil, nil)}, "instance.<name>"},
		"too long":   {testInstance, Input{Spec: instanceSpec([]string{strings.Repeat("x", maxInput)}, nil, nil)}, "the most is 65536"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, c.id)
			w.at(time.Minute, func() {
				s := w.instance()
				require.Equal(t, PhaseNeedsOperator, s.Phase)
				require.Contains(t, s.Breaker.LastError.Message, c.problem)
				w.signal("pause", []int{1})
				w.signal("reconfigure", nil)
				w.signal("apply", nil)
			})
			w.at(2*time.Minute, func() {
				s := w.instance()
				require.Equal(t, []string{Rejected, Rejected, Rejected}, outcomes(s.Commands))
				confirm := ""
				if c.id == testInstance {
					confirm = "default"
				}
				w.signal(CommandDelete, CommandInput{Confirm: confirm})
			})
			w.ExecuteWorkflow(TypeInstance, c.input)
			require.NoError(t, w.GetWorkflowError())
			require.Empty(t, w.called)
		})
	}
}

// TestReconcileThatIsCutShort leaves nothing untried: what failed before its end was not judged.
func TestReconcileThatIsCutShort(t *testing.T) {
	failed := func(code *failure.Code) *failure.Report { r := failure.Describe(code.Errorf("telling")); return &r }
	i := &instance{desk: &desk{}, task: taskReconcile, ending: cancelling, wanted: 2}
	i.state.Wanted = 2
	i.state.Members = []member{
		{ID: "source.default.told", Tried: 2},
		{ID: "source.default.silent", Tried: 2, Failure: failed(failure.ComponentSilent)},
		{ID: "source.default.refused", Tried: 2, Failure: failed(failure.ConfigInvalid)},
	}
	i.ended(nil)
	require.Equal(t, []int{2, 0, 2}, []int{i.state.Members[0].Tried, i.state.Members[1].Tried, i.state.Members[2].Tried})
}

func TestInstanceCarriesOver(t *testing.T) {
	w := newWorld(t, testInstance)
	w.valid()
	w.watched()
	w.at(time.Second, func() { w.signal(CommandUpgrade, map[string]string{"requestId": "u"}) })
	w.ExecuteWorkflow(TypeInstance, Input{Spec: instanceSpec([]string{"s"}, nil, nil), Desired: Paused})
	var in InstanceInput
	continuedInto(t, w.GetWorkflowError(), &in)
	require.Equal(t, PhasePaused, in.Carry.Phase)

	next := newWorld(t, testInstance)
	next.watched()
	next.at(time.Second, func() {
		s := next.instance()
		require.Equal(t, PhasePaused, s.Phase)
		require.Equal(t, "source.default.s", s.Components[0].ID)
		require.Equal(t, "u", s.Commands[0].RequestID)
		require.Empty(t, next.took(), "nothing has changed")
		next.CancelWorkflow()
	})
	next.ExecuteWorkflow(TypeInstance, in)
	require.True(t, next.IsWorkflowCompleted())
}
