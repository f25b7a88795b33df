package activities

import (
	"context"
	"errors"

	"github.com/perdure/perdure/streaming/component"
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
	return r.runner.run(ctx, in, spec.Policy, func(ctx context.Context, a pipeline.Attempt) (string, error) {
		return OutcomeDrained, r.host.RunReaction(ctx, a, spec)
	})
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
