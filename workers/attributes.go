package workers

import (
	"cmp"
	"context"
	"fmt"
	"sync/atomic"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/sdk/client"
	"go.uber.org/zap"

	"github.com/perdure/perdure/workflows"
)

const (
	// registerWithin bounds one try to register search attributes.
	registerWithin = 15 * time.Second
	// attributesAfter is how long search attributes that were just registered are left alone: until then parts of the server
	// may not have heard of them, and would fail the task of a workflow that uses them. They ask once a minute.
	attributesAfter = 75 * time.Second
	// attributesAgain is when registering is tried again that was refused.
	attributesAgain = time.Minute
)

// attributes makes a namespace know the search attributes of components, and knows whether workflows may use them. Where
// they are refused, components do without them.
type attributes struct {
	operator     operatorservice.OperatorServiceClient
	namespace    string
	after, again time.Duration
	log          *zap.Logger
	usable       atomic.Bool
}

func newAttributes(c client.Client, namespace string, log *zap.Logger) *attributes {
	return &attributes{operator: c.OperatorService(), namespace: cmp.Or(namespace, "default"), after: attributesAfter, again: attributesAgain, log: log}
}

// RegisterSearchAttributes makes a namespace know the search attributes of components. Workers do so themselves; a server
// that had them before its first worker came need not be waited for.
func RegisterSearchAttributes(ctx context.Context, c client.Client, namespace string) error {
	return newAttributes(c, namespace, nil).register(ctx)
}

// look finds out whether the attributes are there already.
func (a *attributes) look(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	missing, err := a.missing(ctx)
	a.usable.Store(err == nil && len(missing) == 0)
}

// keep registers the attributes unless they were there, for as long as that is refused.
func (a *attributes) keep(ctx context.Context) {
	for told := false; !a.usable.Load(); {
		wait := a.after
		err := a.register(ctx)
		if err != nil {
			wait = a.again
		}
		if err != nil && ctx.Err() == nil && !told {
			told = true
			a.log.Warn("components are shown without search attributes until they can be registered, which is tried again", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		if err == nil {
			a.look(ctx) // somebody may have removed them
		}
	}
}

// register adds the attributes that are missing, and makes sure that all are there.
func (a *attributes) register(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, registerWithin)
	defer cancel()
	missing, err := a.missing(ctx)
	if err != nil || len(missing) == 0 {
		return err
	}
	_, addErr := a.operator.AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
		Namespace: a.namespace, SearchAttributes: missing,
	})
	switch missing, err = a.missing(ctx); { // another worker may have been quicker
	case err != nil:
		return err
	case len(missing) > 0 && addErr != nil:
		return fmt.Errorf("adding search attributes: %w", addErr)
	case len(missing) > 0:
		return fmt.Errorf("the server does not list %d search attributes that were added", len(missing))
	}
	return nil
}

func (a *attributes) missing(ctx context.Context) (map[string]enumspb.IndexedValueType, error) {
	known, err := a.operator.ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: a.namespace})
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
