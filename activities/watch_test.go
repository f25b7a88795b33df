package activities

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestLoopsWatchTogether: however many wait to be asked, the stream server has one consumer for them, and none in the end.
func TestLoopsWatchTogether(t *testing.T) {
	b := newBench(t)
	js, err := jetstream.New(b.store.conn.NATS())
	require.NoError(t, err)
	consumers := func() int {
		s, err := js.Stream(t.Context(), "KV_"+controlBucket)
		require.NoError(t, err)
		return s.CachedInfo().State.Consumers
	}
	key := func(i int) string { return fmt.Sprintf("source.default.many-%d", i) }
	require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{key(0), 2})) // before anybody waits
	ctx, end := context.WithCancel(t.Context())
	asked := make([]<-chan struct{}, 100)
	for i := range asked {
		asked[i], err = b.Sources.runner.control.drain(ctx, key(i), 2)
		require.NoError(t, err)
	}
	require.Equal(t, 1, consumers())
	<-asked[0]
	require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{key(1), 1})) // an earlier run
	require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{key(2), 2}))
	select {
	case <-asked[2]:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not told")
	}
	for i := range asked {
		if i != 0 && i != 2 {
			select {
			case <-asked[i]:
				t.Fatalf("%s was told", key(i))
			default:
			}
		}
	}
	end()
	require.Eventually(t, func() bool { return consumers() == 0 }, 10*time.Second, 10*time.Millisecond)

	again, err := b.Sources.runner.control.drain(t.Context(), key(3), 1)
	require.NoError(t, err)
	require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{key(3), 1}))
	<-again
}
