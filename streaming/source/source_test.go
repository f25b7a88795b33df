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

	require.True(t, everything.Covers(w))
	require.True(t, everything.Covers(nil))
	require.False(t, w.Covers(nil))
	require.True(t, w.Covers(source.Wanted{"A": {"x"}, "B": {}, "C": {"p"}}))
	require.False(t, w.Covers(source.Wanted{"B": {"x"}}))
	require.False(t, w.Covers(source.Wanted{"A": {"*"}}))
	require.False(t, w.Covers(source.Wanted{"D": {}}))
	require.False(t, w.Covers(source.Wanted{"": {}}), "elements of all labels")
	require.Equal(t, source.Wanted{}, source.Union())
	require.Equal(t, source.Wanted{"A": {"x", "y", "z"}, "B": nil, "C": {"*"}}, source.Union(w, source.Wanted{"A": {"z", "x"}}))
	require.Nil(t, source.Union(w, nil))

	w[""] = []string{"z"}
	require.True(t, w.Covers(source.Wanted{"D": {"z"}}))
	require.True(t, w.Any("D"))
	require.Equal(t, []string{"z"}, w.Properties("D"))
}
