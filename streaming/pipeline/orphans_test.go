package pipeline

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
)

// A host that comes back removes the state of queries that were deleted, or began anew elsewhere, and no other.
func TestStateThatNobodyUsesIsRemoved(t *testing.T) {
	r := newRig(t)
	source := r.startSource()
	eventually(t, func() bool { return r.host().SourceReady(t.Context(), "default", "shop") == nil }, "the source has a log")
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	used, err := r.index.Names()
	require.NoError(t, err)
	require.Len(t, used, 1)
	for _, name := range []string{"default/" + late.Name + "/0123", "default/deleted/4567", "default/unknown/89ab", "mine"} {
		store, err := r.index.Open(name)
		require.NoError(t, err)
		require.NoError(t, store.Close())
	}
	exists := func(_ context.Context, id component.ID) (bool, error) { return id.Name == "unknown", nil }
	require.NoError(t, r.host().RemoveOrphans(t.Context(), exists))
	left, err := r.index.Names()
	require.NoError(t, err)
	require.ElementsMatch(t, append(used, "default/unknown/89ab", "mine"), left)

	failing := errors.New("the server does not answer")
	err = r.host().RemoveOrphans(t.Context(), func(context.Context, component.ID) (bool, error) { return false, failing })
	require.ErrorIs(t, err, failing)
	still, err := r.index.Names()
	require.NoError(t, err)
	require.Equal(t, left, still)
	query.drained()
	source.drained()
}
