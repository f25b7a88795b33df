package pipeline

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// receiver is where the test's reactions deliver to; it outlives attempts. It is their factory too.
type receiver struct {
	mu   sync.Mutex
	got  []uint64 // sequences, repetitions included
	all  []reaction.Delivery
	fail func(e *result.Event) error                          // asked before each delivery
	hold func(ctx context.Context, d reaction.Delivery) error // the same, without the lock: it may take its time
}

func (f *receiver) Kind() string { return "target" }

func (f *receiver) New(json.RawMessage, reaction.Settings) (reaction.Reaction, error) { return f, nil }

func (f *receiver) Close(context.Context) error { return nil }

func (f *receiver) Deliver(ctx context.Context, d reaction.Delivery) error {
	e := d.Event
	if f.hold != nil {
		if err := f.hold(ctx, d); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(e); err != nil {
			return err
		}
	}
	f.got, f.all = append(f.got, e.Sequence), append(f.all, d)
	return nil
}

func (f *receiver) delivered() []uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]uint64(nil), f.got...)
}

func (f *receiver) last() uint64 {
	got := f.delivered()
	if len(got) == 0 {
		return 0
	}
	return got[len(got)-1]
}

// requireInOrder checks that every event up to last came, in order, where an event may only come again together with all
// that follow it.
func (f *receiver) requireInOrder(t *testing.T, last uint64) (repeated int) {
	t.Helper()
	next := uint64(1)
	for _, sequence := range f.delivered() {
		require.LessOrEqual(t, sequence, next, "an event was left out")
		if sequence < next {
			repeated++
		}
		next = sequence + 1
	}
	require.Equal(t, last+1, next)
	return repeated
}

var notify = component.ReactionSpec{Name: "notify", Kind: "target", Queries: []string{"late"}}

func (r *rig) startReaction() *run { return r.startReactionOf(notify) }

func (r *rig) startReactionOf(spec component.ReactionSpec) *run {
	h := r.host()
	return r.start(spec.ID(), func(ctx context.Context, a Attempt) error { return h.RunReaction(ctx, a, spec) })
}

// results writes a result log by hand.
type results struct {
	t    testing.TB
	log  *stream.Log
	w    *stream.Writer
	next uint64
}

func (r *rig) results() *results { return r.resultsOf("late") }

func (r *rig) resultsOf(query string) *results {
	log, err := r.conn.EnsureLog(r.t.Context(), stream.LogOptions{Name: resultLog("default", query)})
	require.NoError(r.t, err)
	f, err := r.conn.Acquire(r.t.Context(), "query.default."+query, stream.Epoch{Generation: r.attempts.Add(1)}, "test")
	require.NoError(r.t, err)
	w, err := log.NewWriter(r.t.Context(), f)
	require.NoError(r.t, err)
	return &results{t: r.t, log: log, w: w, next: 1}
}

// publish writes messages of so many events each.
func (r *results) publish(sizes ...int) {
	for _, n := range sizes {
		var events []*result.Event
		for range n {
			events = append(events, &result.Event{
				Sequence: r.next, Source: "shop", Columns: []string{"id"},
				Diffs: []result.Diff{{Op: result.Added, After: []graph.Value{graph.Int(int64(r.next))}}},
			})
			r.next++
		}
		_, err := r.w.Append(r.t.Context(), time.Now().String(), result.AppendMessage(nil, events...))
		require.NoError(r.t, err)
	}
}

// rows publishes an event with a row for each key.
func (r *results) rows(keys ...int) {
	e := &result.Event{Sequence: r.next, Source: "shop", Columns: []string{"id"}, CommitTime: time.Now()}
	for _, k := range keys {
		e.Diffs = append(e.Diffs, result.Diff{Op: result.Added, Key: rowKey(k), After: []graph.Value{graph.Int(int64(k))}})
	}
	r.append(e)
}

// void publishes that all rows are void.
func (r *results) void() { r.append(&result.Event{Sequence: r.next, Snapshot: true}) }

func (r *results) append(e *result.Event) {
	r.next++
	_, err := r.w.Append(r.t.Context(), time.Now().String(), result.AppendMessage(nil, e))
	require.NoError(r.t, err)
}

// rowKey is spread as hashes are.
func rowKey(n int) (k result.RowKey) {
	sum := sha256.Sum256([]byte{byte(n), byte(n >> 8)})
	copy(k[:], sum[:])
	return k
}

func TestReactionGetsEverythingInOrderWhateverHappens(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	for i := range 15 {
		running := r.startReaction()
		out.publish(1, 7, 1, 3, 20)
		time.Sleep(time.Duration(i%4) * 2 * time.Millisecond)
		running.kill()
	}
	running := r.startReaction()
	out.publish(1)
	eventually(t, func() bool { return f.last() == out.next-1 }, "the last event")
	running.drained()
	t.Log("repeated:", f.requireInOrder(t, out.next-1))

	// What was drained is on record: nothing comes twice.
	before := len(f.delivered())
	running = r.startReaction()
	out.publish(1)
	eventually(t, func() bool { return f.last() == out.next-1 }, "the last event")
	running.drained()
	require.Len(t, f.delivered(), before+1)
}

func TestReactionRetriesAndDeadLetters(t *testing.T) {
	r := newRig(t)
	tries := 0
	f := &receiver{fail: func(e *result.Event) error {
		switch e.Sequence {
		case 2:
			if tries++; tries < 3 {
				return failure.DeliveryFailed.Errorf("try %d", tries)
			}
		case 3:
			return failure.DeliveryRejected.Errorf("no threes")
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	out.publish(4)
	running := r.startReaction()
	eventually(t, func() bool { return f.last() == 4 }, "the last event")
	running.drained()
	require.Equal(t, []uint64{1, 2, 4}, f.delivered())
	require.Equal(t, 3, tries)

	letters, err := NewDeadLetters(r.conn).List(t.Context(), notify.ID(), "", 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.Equal(t, "late", letters[0].Query)
	require.Equal(t, "default.notify:late:"+strconv.FormatInt(out.log.Created().UnixMilli(), 36)+":3", letters[0].Key)
	require.Equal(t, 1, letters[0].Attempts)
	require.Equal(t, "DeliveryRejected", letters[0].Failure.Code)
	require.WithinDuration(t, time.Now(), letters[0].At, time.Minute)
	require.Equal(t, uint64(3), letters[0].Event.Sequence)
	require.Contains(t, string(letters[0].Event.AppendJSON(nil)), `"after":{"id":3}`)

	require.NoError(t, r.host().TeardownReaction(t.Context(), notify))
	_, err = r.conn.OpenLog(t.Context(), deadLetterLog("default", "notify"))
	require.ErrorIs(t, err, stream.ErrMissing)
}

func TestReactionFailsForGood(t *testing.T) {
	r := newRig(t)
	f := &receiver{fail: func(*result.Event) error { panic("of the reaction") }}
	r.reactions = []reaction.Factory{f}
	r.results().publish(1)
	err := r.startReaction().result()
	require.Equal(t, failure.Panic, failure.CodeOf(err))
	require.Contains(t, failure.Of(err).Details()["stack"], "Deliver")

	f.fail = func(*result.Event) error { return failure.AuthFailed.Errorf("wrong token") }
	require.Equal(t, failure.AuthFailed, failure.CodeOf(r.startReaction().result()))
}

func TestOldAttemptOfReactionIsFencedOff(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	old := r.startReaction()
	out.publish(1)
	eventually(t, func() bool { return f.last() == 1 }, "the first attempt works")
	young := r.startReaction()
	eventually(t, func() bool { return young.status.Snapshot().Phase == "delivering" }, "the second attempt works")
	out.publish(1)
	// Both may deliver, one may record.
	eventually(t, func() bool {
		out.publish(1)
		select {
		case err := <-old.done:
			old.done <- err
			return true
		case <-time.After(5 * time.Millisecond):
			return false
		}
	}, "the first attempt ends")
	require.Equal(t, failure.FencedOff, failure.CodeOf(old.result()))
	eventually(t, func() bool { return f.last() == out.next-1 }, "the second attempt goes on")
	young.drained()
}

func TestReactionNoticesWhatIsNoLongerKept(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	out.publish(1, 1, 1, 1)
	state, err := out.log.State(t.Context())
	require.NoError(t, err)
	require.NoError(t, out.log.TrimBefore(t.Context(), state.Last-1)) // two are left
	running := r.startReaction()
	eventually(t, func() bool { return f.last() == 4 }, "a new reaction begins with the oldest event")
	running.drained()
	require.Equal(t, []uint64{3, 4}, f.delivered())
	out.publish(1, 1, 1)
	require.NoError(t, out.log.TrimBefore(t.Context(), state.Last+3))
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(r.startReaction().result()))
}

func TestFollowFindsItsPlace(t *testing.T) {
	r := newRig(t)
	out := r.results()
	var res reaction.Results = NewResults(r.conn, "")
	enough := errors.New("enough")
	first := func(after uint64) (uint64, error) {
		var got uint64
		err := res.Follow(t.Context(), "late", after, func(e *result.Event) error {
			got = e.Sequence
			return enough
		}, nil)
		if errors.Is(err, enough) {
			err = nil
		}
		return got, err
	}
	out.publish(1, 2, 3, 4, 5, 6)
	out = &results{t: t, log: out.log, w: r.results().w, next: out.next} // a fence marker in between
	out.publish(7, 1, 1, 30, 1)
	for after := range out.next - 1 {
		got, err := first(after)
		require.NoError(t, err)
		require.Equal(t, after+1, got)
	}
	require.NoError(t, out.log.TrimBefore(t.Context(), 4))
	_, err := first(2)
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))
	_, err = first(0)
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(err))

	require.Equal(t, failure.QueryMissing, failure.CodeOf(res.Follow(t.Context(), "none", 0, nil, nil)))
	err = res.Snapshot(t.Context(), "late", nil, nil)
	require.Equal(t, failure.QueryNotReady, failure.CodeOf(err))

	// An event that is not in the log may have been shown before the query was stopped: it is waited for until the query
	// has come back and says otherwise.
	waiting := make(chan error, 1)
	go func() { _, err := first(2 * rebuiltAfter); waiting <- err }()
	seen := out.next + 100
	source := r.readySource()
	query := r.startQuery(late)
	got, err := first(seen)
	require.NoError(t, err)
	require.Equal(t, out.next-1+rebuiltAfter, got, "the state was built anew")
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(<-waiting), "an event of another log")
	query.drained()
	source.drained()
}

// TestReactionGoesOnWhereOnlyMarkersAreGone lets everything age out that was delivered, and with it the marker of a later
// attempt of the query, which is no event.
func TestReactionGoesOnWhereOnlyMarkersAreGone(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	r.results().publish(1, 1, 1)
	running := r.startReaction()
	eventually(t, func() bool { return f.last() == 3 }, "all is delivered")
	running.drained()

	out := r.results() // another attempt of the query
	out.next = 4
	r.age(resultLog("default", "late"))
	running = r.startReaction()
	out.publish(1)
	eventually(t, func() bool { return len(running.done) > 0 || f.last() == 4 }, "the next is delivered")
	require.Empty(t, running.done, "the reaction ended")
	running.drained()
	f.requireInOrder(t, 4)
}

// A stop may come before the reaction has begun to read, as when it waited for its query to exist.
func TestReactionThatIsToDrainAtOnce(t *testing.T) {
	r := newRig(t)
	r.reactions = []reaction.Factory{&receiver{}}
	r.results().publish(1, 2)
	drain := make(chan struct{})
	close(drain)
	h := r.host()
	for range 50 {
		a := r.attempt(notify.ID())
		a.Drain = drain
		require.NoError(t, h.RunReaction(t.Context(), a, notify))
	}
}
