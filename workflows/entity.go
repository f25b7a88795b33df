package workflows

import (
	"encoding/json"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// entity is one run of a component's workflow.
type entity struct {
	root workflow.Context // ends when the workflow is cancelled
	ctx  workflow.Context // does not
	kind kind
	id   string // of the workflow and, if it is declared, of the component

	spec        json.RawMessage
	declared    *declared
	requestedBy string
	state       State
	inbox       *inbox
	attributes  bool

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

	busy      int            // commands that wait for an activity
	specs     workflow.Mutex // held while a spec is checked
	cancelled bool
	dirty     bool
	awaiting  *time.Time // the breaker's time, when a timer waits for it
	rested    workflow.CancelFunc
	last      explanation
}

// explanation is the answer to the query explain.
type explanation struct {
	Situation situation `json:"situation"`
	Action    action    `json:"action"`
}

func newEntity(ctx workflow.Context, k kind, raw converter.RawValue, attributes func() bool) (*entity, error) {
	e := &entity{root: ctx, kind: k, id: workflow.GetInfo(ctx).WorkflowExecution.ID, inbox: inboxOf(ctx), specs: workflow.NewMutex(ctx)}
	e.ctx, _ = workflow.NewDisconnectedContext(ctx)

	in, invalid := decodeInput(raw)
	e.spec, e.requestedBy = in.Spec, in.RequestedBy
	if in.Carry != nil {
		e.state = *in.Carry
	} else {
		e.state = State{Desired: in.Desired, SpecVersion: 1, Breaker: Breaker{State: breakerClosed}, Unexpected: in.unexpected}
	}
	e.state.Version = stateVersion
	if invalid == nil {
		var d declared
		if d, invalid = declareAs(k.component, e.spec, e.id); invalid == nil {
			e.declared = &d
		}
	}
	if invalid != nil && in.Carry == nil {
		e.fail(failure.Describe(invalid))
	}
	if err := workflow.SideEffect(ctx, func(workflow.Context) any { return attributes() }).Get(&e.attributes); err != nil {
		return nil, err
	}
	if e.state.Phase == "" {
		e.enter(PhaseCreated)
	}
	return e, e.handle()
}

// loop turns what is known into the next action until the run of the workflow ends. Handlers and tasks only change what
// is known.
func (e *entity) loop() (*Result, error) {
	for {
		e.dirty = false
		e.cancelled = e.root.Err() != nil
		for _, s := range e.inbox.take() {
			e.signalled(s)
		}
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
		err := workflow.Await(e.ctx, func() bool {
			return e.dirty || !e.inbox.empty() || e.root.Err() != nil && !e.cancelled
		})
		if err != nil {
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
	if until := e.state.Breaker.OpenUntil; until != nil && !workflow.Now(e.ctx).Before(*until) {
		e.state.Breaker.probe()
	}
}

func (e *entity) situation() situation {
	s := &e.state
	info := workflow.GetInfo(e.root)
	now := situation{
		Desired: s.Desired, Declared: e.declared != nil, Cancelled: e.cancelled,
		Restart: s.Restart, Upgrade: s.Upgrade, Parked: s.Parked, Open: s.Breaker.State == breakerOpen,
		Task: e.task, Ending: e.ending, Overdue: e.overdue, ChildrenHeld: e.held,
		Validated: s.Validated, Provisioned: s.Provisioned || e.kind.provision == nil, SourcesReady: len(s.Missing) == 0,
		NeedsBootstrap: s.Snapshots.Needed && e.declared != nil && e.declared.bootstrap, Placed: s.Placement != nil,
		Suggested: info.GetContinueAsNewSuggested(), Long: info.GetCurrentHistoryLength() > longHistory,
		Busy: e.busy > 0 || !workflow.AllHandlersFinished(e.ctx),
	}
	if d := s.Delete; d != nil {
		now.Deleting, now.Force, now.Blocked = true, d.Force, d.Failed
		now.TornDown = d.Done || !s.Touched || e.declared == nil
	}
	return now
}

// longHistory is how many events a history has before a new one begins where that costs nothing.
const longHistory = 200

func (e *entity) close() (*Result, error) {
	// Updates that were accepted get their answer before the workflow closes.
	if err := workflow.Await(e.ctx, func() bool { return e.busy == 0 && workflow.AllHandlersFinished(e.ctx) }); err != nil {
		return nil, err
	}
	return &Result{Outcome: "Deleted", Generation: e.state.Generation, Position: e.state.Position, At: workflow.Now(e.ctx)}, nil
}

func (e *entity) continueAsNew() error {
	e.state.Upgrade = false
	carry := e.state
	return workflow.NewContinueAsNewError(e.root, WorkflowType(e.kind.component), Input{
		Spec: e.spec, Desired: carry.Desired, RequestedBy: e.requestedBy, Carry: &carry,
	})
}

// fail takes a failure that nothing below the workflow overcame. A permanent one waits for a person, without a timer;
// any other is tried again, less and less often.
func (e *entity) fail(report failure.Report) {
	s := &e.state
	now := workflow.Now(e.ctx)
	s.Breaker.LastError = &LastError{Report: trimmed(report), At: now}
	s.Placement, s.Provisioned = nil, false
	switch activities.ClassOf(report) {
	case failure.Configuration, failure.Authorisation, failure.Data, failure.Invalidated:
		s.Parked, s.Validated = true, false
	default:
		s.Breaker.fail(now, e.id)
	}
}

// trimmed bounds a report, because it is carried along for as long as the component lives.
func trimmed(r failure.Report) failure.Report {
	const most = 6
	r.Message = shorten(r.Message, 1000)
	causes := make([]string, 0, most)
	for _, c := range r.Causes[:min(len(r.Causes), most)] {
		causes = append(causes, shorten(c, 500))
	}
	r.Causes = causes
	if r.Details != nil {
		details := make(map[string]string, len(r.Details))
		for _, k := range workflow.DeterministicKeys(r.Details) {
			details[k] = shorten(r.Details[k], 1000)
		}
		r.Details = details
	}
	return r
}
