package stream_test

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func openBucket(t *testing.T, conn *stream.Conn) *stream.Bucket {
	t.Helper()
	b, err := conn.Bucket(t.Context(), stream.BucketOptions{Name: "bucket"})
	require.NoError(t, err)
	return b
}

func TestBucketComparesAndSwaps(t *testing.T) {
	conn := streamtest.Start(t)
	b := openBucket(t, conn)
	ctx := t.Context()
	_, err := b.Get(ctx, "k")
	require.ErrorIs(t, err, stream.ErrMissing)
	revision, err := b.Create(ctx, "k", []byte("1"))
	require.NoError(t, err)
	_, err = b.Create(ctx, "k", []byte("2"))
	require.ErrorIs(t, err, stream.ErrConflict)
	newer, err := b.Update(ctx, "k", []byte("2"), revision)
	require.NoError(t, err)
	_, err = b.Update(ctx, "k", []byte("3"), revision)
	require.ErrorIs(t, err, stream.ErrConflict)
	e, err := openBucket(t, conn).Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, stream.Entry{Key: "k", Value: []byte("2"), Revision: newer}, e)

	require.NoError(t, b.Delete(ctx, "k"))
	require.NoError(t, b.Delete(ctx, "k"))
	_, err = b.Get(ctx, "k")
	require.ErrorIs(t, err, stream.ErrMissing)
	_, err = b.Create(ctx, "k", []byte("4"))
	require.NoError(t, err)
}

// A bucket of an earlier version learns to forget, too.
func TestBucketForgetsThatKeysWereDeleted(t *testing.T) {
	conn := streamtest.Start(t)
	js, err := jetstream.New(conn.NATS())
	require.NoError(t, err)
	_, err = js.CreateKeyValue(t.Context(), jetstream.KeyValueConfig{Bucket: "bucket", History: 1})
	require.NoError(t, err)
	b := openBucket(t, conn)
	_, err = b.Put(t.Context(), "k", []byte("1"))
	require.NoError(t, err)
	require.NoError(t, b.Delete(t.Context(), "k"))
	log, err := js.Stream(t.Context(), "KV_bucket")
	require.NoError(t, err)
	marker, err := log.GetLastMsgForSubject(t.Context(), "$KV.bucket.k")
	require.NoError(t, err)
	require.Equal(t, "1m0s", marker.Header.Get(jetstream.MsgTTLHeader))
	info, err := log.Info(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, info.State.Msgs)
}

func TestOneOfManyCreatesWins(t *testing.T) {
	b := openBucket(t, streamtest.Start(t))
	var won atomic.Int32
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if _, err := b.Create(t.Context(), "lease", fmt.Append(nil, i)); err == nil {
				won.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), won.Load())
}

func TestBucketListsKeysByPrefix(t *testing.T) {
	b := openBucket(t, streamtest.Start(t))
	keys, err := b.Keys(t.Context(), "")
	require.NoError(t, err)
	require.Empty(t, keys)
	for _, k := range []string{"b.2", "a.1", "a.10", "a.2", "ab"} {
		_, err = b.Put(t.Context(), k, nil)
		require.NoError(t, err)
	}
	require.NoError(t, b.Delete(t.Context(), "a.2"))
	for prefix, want := range map[string][]string{
		"": {"a.1", "a.10", "ab", "b.2"}, "a": {"a.1", "a.10", "ab"}, "a.": {"a.1", "a.10"}, "a.1": {"a.1", "a.10"}, "c": nil,
	} {
		keys, err = b.Keys(t.Context(), prefix)
		require.NoError(t, err)
		require.Equal(t, want, keys, prefix)
	}
}

func TestWatchShowsCurrentValuesThenChanges(t *testing.T) {
	b := openBucket(t, streamtest.Start(t))
	for _, k := range []string{"a.1", "a.2", "b.1"} {
		_, err := b.Put(t.Context(), k, []byte("old"))
		require.NoError(t, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	entries, err := b.Watch(ctx, "a.*")
	require.NoError(t, err)
	next := func() string { e := <-entries; return fmt.Sprintf("%s=%q %t", e.Key, e.Value, e.Value == nil) }
	require.Equal(t, `a.1="old" false`, next())
	require.Equal(t, `a.2="old" false`, next())
	_, err = b.Put(t.Context(), "a.2", nil)
	require.NoError(t, err)
	require.Equal(t, `a.2="" false`, next())
	require.NoError(t, b.Delete(t.Context(), "a.1"))
	require.Equal(t, `a.1="" true`, next())
	cancel()
	for range entries {
		t.Fatal("an entry after the end")
	}
}
