package workers

import (
	"context"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.uber.org/zap"

	"github.com/perdure/perdure/workflows"
)

const registerWithin = 15 * time.Second

// registerSearchAttributes makes the namespace know the search attributes of components, and reports whether it does.
// Where that is not allowed, components do without them.
func (p *process) registerSearchAttributes(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	if err := p.addMissingAttributes(ctx); err != nil {
		p.log.Warn("components are shown without search attributes; let an operator create them and start the worker again", zap.Error(err))
		return false
	}
	return true
}

func (p *process) addMissingAttributes(ctx context.Context) error {
	namespace := p.namespace()
	missing, err := p.missingAttributes(ctx, namespace)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, addErr := p.Client.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: namespace, SearchAttributes: missing,
	})
	if addErr == nil {
		return nil
	}
	// Another worker may have been quicker.
	if missing, err = p.missingAttributes(ctx, namespace); err == nil && len(missing) == 0 {
		return nil
	}
	return fmt.Errorf("adding search attributes: %w", addErr)
}

func (p *process) namespace() string {
	if p.Namespace == "" {
		return "default"
	}
	return p.Namespace
}

func (p *process) missingAttributes(ctx context.Context, namespace string) (map[string]enumspb.IndexedValueType, error) {
	known, err := p.Client.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
	if err != nil {
		return nil, fmt.Errorf("listing search attributes: %w", err)
	}
	missing := make(map[string]enumspb.IndexedValueType)
	for _, key := range workflows.SearchAttributes() {
		switch found, ok := known.GetCustomAttributes()[key.GetName()]; {
		case !ok:
			missing[key.GetName()] = key.GetValueType()
		case found != key.GetValueType():
			return nil, fmt.Errorf("search attribute %s exists as %s and should be %s", key.GetName(), found, key.GetValueType())
		}
	}
	return missing, nil
}
