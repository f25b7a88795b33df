package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// TestLogsThatYield: what is read once and trimmed gives way to what has to be written meanwhile.
func TestLogsThatYield(t *testing.T) {
	for _, log := range []string{changeLog("i", "s"), bootstrapLog("i", "q", "s"), stagedLog("i", "s")} {
		require.True(t, yields(log), log)
	}
	for _, log := range []string{resultLog("i", "q"), deadLetterLog("i", "r"), rejectedLog("i", "s")} {
		require.False(t, yields(log), log)
	}
}
