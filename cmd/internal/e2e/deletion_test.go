package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// requireNothingLeft looks for what components have outside of workflows.
func (s *system) requireNothingLeft() {
	s.t.Helper()
	requireSlots(s.t.(*testing.T), s, 0)
	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", s.nats))
	require.NoError(s.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(s.t, err)
	streams := js.StreamNames(s.context(20 * time.Second))
	for name := range streams.Name() {
		require.True(s.t, strings.HasPrefix(name, "KV_"), "%s is there", name)
	}
	require.NoError(s.t, streams.Err())
	for _, bucket := range []string{"made", "specs", "positions", "subscriptions", "queries", "deliveries", "fences"} {
		kv, err := js.KeyValue(s.context(10*time.Second), bucket)
		if errors.Is(err, jetstream.ErrBucketNotFound) {
			continue // there was no use for it
		}
		require.NoError(s.t, err)
		keys, err := kv.ListKeys(s.context(10 * time.Second))
		require.NoError(s.t, err)
		for key := range keys.Keys() {
			require.Fail(s.t, "something is left", "bucket %s has %s", bucket, key)
		}
	}
	states, err := filepath.Glob(filepath.Join(s.dir, "dev", "index", "default", "*", "*"))
	require.NoError(s.t, err)
	require.Empty(s.t, states)
}

// TestDeletingWhatWasTerminated: an instance removes what components have left whose workflows somebody ended, though
// their loops go on until they hear of it.
func TestDeletingWhatWasTerminated(t *testing.T) {
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	s.startComponent("Instance", instanceID, object{"spec": ordersInstance(s, "print")})
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	s.requireEqualsSQL(nil, 30*time.Second)
	for _, id := range []string{"source.default.shop", "query.default.open-orders", "reaction.default.print"} {
		_, err := s.tctl("workflow", "terminate", "-w", id, "--reason", "test")
		require.NoError(t, err)
	}
	require.Equal(t, []string{"query.default.open-orders", "reaction.default.print", "source.default.shop"}, s.leftOver())
	s.signal(instanceID, "delete")
	s.requireClosed(instanceID)
	s.requireNothingLeft()
	require.Equal(t, []string{""}, s.leftOver())
}

// leftOver returns the components that the command line finds something of that have no workflow.
func (s *system) leftOver() (components []string) {
	s.t.Helper()
	out, err := run(s.t, nil, "perdure", "doctor", "streams", "--json", "--temporal-address", fmt.Sprintf("127.0.0.1:%d", s.temporal),
		"--nats-url", fmt.Sprintf("nats://127.0.0.1:%d", s.nats))
	require.NoError(s.t, err)
	var checks []struct{ Component string }
	require.NoError(s.t, json.Unmarshal([]byte(out), &checks), out)
	for _, c := range checks {
		components = append(components, c.Component)
	}
	return components
}

// TestDeletionThatKeeps: a source that is started again goes on with the slot that it was told to keep, and misses nothing.
func TestDeletionThatKeeps(t *testing.T) {
	s := newSystem(t, apart(t))
	execSQL(t, s.connect(), schema)
	spec := object{"spec": ordersInstance(s, "print")}
	s.startComponent("Instance", instanceID, spec)
	s.awaitInstance("running", 2*time.Minute, inPhase("Running"))
	s.requireEqualsSQL(nil, 30*time.Second)
	s.signal(instanceID, "delete", `{"dropResources":false}`)
	s.requireClosed(instanceID)
	requireSlots(t, s, 1)
	slot := func() (made string) {
		require.NoError(t, s.connect().QueryRow(s.context(10*time.Second), "SELECT obj_description(oid, 'pg_publication') FROM pg_publication").Scan(&made))
		return made
	}
	before := slot()
	execSQL(t, s.connect(), `UPDATE orders SET total = total + 1`)

	s.startComponent("Instance", instanceID, spec)
	s.awaitInstance("running again", 2*time.Minute, inPhase("Running"))
	s.requireEqualsSQL(nil, 30*time.Second)
	require.Equal(t, before, slot(), "the slot is the one that was kept")
	s.signal(instanceID, "delete")
	s.requireClosed(instanceID)
	s.requireNothingLeft()
}
