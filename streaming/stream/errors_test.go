package stream

import (
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

// TestOldServer: what the client says of a server before 2.11 does not go away by itself.
func TestOldServer(t *testing.T) {
	err := classify(t.Context(), jetstream.ErrLimitMarkerTTLNotSupported, "opening bucket %s", "b")
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	require.Contains(t, failure.Of(err).Fix(), "2.11")
}
