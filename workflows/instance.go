package workflows

import (
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// instance is one run of the workflow of an instance. It brings a whole set of components to what its spec and its
// commands say: it starts their workflows, which are not its children and live on without it, and sends them commands.
// One that does not obey keeps no other from it.
type instance struct {
	*desk
	declared bool
	parts    []part
	state    InstanceState

	// The task in flight.
	task   task
	wanted int // version of what is wanted that it works for
	cancel workflow.CancelFunc
	ending ending

	places workflow.Semaphore // for components that are spoken to at once

	watching workflow.CancelFunc
	watches  int // so that one that was left behind is not taken for another

	last explanation
}

const speakToAtOnce = 20

var instanceCommands = []string{
	CommandPause, CommandResume, CommandStop, CommandRestart, CommandApply, CommandUpgrade, CommandDelete,
}

func newInstance(ctx workflow.Context, raw converter.RawValue, attributes func() bool) (*instance, error) {
	i := &instance{places: workflow.NewSemaphore(ctx, speakToAtOnce)}
	i.desk = newDesk(ctx, i, &i.state.core, KindInstance, CommandApply)
	if name, err := component.ParseInstanceID(i.id); err == nil {
		i.desk.instance, i.name = name, name
	}
	in, invalid := decodeInput[InstanceState](raw)
	if invalid == nil {
		invalid = byReference(ctx, &in)
	}
	i.spec, i.specRef, i.requestedBy = in.Spec, in.SpecRef, in.RequestedBy
	if in.Carry != nil {
		i.state = *in.Carry
	} else {
		i.state = InstanceState{core: begin(in.Desired, in.unexpected)}
	}
	if invalid == nil {
		i.parts, invalid = declareInstance(CommandInput{Spec: i.spec, SpecRef: i.specRef}, i.id)
		if i.specRef != "" {
			i.parts, i.state.Referred = i.state.declaredParts(), true
		}
		i.declared = invalid == nil
	}
	if invalid != nil && in.Carry == nil {
		i.fail(failure.Describe(invalid))
	}
	return i, i.open(attributes)
}

// loop is as a component's: level-triggered, and ended by a delete, a cancellation or a new history only.
func (i *instance) loop() (*Result, error) {
	for {
		i.take()
		if i.task == noTask {
			i.between()
		}
		s := i.situation()
		act := decideInstance(s)
		i.last = explanation{s, act}
		switch act {
		case actWatch, actBreaker, actWait:
		default:
			i.stopWatching()
		}
		switch act {
		case actClose:
			i.enter(PhaseDeleted)
			i.describe()
			return &Result{Outcome: "Deleted", At: workflow.Now(i.ctx)}, i.settle()
		case actLeave:
			i.describe()
			return nil, i.root.Err()
		case actContinue:
			return nil, i.continueAsNew()
		}
		i.do(act)
		i.describe()
		if err := i.rest(); err != nil {
			return nil, err
		}
	}
}

// between tries once more what failed, when its time has come.
func (i *instance) between() {
	open := i.state.Breaker.State == breakerOpen
	if i.probeWhenDue(); !open || i.state.Breaker.State == breakerOpen {
		return
	}
	i.tryAgain()
}

// tryAgain has those components told once more that could not be for reasons that may have gone away.
func (i *instance) tryAgain() {
	for n := range i.state.Members {
		if m := &i.state.Members[n]; m.Failure != nil && !permanent(*m.Failure) {
			m.Tried = 0
		}
	}
}

func (i *instance) situation() situation {
	s := &i.state
	now := i.desk.situation()
	now.Declared, now.Validated = i.declared, s.Validated
	now.Task, now.Ending = i.task, i.ending
	now.TornDown = len(s.Members) == 0 && !s.Referred
	now.Outdated = i.task != noTask && i.task != taskValidate && i.wanted != s.Wanted
	now.Reconciled = !slices.ContainsFunc(s.Members, func(m member) bool { return m.Tried != s.Wanted })
	return now
}

func (i *instance) continueAsNew() error {
	i.state.Upgrade = false
	carry := i.state
	carry.fit()
	return workflow.NewContinueAsNewError(i.root, TypeInstance, InstanceInput{
		Spec: i.spec, SpecRef: i.specRef, Desired: carry.Desired, RequestedBy: i.requestedBy, Carry: &carry,
	})
}

// shown implements owner.
func (i *instance) shown() (host, health string) { return "", healthOf(i.state.Phase) }

// told implements owner.
func (i *instance) told(signal) bool { return false }

// object implements owner.
func (i *instance) object(string, CommandInput) error { return nil }

// unknown implements owner.
func (i *instance) unknown(string) bool { return false }

// lasting implements owner.
func (i *instance) lasting(string) func(workflow.Context, CommandInput) error { return nil }

// explained implements owner.
func (i *instance) explained() explanation { return i.last }

// commands implements owner.
func (i *instance) commands() []string { return instanceCommands }

// refuse implements owner.
func (i *instance) refuse(name string, in CommandInput) error {
	if in.Generation != nil {
		return errors.New("an instance has no generation; apply takes baseSpecVersion")
	}
	if in.Query != "" || in.Seq != "" {
		return errors.New("query and seq are for commands of reactions")
	}
	switch name {
	case CommandResume, CommandRestart:
		if !i.declared {
			return errors.New("the spec cannot be used; send another with apply")
		}
		if name == CommandRestart && i.state.Desired != Running {
			return fmt.Errorf("the instance is not meant to run: desired is %s", i.state.Desired)
		}
	case CommandApply:
		if _, err := declareInstance(in, i.id); err != nil {
			return err
		}
	}
	return nil
}

// apply implements owner.
func (i *instance) apply(name string, in CommandInput) bool {
	s := &i.state
	changed := s.want(name, in)
	switch name {
	case CommandUpgrade:
		return true
	case CommandDelete:
		s.Delete.Failed = false // also one that is forced is tried first
	case CommandResume:
		if s.Parked {
			s.Parked, s.Validated, changed = false, false, true
		}
		if changed = changed || i.phase() == PhaseDegraded; changed {
			i.pass(func(m *member) *int { return &m.Resume })
		}
	case CommandRestart:
		changed = true
		i.pass(func(m *member) *int { return &m.Restart })
	}
	if changed {
		i.want()
	}
	return changed
}

// want makes all components hear of what is wanted now.
func (i *instance) want() {
	i.state.Wanted++
	i.state.Breaker.probe()
}

// pass notes a command that is to be passed on to all components.
func (i *instance) pass(note func(*member) *int) {
	for n := range i.state.Members {
		*note(&i.state.Members[n]) = i.state.Wanted + 1
	}
}

// check implements owner.
func (i *instance) check(ctx workflow.Context, in CommandInput) (take func(), err error) {
	parts, err := declareInstance(in, i.id)
	if err != nil {
		return nil, err
	}
	members, err := i.findProblems(ctx, activities.SpecInput{Component: i.id, Spec: in.Spec, SpecRef: in.SpecRef})
	if in.SpecRef != "" {
		parts = partsOf(members)
	}
	return func() {
		i.accept(parts)
		i.declared, i.state.Parked, i.state.Referred = true, false, i.state.Referred || in.SpecRef != ""
	}, refusal(err)
}

// findProblems has a spec validated, and returns the components of one that there is but a reference to. What is wrong with
// it stays in the status until another one is.
func (i *instance) findProblems(ctx workflow.Context, in activities.SpecInput) (members []string, err error) {
	var checks activities.InstanceChecks
	if err := workflow.ExecuteActivity(withValidate(ctx), instances.ValidateInstance, in).Get(ctx, &checks); err != nil {
		return nil, err
	}
	i.state.Problems = checks.Problems
	if len(checks.Problems) == 0 {
		return checks.Members, nil
	}
	lines := make([]string, len(checks.Problems))
	for n, p := range checks.Problems {
		if lines[n] = p.Message; p.Component != "" {
			lines[n] = p.Component + ": " + p.Message
		}
	}
	return nil, failure.ConfigInvalid.Errorf("%s", listed(lines, maxProblems)).
		WithFix("Correct what the message, or all of the status's problems, name and send the spec again with the signal apply.")
}

// listed is as many lines as fit, and how many more there are.
func listed(lines []string, most int) string {
	const room = 64 // for what is said of the others
	text := shorten(lines[0], most-room)
	for n, line := range lines[1:] {
		if len(text)+1+len(line) > most-room {
			return fmt.Sprintf("%s\nand %d more, in the status under problems", text, len(lines)-1-n)
		}
		text += "\n" + line
	}
	return text
}

// accept takes the components of a spec that is valid.
func (i *instance) accept(parts []part) {
	i.parts, i.state.Validated = parts, true
	i.state.declareMembers(parts)
	i.want()
}
