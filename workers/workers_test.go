package workers

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/streaming/failure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestHostIDsThatCannotNameAQueueAreRefused(t *testing.T) {
	for _, id := range []string{"", "a.b", "-a", "a b"} {
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(Run(t.Context(), Options{HostID: id})), id)
	}
}
