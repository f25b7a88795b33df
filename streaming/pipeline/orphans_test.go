package pipeline

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/index/pebble"
)

// A host that comes back removes the state of queries that were deleted, or began anew elsewhere, and no other.
func TestStateThatNobodyUsesIsRemoved(t *testing.T) {
	r := newRig(t)
	dir := t.TempDir()
	r.index = pebble.New(pebble.Options{Dir: dir})
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
	half := filepath.Join(dir, "default", "unknown", "89ab.restore") // of a process that ended
	require.NoError(t, os.MkdirAll(half, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(half, "000001.sst"), []byte("half"), 0o600))
	exists := func(_ context.Context, id component.ID) (bool, error) { return id.Name == "unknown", nil }
	require.NoError(t, r.host().RemoveOrphans(t.Context(), exists))
	require.NoDirExists(t, half)
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
