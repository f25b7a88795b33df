package catalog

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestKindsAreUnique(t *testing.T) {
	seen := make(map[string]bool)
	for _, f := range Sources() {
		require.False(t, seen["source "+f.Kind()], f.Kind())
		seen["source "+f.Kind()] = true
	}
	for _, f := range Reactions() {
		require.False(t, seen["reaction "+f.Kind()], f.Kind())
		seen["reaction "+f.Kind()] = true
	}
	require.Contains(t, seen, "source postgres")
	require.Contains(t, seen, "reaction http")
	require.Contains(t, seen, "reaction log")
	require.Contains(t, seen, "reaction sse")
}
