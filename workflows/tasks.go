package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// do begins an action, and reports whether there is nothing more to do until something happens. It never waits itself.
func (e *entity) do(act action) (waits bool) {
	s := &e.state
	if act != actBreaker {
		e.stopAwaiting()
	}
	switch act {
	case actRest:
		e.enter(map[Desired]Phase{Paused: PhasePaused, Stopped: PhaseStopped}[s.Desired])
	case actPark:
		e.enter(PhaseNeedsOperator)
	case actBlock:
		e.enter(PhaseDeleteBlocked)
	case actBreaker:
		e.enter(e.phaseOfBreaker())
		e.awaitBreaker()
	case actRead:
		e.enter(PhaseValidating)
		e.start(taskRead, e.read)
	case actValidate:
		e.enter(PhaseValidating)
		e.start(taskValidate, e.validate)
	case actProvision:
		e.enter(PhaseProvisioning)
		s.Touched = true
		e.start(taskProvision, func(ctx workflow.Context) error {
			return workflow.ExecuteActivity(withProvision(ctx), e.kind.provision, e.specInput()).Get(ctx, nil)
		})
	case actAwaitSources:
		e.enter(PhaseWaitingForSource)
		in := activities.WaitInput{Instance: e.declared.id.Instance, Sources: s.Missing}
		e.start(taskAwaitSources, func(ctx workflow.Context) error {
			return workflow.ExecuteActivity(withAwaitSources(ctx), queries.WaitForSources, in).Get(ctx, nil)
		})
	case actBootstrap:
		e.enter(PhaseBootstrapping)
		s.Touched = true
		e.start(taskBootstrap, e.bootstrap)
	case actPlace:
		e.enter(PhaseStarting)
		s.Touched = true
		e.start(taskPlace, e.place)
	case actRun:
		e.startRun()
	case actTeardown:
		e.enter(PhaseTearingDown)
		e.start(taskTeardown, e.teardown)
	case actHold:
		e.held = true
		e.tellChildren(CommandPause)
		e.enter(PhasePaused)
	case actRelease:
		e.held = false
		e.tellChildren(CommandResume)
		e.enter(e.phaseOfBootstrap())
	case actDrain:
		e.enter(PhaseDraining)
		e.end(draining, e.declared.drain+drainGrace)
		e.requestDrain()
	case actCancel:
		if e.task != taskTeardown {
			e.enter(PhaseDraining)
		}
		e.end(cancelling, cancelWithin)
		e.cancel()
	case actFence:
		e.end(fencing, 0)
		e.fence()
	case actAbandon:
		e.number++
		e.finish()
		s.Placement = nil
		return false
	}
	return true
}

// start begins a task in a coroutine of its own.
func (e *entity) start(t task, work func(workflow.Context) error) {
	ctx, cancel := workflow.WithCancel(e.ctx)
	e.number++
	e.task, e.cancel, e.since, e.held, e.children, e.childIDs = t, cancel, workflow.Now(ctx), false, nil, nil
	e.version = e.state.SpecVersion
	number := e.number
	workflow.Go(ctx, func(ctx workflow.Context) {
		err := work(ctx)
		if number == e.number {
			e.ended(err)
		}
	})
}

// outdated reports whether the spec has changed since the task in flight began. Such a task is asked to end, and may be
// done all the same before it learns of it: what it achieved, or failed at, then says nothing of the spec.
func (e *entity) outdated() bool { return e.version != e.state.SpecVersion }

// finish forgets the task in flight.
func (e *entity) finish() {
	if e.unbound != nil {
		e.unbound()
	}
	if e.beside != nil { // of a run that was left behind
		e.endBeside()
	}
	e.task, e.ending, e.overdue, e.unbound, e.children, e.dirty = noTask, notEnding, false, nil, nil, true
}

// ended takes the end of the task in flight.
func (e *entity) ended(err error) {
	t, asked := e.task, e.ending != notEnding
	e.finish()
	s := &e.state
	if t == taskRun {
		s.Condition = nil
	}
	if err != nil {
		switch {
		case t == taskTeardown:
			s.Delete.Failed = true
			s.Breaker.LastError = &LastError{Report: trimmed(activities.ReportOf(err)), At: workflow.Now(e.ctx)}
		case asked || e.outdated() || temporal.IsCanceledError(err):
			s.Placement = nil
		case t == taskRun && activities.NotTakenInTime(err) && e.mayAvoid(s.Host):
			s.Avoid, s.Placement = s.Host, nil
		case t == taskPlace && activities.Unplaced(err) &&
			workflow.GetVersion(e.ctx, "placed again", workflow.DefaultVersion, 1) != workflow.DefaultVersion:
		default:
			if t == taskRun && workflow.Now(e.ctx).Sub(e.since) > healthyFor {
				s.Breaker.reset()
			}
			e.fail(activities.ReportOf(err))
		}
		return
	}
	if e.outdated() && t != taskTeardown {
		return
	}
	switch t {
	case taskValidate:
		s.Validated = true
	case taskProvision:
		s.Provisioned, s.Reached = true, true
	case taskAwaitSources:
		s.Missing, s.Ahead = nil, false
	case taskBootstrap:
		s.Snapshots = snapshots{Known: true, Count: s.Snapshots.Count, At: workflow.Now(e.ctx), Host: s.Host}
	case taskTeardown:
		s.Delete.Done = true
	}
}

// mayAvoid reports whether a host that did not take a run in time is only to be avoided: it has run it before, and is stopped
// now, or the run before was elsewhere. Hosts that are stopped one after the other are no failure. The first builds forgave it
// once.
func (e *entity) mayAvoid(host string) bool {
	avoid := e.state.Avoid
	if avoid == "" {
		return true
	}
	ran := workflow.Now(e.ctx).Sub(e.since) > takenWithin+10*time.Second
	return (ran || avoid != host) && workflow.GetVersion(e.ctx, "avoid", workflow.DefaultVersion, 1) != workflow.DefaultVersion
}

func (e *entity) specInput() activities.SpecInput {
	return activities.SpecInput{Component: e.id, Spec: e.spec, SpecRef: e.specRef, Unexpected: e.state.Unexpected}
}

// read finds out what the workflow needs to know of the spec that it has a reference to.
func (e *entity) read(ctx workflow.Context) error {
	d, head, err := e.readSpec(ctx, e.specRef)
	if err == nil && !e.outdated() {
		e.declared, e.unread, e.waits, e.state.Head = &d, false, d.waits, head
	}
	return err
}

func (e *entity) readSpec(ctx workflow.Context, ref string) (declared, *activities.SpecHead, error) {
	var head activities.SpecHead
	err := workflow.ExecuteActivity(withReadSpec(ctx), control.ReadSpec, activities.SpecRefInput{SpecRef: ref}).Get(ctx, &head)
	if err != nil {
		return declared{}, nil, err
	}
	d, err := declareHead(e.kind.component, head)
	d, err = d.as(e.id, err)
	return d, &head, err
}

func (e *entity) validate(ctx workflow.Context) error {
	var checks activities.Checks
	err := workflow.ExecuteActivity(withValidate(ctx), e.kind.validate, e.specInput()).Get(ctx, &checks)
	e.state.Missing = checks.MissingSources
	e.state.Ahead = len(checks.MissingSources) > 0 && e.state.Generation > 0 && e.declared.bootstrap &&
		workflow.GetVersion(ctx, "run ahead of sources", workflow.DefaultVersion, 1) != workflow.DefaultVersion
	return err
}

func (e *entity) place(ctx workflow.Context) error {
	var p activities.Placement
	err := workflow.ExecuteActivity(withErrand(ctx, "choose a host", 5*time.Minute), control.PlaceComponent, activities.PlaceInput{
		Component: e.id, Generation: e.state.Generation,
		NeedsHost: e.kind.component == component.Query, Avoid: e.state.Avoid,
	}).Get(ctx, &p)
	if err == nil {
		e.state.Generation, e.state.Host = p.Generation, p.Host
		e.state.Placement = &placement{Host: p.Host, Queue: p.Queue, HeartbeatSeconds: p.HeartbeatSeconds}
	}
	return err
}

// confirmWithin is how long a query whose state is unknown may take to find that it needs a bootstrap, before it is
// shown as running.
const confirmWithin = 3 * time.Second

// startRun begins the loop. The server tells nobody when an attempt begins, so a component counts as running once its
// run is scheduled.
func (e *entity) startRun() {
	if e.kind.component == component.Query && e.declared.bootstrap && !e.state.Snapshots.Known {
		e.enter(PhaseStarting)
	} else {
		e.enter(PhaseRunning)
	}
	e.start(taskRun, e.run)
}

func (e *entity) run(ctx workflow.Context) error {
	s := &e.state
	placed := *s.Placement
	s.Placement = nil // the next run gets a generation of its own
	number := e.number
	if s.Phase == PhaseStarting {
		timerCtx, stop := workflow.WithCancel(ctx)
		defer stop()
		workflow.Go(timerCtx, func(ctx workflow.Context) {
			if sleep(ctx, confirmWithin, "until the query counts as running") == nil && number == e.number && e.ending == notEnding && !e.loads() {
				e.enter(PhaseRunning)
				e.dirty = true
			}
		})
	}
	if s.Breaker.State == breakerHalfOpen && workflow.GetVersion(ctx, "breaker closes", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		timerCtx, stop := workflow.WithCancel(ctx)
		defer stop()
		workflow.Go(timerCtx, func(ctx workflow.Context) {
			if sleep(ctx, healthyFor, "until what failed before is over") == nil && number == e.number {
				s.Breaker.reset()
				e.dirty = true
			}
		})
	}
	in := activities.RunInput{
		Component: e.id, Generation: s.Generation, SpecVersion: s.SpecVersion, Spec: e.spec, SpecRef: e.specRef,
		Beside: e.kind.component == component.Query && e.declared.bootstrap, Ahead: s.Ahead,
	}
	if s.Snapshots.Reload {
		in.Reload = fmt.Sprint("generation ", s.Generation)
	}
	var result activities.RunResult
	err := workflow.ExecuteActivity(
		withRun(ctx, fmt.Sprintf("run-%d", s.Generation), placed, fmt.Sprintf("spec %d, generation %d", s.SpecVersion, s.Generation)),
		e.kind.run, in,
	).Get(ctx, &result)
	if number == e.number && e.beside != nil {
		e.endBeside()
		lasting, _ := workflow.NewDisconnectedContext(ctx)
		e.besides.Wait(lasting) // they must not be at work when something else begins
	}
	if err != nil || number != e.number {
		return err
	}
	s.Host, s.Attempt, s.Avoid = result.Host, result.Attempt, ""
	if result.Position != "" {
		s.Position = result.Position
	}
	if result.Offset != "" {
		s.Offset = result.Offset
	}
	if result.Sequence != "" {
		s.Sequence = result.Sequence
	}
	s.Ahead = s.Ahead && (result.Outcome == activities.OutcomeDrained || result.Outcome == activities.OutcomeHandedOver)
	if result.Outcome == activities.OutcomeNeedsSources {
		return nil
	}
	now := workflow.Now(ctx)
	if result.Outcome == activities.OutcomeNeedsBootstrap && !e.outdated() {
		recent := now.Sub(s.Snapshots.At) < time.Minute
		if recent && s.Snapshots.Host != result.Host && workflow.GetVersion(ctx, "bootstrap elsewhere", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
			recent = false // what was read is lost with the other host's disk
		}
		if recent || !e.declared.bootstrap {
			return failure.StateCorrupt.Errorf("the query asks for a bootstrap that it has just had or must not have")
		}
		s.Snapshots = snapshots{Known: true, Needed: true, Count: s.Snapshots.Count}
		return nil
	}
	if result.Outcome == activities.OutcomeNeedsResync || result.Outcome == activities.OutcomeNeedsRebuild {
		s.Snapshots = snapshots{
			Known: true, Needed: true, Rebuild: result.Outcome == activities.OutcomeNeedsRebuild, Count: s.Snapshots.Count,
			Missing: result.Missing,
		}
		return nil
	}
	s.Snapshots.Known = true
	s.Breaker.reset()
	return nil
}

// bootstrap runs a child for each source that is not done yet. The first that fails ends the others; what is done stays
// done.
func (e *entity) bootstrap(ctx workflow.Context) error {
	s := &e.state.Snapshots
	e.children, e.childIDs, s.Trouble = nil, nil, nil
	ctx, cancel := workflow.WithCancel(ctx)
	defer cancel()
	var (
		pending int
		first   error
	)
	var labels []string
	if s.Missing != nil {
		labels = s.Missing.Labels
	}
	for _, source := range e.declared.sources {
		if slices.Contains(s.Sealed, source) || s.Missing != nil && s.Missing.Source != source {
			continue
		}
		s.Count++
		id := BootstrapID(e.declared.id, source, s.Count)
		child := workflow.ExecuteChildWorkflow(
			withBootstrap(ctx, id, fmt.Sprintf("snapshot of %s for query %s", source, e.declared.id.Name)),
			TypeBootstrap,
			BootstrapInput{
				ID: id, Instance: e.declared.id.Instance, Query: e.declared.id.Name, Source: source, Spec: e.spec, SpecRef: e.specRef, Rebuild: s.Rebuild, Labels: labels,
			})
		e.children, e.childIDs = append(e.children, child), append(e.childIDs, id)
		pending++
		workflow.Go(ctx, func(ctx workflow.Context) {
			err := child.Get(ctx, nil)
			pending--
			e.forgetTrouble(id)
			switch {
			case err == nil && !e.outdated():
				s.Sealed = append(s.Sealed, source)
			case err == nil:
			case first == nil:
				first = err
				cancel()
			}
		})
	}
	if err := waitFor(ctx, func() bool { return pending == 0 }); err != nil {
		return err
	}
	return first
}

// Waits after a bootstrap beside a run that failed: the first, doubled each time, and the longest.
const (
	besideAgain   = 30 * time.Second
	besideAtLeast = 10 * time.Minute // as often
)

// needed takes what the loop of a query asks for while it goes on: bootstraps, which it takes over when they are done. An
// attempt that follows another asks again.
func (e *entity) needed(s signal) {
	var need activities.Need
	if err := s.decode(&need); err != nil {
		e.malformed(s, err)
		return
	}
	if need.Generation != e.state.Generation ||
		e.task != taskRun || e.ending != notEnding || e.beside != nil || e.outdated() {
		return
	}
	known := &e.state.Snapshots
	*known = snapshots{
		Known: true, Rebuild: need.Outcome == activities.OutcomeNeedsRebuild, Missing: need.Missing, Count: known.Count,
		Reload: known.Reload, Held: need.Held,
	}
	ctx, cancel := workflow.WithCancel(e.ctx)
	e.beside = cancel
	e.upsert()
	number := e.number
	e.besides.Add(1)
	workflow.Go(ctx, func(ctx workflow.Context) {
		defer e.besides.Done()
		for wait := besideAgain; ; wait = min(2*wait, besideAtLeast) {
			err := e.bootstrap(ctx)
			if number != e.number || ctx.Err() != nil {
				if e.beside == nil {
					e.state.Snapshots.Sealed = nil // some may have been done before they could be ended
				}
				return
			}
			e.dirty = true
			if err == nil {
				e.beside = nil
				e.state.Snapshots = snapshots{Known: true, Count: e.state.Snapshots.Count, At: workflow.Now(ctx), Host: e.state.Host}
				e.upsert()
				return
			}
			e.state.Breaker.LastError = &LastError{Report: trimmed(activities.ReportOf(err)), At: workflow.Now(ctx)}
			e.besideFailed()
			if sleep(ctx, wait, "until the sources are read again") != nil {
				return
			}
		}
	})
}

// besideFailed shows the component degraded until the bootstraps beside its run are done.
func (e *entity) besideFailed() {
	if workflow.GetVersion(e.ctx, "beside failing", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		return
	}
	before := e.health()
	e.state.Snapshots.Failing = true
	if e.health() != before {
		e.upsert()
	}
}

func (e *entity) endBeside() {
	e.beside()
	e.beside, e.state.Snapshots.Held, e.state.Snapshots.Failing = nil, false, false
}

// tellChildren signals the bootstraps. One that just ended cannot be told, and need not.
func (e *entity) tellChildren(command string) {
	for _, child := range e.children {
		e.tell(child, command)
	}
}

func (e *entity) tell(child workflow.ChildWorkflowFuture, command string) {
	workflow.Go(e.ctx, func(ctx workflow.Context) { _ = child.SignalChildWorkflow(ctx, command, nil).Get(ctx, nil) })
}

func (e *entity) teardown(ctx workflow.Context) error {
	d := e.state.Delete
	return workflow.ExecuteActivity(withTeardown(ctx, d.within()), e.kind.teardown,
		activities.TeardownInput{Component: e.id, Spec: e.spec, SpecRef: e.specRef, KeepResources: d.KeepResources}).Get(ctx, nil)
}

// end begins a step of ending the task; when its bound is over, the next step follows.
func (e *entity) end(step ending, bound time.Duration) {
	if e.unbound != nil {
		e.unbound()
		e.unbound = nil
	}
	e.ending, e.overdue = step, false
	if bound == 0 {
		return
	}
	ctx, cancel := workflow.WithCancel(e.ctx)
	e.unbound = cancel
	workflow.Go(ctx, func(ctx workflow.Context) {
		if sleep(ctx, bound, "bound of "+string(step)) == nil && e.ending == step {
			e.overdue, e.dirty = true, true
		}
	})
}

func (e *entity) generation() activities.GenerationInput {
	return activities.GenerationInput{Component: e.id, Generation: e.state.Generation}
}

// requestDrain asks the loop to end. If it cannot even be asked, the next step comes at once.
func (e *entity) requestDrain() {
	number := e.number
	workflow.Go(e.ctx, func(ctx workflow.Context) {
		err := workflow.ExecuteActivity(withErrand(ctx, "ask the loop to drain", time.Minute), control.RequestDrain, e.generation()).Get(ctx, nil)
		if err != nil && number == e.number && e.ending == draining {
			e.overdue, e.dirty = true, true
		}
	})
}

// fence shuts the loop out. When that fails as well, the component goes on nevertheless: its next run has a higher
// generation, which shuts out this one.
func (e *entity) fence() {
	number := e.number
	workflow.Go(e.ctx, func(ctx workflow.Context) {
		_ = workflow.ExecuteActivity(withErrand(ctx, "shut out the loop", 5*time.Minute), control.FenceBump, e.generation()).Get(ctx, nil)
		if number == e.number {
			e.ending, e.dirty = fenced, true
		}
	})
}

// phaseOfBreaker is how a component shows that waits until the breaker's time has come. A source whose system has never
// answered has most likely a wrong address, which somebody must see to; as it may just as well be down, it is tried
// again all the same.
func (e *entity) phaseOfBreaker() Phase {
	if e.kind.provision != nil && !e.state.Reached {
		return PhaseNeedsOperator
	}
	return PhaseBreakerOpen
}
