package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// desk takes the commands of a workflow, in the order in which they came, keeps what became of them and shows the
// workflow to people. What the commands do is its owner's.
type desk struct {
	root  workflow.Context // ends when the workflow is cancelled
	ctx   workflow.Context // does not
	owner owner
	core  *core
	id    string // of the workflow
	kind  string
	// instance and name are what the id says, empty if it says nothing.
	instance, name string

	spec        json.RawMessage
	specRef     string // in its place
	requestedBy string
	respec      string // the command that brings another spec
	inbox       *inbox
	attributes  bool
	waits       waits // of the breaker

	busy      int            // commands that wait for an activity
	specs     workflow.Mutex // held while a spec is checked
	cancelled bool
	dirty     bool

	awaiting *time.Time // the breaker's time, when a timer waits for it
	rested   workflow.CancelFunc
}

// owner is the workflow behind a desk.
type owner interface {
	// commands are those that it knows.
	commands() []string
	// refuse says why a command cannot be done now, if so. It changes nothing.
	refuse(name string, in CommandInput) error
	// object is refuse for reasons that the first builds did not know. It is asked when a command comes, and not again when
	// a history is replayed, in which it may have been done.
	object(name string, in CommandInput) error
	// apply changes what is wanted, and reports whether it changed anything.
	apply(name string, in CommandInput) bool
	// told takes a signal that is no command, and reports whether it is one.
	told(s signal) bool
	// unknown reports whether the build that began the history did not know a command.
	unknown(name string) bool
	// lasting returns what does a command that takes an activity, nil for all others.
	lasting(name string) func(workflow.Context, CommandInput) error
	// check finds out whether another spec is valid, and returns what takes it if it is.
	check(ctx workflow.Context, in CommandInput) (take func(), err error)
	// answer is the answer to the query status and to every update.
	answer() any
	// shown is what the search attributes show beside what is common to all.
	shown() (host, health string)
	// explained is the answer to the query explain.
	explained() explanation
}

func newDesk(ctx workflow.Context, o owner, c *core, kind, respec string) *desk {
	d := &desk{
		root: ctx, owner: o, core: c, kind: kind, respec: respec,
		id: workflow.GetInfo(ctx).WorkflowExecution.ID, inbox: inboxOf(ctx), specs: workflow.NewMutex(ctx),
		waits: waits{breakerFirst, breakerMost},
	}
	d.ctx, _ = workflow.NewDisconnectedContext(ctx)
	return d
}

// open begins to take commands, once what the workflow remembers is known.
func (d *desk) open(attributes func() bool) error {
	d.core.Version = stateVersion
	if err := workflow.SideEffect(d.root, func(workflow.Context) any { return attributes() }).Get(&d.attributes); err != nil {
		return err
	}
	if !d.attributes && workflow.GetVersion(d.root, "attributes later", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		workflow.Go(d.ctx, func(ctx workflow.Context) { d.showLater(ctx, attributes) })
	}
	if d.core.Phase == "" {
		d.enter(PhaseCreated)
	}
	return d.handle()
}

// attributesLater is when a run that began without search attributes looks for them once more. Those that the first worker
// of a namespace has just registered are usable then; any later ones the next run finds.
const attributesLater = 2 * time.Minute

func (d *desk) showLater(ctx workflow.Context, attributes func() bool) {
	if sleep(ctx, attributesLater, "until search attributes are looked for again") != nil {
		return
	}
	found := workflow.SideEffect(ctx, func(workflow.Context) any { return attributes() })
	if found.Get(&d.attributes) == nil {
		d.upsert()
	}
}

// take does the commands that came as signals since it was last asked.
func (d *desk) take() {
	d.dirty = false
	d.cancelled = d.root.Err() != nil
	for _, s := range d.inbox.take() {
		if !d.owner.told(s) {
			d.signalled(s)
		}
	}
}

// rest waits until there is something to look at.
func (d *desk) rest() error {
	return workflow.Await(d.ctx, func() bool {
		return d.dirty || !d.inbox.empty() || d.root.Err() != nil && !d.cancelled
	})
}

// settle waits until the updates that were accepted have their answers, before the workflow closes.
func (d *desk) settle() error {
	return workflow.Await(d.ctx, func() bool { return d.busy == 0 && workflow.AllHandlersFinished(d.ctx) })
}

// situation is the part of the situation that all workflows have.
func (d *desk) situation() situation {
	c, info := d.core, workflow.GetInfo(d.root)
	now := situation{
		Desired: c.Desired, Cancelled: d.cancelled, Upgrade: c.Upgrade, Parked: c.Parked, Open: c.Breaker.State == breakerOpen,
		Suggested: info.GetContinueAsNewSuggested(), Long: info.GetCurrentHistoryLength() > longHistory,
		Busy: d.busy > 0 || !workflow.AllHandlersFinished(d.ctx),
	}
	if c.Delete != nil {
		now.Deleting, now.Force, now.Blocked = true, c.Delete.Force, c.Delete.Failed
	}
	return now
}

// longHistory is how many events a history has before a new one begins where that costs nothing.
const longHistory = 200

// handle registers the updates and queries. Signals come through the inbox.
func (d *desk) handle() error {
	for _, name := range d.owner.commands() {
		err := workflow.SetUpdateHandlerWithOptions(d.root, name,
			func(ctx workflow.Context, raw converter.RawValue) (any, error) { return d.update(ctx, name, raw) },
			workflow.UpdateHandlerOptions{
				Description: commandHelp[name],
				Validator: func(ctx workflow.Context, raw converter.RawValue) error {
					in, err := parseUpdate(ctx, raw)
					if _, again := d.core.answered(in.RequestID); again || err != nil {
						return err
					}
					return errors.Join(d.owner.object(name, in), d.refuse(name, in))
				},
			})
		if err != nil {
			return err
		}
	}
	return errors.Join(
		workflow.SetQueryHandlerWithOptions(d.root, QueryStatus, func() (any, error) { return d.owner.answer(), nil },
			workflow.QueryHandlerOptions{Description: "what the " + d.kind + " does, and why"}),
		workflow.SetQueryHandlerWithOptions(d.root, QuerySpec, func() (any, error) { return d.specAnswer(), nil },
			workflow.QueryHandlerOptions{Description: "the spec, with references instead of secrets"}),
		workflow.SetQueryHandlerWithOptions(d.root, QueryCommands, func() ([]Command, error) { return d.core.Commands, nil },
			workflow.QueryHandlerOptions{Description: "the last commands and what became of them"}),
		workflow.SetQueryHandlerWithOptions(d.root, QueryExplain, func() (explanation, error) { return d.owner.explained(), nil },
			workflow.QueryHandlerOptions{Description: "what the last decision was based on"}),
	)
}

// signalled handles a command that cannot be answered; what became of it is in the record.
func (d *desk) signalled(s signal) {
	in, err := parseCommand(s.payload)
	if s.unreadable != nil {
		err = s.unreadable
	}
	if err != nil {
		d.recordCommand(s.name, in, Rejected, err)
		return
	}
	if _, again := d.core.answered(in.RequestID); again {
		return
	}
	if field := in.added(); field != "" && workflow.GetVersion(d.ctx, "command fields", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		// As the build did that began the history.
		d.recordCommand(s.name, CommandInput{}, Rejected, fmt.Errorf("decoding the payload: json: unknown field %q", field))
		return
	}
	if in.SpecRef != "" && workflow.GetVersion(d.ctx, changeSpecRef, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		d.recordCommand(s.name, CommandInput{}, Rejected, errors.New(`decoding the payload: json: unknown field "specRef"`))
		return
	}
	if d.owner.unknown(s.name) {
		d.recordCommand(s.name, in, Rejected, unknownCommand(s.name)) // as that build did
		return
	}
	if err := d.owner.object(s.name, in); err != nil && workflow.GetVersion(d.ctx, "object", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
		d.recordCommand(s.name, in, Rejected, err)
		return
	}
	if work := d.lasting(s.name); work != nil && d.refuse(s.name, in) == nil {
		d.busy++
		workflow.Go(d.ctx, func(ctx workflow.Context) {
			defer func() { d.busy--; d.dirty = true }()
			_ = work(ctx, in)
		})
		return
	}
	_ = d.command(s.name, in)
}

// update handles a command and answers with the status.
func (d *desk) update(ctx workflow.Context, name string, raw converter.RawValue) (any, error) {
	in, err := parseUpdate(ctx, raw)
	if err != nil {
		return nil, rejected(err) // the validator refused it already
	}
	if before, again := d.core.answered(in.RequestID); again {
		if err := before.err(); err != nil {
			return nil, rejected(err)
		}
		return d.answerAgain(before), nil
	}
	if work := d.lasting(name); work != nil && d.refuse(name, in) == nil {
		ctx, _ = workflow.NewDisconnectedContext(ctx)
		err = work(ctx, in)
	} else {
		err = d.command(name, in)
	}
	d.dirty = true
	if err != nil {
		return nil, rejected(err)
	}
	return d.owner.answer(), nil
}

// answerAgain is the answer to a command that was done before, and says what that left behind: others may have come since.
func (d *desk) answerAgain(r request) any {
	c := d.core
	if r.Desired == "" {
		return d.owner.answer()
	}
	desired, version := c.Desired, c.SpecVersion
	defer func() { c.Desired, c.SpecVersion = desired, version }()
	c.Desired, c.SpecVersion = r.Desired, r.SpecVersion
	return d.owner.answer()
}

// parseUpdate is parseCommand for an update. One that nobody gave an id has that of the update: a client that did not get
// the answer before the workflow continued as new sends it again to the new run, which must not do it twice.
func parseUpdate(ctx workflow.Context, raw converter.RawValue) (CommandInput, error) {
	in, err := parseCommand(raw)
	if err == nil && in.RequestID == "" {
		in.RequestID = shorten(workflow.GetCurrentUpdateInfo(ctx).ID, maxRequestID)
	}
	return in, err
}

// lasting returns what does a command that takes an activity, nil for all others.
func (d *desk) lasting(name string) func(workflow.Context, CommandInput) error {
	if name == d.respec {
		return d.reconfigure
	}
	return d.owner.lasting(name)
}

func rejected(err error) error {
	var found refused
	if errors.As(err, &found) {
		return temporal.NewNonRetryableApplicationError(err.Error(), activities.RejectedCommand, nil, found.Report)
	}
	return temporal.NewNonRetryableApplicationError(err.Error(), activities.RejectedCommand, nil)
}

func (d *desk) recordCommand(name string, in CommandInput, outcome string, err error) {
	c := Command{RequestID: in.RequestID, Name: name, Outcome: outcome, Reason: in.Reason, At: workflow.Now(d.ctx)}
	if err != nil {
		c.Error = err.Error()
		var found refused
		if errors.As(err, &found) {
			c.Code, c.Causes, c.Fix = found.Code, found.Causes, found.Fix
		}
	}
	d.core.record(c)
}

func unknownCommand(name string) error { return fmt.Errorf("there is no command %q", name) }

// refuse says why a command cannot be done now, if so. It changes nothing: it is also what update validators ask.
func (d *desk) refuse(name string, in CommandInput) error {
	if !slices.Contains(d.owner.commands(), name) {
		return unknownCommand(name)
	}
	if in.Confirm != "" && in.Confirm != d.name {
		return fmt.Errorf("confirm is %q, but this is %s", in.Confirm, d.id)
	}
	if d.core.Delete != nil && name != CommandDelete {
		return fmt.Errorf("the %s is being deleted", d.noun())
	}
	if in.SpecRef != "" && name != d.respec {
		return fmt.Errorf("specRef is for %s", d.respec)
	}
	if name == d.respec {
		if len(in.Spec) == 0 && in.SpecRef == "" {
			return fmt.Errorf("%s needs a spec, or a specRef", name)
		}
		if err := refuseSpec(in.Spec, in.SpecRef); err != nil {
			return refusal(err)
		}
		if in.BaseSpecVersion != 0 && in.BaseSpecVersion != d.core.SpecVersion {
			return fmt.Errorf("the spec is at version %d, not %d", d.core.SpecVersion, in.BaseSpecVersion)
		}
	}
	return d.owner.refuse(name, in)
}

// noun is what messages call the workflow's subject.
func (d *desk) noun() string {
	if d.kind == KindInstance {
		return KindInstance
	}
	return "component"
}

// command does a command and records it.
func (d *desk) command(name string, in CommandInput) error {
	if err := d.refuse(name, in); err != nil {
		d.recordCommand(name, in, Rejected, err)
		return err
	}
	outcome := Noop
	if d.owner.apply(name, in) {
		outcome = Applied
	}
	d.recordCommand(name, in, outcome, nil)
	return nil
}

// reconfigure checks another spec while the workflow goes on, and takes it when it is valid.
func (d *desk) reconfigure(ctx workflow.Context, in CommandInput) error {
	// One after the other, so that the last spec sent is the one that stays.
	if err := d.specs.Lock(ctx); err != nil {
		return err
	}
	defer d.specs.Unlock()
	if before, again := d.core.answered(in.RequestID); again {
		return before.err()
	}
	if in.SpecRef != "" {
		in.Spec = nil // or null
	}
	same := in.SpecRef == d.specRef && bytes.Equal(bytes.TrimSpace(in.Spec), bytes.TrimSpace(d.spec))
	if same && !d.core.Parked && len(d.core.Unexpected) == 0 {
		d.recordCommand(d.respec, in, Noop, nil)
		return nil
	}
	take, err := d.owner.check(ctx, in)
	if err == nil {
		err = d.refuse(d.respec, in) // something else may have come first
	}
	if err != nil {
		d.recordCommand(d.respec, in, Rejected, err)
		return err
	}
	take()
	d.spec, d.specRef, d.core.Unexpected = in.Spec, in.SpecRef, nil
	d.core.SpecVersion++
	d.recordCommand(d.respec, in, Applied, nil)
	return nil
}

// specAnswer is the answer to the query spec.
func (d *desk) specAnswer() any {
	if d.specRef == "" {
		return d.spec
	}
	return activities.SpecAnswer{SpecRef: d.specRef, Shown: "perdure spec get " + d.specRef, SpecHead: d.core.Head}
}

// specShown is which spec the workflow has, for people.
func (d *desk) specShown() string {
	if d.specRef == "" {
		return strconv.Itoa(d.core.SpecVersion)
	}
	return fmt.Sprintf("%d (`%s`)", d.core.SpecVersion, d.specRef)
}

// fail takes a failure that nothing below the workflow overcame. A permanent one waits for a person, without a timer;
// any other is tried again, less and less often.
func (d *desk) fail(report failure.Report) {
	now := workflow.Now(d.ctx)
	d.core.Breaker.LastError = &LastError{Report: trimmed(report), At: now}
	if permanent(report) {
		d.core.Parked = true
	} else {
		d.core.Breaker.fail(now, d.id, d.waits)
	}
}

// permanent reports whether nothing but a person can mend a failure.
func permanent(report failure.Report) bool {
	switch activities.ClassOf(report) {
	case failure.Configuration, failure.Authorisation, failure.Data, failure.Invalidated:
		return true
	}
	return false
}

// trimmed bounds a report, because it is carried along for as long as the component lives.
func trimmed(r failure.Report) failure.Report {
	const most = 6
	r.Message = shorten(r.Message, maxProblems)
	causes := make([]string, 0, most)
	for _, c := range failure.Outline(r.Causes, most) {
		causes = append(causes, shorten(c, 500))
	}
	r.Causes = causes
	r.Fix = shorten(r.Fix, 1000)
	if r.Details != nil {
		details := make(map[string]string, len(r.Details))
		for _, k := range workflow.DeterministicKeys(r.Details) {
			details[k] = shorten(r.Details[k], 1000)
		}
		r.Details = details
	}
	return r
}

// awaitBreaker wakes the loop when the breaker's time has come.
func (d *desk) awaitBreaker() {
	until := d.core.Breaker.OpenUntil
	if until == nil || d.awaiting != nil && d.awaiting.Equal(*until) {
		return
	}
	d.stopAwaiting()
	ctx, cancel := workflow.WithCancel(d.ctx)
	d.awaiting, d.rested = until, cancel
	wait := until.Sub(workflow.Now(ctx))
	workflow.Go(ctx, func(ctx workflow.Context) {
		if sleep(ctx, wait, "until the next try") == nil {
			d.stopAwaiting() // should the server's clock have been set back, the wait begins again
			d.dirty = true
		}
	})
}

func (d *desk) stopAwaiting() {
	if d.awaiting != nil {
		d.rested()
		d.awaiting, d.rested = nil, nil
	}
}

// probeWhenDue lets a try through when the breaker's time has come.
func (d *desk) probeWhenDue() {
	if until := d.core.Breaker.OpenUntil; until != nil && !workflow.Now(d.ctx).Before(*until) {
		d.core.Breaker.probe()
	}
}

// enter changes the phase, and only then the search attributes, since each upsert costs an event.
func (d *desk) enter(p Phase) {
	c := d.core
	if c.Phase == p {
		return
	}
	first := c.Phase == ""
	c.Phase, c.Since = p, workflow.Now(d.ctx)
	d.report()
	if !first { // what follows at once is upserted instead
		d.upsert()
	}
}

// upsert shows the workflow in the search attributes.
func (d *desk) upsert() {
	if !d.attributes {
		return
	}
	host, health := d.owner.shown()
	err := workflow.UpsertTypedSearchAttributes(d.ctx,
		attrInstance.ValueSet(d.instance), attrKind.ValueSet(d.kind), attrComponent.ValueSet(d.id),
		attrPhase.ValueSet(string(d.core.Phase)), attrDesired.ValueSet(string(d.core.Desired)), attrHealth.ValueSet(health),
		attrHost.ValueSet(host), attrSpecVersion.ValueSet(int64(d.core.SpecVersion)))
	if err != nil {
		workflow.GetLogger(d.ctx).Error("search attributes are not shown", "error", err)
	}
}

func (d *desk) history() HistoryState {
	info := workflow.GetInfo(d.root)
	return HistoryState{Events: info.GetCurrentHistoryLength(), Bytes: info.GetCurrentHistorySize()}
}

// report logs that the component does not work, with what status and UI show too.
func (d *desk) report() {
	last := d.core.Breaker.LastError
	if healthOf(d.core.Phase) != activities.HealthFailing || last == nil {
		return
	}
	workflow.GetLogger(d.ctx).Error("the "+d.noun()+" does not work", "component", d.id, "phase", d.core.Phase,
		"code", last.Code, "error", last.Message, "fix", last.Fix)
}

// describeTrouble tells what failed last, and what became of the last command.
func (d *desk) describeTrouble(b *strings.Builder) {
	c := d.core
	if until := c.Breaker.OpenUntil; until != nil {
		fmt.Fprintf(b, "\nFailed %d times in a row; the next try is at %s.\n", c.Breaker.Failures, until.UTC().Format(time.RFC3339))
	}
	if last := c.Breaker.LastError; last != nil {
		describeError(b, "Last error at "+last.At.UTC().Format(time.RFC3339), last.Report)
	}
	if n := len(c.Commands); n > 0 {
		done := c.Commands[n-1]
		fmt.Fprintf(b, "\nLast command: %s, %s", done.Name, done.Outcome)
		if done.Error != "" {
			fmt.Fprintf(b, " (%s)", verbatim(done.Error))
		}
		b.WriteString(".\n")
	}
}

// describeError tells what an error is and what to do about it.
func describeError(b *strings.Builder, what string, r failure.Report) {
	fmt.Fprintf(b, "\n%s: **%s** (%s): %s\n", what, r.Code, r.Class, verbatim(r.Message))
	for _, cause := range r.Causes {
		if !strings.Contains(r.Message, cause) { // most messages end with their causes
			fmt.Fprintf(b, "\nBecause: %s\n", verbatim(cause))
		}
	}
	if r.Fix != "" {
		fmt.Fprintf(b, "\n**What to do:** %s\n", verbatim(r.Fix))
	}
}

// verbatim makes text into Markdown code, so that it shows as it is: the UI would make typographic quotes of those in a SQL
// statement, and the mark below a query's mistake would not stay in its column. Only code within a line is wrapped.
func verbatim(text string) string {
	fence := "`"
	if strings.Contains(text, "\n") {
		fence = "```"
	}
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if strings.Contains(text, "\n") {
		return "\n\n" + fence + "text\n" + text + "\n" + fence
	}
	return fence + " " + text + " " + fence
}
