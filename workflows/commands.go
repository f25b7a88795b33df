package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// CommandInput is the payload of every command; all of it is optional, except the spec of a reconfigure. A field that
// is added must not change what earlier builds did with a payload that has it, or their histories no longer replay.
type CommandInput struct {
	RequestID string `json:"requestId,omitempty"` // a command with an id that was seen before is not done again
	Reason    string `json:"reason,omitempty"`    // for the record
	Confirm   string `json:"confirm,omitempty"`   // name of the component: guards against hitting the wrong one

	Spec            json.RawMessage `json:"spec,omitempty"`            // reconfigure
	BaseSpecVersion int             `json:"baseSpecVersion,omitempty"` // reconfigure: refused if the spec is no longer this one

	Rebuild bool `json:"rebuild,omitempty"` // rebootstrap: publish all rows anew, and not what differs

	DropResources  *bool `json:"dropResources,omitempty"`  // delete: false keeps what is outside, such as a replication slot
	Force          bool  `json:"force,omitempty"`          // delete: close also when the teardown fails
	TimeoutSeconds int   `json:"timeoutSeconds,omitempty"` // delete: bound of the teardown
}

const maxRequestID = 128

func parseCommand(raw converter.RawValue) (CommandInput, error) {
	var in CommandInput
	data := payloadData(raw)
	if len(data) == 0 {
		return in, nil
	}
	if len(data) > maxInput {
		return in, fmt.Errorf("the payload has %d bytes; the most is %d", len(data), maxInput)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return CommandInput{}, fmt.Errorf("decoding the payload: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return CommandInput{}, errors.New("decoding the payload: there is something after the JSON value")
	}
	if len(in.RequestID) > maxRequestID {
		return CommandInput{}, fmt.Errorf("requestId has %d bytes; the most is %d", len(in.RequestID), maxRequestID)
	}
	return in, nil
}

// handle registers the updates and queries. Signals come through the inbox.
func (e *entity) handle() error {
	for _, name := range commandNames {
		err := workflow.SetUpdateHandlerWithOptions(e.root, name,
			func(ctx workflow.Context, raw converter.RawValue) (Status, error) { return e.update(ctx, name, raw) },
			workflow.UpdateHandlerOptions{
				Description: commandHelp[name],
				Validator: func(raw converter.RawValue) error {
					in, err := parseCommand(raw)
					if err == nil {
						err = e.refuse(name, in)
					}
					return err
				},
			})
		if err != nil {
			return err
		}
	}
	return errors.Join(
		workflow.SetQueryHandlerWithOptions(e.root, QueryStatus, func() (Status, error) { return e.status(), nil },
			workflow.QueryHandlerOptions{Description: "what the component does, and why"}),
		workflow.SetQueryHandlerWithOptions(e.root, QuerySpec, func() (json.RawMessage, error) { return e.spec, nil },
			workflow.QueryHandlerOptions{Description: "the spec, with references instead of secrets"}),
		workflow.SetQueryHandlerWithOptions(e.root, QueryCommands, func() ([]Command, error) { return e.state.Commands, nil },
			workflow.QueryHandlerOptions{Description: "the last commands and what became of them"}),
		workflow.SetQueryHandlerWithOptions(e.root, QueryExplain, func() (explanation, error) { return e.last, nil },
			workflow.QueryHandlerOptions{Description: "what the last decision was based on"}),
	)
}

var commandHelp = map[string]string{
	CommandPause:        "finish what is in flight and wait; a bootstrap keeps what it has",
	CommandResume:       "run, and try again at once what failed",
	CommandStop:         "finish what is in flight and stop; a bootstrap is given up",
	CommandRestart:      "drain and run anew",
	CommandReconfigure:  "check another spec and, if it is valid, run with it: {\"spec\":{...}}",
	CommandRebootstrap:  "read a query's sources again and publish what differs, or all rows anew: {\"rebuild\":true}",
	CommandResetBreaker: "forget past failures and try at once",
	CommandSetPosition:  "not available",
	CommandSkip:         "not available",
	CommandUpgrade:      "drain, begin a new history with the newest code, and run",
	CommandDelete:       "drain, remove what the component created, and close the workflow",
}

// signalled handles a command that cannot be answered; what became of it is in the record.
func (e *entity) signalled(s signal) {
	in, err := parseCommand(s.payload)
	if err != nil {
		e.recordCommand(s.name, in, Rejected, err)
		return
	}
	if _, again := e.state.answered(in.RequestID); again {
		return
	}
	if s.name == CommandReconfigure && e.refuse(s.name, in) == nil {
		e.busy++
		workflow.Go(e.ctx, func(ctx workflow.Context) {
			defer func() { e.busy--; e.dirty = true }()
			_ = e.reconfigure(ctx, in)
		})
		return
	}
	_ = e.command(s.name, in)
}

// update handles a command and answers with the status.
func (e *entity) update(ctx workflow.Context, name string, raw converter.RawValue) (Status, error) {
	in, err := parseCommand(raw)
	if err != nil {
		return Status{}, rejected(err) // the validator refused it already
	}
	if before, again := e.state.answered(in.RequestID); again {
		if err := before.err(); err != nil {
			return Status{}, rejected(err)
		}
		return e.status(), nil
	}
	if name == CommandReconfigure && e.refuse(name, in) == nil {
		ctx, _ = workflow.NewDisconnectedContext(ctx)
		err = e.reconfigure(ctx, in)
	} else {
		err = e.command(name, in)
	}
	e.dirty = true
	if err != nil {
		return Status{}, rejected(err)
	}
	return e.status(), nil
}

func rejected(err error) error {
	return temporal.NewNonRetryableApplicationError(err.Error(), "Rejected", nil)
}

func (e *entity) recordCommand(name string, in CommandInput, outcome string, err error) {
	c := Command{RequestID: in.RequestID, Name: name, Outcome: outcome, Reason: in.Reason, At: workflow.Now(e.ctx)}
	if err != nil {
		c.Error = err.Error()
	}
	e.state.record(c)
}

// refuse says why a command cannot be done now, if so. It changes nothing: it is also what update validators ask.
func (e *entity) refuse(name string, in CommandInput) error {
	if !slices.Contains(commandNames, name) {
		return fmt.Errorf("there is no command %q", name)
	}
	id, err := component.ParseID(e.id)
	if in.Confirm != "" && (err != nil || in.Confirm != id.Name) {
		return fmt.Errorf("confirm is %q, but this is %s", in.Confirm, e.id)
	}
	if e.state.Delete != nil && name != CommandDelete {
		return errors.New("the component is being deleted")
	}
	switch name {
	case CommandSetPosition, CommandSkip:
		return e.notAvailable()
	case CommandRebootstrap:
		if e.kind.component != component.Query {
			return e.notAvailable()
		}
		if e.declared != nil && !e.declared.bootstrap {
			return errors.New("the query is declared with bootstrap none")
		}
	case CommandResume, CommandRestart:
		if e.declared == nil {
			return errors.New("the spec cannot be used; send another with reconfigure")
		}
		if name == CommandRestart && e.state.Desired != Running {
			return fmt.Errorf("the component is not meant to run: desired is %s", e.state.Desired)
		}
	case CommandReconfigure:
		if len(in.Spec) == 0 {
			return errors.New("reconfigure needs a spec")
		}
		if in.BaseSpecVersion != 0 && in.BaseSpecVersion != e.state.SpecVersion {
			return fmt.Errorf("the spec is at version %d, not %d", e.state.SpecVersion, in.BaseSpecVersion)
		}
		if _, err := declareAs(e.kind.component, in.Spec, e.id); err != nil {
			return err
		}
	}
	return nil
}

func (e *entity) notAvailable() error { return fmt.Errorf("not available for %s", e.kind.component) }

// command does a command and records it.
func (e *entity) command(name string, in CommandInput) error {
	if err := e.refuse(name, in); err != nil {
		e.recordCommand(name, in, Rejected, err)
		return err
	}
	outcome := Noop
	if e.apply(name, in) {
		outcome = Applied
	}
	e.recordCommand(name, in, outcome, nil)
	return nil
}

// apply changes what is wanted, and reports whether it changed anything.
func (e *entity) apply(name string, in CommandInput) bool {
	s := &e.state
	before := s.Desired
	switch name {
	case CommandPause:
		s.Desired = Paused
	case CommandStop:
		s.Desired = Stopped
	case CommandResume:
		s.Desired = Running
		return e.retry() || before != Running
	case CommandRestart:
		e.retry()
		s.Restart = true
		return true
	case CommandRebootstrap:
		e.retry()
		s.Restart, s.Rebootstrap, s.Rebuild = true, true, in.Rebuild
		return true
	case CommandResetBreaker:
		if s.Breaker.State == breakerClosed && s.Breaker.Failures == 0 {
			return false
		}
		s.Breaker.reset()
		return true
	case CommandUpgrade:
		s.Upgrade = true
		return true
	case CommandDelete:
		s.Delete = &deletion{
			KeepResources: in.DropResources != nil && !*in.DropResources, Force: in.Force, Seconds: in.TimeoutSeconds,
			Done: s.Delete != nil && s.Delete.Done,
			// A teardown that failed is tried again, unless it is no longer asked for.
			Failed: s.Delete != nil && s.Delete.Failed && in.Force,
		}
		return true
	}
	return s.Desired != before
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

// reconfigure checks another spec while the component goes on, and takes it when it is valid.
func (e *entity) reconfigure(ctx workflow.Context, in CommandInput) error {
	// One after the other, so that the last spec sent is the one that stays.
	if err := e.specs.Lock(ctx); err != nil {
		return err
	}
	defer e.specs.Unlock()
	if before, again := e.state.answered(in.RequestID); again {
		return before.err()
	}
	if bytes.Equal(bytes.TrimSpace(in.Spec), bytes.TrimSpace(e.spec)) && !e.state.Parked && len(e.state.Unexpected) == 0 {
		e.recordCommand(CommandReconfigure, in, Noop, nil)
		return nil
	}
	err := workflow.ExecuteActivity(withValidate(ctx), e.kind.validate, activities.SpecInput{Component: e.id, Spec: in.Spec}).Get(ctx, nil)
	if err != nil {
		report := activities.ReportOf(err)
		err = fmt.Errorf("%s: %s", report.Code, report.Message)
		e.recordCommand(CommandReconfigure, in, Rejected, err)
		return err
	}
	if err := e.refuse(CommandReconfigure, in); err != nil { // something else may have come first
		e.recordCommand(CommandReconfigure, in, Rejected, err)
		return err
	}
	d, err := declareAs(e.kind.component, in.Spec, e.id)
	if err != nil {
		return err
	}
	s := &e.state
	e.retry()
	s.changed()
	e.spec, e.declared, s.Unexpected, s.Restart = in.Spec, &d, nil, true
	s.SpecVersion++
	s.Snapshots.Known, s.Snapshots.Sealed, s.Snapshots.At = false, nil, time.Time{}
	e.recordCommand(CommandReconfigure, in, Applied, nil)
	return nil
}
