package activities

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
)

// Reactions has the activities of reactions.
type Reactions struct {
	host   reactionHost
	runner *runner
}

// ValidateReaction reports everything that is wrong with a reaction's spec.
func (r *Reactions) ValidateReaction(ctx context.Context, in SpecInput) (Checks, error) {
	spec, err := decodeStrictly[component.ReactionSpec](ctx, r.runner.store, in)
	if err != nil {
		return Checks{}, translate(err)
	}
	return Checks{}, translate(failure.Guard(func() error { return r.host.ValidateReaction(ctx, spec) }))
}

// ReactionRun delivers results until it is asked to stop.
func (r *Reactions) ReactionRun(ctx context.Context, in RunInput) (RunResult, error) {
	spec, err := decode[component.ReactionSpec](ctx, r.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return RunResult{}, translate(err)
	}
	r.runner.uses(ctx, in)
	teller := r.runner.newTeller(ctx, in)
	return r.runner.run(ctx, in, spec.Policy, teller.beside(func(ctx context.Context, a pipeline.Attempt) (string, error) {
		return OutcomeDrained, r.host.RunReaction(ctx, a, spec)
	}))
}

// retriesFor is how long dead letters are delivered by one command; those that are left stay.
const retriesFor = 45 * time.Second

// RetryDeadLetters delivers dead letters again, oldest first, until one fails for reasons that may go away.
func (r *Reactions) RetryDeadLetters(ctx context.Context, in LettersInput) (LettersResult, error) {
	spec, err := decode[component.ReactionSpec](ctx, r.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return LettersResult{}, translate(err)
	}
	var result LettersResult
	err = beating(ctx, func(ctx context.Context) error {
		bounded, cancel := context.WithTimeout(ctx, retriesFor)
		defer cancel()
		ids, none, err := leftOf(ctx, r.runner.store, spec.ID(), in.IDs)
		if err != nil {
			return err
		}
		if !none {
			var done pipeline.Redelivery
			done, err = r.host.RetryDeadLetters(bounded, spec, ids)
			result.Delivered, result.Refused = done.Delivered, done.Refused
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if bounded.Err() != nil {
			err = failure.Timeout.Errorf("no more than %s are spent on one command", retriesFor).WithFix("Send the command again for those that are left.")
		}
		return result.settle(ctx, r.runner.store, in.Component, err)
	})
	return result, translate(err)
}

// TeardownReaction removes a reaction: its cursors and its dead letters.
func (r *Reactions) TeardownReaction(ctx context.Context, in TeardownInput) error {
	return translate(beating(ctx, func(ctx context.Context) error { return r.tearDown(ctx, in) }))
}

func (r *Reactions) tearDown(ctx context.Context, in TeardownInput) error {
	spec, err := decodeTeardown[component.ReactionSpec](ctx, r.runner.store, in)
	if err != nil {
		return err
	}
	return errors.Join(r.host.TeardownReaction(ctx, spec), r.runner.store.forget(ctx, in.Component))
}

// SkipResult has the next run of a reaction not wait for the event that it cannot get past.
func (r *Reactions) SkipResult(ctx context.Context, in ResultInput) error {
	spec, err := decode[component.ReactionSpec](ctx, r.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return translate(err)
	}
	sequence, err := strconv.ParseUint(in.Seq, 10, 63)
	if err != nil {
		return translate(failure.PlaceInvalid.Errorf("%q is not the number of an event", in.Seq))
	}
	return translate(r.host.SkipResult(ctx, spec, in.Query, sequence))
}

// SetPosition has a reaction that does not run go on at another place of a query's results. The place is that of the
// generation after the last one, so that no attempt of the last one moves it, wherever it may still be.
func (r *Reactions) SetPosition(ctx context.Context, in ResultInput) (PositionResult, error) {
	spec, err := decode[component.ReactionSpec](ctx, r.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return PositionResult{}, translate(err)
	}
	sequence, err := r.host.SetPlace(ctx, spec, in.Query, in.Seq, stream.Epoch{Generation: in.Generation + 1})
	return PositionResult{strconv.FormatUint(sequence, 10)}, translate(err)
}
