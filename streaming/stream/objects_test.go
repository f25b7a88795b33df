package stream_test

import (
	"crypto/rand"
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func TestObjects(t *testing.T) {
	conn := streamtest.Start(t)
	ctx := t.Context()
	o, err := conn.Objects(ctx, "things", "for a test")
	require.NoError(t, err)
	_, err = o.Get(ctx, "a/b")
	require.ErrorIs(t, err, stream.ErrMissing)
	names, err := o.Names(ctx)
	require.NoError(t, err)
	require.Empty(t, names)

	large := make([]byte, stream.MaxObject)
	_, err = rand.Read(large)
	require.NoError(t, err)
	require.NoError(t, o.Put(ctx, "a/b", large))
	require.NoError(t, o.Put(ctx, "empty", nil))
	require.NoError(t, o.Put(ctx, "twice", []byte("first")))
	require.NoError(t, o.Put(ctx, "twice", []byte("second")))
	require.Equal(t, failure.Panic, failure.CodeOf(o.Put(ctx, "larger", append(large, 0))))

	o, err = conn.Objects(ctx, "things", "for a test")
	require.NoError(t, err)
	for name, want := range map[string][]byte{"a/b": large, "empty": nil, "twice": []byte("second")} {
		data, err := o.Get(ctx, name)
		require.NoError(t, err)
		require.Equal(t, string(want), string(data), name)
	}
	names, err = o.Names(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"a/b", "empty", "twice"}, names)

	for range 2 {
		require.NoError(t, conn.DeleteObjects(ctx, "things"))
	}
	_, err = conn.OpenLog(ctx, "OBJ_things")
	require.ErrorIs(t, err, stream.ErrMissing)
}

// TestDeletedObjectsTakeNoRoom looks at the messages that are left of objects.
func TestDeletedObjectsTakeNoRoom(t *testing.T) {
	conn := streamtest.Start(t)
	ctx := t.Context()
	o, err := conn.Objects(ctx, "things", "")
	require.NoError(t, err)
	require.NoError(t, o.Delete(ctx, "never there"))
	for i := range 5 {
		name := fmt.Sprint("thing/", i)
		require.NoError(t, o.Put(ctx, name, make([]byte, 1<<20)))
		require.NoError(t, o.Delete(ctx, name))
		require.NoError(t, o.Delete(ctx, name))
		_, err := o.Get(ctx, name)
		require.ErrorIs(t, err, stream.ErrMissing)
	}
	log, err := conn.OpenLog(ctx, "OBJ_things")
	require.NoError(t, err)
	state, err := log.State(ctx)
	require.NoError(t, err)
	require.Zero(t, state.Messages)
}

// TestDamagedObjects puts another part in the place of that of an object.
func TestDamagedObjects(t *testing.T) {
	conn := streamtest.Start(t)
	ctx := t.Context()
	o, err := conn.Objects(ctx, "things", "")
	require.NoError(t, err)
	require.NoError(t, o.Put(ctx, "thing", []byte("as it was")))
	js, err := jetstream.New(conn.NATS())
	require.NoError(t, err)
	store, err := js.ObjectStore(ctx, "things")
	require.NoError(t, err)
	info, err := store.GetInfo(ctx, "thing")
	require.NoError(t, err)
	s, err := js.Stream(ctx, "OBJ_things")
	require.NoError(t, err)
	subject := "$O.things.C." + info.NUID
	require.NoError(t, s.Purge(ctx, jetstream.WithPurgeSubject(subject)))
	began := time.Now()
	_, err = o.Get(ctx, "thing")
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(err), "%v", err)
	require.Less(t, time.Since(began), 20*time.Second, "nothing is waited for")
	_, err = js.Publish(ctx, subject, []byte("otherwise"))
	require.NoError(t, err)
	_, err = o.Get(ctx, "thing")
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(err), "%v", err)
}

// TestInterruptedPutsTakeNoRoom: what they left is removed, and no more than that.
func TestInterruptedPutsTakeNoRoom(t *testing.T) {
	conn := streamtest.Start(t)
	ctx := t.Context()
	o, err := conn.Objects(ctx, "things", "")
	require.NoError(t, err)
	require.NoError(t, o.Clean(ctx))
	js, err := jetstream.New(conn.NATS())
	require.NoError(t, err)
	interrupted := func() {
		for range 3 {
			_, err = js.Publish(ctx, "$O.things.C.interrupted", make([]byte, 1<<10))
			require.NoError(t, err)
		}
	}
	messages := func() uint64 {
		log, err := conn.OpenLog(ctx, "OBJ_things")
		require.NoError(t, err)
		state, err := log.State(ctx)
		require.NoError(t, err)
		return state.Messages
	}
	interrupted()
	require.NoError(t, o.Clean(ctx))
	require.Zero(t, messages())
	require.NoError(t, o.Put(ctx, "thing", []byte("whole")))
	require.NoError(t, o.Put(ctx, "empty", nil))
	before := messages()
	interrupted()
	require.NoError(t, o.Clean(ctx))
	require.Equal(t, before, messages())
	data, err := o.Get(ctx, "thing")
	require.NoError(t, err)
	require.Equal(t, "whole", string(data))
}
