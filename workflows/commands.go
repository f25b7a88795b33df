package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// CommandInput is the payload of every command; all of it is optional, except the spec of a reconfigure or apply. A field that
// is added must not change what earlier builds did with a payload that has it, or their histories no longer replay.
type CommandInput struct {
	RequestID string `json:"requestId,omitempty"` // a command with an id that was seen before is not done again
	Reason    string `json:"reason,omitempty"`    // for the record
	Confirm   string `json:"confirm,omitempty"`   // name of the component: guards against hitting the wrong one
	// Generation is that of the run which the command is meant for: refused if there has been another one since.
	Generation *uint64 `json:"generation,omitempty"`

	Spec            json.RawMessage `json:"spec,omitempty"`            // reconfigure, apply
	SpecRef         string          `json:"specRef,omitempty"`         // in place of a spec that is too large
	BaseSpecVersion int             `json:"baseSpecVersion,omitempty"` // with it: refused if the spec is no longer this one

	Rebuild bool `json:"rebuild,omitempty"` // rebootstrap: publish all rows anew, and not what differs

	Query string `json:"query,omitempty"` // skip, setPosition: that the reaction takes the results of
	Seq   string `json:"seq,omitempty"`   // skip: the event; setPosition: the last one that counts as delivered

	IDs []string `json:"ids,omitempty"` // retry, drop: of the dead letters
	All bool     `json:"all,omitempty"` // retry, drop: all of them, which retry takes for granted

	DropResources  *bool `json:"dropResources,omitempty"`  // delete: false keeps what a source has outside, such as a replication slot
	Force          bool  `json:"force,omitempty"`          // delete: close also when the teardown fails
	TimeoutSeconds int   `json:"timeoutSeconds,omitempty"` // delete: bound of the teardown
}

const maxRequestID = 128

// added names a field that the first builds did not know, if there is one.
func (in CommandInput) added() string {
	switch {
	case in.Generation != nil:
		return "generation"
	case in.Query != "":
		return "query"
	case in.Seq != "":
		return "seq"
	}
	return ""
}

func parseCommand(raw converter.RawValue) (CommandInput, error) {
	in, err := parsePayload[CommandInput](raw)
	if len(in.RequestID) > maxRequestID {
		return CommandInput{}, tooLong(in.RequestID)
	}
	return in, err
}

func tooLong(requestID string) error {
	return fmt.Errorf("requestId has %d bytes; the most is %d", len(requestID), maxRequestID)
}

// parsePayload reads the payload of a command, which may be missing, strictly.
func parsePayload[T any](raw converter.RawValue) (in T, err error) {
	var none T
	data := payloadData(raw)
	if len(data) == 0 {
		return none, nil
	}
	if len(data) > maxInput {
		return none, refusal(failure.ConfigInvalid.Errorf("the payload has %d bytes; the most is %d", len(data), maxInput).WithFix(tooLarge))
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return none, fmt.Errorf("decoding the payload: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return none, errors.New("decoding the payload: there is something after the JSON value")
	}
	return in, nil
}

var commandHelp = map[string]string{
	CommandPause:        "finish what is in flight and wait; a bootstrap that a query waits for keeps what it has, one beside a running query begins anew",
	CommandResume:       "run, and try again at once what failed",
	CommandStop:         "finish what is in flight and stop; a bootstrap is given up",
	CommandRestart:      "drain and run anew",
	CommandApply:        "check another spec and, if it is valid, add, change and delete components as it says: {\"spec\":{...}}, or {\"specRef\":\"shop@3\"}",
	CommandReconfigure:  "check another spec and, if it is valid, run with it: {\"spec\":{...}}, or {\"specRef\":\"orders@3\"}",
	CommandRebootstrap:  "read a query's sources again, while it goes on, and publish what differs; or stop it and publish all rows anew: {\"rebuild\":true}",
	CommandResetBreaker: "forget past failures and try at once",
	CommandSetPosition:  "have a reaction that is paused or stopped go on behind an event of a query: {\"query\":\"q\",\"seq\":\"123\",\"confirm\":\"<name>\"}, or earliest or latest as seq",
	CommandSkip:         "have a reaction go on without the event that it cannot get past, which goes to the dead letters: {\"query\":\"q\",\"seq\":\"123\",\"confirm\":\"<name>\"}",
	CommandUpgrade:      "drain, begin a new history with the newest code, and run",
	CommandRetry:        "deliver a reaction's dead letters again: {\"ids\":[\"7\"]}, or all",
	CommandDrop:         "remove dead letters of a reaction or a source: {\"ids\":[\"7\"]} or {\"all\":true}",
	// Of a bootstrap alone, which has pause and resume too.
	CommandSetConcurrency: "copy with another number of workers: {\"parallelism\":8}",
	CommandRetryTable:     "copy a table that could not be read: {\"table\":\"public.orders\"}, or all of them",

	CommandDelete: "drain, remove what the component created, and close the workflow",
}

// commands implements owner.
func (e *entity) commands() []string { return commandNames }

// refuse implements owner.
func (e *entity) refuse(name string, in CommandInput) error {
	if g := in.Generation; g != nil && *g != e.state.Generation {
		return fmt.Errorf("the generation is %d, not %d: the component was started anew since", e.state.Generation, *g)
	}
	if err := errors.Join(e.refuseLetters(name, in), e.refusePlace(name, in)); err != nil {
		return err
	}
	switch name {
	case CommandRebootstrap:
		if e.kind.component != component.Query {
			return e.notAvailable()
		}
		if e.declared != nil && !e.declared.bootstrap {
			return errors.New("the query is declared with bootstrap none")
		}
	case CommandResume, CommandRestart:
		if e.declared == nil && !e.unread {
			return errors.New("the spec cannot be used; send another with reconfigure")
		}
		if name == CommandRestart && e.state.Desired != Running {
			return fmt.Errorf("the component is not meant to run: desired is %s", e.state.Desired)
		}
	case CommandReconfigure:
		if in.SpecRef != "" {
			return nil // reading it takes an activity
		}
		if _, err := declareAs(e.kind.component, in.Spec, e.id); err != nil {
			return err
		}
	}
	return nil
}

func (e *entity) notAvailable() error { return fmt.Errorf("not available for %s", e.kind.component) }

// object implements owner: what is said of what is to be kept must not be ignored in silence.
func (e *entity) object(name string, in CommandInput) error {
	if name != CommandDelete || in.DropResources == nil || *in.DropResources || e.kind.component == component.Source {
		return nil
	}
	return fmt.Errorf("a %s has nothing outside of Perdure that could be kept: only a source knows dropResources false", e.kind.component)
}

// unknown implements owner: dead letters came after the first builds.
func (e *entity) unknown(name string) bool {
	return isOfLetters(name) && workflow.GetVersion(e.ctx, "dead letters", workflow.DefaultVersion, 1) == workflow.DefaultVersion
}

// lasting implements owner.
func (e *entity) lasting(name string) func(workflow.Context, CommandInput) error {
	switch {
	case isOfLetters(name):
		return func(ctx workflow.Context, in CommandInput) error { return e.handleLetters(ctx, name, in) }
	case isOfPlaces(name):
		return func(ctx workflow.Context, in CommandInput) error { return e.handlePlace(ctx, name, in) }
	}
	return nil
}

// apply implements owner.
func (e *entity) apply(name string, in CommandInput) bool {
	s := &e.state
	switch name {
	case CommandResume:
		waited, told := e.retry(), e.retryTables()
		return s.want(name, in) || waited || told
	case CommandRestart:
		e.retry()
		s.Restart = true
		return true
	case CommandRebootstrap:
		e.retry()
		s.Restart = true
		if e.task == taskRun && !in.Rebuild && workflow.GetVersion(e.ctx, "beside", workflow.DefaultVersion, 1) != workflow.DefaultVersion {
			s.Snapshots.Reload = true
			return true
		}
		s.Rebootstrap, s.Rebuild = true, in.Rebuild
		return true
	case CommandResetBreaker:
		told := e.retryTables()
		if s.Breaker.State == breakerClosed && s.Breaker.Failures == 0 {
			return told
		}
		s.Breaker.reset()
		return true
	}
	return s.want(name, in)
}

// retry makes a component that waits after a failure try again at once, from the beginning.
func (e *entity) retry() bool {
	s := &e.state
	waits := s.Parked || s.Breaker.State == breakerOpen
	if s.Parked {
		s.changed()
	}
	s.Breaker.probe()
	return waits
}

// check implements owner.
func (e *entity) check(ctx workflow.Context, in CommandInput) (take func(), err error) {
	var (
		d    declared
		head *activities.SpecHead
	)
	if in.SpecRef == "" {
		d, err = declareAs(e.kind.component, in.Spec, e.id)
	} else {
		d, head, err = e.readSpec(ctx, in.SpecRef)
	}
	if err == nil {
		spec := activities.SpecInput{Component: e.id, Spec: in.Spec, SpecRef: in.SpecRef}
		err = workflow.ExecuteActivity(withValidate(ctx), e.kind.validate, spec).Get(ctx, nil)
	}
	return func() { e.replace(d, head) }, refusal(err)
}

// replace takes another spec, which is valid.
func (e *entity) replace(d declared, head *activities.SpecHead) {
	s := &e.state
	e.retry()
	s.changed()
	e.declared, e.unread, e.waits, s.Head, s.Restart = &d, false, d.waits, head, true
	s.Snapshots.Known, s.Snapshots.Missing, s.Snapshots.Sealed, s.Snapshots.At = false, nil, nil, time.Time{}
	s.Snapshots.Reload = s.Snapshots.Reload && d.bootstrap // what a rebootstrap asked for holds for this spec too
}
