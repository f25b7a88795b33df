package workers

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"

	"github.com/perdure/perdure/workflows"
)

// operator is a Temporal server as far as search attributes go.
type operator struct {
	operatorservice.OperatorServiceClient
	mu    sync.Mutex
	known map[string]enumspb.IndexedValueType
	err   error // of adding
	lazy  bool  // it says that it added and did not
}

func (o *operator) ListSearchAttributes(context.Context, *operatorservice.ListSearchAttributesRequest, ...grpc.CallOption) (*operatorservice.ListSearchAttributesResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return &operatorservice.ListSearchAttributesResponse{CustomAttributes: maps.Clone(o.known)}, nil
}

func (o *operator) AddSearchAttributes(_ context.Context, in *operatorservice.AddSearchAttributesRequest, _ ...grpc.CallOption) (*operatorservice.AddSearchAttributesResponse, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil || o.lazy {
		return nil, o.err
	}
	maps.Copy(o.known, in.GetSearchAttributes())
	return &operatorservice.AddSearchAttributesResponse{}, nil
}

func all() map[string]enumspb.IndexedValueType {
	types := make(map[string]enumspb.IndexedValueType)
	for _, key := range workflows.SearchAttributes() {
		types[key.GetName()] = key.GetValueType()
	}
	return types
}

func none() map[string]enumspb.IndexedValueType { return make(map[string]enumspb.IndexedValueType) }

func otherType() map[string]enumspb.IndexedValueType {
	types := all()
	types["PerdurePhase"] = enumspb.INDEXED_VALUE_TYPE_INT
	return types
}

func TestSearchAttributes(t *testing.T) {
	for name, c := range map[string]struct {
		operator *operator
		mend     func(*operator) // after a while
		atOnce   bool
		after    time.Duration // until they are usable
		warning  string
	}{
		"there already":   {operator: &operator{known: all()}, atOnce: true},
		"new":             {operator: &operator{known: map[string]enumspb.IndexedValueType{"Other": enumspb.INDEXED_VALUE_TYPE_INT}}, after: attributesAfter},
		"refused":         {operator: &operator{known: none(), err: errors.New("only operators may")}, mend: func(o *operator) { o.err = nil }, after: 2*attributesAgain + attributesAfter, warning: "only operators may"},
		"not listed":      {operator: &operator{known: none(), lazy: true}, mend: func(o *operator) { o.lazy = false }, after: 2*attributesAgain + attributesAfter, warning: "does not list 8"},
		"of another type": {operator: &operator{known: otherType()}, mend: func(o *operator) { o.known = all() }, after: 2*attributesAgain + attributesAfter, warning: "PerdurePhase exists as Int and should be Keyword"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				core, logs := observer.New(zap.WarnLevel)
				a := &attributes{operator: c.operator, namespace: "n", after: attributesAfter, again: attributesAgain, log: zap.New(core)}
				a.look(t.Context())
				require.Equal(t, c.atOnce, a.usable.Load())
				began, done := time.Now(), make(chan time.Duration, 1)
				go func() {
					a.keep(t.Context())
					done <- time.Since(began)
				}()
				time.Sleep(attributesAgain + attributesAgain/2)
				synctest.Wait()
				if c.mend != nil {
					require.False(t, a.usable.Load())
					c.operator.mu.Lock()
					c.mend(c.operator)
					c.operator.mu.Unlock()
				}
				require.Equal(t, c.after, <-done)
				require.True(t, a.usable.Load())
				if c.warning == "" {
					require.Zero(t, logs.Len())
					return
				}
				require.Equal(t, 1, logs.Len(), "it is said once")
				require.Contains(t, logs.All()[0].ContextMap()["error"], c.warning)
			})
		})
	}
}
