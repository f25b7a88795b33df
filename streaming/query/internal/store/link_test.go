package store

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
)

// TestDeletedNodesLeaveTheCache: where nodes come and go, those that went take no memory.
func TestDeletedNodesLeaveTheCache(t *testing.T) {
	s, err := memory.Sized(1 << 20).Open("test")
	require.NoError(t, err)
	elements := NewElements(func([]string, bool) Relevance { return Relevance{Positions: []uint64{1}} }, nil, 1<<20)
	require.NoError(t, elements.Load(s, 0))
	b := s.NewBatch()
	put := func(e *graph.Element) *Element {
		now, err := elements.Prune(b, e, nil, false)
		require.NoError(t, err)
		require.NoError(t, elements.Put(b, nil, now))
		return now
	}
	from := put(&graph.Element{ID: "a", Labels: []string{"A"}})
	put(&graph.Element{ID: "b", Labels: []string{"A"}})
	between := put(&graph.Element{ID: "r", Labels: []string{"R"}, Start: "a", End: "b"})
	list, err := elements.Neighbours(b, from, Outgoing)
	require.NoError(t, err)
	require.Len(t, list, 1)

	require.NoError(t, elements.Put(b, from, nil))
	_, cached := elements.adjacent.Get(side{"a", Outgoing})
	require.False(t, cached)

	list, err = elements.Neighbours(b, put(&graph.Element{ID: "a", Labels: []string{"A"}}), Outgoing)
	require.NoError(t, err)
	require.Len(t, list, 1, "its relationship is still there")
	require.NoError(t, elements.Put(b, between, nil))
	list, err = elements.Neighbours(b, from, Outgoing)
	require.NoError(t, err)
	require.Empty(t, list)
}
