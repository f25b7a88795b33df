package source_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source"
)

func TestWanted(t *testing.T) {
	var everything source.Wanted
	require.True(t, everything.Any("A"))
	require.Nil(t, everything.Properties("A"))

	w := source.Wanted{"A": {"y", "x"}, "B": {}, "C": {"*"}}
	require.True(t, w.Any("D", "B"), "elements may be wanted without properties")
	require.False(t, w.Any("D"))
	require.Equal(t, []string{"x", "y"}, w.Properties("A", "B"))
	require.Equal(t, []string{}, w.Properties("B"), "none, which is not all")
	require.Nil(t, w.Properties("A", "C"))

	w[""] = []string{"z"}
	require.True(t, w.Any("D"))
	require.Equal(t, []string{"z"}, w.Properties("D"))
}
