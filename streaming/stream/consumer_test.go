package stream_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func TestConsumerDeliversAgainWhatWasNotAcknowledged(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	w := writer(t, conn, log, 1)
	appendAll(t, w, names(1, 5)...)
	options := stream.ConsumerOptions{Name: "reaction-a", From: 4, AckWait: 200 * time.Millisecond}
	c, err := log.EnsureConsumer(t.Context(), options)
	require.NoError(t, err)

	next := func(id string, attempts uint64) *stream.Delivery {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		d, err := c.Next(ctx)
		require.NoError(t, err)
		require.Equal(t, id, d.ID)
		if attempts > 0 {
			require.Equal(t, attempts, d.Attempts)
		}
		require.Equal(t, "data of "+id, string(d.Data))
		return d
	}
	d := next("m3", 1) // sequence 4: the marker is the first
	require.Equal(t, uint64(4), d.Sequence)
	require.NoError(t, d.Working())
	require.NoError(t, d.Ack(t.Context()))
	d = next("m4", 1)
	require.NoError(t, d.Nak(time.Millisecond))
	m5 := next("m5", 1)
	require.NoError(t, m5.Ack(t.Context()))
	require.NoError(t, next("m4", 2).Nak(0))
	next("m4", 3) // not acknowledged: it comes again by itself
	require.NoError(t, next("m4", 4).Ack(t.Context()))

	// Another process goes on where this one stopped; From is not looked at. What the server sent to the one before just
	// when that closed comes a second time.
	c.Close()
	appendAll(t, w, "m6")
	options.From = 1
	c, err = log.EnsureConsumer(t.Context(), options)
	require.NoError(t, err)
	require.NoError(t, next("m6", 0).Ack(t.Context()))
	c.Close()

	require.NoError(t, log.DeleteConsumer(t.Context(), "reaction-a"))
	require.NoError(t, log.DeleteConsumer(t.Context(), "reaction-a"))
	c, err = log.EnsureConsumer(t.Context(), stream.ConsumerOptions{Name: "reaction-a"})
	require.NoError(t, err)
	require.NoError(t, next("m1", 1).Ack(t.Context()))
	c.Close()
}

func TestConsumerWaitsNoLongerThanItsContext(t *testing.T) {
	conn := streamtest.Start(t)
	log := openLog(t, conn, "L")
	c, err := log.EnsureConsumer(t.Context(), stream.ConsumerOptions{Name: "c"})
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err = c.Next(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	appendAll(t, writer(t, conn, log, 1), "m1")
	d, err := c.Next(t.Context())
	require.NoError(t, err)
	require.Equal(t, "m1", d.ID)

	require.NoError(t, log.DeleteConsumer(t.Context(), "c"))
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err = c.Next(ctx)
	require.ErrorIs(t, err, stream.ErrMissing)
}
