package workflows

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// mostLetters is how many dead letters one command can name.
const mostLetters = 1000

func isOfLetters(name string) bool { return name == CommandRetry || name == CommandDrop }

// refuseLetters says why dead letters cannot be handled so, or are named where they have no meaning.
func (e *entity) refuseLetters(name string, in CommandInput) error {
	named := len(in.IDs) > 0
	switch {
	case !isOfLetters(name) && (named || in.All):
		return fmt.Errorf("ids and all are for %s and %s", CommandRetry, CommandDrop)
	case !isOfLetters(name):
		return nil
	case e.kind.component == component.Query, name == CommandRetry && e.kind.component != component.Reaction:
		return e.notAvailable()
	case e.declared == nil:
		return errors.New("the spec cannot be used; send another with reconfigure")
	case named && in.All:
		return errors.New("give either ids or all")
	case name == CommandDrop && !named && !in.All:
		return errors.New(`drop needs ids, or "all":true`)
	case len(in.IDs) > mostLetters:
		return fmt.Errorf("ids names %d dead letters; the most is %d", len(in.IDs), mostLetters)
	}
	for i, id := range in.IDs {
		if _, err := strconv.ParseUint(id, 10, 63); err != nil {
			return fmt.Errorf("ids[%d]: %q is not the id of a dead letter", i, shorten(id, maxName))
		}
	}
	return nil
}

// handleLetters has dead letters retried or dropped while the component goes on, one command after the other, so that
// none is delivered by two.
func (e *entity) handleLetters(ctx workflow.Context, name string, in CommandInput) error {
	if err := e.letters.Lock(ctx); err != nil {
		return err
	}
	defer e.letters.Unlock()
	if before, again := e.state.answered(in.RequestID); again {
		return before.err()
	}
	if err := e.refuse(name, in); err != nil { // something else may have come first
		e.recordCommand(name, in, Rejected, err)
		return err
	}
	input := activities.LettersInput{Component: e.id, IDs: in.IDs}
	var do any = control.DropDeadLetters
	if name == CommandRetry {
		do, input.Spec, input.SpecRef = reactions.RetryDeadLetters, e.spec, e.specRef
	}
	var result activities.LettersResult
	err := workflow.ExecuteActivity(withLetters(ctx, name+" dead letters"), do, input).Get(ctx, &result)
	if err != nil {
		err = refusal(err)
		e.recordCommand(name, in, Rejected, err)
		return err
	}
	e.state.DeadLetters = &result.Left
	if result.Failure != nil {
		err = refused{trimmed(*result.Failure)}
	}
	outcome := Applied
	switch {
	case result.Delivered+result.Dropped > 0:
	case err != nil:
		outcome = Rejected
	case result.Refused == 0:
		outcome = Noop
	}
	e.recordCommand(name, in, outcome, err)
	e.state.Commands[len(e.state.Commands)-1].Result = summaryOf(result)
	if outcome == Rejected {
		return err
	}
	return nil
}

func summaryOf(r activities.LettersResult) string {
	var parts []string
	for _, p := range []struct {
		what string
		n    int
	}{{"delivered", r.Delivered}, {"refused again", r.Refused}, {"dropped", r.Dropped}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	left := r.Left.Count
	if left == "" {
		left = "0"
	}
	return strings.Join(append(parts, left+" left"), ", ")
}

// conditioned takes what a component's loop tells of itself. What an earlier run told is of no use any more.
func (e *entity) conditioned(s signal) {
	var c activities.Condition
	if err := s.decode(&c); err != nil {
		e.malformed(s, err)
		return
	}
	if c.Generation != e.state.Generation || e.task != taskRun {
		return
	}
	if c.LastError != nil {
		report := trimmed(*c.LastError)
		c.LastError = &report
	}
	if c.Interruption != nil {
		c.Interruption.LastError = trimmed(c.Interruption.LastError)
	}
	current := workflow.GetVersion(e.ctx, "told while it runs", workflow.DefaultVersion, 1) != workflow.DefaultVersion
	c.Loading = c.Loading && current
	health, host := e.health(), e.state.Host
	e.state.Condition = &c
	if c.Host != "" {
		e.state.Host, e.state.Attempt = c.Host, c.Attempt
	}
	if e.kind.component == component.Reaction {
		e.state.DeadLetters = &c.DeadLetters
	}
	query := e.kind.component == component.Query && current
	switch {
	case query && e.loads() && e.state.Phase == PhaseRunning:
		e.enter(PhaseStarting)
	case query && !e.loads() && e.state.Phase == PhaseStarting:
		e.enter(PhaseRunning)
	case e.health() != health || e.state.Host != host && current:
		e.upsert()
	}
}

// loads reports whether a query has told that it has no answer yet.
func (e *entity) loads() bool { return e.state.Condition != nil && e.state.Condition.Loading }
