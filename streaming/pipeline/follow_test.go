package pipeline

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/pebble"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

func numbered(sequence uint64) *result.Event { return &result.Event{Sequence: sequence} }

func TestFollowerMakesOneSeriesOfWhatIsShownAndLogged(t *testing.T) {
	random := rand.New(rand.NewPCG(7, 7))
	for range 50 {
		var got []uint64
		f := &follower{next: 1, visit: func(e *result.Event) error { got = append(got, e.Sequence); return nil }}
		const last = 3 * maxAhead
		logged, shown := uint64(1), uint64(1)
		for logged <= last {
			if random.IntN(3) > 0 {
				var events []*result.Event
				for range 1 + random.IntN(4) {
					events = append(events, numbered(shown))
					shown++
				}
				if random.IntN(8) > 0 { // otherwise it is lost
					require.NoError(t, f.shown(result.AppendMessage(nil, events...)))
				}
				if random.IntN(50) == 0 { // another attempt begins where the log ends
					shown = logged
				}
			} else {
				require.NoError(t, f.logged([]*result.Event{numbered(logged), numbered(logged + 1)}))
				logged += 2
			}
			require.LessOrEqual(t, len(f.ahead), maxAhead)
		}
		require.GreaterOrEqual(t, len(got), last)
		for i, sequence := range got {
			require.Equal(t, uint64(i+1), sequence)
		}
	}
}

func TestFollowerTakesNoGap(t *testing.T) {
	var got []uint64
	f := &follower{next: 5, visit: func(e *result.Event) error { got = append(got, e.Sequence); return nil }}
	require.NoError(t, f.shown(result.AppendMessage(nil, numbered(7), numbered(8))))
	err := f.logged([]*result.Event{numbered(6)})
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))
	require.Empty(t, got)

	// Only a state that is built anew may begin at another number, and voids what was shown before it.
	require.NoError(t, f.logged([]*result.Event{{Sequence: 100, Snapshot: true}, numbered(101)}))
	require.Equal(t, []uint64{100, 101}, got)
	require.Empty(t, f.ahead)
}

// watcher follows a query as a client does and keeps what it saw.
type watcher struct {
	t    testing.TB
	r    *rig
	stop context.CancelFunc
	done chan error

	mu     sync.Mutex
	events map[uint64]string // encoded
	last   uint64
}

func (r *rig) watch() *watcher {
	w := &watcher{t: r.t, r: r, events: make(map[uint64]string)}
	w.follow()
	r.t.Cleanup(func() { w.stop(); <-w.done })
	return w
}

// follow begins after the last event that was seen.
func (w *watcher) follow() {
	var ctx context.Context
	ctx, w.stop = context.WithCancel(context.Background())
	done := make(chan error, 1)
	w.done = done
	after := w.seen()
	go func() { done <- NewResults(w.r.conn, "").Follow(ctx, "late", after, w.visit, nil); close(done) }()
}

var errOutOfOrder = errors.New("not the event that follows")

func (w *watcher) visit(e *result.Event) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.Sequence != w.last+1 && (!isAnew(e) || e.Sequence <= w.last) {
		return errOutOfOrder
	}
	w.last = e.Sequence
	w.events[e.Sequence] = string(result.AppendEvent(nil, e))
	return nil
}

func (w *watcher) seen() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.last
}

// again is a client that comes back.
func (w *watcher) again() {
	w.t.Helper()
	w.stop()
	require.ErrorIs(w.t, <-w.done, context.Canceled)
	w.follow()
}

// published returns the events of the result log, encoded.
func (r *rig) published() map[uint64]string {
	log, err := r.conn.OpenLog(r.t.Context(), resultLog("default", "late"))
	require.NoError(r.t, err)
	last, err := log.Last(r.t.Context())
	require.NoError(r.t, err)
	all := make(map[uint64]string)
	if last == nil {
		return all
	}
	reader, err := log.Read(r.t.Context(), 0)
	require.NoError(r.t, err)
	defer reader.Close()
	for {
		m, err := reader.Next(r.t.Context())
		require.NoError(r.t, err)
		events, err := result.DecodeMessage(m.Data)
		require.NoError(r.t, err)
		for _, e := range events {
			all[e.Sequence] = string(result.AppendEvent(nil, e))
		}
		if m.Sequence >= last.Sequence {
			return all
		}
	}
}

// shutOut takes the result log away from the query that runs, so that it can show events but not publish them, and
// waits until it has ended by that.
func (r *rig) shutOut(query *run, random *rand.Rand) {
	r.t.Helper()
	fence, err := r.conn.Acquire(r.t.Context(), late.ID().String(),
		stream.Epoch{Generation: r.attempts.Add(1), Started: time.Now().UnixNano()}, "thief")
	require.NoError(r.t, err)
	log, err := r.conn.OpenLog(r.t.Context(), resultLog("default", "late"))
	require.NoError(r.t, err)
	_, err = log.NewWriter(r.t.Context(), fence)
	require.NoError(r.t, err)
	eventually(r.t, func() bool {
		r.book.scribble(random, 3)
		return len(query.done) > 0
	}, "the query that was shut out ends")
	require.Equal(r.t, failure.FencedOff, failure.CodeOf(query.result()))
}

// subscribed returns up to where the query has told that its index is synced.
func (r *rig) subscribed() (s subscription) {
	b, err := r.host().bucket(r.t.Context(), subscriptionsBucket)
	require.NoError(r.t, err)
	_, _, err = read(r.t.Context(), b, subscriptionKey("default", "shop", "late"), &s)
	require.NoError(r.t, err)
	return s
}

// TestWhatWasShownAndLostComesAgainTheSame lets queries die with events that were shown but are not in the result log.
// Their index dies too, half of the time: it goes back to where it was when it was last known to be synced.
func TestWhatWasShownAndLostComesAgainTheSame(t *testing.T) {
	r := newRig(t)
	dir, saved := t.TempDir(), t.TempDir()
	r.index = pebble.New(pebble.Options{Dir: dir})
	source := r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	random := rand.New(rand.NewPCG(11, 12))
	r.book.scribble(random, 20)
	r.settled("late")
	query.drained()
	w := r.watch()
	var shownOnly, wentBack int
	for round := range 20 {
		require.NoError(t, os.RemoveAll(saved))
		require.NoError(t, os.CopyFS(saved, os.DirFS(dir)))
		synced := query.status.Snapshot().Offset // as it was drained
		query = r.startQuery(late)
		eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
		r.book.scribble(random, 10)
		r.shutOut(query, random)
		if published := r.published(); w.seen() > uint64(len(published)) {
			shownOnly++
		}
		if round%2 == 0 && r.subscribed().Offset <= synced {
			wentBack++
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.CopyFS(dir, os.DirFS(saved)))
		}
		if round%3 == 0 {
			w.again()
		}
		query = r.startQuery(late)
		r.settled("late")
		query.drained()
		published := r.published()
		eventually(t, func() bool { return len(w.done) > 0 || w.seen() >= uint64(len(published)) }, "everything is seen")
		require.Empty(t, w.done, "the series ended")
		w.mu.Lock()
		require.Equal(t, published, w.events)
		w.mu.Unlock()
	}
	t.Logf("events were lost after they were shown in %d rounds, and the end of the index in %d", shownOnly, wentBack)
	require.Greater(t, shownOnly, 5)
	require.Greater(t, wentBack, 2)
	source.drained()
}

// TestAStateBuiltAnewPassesOverWhatWasShown lets a query lose its index together with events that were shown and not
// published: who has seen them must learn that the state is another one, under a number that was never given.
func TestAStateBuiltAnewPassesOverWhatWasShown(t *testing.T) {
	r, source := newReading(t, 20)
	query := r.startQuery(auto)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	w := r.watch()
	random := rand.New(rand.NewPCG(13, 14))
	for round := range 3 {
		r.book.scribble(random, 10)
		r.shutOut(query, random)
		seen := w.seen()
		r.index = newRig(t).index
		if random.IntN(2) == 0 {
			w.again()
		}
		r.bootstrapAs(auto, BootstrapRef{ID: fmt.Sprint("anew", round)})
		query = r.startQuery(auto)
		eventually(t, func() bool { return len(w.done) > 0 || w.seen() > seen }, "the state is another one")
		require.Empty(t, w.done, "the series ended")
		w.mu.Lock()
		for sequence := range w.events {
			require.False(t, sequence > seen && sequence < seen+rebuiltAfter/2, "event %d after %d", sequence, seen)
		}
		w.mu.Unlock()
	}
	query.drained()
	for sequence, event := range r.published() {
		if seen, ok := w.events[sequence]; ok {
			require.Equal(t, event, seen)
		}
	}
	source.drained()
}

// TestFollowRefusesAPlaceThatWasNeverReached comes back with the place in the events of an earlier query of this name.
func TestFollowRefusesAPlaceThatWasNeverReached(t *testing.T) {
	r := newRig(t)
	source := r.readySource()
	query := r.startQuery(late)
	eventually(t, func() bool { return query.status.Snapshot().Phase == "following" }, "the query runs")
	ctx, cancel := context.WithTimeout(t.Context(), 4*catchUp)
	defer cancel()
	err := NewResults(r.conn, "").Follow(ctx, "late", 500, func(*result.Event) error { return nil }, nil)
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err), "%v", err)

	// Who knows the last event that has aged out goes on behind it.
	r.book.commit(item(graph.OpInsert, "Item", 1, "x", 20))
	r.caughtUp("late")
	r.age(resultLog("default", "late"))
	r.book.commit(item(graph.OpInsert, "Item", 2, "x", 20))
	var next uint64
	err = NewResults(r.conn, "").Follow(ctx, "late", 1, func(e *result.Event) error {
		next = e.Sequence
		return errLoaded
	}, nil)
	require.ErrorIs(t, err, errLoaded)
	require.Equal(t, uint64(2), next)
	query.drained()
	source.drained()
}

// TestAQueryThatStartsIsNotMissing asks for the rows of a query that has begun and is not there yet.
func TestAQueryThatStartsIsNotMissing(t *testing.T) {
	r := newRig(t)
	snapshot := func() error {
		return NewResults(r.conn, "").Snapshot(t.Context(), "late", func([]string, result.State) error { return nil }, func(result.Row) error { return nil })
	}
	require.Equal(t, failure.QueryMissing, failure.CodeOf(snapshot()))
	require.NoError(t, r.host().ProvisionSource(t.Context(), shop))
	outcome, err := r.host().RunQuery(t.Context(), r.attempt(auto.ID()), auto)
	require.NoError(t, err)
	require.Equal(t, NeedsBootstrap, outcome)
	require.Equal(t, failure.QueryNotReady, failure.CodeOf(snapshot()))
}
