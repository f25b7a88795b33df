package pebble

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestStoresShareTheCache reads from one store and looks at what is cached by way of another.
func TestStoresShareTheCache(t *testing.T) {
	b := New(Options{Dir: t.TempDir()})
	open := func(name string) *store {
		s, err := b.Open(name)
		require.NoError(t, err)
		return s.(*store)
	}
	first, second := open("first"), open("second")
	w := first.NewBatch()
	require.NoError(t, w.Set([]byte("k"), make([]byte, 100<<10)))
	require.NoError(t, w.Commit())
	require.NoError(t, first.db.Flush())
	before := second.db.Metrics().BlockCache.Size
	_, found, err := first.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, found)
	require.GreaterOrEqual(t, second.db.Metrics().BlockCache.Size, before+100<<10)

	require.NoError(t, first.Close())
	_, found, err = second.Get([]byte("k"))
	require.NoError(t, err)
	require.False(t, found)
	first = open("first")
	_, found, err = first.Get([]byte("k"))
	require.NoError(t, err)
	require.True(t, found)
	require.NoError(t, first.Close())
	require.NoError(t, second.Close())
}
