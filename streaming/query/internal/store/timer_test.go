package store

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/result"
)

func TestTimers(t *testing.T) {
	s, err := memory.New().Open("timers")
	require.NoError(t, err)
	defer s.Close()
	b := s.NewBatch()
	defer b.Discard()
	at := time.Date(2024, 2, 29, 12, 0, 0, 5, time.UTC)
	timers := []Timer{
		{At: time.Date(1969, 7, 20, 20, 17, 0, 0, time.UTC), Node: 9},
		{At: at, Node: 2, Row: result.RowKey{1}},
		{At: at, Node: 2, Row: result.RowKey{2}},
		{At: at, Node: 300},
		{At: at.Add(time.Nanosecond), Node: 1},
	}
	for i := range timers {
		require.NoError(t, SetTimer(b, timers[len(timers)-1-i]))
	}
	for _, want := range timers {
		_, ok, err := FirstTimer(b, want.At.Add(-time.Nanosecond))
		require.NoError(t, err)
		require.False(t, ok, "it is not due yet")
		got, ok, err := FirstTimer(b, want.At)
		require.NoError(t, err)
		require.True(t, ok)
		require.Equal(t, want, got)
		require.NoError(t, DeleteTimer(b, got))
	}
	_, ok, err := FirstTimer(b, at.Add(time.Hour))
	require.NoError(t, err)
	require.False(t, ok)
}
