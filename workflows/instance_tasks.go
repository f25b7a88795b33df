package workflows

import (
	"slices"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// do begins an action. It never waits.
func (i *instance) do(act action) {
	if act != actBreaker {
		i.stopAwaiting()
	}
	switch act {
	case actPark:
		i.enter(PhaseNeedsOperator)
	case actBlock:
		i.enter(PhaseDeleteBlocked)
	case actBreaker:
		i.enter(i.phase())
		i.awaitBreaker()
		i.watch()
	case actWatch:
		i.enter(i.phase())
		i.watch()
	case actValidate:
		i.enter(PhaseValidating)
		i.start(taskValidate, i.validate)
	case actReconcile:
		i.enter(i.onTheWay())
		i.start(taskReconcile, i.reconcile)
	case actTeardown:
		i.enter(PhaseTearingDown)
		i.start(taskTeardown, i.teardown)
	case actCancel:
		i.ending = cancelling
		i.cancel()
	}
}

// start begins a task in a coroutine of its own.
func (i *instance) start(t task, work func(workflow.Context) error) {
	ctx, cancel := workflow.WithCancel(i.ctx)
	i.task, i.cancel, i.ending, i.wanted = t, cancel, notEnding, i.state.Wanted
	workflow.Go(ctx, func(ctx workflow.Context) { i.ended(work(ctx)) })
}

// ended takes the end of the task in flight.
func (i *instance) ended(err error) {
	t, asked := i.task, i.ending != notEnding
	i.task, i.ending, i.dirty = noTask, notEnding, true
	if asked { // whatever follows begins with what was not done
		i.tryAgain()
		return
	}
	switch {
	case err != nil: // of the validation, as everything else is the members'
		i.fail(activities.ReportOf(err))
	case t == taskReconcile:
		i.judge()
	case t == taskTeardown:
		i.judge()
		i.state.Delete.Failed = len(i.state.Members) > 0
	}
}

func (i *instance) validate(ctx workflow.Context) error {
	version, parts := i.state.SpecVersion, i.parts
	members, err := i.findProblems(ctx, activities.SpecInput{Component: i.id, Spec: i.spec, SpecRef: i.specRef, Unexpected: i.state.Unexpected})
	if version != i.state.SpecVersion { // another one came meanwhile, which is valid
		return nil
	}
	if i.specRef != "" {
		parts = partsOf(members)
	}
	if err == nil {
		i.accept(parts)
	}
	return err
}

// reconcile tells the components what is wanted of them, beside removing those that are no longer declared.
func (i *instance) reconcile(ctx workflow.Context) error {
	var untried, removed []string
	for _, m := range i.state.Members {
		switch {
		case m.Tried == i.state.Wanted:
		case m.Removed:
			removed = append(removed, m.ID)
		default:
			untried = append(untried, m.ID)
		}
	}
	removing := true
	workflow.Go(ctx, func(ctx workflow.Context) {
		i.remove(ctx, removed)
		removing = false
	})
	i.inWaves(ctx, untried, kindsInOrder, i.ensure)
	return waitFor(ctx, func() bool { return !removing })
}

// teardown removes all components.
func (i *instance) teardown(ctx workflow.Context) error {
	var all []string
	for _, m := range i.state.Members {
		all = append(all, m.ID)
	}
	i.remove(ctx, all)
	if i.state.Referred && len(i.state.Members) == 0 {
		forget := withErrand(ctx, "remove its stored specs", time.Minute)
		err := workflow.ExecuteActivity(forget, control.ForgetSpecs, activities.OwnerInput{Owner: i.id}).Get(ctx, nil)
		i.state.Referred = temporal.IsCanceledError(err) // what it could not remove does no harm, and perdure spec list shows it
	}
	return nil
}

func (i *instance) remove(ctx workflow.Context, ids []string) {
	reverse := slices.Clone(kindsInOrder)
	slices.Reverse(reverse)
	i.inWaves(ctx, ids, reverse, i.removeOne)
}

// inWaves does something with components, those of one kind at once. One wave begins when the one before has ended,
// however it did.
func (i *instance) inWaves(ctx workflow.Context, ids []string, order []component.Kind, do func(workflow.Context, string)) {
	for _, kind := range order {
		pending := 0
		for _, id := range ids {
			if parsed, err := component.ParseID(id); err != nil || parsed.Kind != kind {
				continue
			}
			pending++
			workflow.Go(ctx, func(ctx workflow.Context) {
				defer func() { pending-- }()
				if i.places.Acquire(ctx, 1) != nil {
					return
				}
				defer i.places.Release(1)
				if ctx.Err() == nil {
					do(ctx, id)
				}
			})
		}
		_ = waitFor(ctx, func() bool { return pending == 0 }) // it cannot be cancelled
	}
}

// waitFor waits for the end of what was begun, also when it was cancelled.
func waitFor(ctx workflow.Context, done func() bool) error {
	ctx, _ = workflow.NewDisconnectedContext(ctx)
	return workflow.Await(ctx, done)
}

func (i *instance) ensure(ctx workflow.Context, id string) {
	n := slices.IndexFunc(i.parts, func(p part) bool { return p.id.String() == id })
	m := i.member(id)
	if n < 0 || m == nil {
		return
	}
	wanted, resume, restart := i.wanted, m.Resume, m.Restart
	var seen activities.ComponentState
	err := workflow.ExecuteActivity(withEnsure(ctx, id), instances.EnsureComponent, activities.EnsureInput{
		Component: id, WorkflowType: WorkflowType(i.parts[n].id.Kind), Spec: i.parts[n].spec, SpecRef: i.specRef, Desired: string(i.state.Desired),
		RequestedBy: i.id, Resume: resume > 0, Restart: restart > 0,
	}).Get(ctx, &seen)
	if m = i.tried(id, wanted, err); m == nil || err != nil {
		return
	}
	m.Seen = seen
	if m.Resume == resume { // otherwise there was another one meanwhile
		m.Resume = 0
	}
	if m.Restart == restart {
		m.Restart = 0
	}
}

func (i *instance) removeOne(ctx workflow.Context, id string) {
	wanted := i.wanted
	in := activities.RemoveInput{Component: id}
	if d := i.state.Delete; d != nil {
		in.KeepResources, in.Force, in.TimeoutSeconds = d.KeepResources, d.Force, d.Seconds
	}
	err := workflow.ExecuteActivity(withRemove(ctx, id), instances.RemoveComponent, in).Get(ctx, nil)
	if m := i.tried(id, wanted, err); m == nil || err != nil {
		return
	}
	i.state.Members = slices.DeleteFunc(i.state.Members, func(m member) bool {
		return m.ID == id && (m.Removed || i.state.Delete != nil)
	})
}

func (i *instance) member(id string) *member {
	n := slices.IndexFunc(i.state.Members, func(m member) bool { return m.ID == id })
	if n < 0 {
		return nil
	}
	return &i.state.Members[n]
}

// tried notes how a try with a member ended, nil when there is nothing to note: it was cancelled, or the member is gone.
func (i *instance) tried(id string, wanted int, err error) *member {
	m := i.member(id)
	if m == nil || temporal.IsCanceledError(err) {
		return nil
	}
	m.Tried, m.Failure = wanted, nil
	if err != nil {
		report := trimmed(activities.ReportOf(err))
		report.Message = shorten(report.Message, 1000) // there may be many members
		m.Failure = &report
	}
	return m
}

// judge looks at how telling the components went. What failed is tried again, less and less often, if that may help.
func (i *instance) judge() {
	var first *member
	again := false
	for n := range i.state.Members {
		m := &i.state.Members[n]
		if m.Failure == nil {
			continue
		}
		if first == nil {
			first = m
		}
		again = again || !permanent(*m.Failure)
	}
	b := &i.state.Breaker
	if first == nil {
		b.reset()
		return
	}
	report := *first.Failure
	report.Message = first.ID + ": " + report.Message
	b.LastError = &LastError{Report: report, At: workflow.Now(i.ctx)}
	if again {
		b.fail(workflow.Now(i.ctx), i.id, i.waits)
	}
}

// watch has an activity tell what is new of the components, unless one does.
func (i *instance) watch() {
	if i.watching != nil || len(i.state.Members) == 0 {
		return
	}
	known := make([]activities.ComponentState, len(i.state.Members))
	for n, m := range i.state.Members {
		known[n] = m.Seen
		known[n].Component = m.ID
	}
	ctx, cancel := workflow.WithCancel(i.ctx)
	i.watching = cancel
	i.watches++
	number := i.watches
	workflow.Go(ctx, func(ctx workflow.Context) {
		var news []activities.ComponentState
		err := workflow.ExecuteActivity(withWatch(ctx), instances.WatchComponents, activities.WatchInput{Components: known}).Get(ctx, &news)
		if number != i.watches || i.watching == nil {
			return
		}
		i.watching, i.dirty = nil, true
		if err != nil {
			i.fail(activities.ReportOf(err))
		}
		for _, seen := range news {
			if m := i.member(seen.Component); m != nil {
				m.Seen = seen
			}
		}
	})
}

// stopWatching leaves the watch behind: it only reads.
func (i *instance) stopWatching() {
	if i.watching != nil {
		i.watching()
		i.watching = nil
	}
}
