package orders

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// The instance is the other files in one.
func TestInstanceDeclaresTheSameComponents(t *testing.T) {
	spec := func(name string) json.RawMessage {
		text, err := Files.ReadFile(name)
		require.NoError(t, err)
		var in struct{ Spec json.RawMessage }
		require.NoError(t, json.Unmarshal(text, &in))
		return in.Spec
	}
	var whole map[string][]json.RawMessage
	require.NoError(t, json.Unmarshal(spec("instance.json"), &whole))
	for kind, files := range map[string][]string{
		"sources":   {"source.json"},
		"queries":   {"query.json", "query-urgent.json", "query-lines.json"},
		"reactions": {"reaction.json"},
	} {
		require.Len(t, whole[kind], len(files))
		for n, file := range files {
			require.JSONEq(t, string(spec(file)), string(whole[kind][n]), file)
		}
		delete(whole, kind)
	}
	require.Empty(t, whole)
}
