package workflows

import (
	"errors"
	"fmt"
	"strconv"

	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

func isOfPlaces(name string) bool { return name == CommandSkip || name == CommandSetPosition }

// noPlace says what to do with a component that has no place in a query's results.
var noPlace = map[component.Kind]map[string]error{
	component.Source: {
		CommandSkip:        errors.New("not available for source: what it cannot decode goes to its dead letters by itself, as its spec's policy says"),
		CommandSetPosition: errors.New("not available for source: its place is that of its replication slot; to read tables anew signal rebootstrap to the queries"),
	},
	component.Query: {
		CommandSkip:        errors.New("not available for query: onError in its spec says what becomes of rows that fail"),
		CommandSetPosition: errors.New("not available for query: signal rebootstrap to read its sources anew"),
	},
}

// refusePlace says why a reaction's place cannot be changed so, or is named where it has no meaning.
func (e *entity) refusePlace(name string, in CommandInput) error {
	_, err := strconv.ParseUint(in.Seq, 10, 63)
	isNumber := err == nil && in.Seq != "0"
	switch {
	case !isOfPlaces(name) && (in.Query != "" || in.Seq != ""):
		return fmt.Errorf("query and seq are for %s and %s", CommandSkip, CommandSetPosition)
	case !isOfPlaces(name):
		return nil
	case e.kind.component != component.Reaction:
		return noPlace[e.kind.component][name]
	case e.declared == nil:
		return errors.New("the spec cannot be used; send another with reconfigure")
	case in.Query == "" || in.Seq == "" || in.Confirm == "":
		return fmt.Errorf(`%s needs {"query":"...","seq":"...","confirm":%q}`, name, e.name)
	case name == CommandSkip && !isNumber:
		return fmt.Errorf("seq: %q is not the number of an event", shorten(in.Seq, maxName))
	case name == CommandSetPosition && !isNumber && in.Seq != "earliest" && in.Seq != "latest":
		return fmt.Errorf("seq: %q is neither earliest, latest nor the number of an event", shorten(in.Seq, maxName))
	case name == CommandSetPosition && (e.state.Desired == Running || e.task != noTask):
		return fmt.Errorf("the reaction is %s: signal pause first, and then resume", e.state.Phase)
	}
	return nil
}

// handlePlace has a reaction's place in the results of a query changed, or changed by its next run.
func (e *entity) handlePlace(ctx workflow.Context, name string, in CommandInput) error {
	if err := e.letters.Lock(ctx); err != nil {
		return err
	}
	defer e.letters.Unlock()
	if before, again := e.state.answered(in.RequestID); again {
		return before.err()
	}
	err := e.refuse(name, in) // something else may have come first
	if err == nil {
		err = e.changePlace(ctx, name, &in)
	}
	if err != nil {
		e.recordCommand(name, in, Rejected, err)
		return err
	}
	e.recordCommand(name, in, Applied, nil)
	result := fmt.Sprintf("goes on behind event %s of %s", in.Seq, in.Query)
	if name == CommandSkip {
		result = fmt.Sprintf("event %s of %s is tried once more; if it fails, it goes to the dead letters", in.Seq, in.Query)
		e.retry()
		e.state.Restart = true
	}
	e.state.Commands[len(e.state.Commands)-1].Result = result
	return nil
}

func (e *entity) changePlace(ctx workflow.Context, name string, in *CommandInput) error {
	input := activities.ResultInput{Component: e.id, Spec: e.spec, SpecRef: e.specRef, Query: in.Query, Seq: in.Seq, Generation: e.state.Generation}
	if name == CommandSkip {
		return refusal(workflow.ExecuteActivity(withPlace(ctx, "skip a result"), reactions.SkipResult, input).Get(ctx, nil))
	}
	var set activities.PositionResult
	err := workflow.ExecuteActivity(withPlace(ctx, "set the position"), reactions.SetPosition, input).Get(ctx, &set)
	if err == nil {
		in.Seq = set.Seq
	}
	return refusal(err)
}
