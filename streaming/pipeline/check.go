package pipeline

import (
	"context"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// Check is what was found out about the system behind a source.
type Check = source.Check

// Blocking is the severity of what keeps a source from working.
const Blocking = source.Blocking

// CheckSource looks at the system behind a source and changes nothing. A spec that is not valid is an error.
func (h *Host) CheckSource(ctx context.Context, spec component.SourceSpec) (checks []Check, err error) {
	s, err := h.newSource(spec, 0)
	if err != nil {
		return nil, err
	}
	checker, ok := s.(source.Checker)
	if !ok {
		return []Check{{Name: "source", Severity: source.Skipped, Found: "sources of kind " + spec.Kind + " have no checks"}}, nil
	}
	err = failure.Guard(func() error {
		checks, err = checker.Check(ctx)
		return err
	})
	return checks, err
}
