package activities

import (
	"context"
	"errors"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// Reactions has the activities of reactions.
type Reactions struct {
	host   reactionHost
	runner *runner
}

// ValidateReaction reports everything that is wrong with a reaction's spec.
func (r *Reactions) ValidateReaction(ctx context.Context, in SpecInput) (Checks, error) {
	spec, err := decodeStrictly[component.ReactionSpec](in)
	if err != nil {
		return Checks{}, translate(err)
	}
	return Checks{}, translate(contain(func() error { return r.host.ValidateReaction(ctx, spec) }))
}

// ReactionRun delivers results until it is asked to stop.
func (r *Reactions) ReactionRun(ctx context.Context, in RunInput) (RunResult, error) {
	spec, err := decode[component.ReactionSpec](in.Spec)
	if err != nil {
		return RunResult{}, translate(err)
	}
	teller := r.runner.newTeller(ctx, in)
	return r.runner.run(ctx, in, spec.Policy, teller.beside(func(ctx context.Context, a pipeline.Attempt) (string, error) {
		return OutcomeDrained, r.host.RunReaction(ctx, a, spec)
	}))
}

// retriesFor is how long dead letters are delivered by one command; those that are left stay.
const retriesFor = 45 * time.Second

// RetryDeadLetters delivers dead letters again, oldest first, until one fails for reasons that may go away.
func (r *Reactions) RetryDeadLetters(ctx context.Context, in LettersInput) (LettersResult, error) {
	spec, err := decode[component.ReactionSpec](in.Spec)
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
	spec, err := decode[component.ReactionSpec](in.Spec)
	if err != nil {
		return translate(err)
	}
	return translate(beating(ctx, func(ctx context.Context) error {
		return errors.Join(r.host.TeardownReaction(ctx, spec), r.runner.store.forget(ctx, in.Component))
	}))
}
