package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// entity is one run of a component's workflow.
type entity struct {
	*desk
	kind     kind
	declared *declared
	unread   bool // the spec, to which there is but a reference, is to be read yet
	state    State

	// The task in flight.
	task     task
	number   int // of the task, so that the end of one that was left behind is not taken for another's
	version  int // of the spec that the task works for
	cancel   workflow.CancelFunc
	since    time.Time
	ending   ending
	overdue  bool
	unbound  workflow.CancelFunc // ends the timer of the step
	held     bool
	children []workflow.ChildWorkflowFuture
	childIDs []string
	beside   workflow.CancelFunc // ends the bootstraps beside a run; nil: there are none
	besides  workflow.WaitGroup  // for their end

	letters workflow.Mutex // held while dead letters are retried or dropped
	last    explanation
}

// explanation is the answer to the query explain.
type explanation struct {
	Situation situation `json:"situation"`
	Action    action    `json:"action"`
}

func newEntity(ctx workflow.Context, k kind, raw converter.RawValue, attributes func() bool) (*entity, error) {
	e := &entity{kind: k, letters: workflow.NewMutex(ctx), besides: workflow.NewWaitGroup(ctx)}
	e.desk = newDesk(ctx, e, &e.state.core, string(k.component), CommandReconfigure)
	if id, err := component.ParseID(e.id); err == nil {
		e.instance, e.name = id.Instance, id.Name
	}

	in, invalid := decodeInput[State](raw)
	if invalid == nil {
		invalid = byReference(ctx, &in)
	}
	e.spec, e.specRef, e.requestedBy = in.Spec, in.SpecRef, in.RequestedBy
	if in.Carry != nil {
		e.state = *in.Carry
	} else {
		e.state = State{core: begin(in.Desired, in.unexpected)}
	}
	e.unread = invalid == nil && e.specRef != "" && e.state.Head == nil
	if invalid == nil && !e.unread {
		var d declared
		if head := e.state.Head; head != nil {
			d, invalid = declareHead(k.component, *head)
			d, invalid = d.as(e.id, invalid)
		} else {
			d, invalid = declareAs(k.component, e.spec, e.id)
		}
		if invalid == nil {
			e.declared, e.waits = &d, d.waits
		}
	}
	if invalid != nil && in.Carry == nil {
		e.fail(failure.Describe(invalid))
	}
	return e, e.open(attributes)
}

// explained implements owner.
func (e *entity) explained() explanation { return e.last }

// loop turns what is known into the next action until the run of the workflow ends. Handlers and tasks only change what
// is known.
func (e *entity) loop() (*Result, error) {
	for {
		e.take()
		if e.task == noTask {
			e.between()
		}
		s := e.situation()
		act := decide(s)
		e.last = explanation{s, act}
		switch act {
		case actClose:
			e.enter(PhaseDeleted)
			e.describe()
			return e.close()
		case actLeave:
			e.describe()
			return nil, e.root.Err()
		case actContinue:
			return nil, e.continueAsNew()
		}
		waits := e.do(act)
		e.describe()
		if !waits {
			continue
		}
		if err := e.rest(); err != nil {
			return nil, err
		}
	}
}

// between does what can only be done while nothing is in flight.
func (e *entity) between() {
	e.state.Restart = false
	if e.state.Rebootstrap {
		e.state.Snapshots = snapshots{Known: true, Needed: true, Rebuild: e.state.Rebuild, Count: e.state.Snapshots.Count}
		e.state.Rebootstrap, e.state.Rebuild = false, false
	}
	e.probeWhenDue()
}

func (e *entity) situation() situation {
	s := &e.state
	now := e.desk.situation()
	now.Declared, now.Unread, now.Restart = e.declared != nil, e.unread, s.Restart
	now.Task, now.Ending, now.Overdue, now.ChildrenHeld = e.task, e.ending, e.overdue, e.held
	now.Validated, now.Provisioned, now.SourcesReady = s.Validated, s.Provisioned || e.kind.provision == nil, len(s.Missing) == 0 || s.Ahead
	now.NeedsBootstrap = s.Snapshots.Needed && e.declared != nil && e.declared.bootstrap
	now.Placed = s.Placement != nil
	if d := s.Delete; d != nil {
		now.TornDown = d.Done || !s.Touched || e.declared == nil
	}
	return now
}

func (e *entity) close() (*Result, error) {
	if err := e.settle(); err != nil {
		return nil, err
	}
	r := &Result{Outcome: "Deleted", Generation: e.state.Generation, Position: e.state.Position, At: workflow.Now(e.ctx)}
	if last := e.state.Breaker.LastError; last != nil && e.state.Delete.Failed {
		r.Left = last.Code + ": " + last.Message
	}
	return r, nil
}

func (e *entity) continueAsNew() error {
	e.state.Upgrade = false
	carry := e.state
	carry.fit()
	return workflow.NewContinueAsNewError(e.root, WorkflowType(e.kind.component), Input{
		Spec: e.spec, SpecRef: e.specRef, Desired: carry.Desired, RequestedBy: e.requestedBy, Carry: &carry,
	})
}

// fail is the desk's fail, and forgets what was achieved: the component begins anew.
func (e *entity) fail(report failure.Report) {
	s := &e.state
	e.desk.fail(report)
	s.Placement, s.Provisioned = nil, false
	if s.Parked {
		s.Validated = false
	}
}

// shown implements owner.
func (e *entity) shown() (host, health string) { return e.state.Host, e.health() }

// malformed keeps a signal of an activity, or of somebody who plays one, that cannot be read.
func (e *entity) malformed(s signal, err error) {
	e.recordCommand(s.name, CommandInput{}, Rejected, fmt.Errorf("decoding the payload: %w", err))
}

// told implements owner.
func (e *entity) told(s signal) bool {
	switch s.name {
	case activities.SignalCondition:
		e.conditioned(s)
	case activities.SignalNeed:
		e.needed(s)
	case signalTrouble:
		e.troubled(s)
	default:
		return false
	}
	return true
}
