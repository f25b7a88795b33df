package demo

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRowsAreComparedAsNumbersAndMultisets(t *testing.T) {
	a, err := canonical([]string{`{"a":1.50,"b":"x"}`, `{"b":"x","a":1.5}`, `{"a":12345678901234567.10,"b":null}`})
	require.NoError(t, err)
	b, err := canonical([]string{`{"a":1.5,"b":"x"}`, `{"a":12345678901234567.2,"b":null}`})
	require.NoError(t, err)
	require.Equal(t, []string{`{"a":1.5,"b":"x"}`, `{"a":12345678901234567.1,"b":null}`}, without(a, b))
	require.Equal(t, []string{`{"a":12345678901234567.2,"b":null}`}, without(b, a))
	require.Empty(t, without(a, a))
}

func TestRowsAreShownInTheQuerysOrder(t *testing.T) {
	var before, after row
	require.NoError(t, json.Unmarshal([]byte(`{"z":"Ann","a":1,"m":2.50}`), &before))
	require.NoError(t, json.Unmarshal([]byte(`{"z":"Ann","a":2,"m":2.50}`), &after))
	require.Equal(t, "z Ann  a 1  m 2.50", before.String())
	require.Equal(t, "z Ann  a 1 → 2  m 2.50", before.to(after, newPaint(false)))
	require.Equal(t, "z Ann  a \x1b[2m1 →\x1b[0m \x1b[33m2\x1b[0m  m 2.50", before.to(after, newPaint(true)))
}
