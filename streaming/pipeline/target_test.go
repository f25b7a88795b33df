package pipeline

import (
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
)

// TestBackoff: it doubles up to its bound, which it keeps however long the target is down and whatever the first pause is.
func TestBackoff(t *testing.T) {
	for _, first := range []int{1, 100, 8589, 8590, 10000, 15000, 30000, math.MaxInt32} {
		retry := component.Retry{FirstMillis: first, MaxMillis: max(30000, first)}
		due, longest := float64(first), float64(retry.MaxMillis)
		for failures := 1; failures <= 200; failures++ {
			pause := float64(backoffAfter(retry, failures)) / float64(time.Millisecond)
			require.InDelta(t, due, pause, due/5+1, "after %d failures, beginning with %d ms", failures, first)
			due = min(longest, 2*due)
		}
	}
}
