package activities

import (
	"context"
	"errors"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// Sources has the activities of sources.
type Sources struct {
	host   sourceHost
	runner *runner
}

// ValidateSource reports everything that is wrong with a source's spec, as far as that shows without asking the system
// behind the source.
func (s *Sources) ValidateSource(ctx context.Context, in SpecInput) (Checks, error) {
	spec, err := decodeStrictly[component.SourceSpec](ctx, s.runner.store, in)
	if err != nil {
		return Checks{}, translate(err)
	}
	return Checks{}, translate(failure.Guard(func() error { return s.host.ValidateSource(ctx, spec) }))
}

// ProvisionSource checks the system behind the source and creates what the source needs there. Then the spec is kept
// where bootstraps, which belong to queries, find it.
func (s *Sources) ProvisionSource(ctx context.Context, in SpecInput) error {
	spec, err := decode[component.SourceSpec](ctx, s.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return translate(err)
	}
	return translate(beating(ctx, func(ctx context.Context) error {
		if err := s.host.ProvisionSource(ctx, spec); err != nil {
			return err
		}
		return s.runner.store.write(ctx, specsBucket, in.Component, provisioned(spec, in.SpecRef))
	}))
}

// SourceRun streams changes into the source's log until it is asked to stop.
func (s *Sources) SourceRun(ctx context.Context, in RunInput) (RunResult, error) {
	spec, err := decode[component.SourceSpec](ctx, s.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return RunResult{}, translate(err)
	}
	s.runner.uses(ctx, in)
	teller := s.runner.newTeller(ctx, in)
	return s.runner.run(ctx, in, spec.Policy, teller.beside(func(ctx context.Context, a pipeline.Attempt) (string, error) {
		return OutcomeDrained, s.host.RunSource(ctx, a, spec)
	}))
}

// TeardownSource removes what a source created, its log and its resources in the system behind it, unless they are to be
// kept.
func (s *Sources) TeardownSource(ctx context.Context, in TeardownInput) error {
	return translate(beating(ctx, func(ctx context.Context) error { return s.tearDown(ctx, in) }))
}

func (s *Sources) tearDown(ctx context.Context, in TeardownInput) error {
	spec, err := decodeTeardown[component.SourceSpec](ctx, s.runner.store, in)
	if err == nil && !in.KeepResources {
		err = s.host.TeardownSource(ctx, spec)
	}
	return errors.Join(err, s.runner.store.forget(ctx, in.Component))
}
