package activities

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/telemetry"
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
	teller := newTeller(ctx, in.Generation, r.runner.log.With(zap.String(telemetry.KeyComponent, in.Component)))
	return r.runner.run(ctx, in, spec.Policy, func(ctx context.Context, a pipeline.Attempt) (string, error) {
		telling, stop := context.WithCancel(ctx)
		defer stop()
		done := make(chan struct{})
		go func() {
			defer close(done)
			teller.run(telling, a.Progress)
		}()
		err := r.host.RunReaction(ctx, a, spec)
		stop()
		<-done
		return OutcomeDrained, err
	})
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
	return translate(beating(ctx, func(ctx context.Context) error { return r.tearDown(ctx, in) }))
}

func (r *Reactions) tearDown(ctx context.Context, in TeardownInput) error {
	spec, err := decode[component.ReactionSpec](in.Spec)
	if err != nil {
		return err
	}
	return errors.Join(r.host.TeardownReaction(ctx, spec), r.runner.store.forget(ctx, in.Component))
}
