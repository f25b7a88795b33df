package e2e

import (
	"bytes"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/stretchr/testify/require"
)

// TestFrozenWorkerIsReplacedAndHarmless: while one worker is frozen another takes over all that it ran, and what it has in
// flight when it thaws, believing to own it, changes nothing. The other one has the query's state from a checkpoint, so that
// the differences go on where they were.
func TestFrozenWorkerIsReplacedAndHarmless(t *testing.T) {
	s := newSystem(t, apart(t), externalWorkers)
	frozen := s.startWorker("frozen")
	execSQL(t, s.connect(), schema)
	s.startComponent("Source", "source.default.shop", sourceInput(s))
	query := queryInput()
	query["spec"].(object)["checkpoint"] = object{"seconds": 1}
	s.startComponent("Query", "query.default.open-orders", query)
	s.awaitPhase("query.default.open-orders", "Running", 120*time.Second)
	f := s.follow("open-orders")
	writers := s.openShop(7, 2)
	s.requireProgress(f, 30*time.Second, "before")
	s.awaitCheckpoint("default.open-orders")
	s.startWorker("other")
	require.NoError(t, frozen.cmd.Process.Signal(syscall.SIGSTOP))
	// Its heartbeats are overdue after 30 s, and it may have been the one who should take its own work again.
	s.requireProgress(f, 3*time.Minute, "by the other worker")
	require.NoError(t, frozen.cmd.Process.Signal(syscall.SIGCONT))
	s.requireProgress(f, 60*time.Second, "after it thawed")
	writers.close()
	s.requireEqualsSQL(f, 60*time.Second)
	frozen.terminate(t, 60*time.Second)
}

// awaitCheckpoint waits until the stream server has a checkpoint of a query's state on record.
func (s *system) awaitCheckpoint(query string) {
	s.t.Helper()
	nc, err := nats.Connect(fmt.Sprintf("nats://127.0.0.1:%d", s.nats))
	require.NoError(s.t, err)
	defer nc.Close()
	js, err := jetstream.New(nc)
	require.NoError(s.t, err)
	eventually(s.t, 60*time.Second, "checkpoint of "+query, func() error {
		bucket, err := js.KeyValue(s.context(10*time.Second), "checkpoints")
		if err != nil {
			return err
		}
		entry, err := bucket.Get(s.context(10*time.Second), query)
		if err == nil && !bytes.Contains(entry.Value(), []byte(`"fingerprint"`)) {
			err = fmt.Errorf("the record is %s", entry.Value())
		}
		return err
	})
}
