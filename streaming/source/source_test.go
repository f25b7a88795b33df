package source_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/source"
)

func reads(properties ...string) source.Reads { return source.Reads{Properties: properties} }

func TestWanted(t *testing.T) {
	var everything source.Wanted
	require.True(t, everything.Any("A"))
	require.Nil(t, everything.Properties("A"))

	w := source.Wanted{"A": reads("y", "x"), "B": reads(), "C": reads("*")}
	require.True(t, w.Any("D", "B"), "elements may be wanted without properties")
	require.False(t, w.Any("D"))
	require.Equal(t, []string{"x", "y"}, w.Properties("A", "B"))
	require.Equal(t, []string{}, w.Properties("B"), "none, which is not all")
	require.Nil(t, w.Properties("A", "C"))

	require.True(t, everything.Covers(w))
	require.True(t, everything.Covers(nil))
	require.False(t, w.Covers(nil))
	require.True(t, w.Covers(source.Wanted{"A": reads("x"), "B": reads(), "C": reads("p")}))
	require.False(t, w.Covers(source.Wanted{"B": reads("x")}))
	require.False(t, w.Covers(source.Wanted{"A": reads("*")}))
	require.False(t, w.Covers(source.Wanted{"D": reads()}))
	require.False(t, w.Covers(source.Wanted{"": reads()}), "elements of all labels")
	require.Equal(t, source.Wanted{}, source.Union())
	require.Equal(t, source.Wanted{"A": reads("x", "y", "z"), "B": reads(), "C": reads("*")}, source.Union(w, source.Wanted{"A": reads("z", "x")}))
	require.Nil(t, source.Union(w, nil))

	w[""] = reads("z")
	require.True(t, w.Covers(source.Wanted{"D": reads("z")}))
	require.True(t, w.Any("D"))
	require.Equal(t, []string{"z"}, w.Properties("D"))
}

func TestWantedElements(t *testing.T) {
	of := func(only source.Only) source.Wanted {
		return source.Wanted{"A": {Properties: []string{"x"}, Only: only}}
	}
	seven, either, all := of(source.Only{"k": {"7"}}), of(source.Only{"k": {"7", "8"}}), of(nil)
	both := of(source.Only{"j": {"1"}, "k": {"7"}})
	require.True(t, either.Covers(seven))
	require.False(t, seven.Covers(either))
	require.True(t, all.Covers(seven))
	require.False(t, seven.Covers(all))
	require.False(t, seven.Covers(nil))
	require.True(t, seven.Covers(both))
	require.False(t, both.Covers(seven))
	require.Equal(t, either, source.Union(of(source.Only{"k": {"8"}}), seven))
	require.Equal(t, all, source.Union(seven, all))
	require.Equal(t, all, source.Union(seven, of(source.Only{"j": {"7"}})))
	require.Equal(t, seven, source.Union(seven, both))
	require.Equal(t, seven["A"], source.Union(seven, source.Wanted{"B": reads("y")})["A"])
	require.Equal(t, source.Only{"k": {"7"}}, seven.Only("A"))
	require.Nil(t, source.Union(seven, source.Wanted{"": reads("x")}).Only("A"), "elements of all labels")

	for _, w := range []source.Wanted{nil, {}, all, both, {"A": reads()}} {
		data, err := json.Marshal(w)
		require.NoError(t, err)
		var again source.Wanted
		require.NoError(t, json.Unmarshal(data, &again), "%s", data)
		require.Equal(t, w, again, "%s", data)
	}
	data, err := json.Marshal(all)
	require.NoError(t, err)
	require.Equal(t, `{"A":["x"]}`, string(data), "as earlier versions read it")
}
