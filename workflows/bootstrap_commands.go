package workflows

import (
	"encoding/json"
	"errors"
	"fmt"

	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
)

// bootstrapCommand is the payload of every command of a bootstrap.
type bootstrapCommand struct {
	RequestID   string `json:"requestId,omitempty"` // a command with an id that was seen before is not done again
	Reason      string `json:"reason,omitempty"`    // for the record
	Parallelism int    `json:"parallelism,omitempty"`
	Table       string `json:"table,omitempty"` // retryTable: empty: all that failed
}

var bootstrapCommands = []string{CommandPause, CommandResume, CommandSetConcurrency, CommandRetryTable}

// handle registers the updates and queries. Signals come through the inbox.
func (b *bootstrap) handle() error {
	for _, name := range bootstrapCommands {
		err := workflow.SetUpdateHandlerWithOptions(b.root, name,
			func(ctx workflow.Context, raw converter.RawValue) (BootstrapStatus, error) {
				return b.update(ctx, name, raw)
			},
			workflow.UpdateHandlerOptions{
				Description: commandHelp[name],
				Validator: func(ctx workflow.Context, raw converter.RawValue) error {
					in, err := parseBootstrapUpdate(ctx, raw)
					if _, again := b.core.answered(in.RequestID); again || err != nil {
						return err
					}
					return b.refuse(name, in)
				},
			})
		if err != nil {
			return err
		}
	}
	return errors.Join(
		workflow.SetQueryHandlerWithOptions(b.root, QueryStatus, b.answer,
			workflow.QueryHandlerOptions{Description: "how far the bootstrap has come"}),
		workflow.SetQueryHandlerWithOptions(b.root, QueryCommands, func() ([]Command, error) { return b.core.Commands, nil },
			workflow.QueryHandlerOptions{Description: "the last commands and what became of them"}),
	)
}

func parseBootstrapCommand(raw converter.RawValue) (bootstrapCommand, error) {
	in, err := parsePayload[bootstrapCommand](raw)
	if len(in.RequestID) > maxRequestID {
		return bootstrapCommand{}, tooLong(in.RequestID)
	}
	return in, err
}

// parseBootstrapUpdate is parseUpdate for a bootstrap.
func parseBootstrapUpdate(ctx workflow.Context, raw converter.RawValue) (bootstrapCommand, error) {
	in, err := parseBootstrapCommand(raw)
	if err == nil && in.RequestID == "" {
		in.RequestID = shorten(workflow.GetCurrentUpdateInfo(ctx).ID, maxRequestID)
	}
	return in, err
}

// update handles a command and answers with the status.
func (b *bootstrap) update(ctx workflow.Context, name string, raw converter.RawValue) (BootstrapStatus, error) {
	in, err := parseBootstrapUpdate(ctx, raw)
	if err != nil {
		return BootstrapStatus{}, rejected(err) // the validator refused it already
	}
	before, again := b.core.answered(in.RequestID)
	if again {
		err = before.err()
	} else {
		err = b.command(name, in)
	}
	if err != nil {
		return BootstrapStatus{}, rejected(err)
	}
	return b.answer()
}

// takeSignals takes what the holder and people say.
func (b *bootstrap) takeSignals() {
	for _, s := range b.inbox.take() {
		switch s.name {
		case activities.SignalSnapshotReady:
			var ready activities.SnapshotReady
			if b.reads(s, &ready) && ready.SnapshotGeneration == b.status.Snapshot {
				b.ready, b.status.Position = true, ready.Position
			}
		case activities.SignalBootstrapProgress:
			var progress activities.BootstrapProgress
			if b.reads(s, &progress) && progress.SnapshotGeneration == b.status.Snapshot {
				b.status.Progress = &progress
				b.describe()
			}
		case activities.SignalTableFailed:
			var failed activities.TableFailure
			if b.reads(s, &failed) && failed.SnapshotGeneration == b.status.Snapshot && failed.Table != "" {
				b.tableFailed(failed)
			}
		default:
			b.signalled(s)
		}
	}
}

// reads decodes a signal of the holder. What cannot be read is kept among the commands.
func (b *bootstrap) reads(s signal, into any) bool {
	err := s.decode(into)
	if err != nil {
		b.record(s.name, bootstrapCommand{}, Rejected, fmt.Errorf("decoding the payload: %w", err))
	}
	return err == nil
}

// signalled handles a command that cannot be answered; what became of it is in the record.
func (b *bootstrap) signalled(s signal) {
	if s.unreadable != nil {
		b.record(s.name, bootstrapCommand{}, Rejected, s.unreadable)
		return
	}
	in, err := parseBootstrapCommand(s.payload)
	if data := payloadData(s.payload); len(data) > 0 &&
		workflow.GetVersion(b.ctx, "bootstrap commands", workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		// The first builds took what they could read, and did again what came again.
		in = bootstrapCommand{}
		if err = json.Unmarshal(data, &in); err == nil {
			_ = b.command(s.name, in)
			return
		}
	}
	if err != nil {
		b.record(s.name, bootstrapCommand{}, Rejected, err)
		return
	}
	if _, again := b.core.answered(in.RequestID); !again {
		_ = b.command(s.name, in)
	}
}

// command does a command and records it.
func (b *bootstrap) command(name string, in bootstrapCommand) error {
	if err := b.refuse(name, in); err != nil {
		b.record(name, in, Rejected, err)
		return err
	}
	paused, want, retried := b.status.Paused, b.want, false
	switch name {
	case CommandPause:
		b.status.Paused = true
	case CommandResume:
		b.status.Paused = false
		retried = b.retry("") // as components do
	case CommandRetryTable:
		retried = b.retry(in.Table)
	case CommandSetConcurrency:
		b.want = in.Parallelism
	}
	outcome := Applied
	if paused == b.status.Paused && want == b.want && !retried {
		outcome = Noop
	}
	b.record(name, in, outcome, nil)
	return nil
}

// refuse says why a command cannot be done, if so.
func (b *bootstrap) refuse(name string, in bootstrapCommand) error {
	switch name {
	case CommandPause, CommandResume:
		return nil
	case CommandSetConcurrency:
		if in.Parallelism < 1 || in.Parallelism > maxParallelism {
			return fmt.Errorf("parallelism must be from 1 to %d, is %d", maxParallelism, in.Parallelism)
		}
		return nil
	case CommandRetryTable:
		return b.refuseRetry(in.Table)
	}
	return unknownCommand(name)
}

func (b *bootstrap) record(name string, in bootstrapCommand, outcome string, err error) {
	c := Command{RequestID: shorten(in.RequestID, maxRequestID), Name: name, Outcome: outcome, Reason: in.Reason, At: workflow.Now(b.ctx)}
	if err != nil {
		c.Error = err.Error()
	}
	b.core.record(c)
}
