package pipeline

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestSignsOfLifeHaveNoTimeOfDay: they are told by the clock that only goes forward, so that one who sets the other neither
// makes a loop look hung nor hides one that is.
func TestSignsOfLifeHaveNoTimeOfDay(t *testing.T) {
	var p Progress
	require.Zero(t, p.LastTick())
	before := time.Now()
	p.Tick()
	last := p.LastTick()
	require.WithinRange(t, last, before, time.Now())
	require.NotEqual(t, last.Round(0), last, "its reading of that clock is in it") // Round takes it away
}
