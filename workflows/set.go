package workflows

import (
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
)

// Set is the workflows of this build.
type Set struct {
	attributes func() bool
}

// New returns the workflows. The function says whether the namespace has the search attributes that components show
// themselves with; when it has not, upserting them would block every workflow.
func New(attributes func() bool) *Set { return &Set{attributes: attributes} }

// Register registers all workflows under the names that users start them by.
func (s *Set) Register(r worker.WorkflowRegistry) {
	r.RegisterWorkflowWithOptions(s.source, workflow.RegisterOptions{Name: TypeSource})
	r.RegisterWorkflowWithOptions(s.query, workflow.RegisterOptions{Name: TypeQuery})
	r.RegisterWorkflowWithOptions(s.reaction, workflow.RegisterOptions{Name: TypeReaction})
	r.RegisterWorkflowWithOptions(s.bootstrap, workflow.RegisterOptions{Name: TypeBootstrap})
	r.RegisterWorkflowWithOptions(s.instance, workflow.RegisterOptions{Name: TypeInstance})
	r.RegisterWorkflowWithOptions(s.checkSource, workflow.RegisterOptions{Name: TypeCheckSource})
}

func (s *Set) source(ctx workflow.Context, raw converter.RawValue) (*Result, error) {
	return s.component(ctx, sourceKind(), raw)
}

func (s *Set) query(ctx workflow.Context, raw converter.RawValue) (*Result, error) {
	return s.component(ctx, queryKind(), raw)
}

func (s *Set) reaction(ctx workflow.Context, raw converter.RawValue) (*Result, error) {
	return s.component(ctx, reactionKind(), raw)
}

func (s *Set) component(ctx workflow.Context, k kind, raw converter.RawValue) (*Result, error) {
	e, err := newEntity(ctx, k, raw, s.attributes)
	if err != nil {
		return nil, err
	}
	return e.loop()
}

func (s *Set) instance(ctx workflow.Context, raw converter.RawValue) (*Result, error) {
	i, err := newInstance(ctx, raw, s.attributes)
	if err != nil {
		return nil, err
	}
	return i.loop()
}
