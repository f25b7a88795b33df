package workers

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/mock"
	"github.com/stretchr/testify/require"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/mocks"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/stream/streamtest"
)

// TestOneOrphanDoesNotKeepTheOthers releases the attempts of a process, of which some cannot be released.
func TestOneOrphanDoesNotKeepTheOthers(t *testing.T) {
	o, err := openOrphans(t.Context(), streamtest.Start(t), "h1", zap.NewNop())
	require.NoError(t, err)
	put := func(key string, value []byte) {
		_, err := o.bucket.Put(t.Context(), key, value)
		require.NoError(t, err)
	}
	note := func(token string) []byte {
		value, err := json.Marshal(attemptNote{Token: []byte(token)})
		require.NoError(t, err)
		return value
	}
	put("h1.a.run.1", []byte("{"))
	put("h1.b.run.1", note("another server's"))
	put("h1.c.run.1", note("not answered"))
	put("h1.d.run.1", note("known"))
	put("h2.e.run.1", note("another host's"))

	c := &mocks.Client{}
	answer := func(token string, err error) {
		c.On("CompleteActivity", mock.Anything, []byte(token), nil, mock.Anything).Return(err).Once()
	}
	answer("another server's", serviceerror.NewNamespaceNotFound("gone"))
	answer("not answered", serviceerror.NewUnavailable("later"))
	answer("known", nil)
	require.ErrorContains(t, o.release(t.Context(), c), "attempt h1.c.run.1")
	c.AssertExpectations(t)
	keys, err := o.bucket.Keys(t.Context(), "")
	require.NoError(t, err)
	require.ElementsMatch(t, []string{"h1.c.run.1", "h2.e.run.1"}, keys)
}
