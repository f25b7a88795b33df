package sourcetest

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// StopBound is how long a source may take to stop.
const StopBound = 10 * time.Second

// Fixture connects the suite with the system behind a source.
type Fixture struct {
	Config   json.RawMessage
	Settings source.Settings // Log is filled in
	// Write makes one committed transaction, different for each n, which counts up from 1. It is called from one
	// goroutine at a time, which need not be that of the test.
	Write func(n int) error
	// Content returns the ids of all elements that the system holds now.
	Content func() ([]graph.ElementID, error)
	// Confirmed returns the position up to which the system believes that everything has been taken.
	Confirmed func() (graph.Position, error)
	// Clean reports whether nothing is left that serves the source: with running, that no connection of it is open,
	// otherwise that nothing it provisioned is there either.
	Clean func(provisioned bool) (bool, error)
	// Interrupt breaks the connections of a running source, once; nil skips the test.
	Interrupt func() error
	// Refused are configs that Provision refuses for good, with the failure's code.
	Refused map[string]Refusal
}

// Refusal is a config that cannot work.
type Refusal struct {
	Config json.RawMessage
	Code   *failure.Code
}

type suite struct {
	factory source.Factory
	Fixture
	writes int
}

// Run runs the suite. The fixture starts with nothing provisioned; the parts share it and run one after the other.
func Run(t *testing.T, factory source.Factory, fixture Fixture) {
	s := &suite{factory: factory, Fixture: fixture}
	for name, refusal := range fixture.Refused {
		t.Run("refused "+name, func(t *testing.T) { s.refused(t, refusal) })
	}
	t.Run("bad config", s.badConfig)
	t.Run("resume", s.resume)
	t.Run("durable gates confirmation", s.durableGates)
	t.Run("snapshot meets changes", s.snapshotMeetsChanges)
	t.Run("interrupted", s.interrupted)
	t.Run("back-pressure", s.backPressure)
	t.Run("teardown", s.teardown)
}

func (s *suite) make(t *testing.T, config json.RawMessage) source.Source {
	t.Helper()
	settings := s.Settings
	settings.Log = zaptest.NewLogger(t)
	made, err := s.factory.New(config, settings)
	require.NoError(t, err)
	return made
}

func (s *suite) provisioned(t *testing.T) source.Source {
	t.Helper()
	made := s.make(t, s.Config)
	require.NoError(t, made.Provision(t.Context()))
	require.NoError(t, made.Provision(t.Context()), "provisioning is idempotent")
	return made
}

// start runs a source; stop ends it and checks that it does so in time and in order.
func (s *suite) start(t *testing.T, made source.Source, from graph.Position, sink source.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- made.Run(ctx, from, sink) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		begin := time.Now()
		err := <-done
		if err != nil {
			require.ErrorIs(t, err, context.Canceled)
		}
		require.Less(t, time.Since(begin), StopBound)
		Eventually(t, "no connection is left open", func() bool { // the system learns of the end a moment later
			clean, err := s.Clean(true)
			return err == nil && clean
		})
	}
	t.Cleanup(stop)
	return stop
}

func (s *suite) write(t *testing.T, n int) {
	t.Helper()
	for range n {
		s.writes++
		require.NoError(t, s.Write(s.writes))
	}
}

// same waits until the sink's graph has exactly the elements of the system.
func (s *suite) same(t *testing.T, sink *Sink) {
	t.Helper()
	want, err := s.Content()
	require.NoError(t, err)
	Eventually(t, "the same elements", func() bool {
		have := sink.Graph()
		for _, id := range want {
			if _, ok := have[id]; !ok {
				return false
			}
		}
		return len(have) == len(want)
	})
	last := graph.Position("")
	for _, tx := range sink.Transactions() {
		require.Positive(t, tx.Position.Compare(last), "positions ascend")
		require.NotEmpty(t, tx.Changes)
		require.False(t, tx.CommitTime.IsZero())
		last = tx.Position
	}
}

// current returns a sink that holds what the system holds, so that changes from now on can be compared.
func (s *suite) current(t *testing.T, from graph.Position) *Sink {
	t.Helper()
	ids, err := s.Content()
	require.NoError(t, err)
	var elements []graph.Element
	for _, id := range ids {
		elements = append(elements, graph.Element{ID: id})
	}
	return NewSink(from, elements...)
}

func (s *suite) badConfig(t *testing.T) {
	_, err := s.factory.New(json.RawMessage(`{"noSuchField": 1}`), s.Settings)
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	require.ErrorContains(t, err, "noSuchField")
}

func (s *suite) refused(t *testing.T, r Refusal) {
	made := s.make(t, r.Config)
	err := made.Provision(t.Context())
	require.Error(t, err)
	require.Equal(t, r.Code.ID, failure.CodeOf(err).ID, "%v", err)
	require.False(t, failure.ClassOf(err).Retryable())
	clean, err := s.Clean(false)
	require.NoError(t, err)
	require.True(t, clean, "a refused source left something behind")
}

// resume stops and starts a source several times while changes go on.
func (s *suite) resume(t *testing.T) {
	made := s.provisioned(t)
	sink := s.current(t, "")
	from := graph.Position("")
	for range 3 {
		s.write(t, 5) // while it does not run
		stop := s.start(t, made, from, sink)
		s.write(t, 5)
		s.same(t, sink)
		stop()
		from = sink.Durable()
	}
	require.Zero(t, sink.Repeated(), "resuming after a position does not repeat it")
	require.Len(t, sink.Transactions(), s.writes, "a transaction stays one")
}

func (s *suite) durableGates(t *testing.T) {
	made := s.provisioned(t)
	from, err := s.Confirmed()
	require.NoError(t, err)
	sink := s.current(t, from)
	stop := s.start(t, made, from, sink)
	sink.Hold()
	before := sink.Durable()
	s.write(t, 5)
	s.same(t, sink)
	for ticks := sink.Ticks(); sink.Ticks() < ticks+4; { // some time for a mistake to show
		time.Sleep(10 * time.Millisecond)
	}
	confirmed, err := s.Confirmed()
	require.NoError(t, err)
	require.LessOrEqual(t, confirmed.Compare(before), 0, "confirmed %s, durable is %s", confirmed, before)
	stop()
	confirmed, err = s.Confirmed()
	require.NoError(t, err)
	require.LessOrEqual(t, confirmed.Compare(before), 0, "stopping confirms nothing that is not durable")

	again := s.current(t, before) // what was not durable comes again
	stop = s.start(t, made, before, again)
	Eventually(t, "the changes come again", func() bool { return len(again.Transactions()) == 5 })
	Eventually(t, "confirmed", func() bool {
		confirmed, err := s.Confirmed()
		return err == nil && confirmed.Compare(again.Transactions()[4].Position) >= 0
	})
	stop()
}

func (s *suite) snapshotMeetsChanges(t *testing.T) {
	made := s.provisioned(t)
	snapshotter, ok := made.(source.Snapshotter)
	if !ok {
		t.Skip("the source has no snapshots")
	}
	from, err := s.Confirmed()
	require.NoError(t, err)
	all := s.current(t, from)
	stop := s.start(t, made, from, all)

	writing, stopWriting := context.WithCancel(t.Context())
	written := make(chan error, 1)
	go func() {
		for writing.Err() == nil {
			s.writes++
			if err := s.Write(s.writes); err != nil {
				written <- err
				return
			}
		}
		written <- nil
	}()
	Eventually(t, "changes flow", func() bool { return len(all.Transactions()) > 20 })
	snapshot, elements := readSnapshot(t, snapshotter)
	seen := len(all.Transactions())
	Eventually(t, "changes go on", func() bool { return len(all.Transactions()) > seen+20 })
	stopWriting()
	require.NoError(t, <-written)
	s.same(t, all)
	stop()

	merged := NewSink(snapshot.Position, elements...)
	for _, tx := range all.Transactions() {
		require.NoError(t, merged.Append(t.Context(), tx))
	}
	require.NotZero(t, merged.Repeated())
	require.NotEmpty(t, merged.Transactions())
	s.same(t, merged)
}

func readSnapshot(t *testing.T, s source.Snapshotter) (source.Snapshot, []graph.Element) {
	t.Helper()
	ctx, release := context.WithCancel(t.Context())
	ready, done := make(chan source.Snapshot, 1), make(chan error, 1)
	go func() {
		done <- s.HoldSnapshot(ctx, func(taken source.Snapshot) error { ready <- taken; return nil }, func() {})
	}()
	var snapshot source.Snapshot
	select {
	case snapshot = <-ready:
	case err := <-done:
		release()
		require.NoError(t, err)
	}
	defer func() {
		release()
		require.NoError(t, <-done)
	}()
	elements := ReadSnapshot(t, s, snapshot, nil)
	require.NoError(t, s.VerifySnapshot(t.Context(), snapshot))
	refusal := fmt.Errorf("refused by the callee")
	for _, chunk := range Chunks(t, s, snapshot, nil) {
		if err := ReadChunk(t.Context(), s, snapshot, chunk, func([]graph.Change) error { return refusal }); err != nil {
			require.ErrorIs(t, err, refusal)
		}
	}
	return snapshot, elements
}

func (s *suite) interrupted(t *testing.T) {
	if s.Interrupt == nil {
		t.Skip("the fixture cannot interrupt the source")
	}
	made := s.provisioned(t)
	from, err := s.Confirmed()
	require.NoError(t, err)
	sink := s.current(t, from)
	stop := s.start(t, made, from, sink)
	s.write(t, 5)
	s.same(t, sink)
	require.NoError(t, s.Interrupt())
	s.write(t, 5)
	s.same(t, sink)
	stop()
	require.Zero(t, sink.Repeated())
	require.Len(t, sink.Transactions(), 10)
}

// backPressure stops a source whose sink takes nothing.
func (s *suite) backPressure(t *testing.T) {
	made := s.provisioned(t)
	from, err := s.Confirmed()
	require.NoError(t, err)
	sink := &fullSink{Sink: NewSink(from), blocked: make(chan struct{}, 1)}
	stop := s.start(t, made, from, sink)
	s.write(t, 3)
	<-sink.blocked
	stop()
}

// fullSink takes nothing.
type fullSink struct {
	*Sink
	blocked chan struct{}
}

func (s *fullSink) Append(ctx context.Context, _ *graph.Transaction) error {
	select {
	case s.blocked <- struct{}{}:
	default:
	}
	<-ctx.Done()
	return ctx.Err()
}

// AppendPart takes no part either.
func (s *fullSink) AppendPart(ctx context.Context, part *graph.Transaction, _ int, _ bool) error {
	return s.Append(ctx, part)
}

// Stage takes nothing of a transaction in progress.
func (s *fullSink) Stage(ctx context.Context, _ uint64, _ []graph.Change) error {
	return s.Append(ctx, nil)
}

func (s *suite) teardown(t *testing.T) {
	made := s.provisioned(t)
	for range 2 {
		require.NoError(t, made.Teardown(t.Context()))
		clean, err := s.Clean(false)
		require.NoError(t, err)
		require.True(t, clean)
	}
}
