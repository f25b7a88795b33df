package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// CheckInput is the input of Sources.CheckSource: one of the three.
type CheckInput struct {
	Component string          `json:"component,omitempty"` // a source that was started
	Spec      json.RawMessage `json:"spec,omitempty"`
	SpecRef   string          `json:"specRef,omitempty"`
}

// SourceChecks is what was found out about the system behind a source.
type SourceChecks struct {
	Component string           `json:"component"`
	OK        bool             `json:"ok"` // nothing keeps the source from working; there may be warnings
	Checks    []pipeline.Check `json:"checks"`
}

// checkWithin leaves the activity time to report what it could look at.
const checkWithin = 45 * time.Second

// CheckSource looks at the system behind a source and changes nothing. What is wrong there is no error, but a spec that
// is not valid is.
func (s *Sources) CheckSource(ctx context.Context, in CheckInput) (SourceChecks, error) {
	spec, err := s.specToCheck(ctx, in)
	if err != nil {
		return SourceChecks{}, translate(err)
	}
	found := SourceChecks{Component: spec.ID().String(), OK: true}
	bounded, cancel := context.WithTimeout(ctx, checkWithin)
	defer cancel()
	if err := failure.Guard(func() (err error) {
		found.Checks, err = s.host.CheckSource(bounded, spec)
		return err
	}); err != nil {
		return SourceChecks{}, translate(err)
	}
	if found.Checks, err = s.withoutUsed(ctx, found); err != nil {
		return SourceChecks{}, translate(err)
	}
	for _, c := range found.Checks {
		found.OK = found.OK && c.Severity != pipeline.Blocking
	}
	return found, nil
}

func (s *Sources) specToCheck(ctx context.Context, in CheckInput) (component.SourceSpec, error) {
	if len(in.Spec) > 0 || in.SpecRef != "" {
		return decodeStrictly[component.SourceSpec](ctx, s.runner.store, SpecInput{Spec: in.Spec, SpecRef: in.SpecRef})
	}
	var spec component.SourceSpec
	if id, err := component.ParseID(in.Component); err != nil || id.Kind != component.Source {
		return spec, failure.ConfigInvalid.Errorf(`component: must be of the form source.<instance>.<name>, is %q`, in.Component)
	}
	spec, found, err := s.runner.store.provisionedSource(ctx, in.Component)
	if err == nil && !found {
		err = failure.ConfigInvalid.Errorf("component: %s was never provisioned; give its spec instead", in.Component)
	}
	return spec, err
}

// withoutUsed leaves out what was made for other components that are there, though stopped at present.
func (s *Sources) withoutUsed(ctx context.Context, found SourceChecks) ([]pipeline.Check, error) {
	var failed error
	return slices.DeleteFunc(found.Checks, func(c pipeline.Check) bool {
		if c.Component == "" || c.Component == found.Component || failed != nil {
			return false
		}
		var spec json.RawMessage
		revision, err := s.runner.store.read(ctx, specsBucket, c.Component, &spec)
		if err != nil {
			failed = fmt.Errorf("looking for the owner of %s: %w", c.Object, err)
		}
		return revision > 0
	}), failed
}
