package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// byRow is a reaction that gets rows, in lanes, and does not wait long.
func byRow(lanes int) component.ReactionSpec {
	spec := notify
	spec.Delivery = component.Delivery{Unit: "row", Lanes: lanes, Retry: component.Retry{FirstMillis: 1, MaxMillis: 20}}
	return spec
}

// statusOf returns how a reaction gets on, the zero value before it has begun.
func statusOf(r *run) DeliveryStatus {
	if d := r.status.Snapshot().Delivery; d != nil {
		return *d
	}
	return DeliveryStatus{}
}

// published is which rows an event has, by sequence.
type published map[uint64][]int

// requireRows checks that each row of each event came, and none before an earlier one of its key.
func (f *receiver) requireRows(t *testing.T, want published) (repeated int) {
	t.Helper()
	due := make(map[result.RowKey][]uint64)
	for sequence := uint64(1); sequence <= uint64(len(want)); sequence++ {
		for _, k := range want[sequence] {
			due[rowKey(k)] = append(due[rowKey(k)], sequence)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	seen, keys := make(map[string]bool), make(map[result.RowKey]int)
	for _, d := range f.all {
		require.Len(t, d.Event.Diffs, 1)
		k := d.Event.Diffs[0].Key
		require.Regexp(t, fmt.Sprintf("^default.notify:late:[0-9a-z]+:%d:%s$", d.Event.Sequence, k), d.Key)
		if seen[d.Key] {
			repeated++
			continue
		}
		seen[d.Key] = true
		require.Equal(t, due[k][keys[k]], d.Event.Sequence, "of row %s", k)
		keys[k]++
	}
	for k, sequences := range due {
		require.Len(t, sequences, keys[k], "of row %s", k)
	}
	return repeated
}

func (f *receiver) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.all)
}

// TestRowsInLanes kills a reaction again and again while its target fails now and then.
func TestRowsInLanes(t *testing.T) {
	r := newRig(t)
	random := rand.New(rand.NewPCG(1, 2))
	var now, most atomic.Int32
	f := &receiver{hold: func(ctx context.Context, d reaction.Delivery) error {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		if rand.N(20) == 0 {
			return failure.DeliveryFailed.Errorf("now and then")
		}
		_ = rest(ctx, rand.N(time.Millisecond), nil, nil)
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	out, want, rows := r.results(), make(published), 0
	publish := func() {
		var keys []int
		for k := range 30 {
			if random.IntN(4) == 0 {
				keys = append(keys, k)
			}
		}
		want[out.next], rows = keys, rows+len(keys)
		out.rows(keys...)
	}
	spec := byRow(8)
	for i := range 10 {
		before := f.count()
		running := r.startReactionOf(spec)
		for range 20 {
			publish()
		}
		eventually(t, func() bool { return f.count() >= before+10*i }, "some rows are delivered")
		running.kill()
	}
	running := r.startReactionOf(spec)
	publish()
	eventually(t, func() bool { return running.status.Snapshot().Sequence == out.next-1 }, "the last event")
	running.drained()
	t.Logf("%d rows, %d came again, up to %d at a time", rows, f.requireRows(t, want), most.Load())
	require.Greater(t, most.Load(), int32(1), "lanes work at the same time")

	before := f.count()
	running = r.startReactionOf(spec)
	publish()
	eventually(t, func() bool { return running.status.Snapshot().Sequence == out.next-1 }, "the last event")
	running.drained()
	require.Equal(t, before+len(want[out.next-1]), f.count(), "what was drained does not come again")
	f.requireRows(t, want)
}

// TestRowThatIsNotTaken: it holds up its own row and, only after many events, all others; the place on record stays
// below it.
func TestRowThatIsNotTaken(t *testing.T) {
	r := newRig(t)
	var broken atomic.Bool
	broken.Store(true)
	f := &receiver{hold: func(_ context.Context, d reaction.Delivery) error {
		if d.Event.Diffs[0].Key == rowKey(1) && broken.Load() {
			return failure.DeliveryFailed.Errorf("not this row")
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	out, want := r.results(), make(published)
	publish := func(keys ...int) { want[out.next] = keys; out.rows(keys...) }
	other := 2
	for rowKey(other)[7]%2 == rowKey(1)[7]%2 {
		other++
	}
	publish(other)
	publish(1, other)
	publish(1)
	for range 2 * windowSize {
		publish(other)
	}
	running := r.startReactionOf(byRow(2))
	eventually(t, func() bool { return f.count() >= windowSize }, "the other row goes on")
	status := running.status.Snapshot()
	require.EqualValues(t, 1, status.Sequence)
	require.Equal(t, QueryRetrying, status.Delivery.Queries[0].State)
	require.Equal(t, "DeliveryFailed", status.Delivery.Queries[0].Error.Code)
	require.LessOrEqual(t, f.last(), uint64(1+windowSize))
	running.drained() // it does not wait for the target
	require.EqualValues(t, 1, running.status.Snapshot().Sequence)

	broken.Store(false)
	running = r.startReactionOf(byRow(2))
	eventually(t, func() bool { return running.status.Snapshot().Sequence == out.next-1 }, "the last event")
	running.drained()
	f.requireRows(t, want)
}

// TestVoidComesAlone: rows of before are delivered before it, those of after begin after it.
func TestVoidComesAlone(t *testing.T) {
	r := newRig(t)
	var now, around atomic.Int32
	f := &receiver{hold: func(ctx context.Context, d reaction.Delivery) error {
		if n := now.Add(1); len(d.Event.Diffs) == 0 {
			around.Add(n - 1)
		}
		defer now.Add(-1)
		err := rest(ctx, rand.N(2*time.Millisecond), nil, nil)
		if len(d.Event.Diffs) == 0 {
			around.Add(now.Load() - 1)
		}
		return err
	}}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	for range 5 {
		out.rows(1, 2, 3, 4, 5, 6, 7, 8)
		out.rows(1, 2, 3, 4, 5, 6, 7, 8)
		out.void()
	}
	running := r.startReactionOf(byRow(8))
	eventually(t, func() bool { return running.status.Snapshot().Sequence == out.next-1 }, "the last event")
	running.drained()
	require.Zero(t, around.Load())
	require.True(t, slices.IsSortedFunc(f.all, func(a, b reaction.Delivery) int {
		return int(a.Event.Sequence+2)/3 - int(b.Event.Sequence+2)/3 // by what is void together
	}))
}

func TestBudgetOfTries(t *testing.T) {
	r := newRig(t)
	var broken atomic.Bool
	broken.Store(true)
	f := &receiver{fail: func(e *result.Event) error {
		if e.Sequence == 2 && broken.Load() {
			return failure.DeliveryFailed.Errorf("not the second")
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	r.results().publish(3)
	spec := notify
	spec.Delivery.Retry = component.Retry{FirstMillis: 1, MaxMillis: 5, Attempts: 3}
	err := r.startReactionOf(spec).result()
	require.Equal(t, failure.DeliveryExhausted, failure.CodeOf(err))
	require.ErrorContains(t, err, "event 2 of query late: the target did not take it in 3 tries")
	require.ErrorContains(t, err, "not the second")
	require.Equal(t, []uint64{1}, f.delivered(), "what follows waits")

	spec.Delivery.Retry = component.Retry{FirstMillis: 400, MaxMillis: 400, Seconds: 1}
	require.Equal(t, failure.DeliveryExhausted, failure.CodeOf(r.startReactionOf(spec).result()))

	spec.Delivery.Retry = component.Retry{FirstMillis: 1, MaxMillis: 5, Attempts: 7, OnExhausted: "deadLetter"}
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return f.last() == 3 }, "it goes on without it")
	eventually(t, func() bool { return statusOf(running).DeadLetters.Count == 1 }, "it is shown")
	running.drained()
	letters, err := NewDeadLetters(r.conn).List(t.Context(), notify.ID(), "", 10)
	require.NoError(t, err)
	require.Len(t, letters, 1)
	require.Equal(t, 7, letters[0].Attempts)
	require.Equal(t, "DeliveryFailed", letters[0].Failure.Code)
}

// TestTargetThatIsDown is an hour of an outage, a thousand times as fast.
func TestTargetThatIsDown(t *testing.T) {
	r := newRig(t)
	var down atomic.Bool
	var tries atomic.Int32
	down.Store(true)
	f := &receiver{hold: func(context.Context, reaction.Delivery) error {
		tries.Add(1)
		if down.Load() {
			return failure.DeliveryFailed.Errorf("down")
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	out, want := r.results(), make(published)
	for range 50 {
		want[out.next] = []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
		out.rows(want[out.next]...)
	}
	spec := byRow(8)
	spec.Delivery.Retry = component.Retry{FirstMillis: 1, MaxMillis: 30}
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return statusOf(running).Target == TargetOpen }, "the breaker opens")
	began, before := time.Now(), tries.Load()
	_ = rest(t.Context(), 3600*time.Millisecond, nil, nil) // the outage
	n, most := tries.Load()-before, int32(time.Since(began)/(24*time.Millisecond))+16
	t.Logf("%d tries", n)
	require.LessOrEqual(t, n, most)
	require.Greater(t, n, int32(20), "it is tried now and then")
	status := statusOf(running)
	require.NotEqual(t, TargetClosed, status.Target)
	require.GreaterOrEqual(t, status.Failures, int(n)-8, "all but those that went on when the breaker opened")
	require.Equal(t, "DeliveryFailed", status.LastError.Code)
	require.WithinDuration(t, began, status.FailingSince, time.Second)

	down.Store(false)
	eventually(t, func() bool { return running.status.Snapshot().Sequence == out.next-1 }, "all is delivered")
	require.Equal(t, TargetClosed, statusOf(running).Target)
	require.Zero(t, statusOf(running).Failures)
	running.drained()
	require.Zero(t, f.requireRows(t, want))
}

// TestTargetThatFailsOnce: all lanes are at work when it does, and the breaker stays closed.
func TestTargetThatFailsOnce(t *testing.T) {
	r := newRig(t)
	const lanes = 8
	keys := make([]int, 0, lanes) // one for each lane
	for used, k := make(map[byte]bool), 0; len(keys) < lanes; k++ {
		if lane := rowKey(k)[7] % lanes; !used[lane] {
			used[lane], keys = true, append(keys, k)
		}
	}
	var tries atomic.Int32
	all, well := make(chan struct{}), make(chan struct{})
	wait := func(ctx context.Context, c <-chan struct{}) error {
		select {
		case <-c:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	f := &receiver{hold: func(ctx context.Context, _ reaction.Delivery) error {
		n := tries.Add(1)
		if n == lanes {
			close(all)
		}
		if n > lanes {
			return wait(ctx, well)
		}
		if err := wait(ctx, all); err != nil {
			return err
		}
		return failure.DeliveryFailed.Errorf("down")
	}}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	out.rows(keys...)
	running := r.startReactionOf(byRow(lanes))
	eventually(t, func() bool { return tries.Load() == 2*lanes }, "all lanes try again at once")
	require.Equal(t, 1, statusOf(running).Failures)
	require.Equal(t, TargetClosed, statusOf(running).Target)
	close(well)
	eventually(t, func() bool { return running.status.Snapshot().Sequence == 1 }, "all is delivered")
	require.Zero(t, statusOf(running).Failures)
	running.drained()
}

func TestTargetThatAsksToWait(t *testing.T) {
	r := newRig(t)
	var tried []time.Time
	f := &receiver{fail: func(*result.Event) error {
		if tried = append(tried, time.Now()); len(tried) == 1 {
			return failure.DeliveryFailed.Errorf("too many: %w", reaction.Wait(300*time.Millisecond))
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	r.results().publish(1)
	spec := notify
	spec.Delivery.Retry = component.Retry{FirstMillis: 1, MaxMillis: 5}
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return f.last() == 1 }, "it is delivered")
	running.drained()
	require.GreaterOrEqual(t, tried[1].Sub(tried[0]), 300*time.Millisecond)
}

// TestTargetThatHangs: a try is bounded, and a stop waits for no more than one.
func TestTargetThatHangs(t *testing.T) {
	r := newRig(t)
	f := &receiver{hold: func(ctx context.Context, _ reaction.Delivery) error {
		<-ctx.Done()
		return ctx.Err()
	}}
	r.reactions = []reaction.Factory{f}
	r.results().publish(1)
	spec := notify
	spec.Delivery.TimeoutSeconds = 1
	running := r.startReactionOf(spec)
	eventually(t, func() bool {
		return statusOf(running).Failures > 0
	}, "a try ends")
	require.Equal(t, "Timeout", statusOf(running).LastError.Code)
	began := time.Now()
	running.drained()
	require.Less(t, time.Since(began), 5*time.Second)
	require.Zero(t, running.status.Snapshot().Sequence)
}

// TestQueriesOfAReaction: one whose results are no longer kept, and one that does not exist yet, leave the third alone.
func TestQueriesOfAReaction(t *testing.T) {
	r := newRig(t)
	var mu sync.Mutex
	got := make(map[string][]uint64)
	f := &receiver{hold: func(_ context.Context, d reaction.Delivery) error {
		mu.Lock()
		defer mu.Unlock()
		got[d.Query] = append(got[d.Query], d.Event.Sequence)
		return nil
	}}
	delivered := func(query string) []uint64 {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(got[query])
	}
	r.reactions = []reaction.Factory{f}
	spec := notify
	spec.Queries = []string{"late", "gap", "later"}
	late, gap := r.results(), r.resultsOf("gap")
	late.publish(1)
	gap.publish(1)
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return len(delivered("late")) == 1 && len(delivered("gap")) == 1 }, "both are delivered")
	running.drained()
	gap.publish(1, 1, 1)
	state, err := gap.log.State(t.Context())
	require.NoError(t, err)
	require.NoError(t, gap.log.TrimBefore(t.Context(), state.Last))

	running = r.startReactionOf(spec)
	late.publish(1)
	eventually(t, func() bool {
		q := statusOf(running).Queries
		return len(q) == 3 && q[0].Sequence == 2 && q[1].State == QueryFailed && q[2].State == QueryWaiting
	}, "each query has a status")
	queries := statusOf(running).Queries
	require.Equal(t, "StreamTrimmed", queries[1].Error.Code)
	require.EqualValues(t, 1, queries[1].Sequence)
	require.Equal(t, "QueryMissing", queries[2].Error.Code)
	later := r.resultsOf("later")
	later.publish(1)
	eventually(t, func() bool { return len(delivered("later")) == 1 }, "what appears is delivered")
	late.publish(1)
	eventually(t, func() bool { return len(delivered("late")) == 3 }, "the others go on")
	require.Empty(t, running.done)
	running.drained()
	require.Equal(t, []uint64{1}, delivered("gap"))

	spec.Queries = []string{"gap"}
	require.Equal(t, failure.StreamTrimmed, failure.CodeOf(r.startReactionOf(spec).result()), "none is left")
}

// TestQueryThatIsMadeAgain: all its events are delivered, under keys that those of the former one did not have.
func TestQueryThatIsMadeAgain(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	deliver := func() {
		out := r.results()
		out.publish(1, 1, 1)
		before := f.count()
		running := r.startReaction()
		eventually(t, func() bool { return f.count() == before+3 }, "all events are delivered")
		running.drained()
	}
	deliver()
	require.NoError(t, r.host().TeardownQuery(t.Context(), late))
	deliver()
	require.Equal(t, []uint64{1, 2, 3, 1, 2, 3}, f.delivered())
	keys := make(map[string]bool)
	for _, d := range f.all {
		keys[d.Key] = true
	}
	require.Len(t, keys, 6)
}

func TestDeadLettersAreRetriedAndDropped(t *testing.T) {
	r := newRig(t)
	var refuse atomic.Uint64
	refuse.Store(3)
	f := &receiver{hold: func(_ context.Context, d reaction.Delivery) error {
		switch n := refuse.Load(); {
		case n == 100:
			return failure.DeliveryFailed.Errorf("down")
		case d.Event.Sequence%n == 0:
			return failure.DeliveryRejected.Errorf("no multiples of %d", n)
		}
		return nil
	}}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	for range 24 {
		out.rows(1, 2)
	}
	spec := byRow(1)
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return statusOf(running).DeadLetters.Count == 16 }, "a third of 48 rows is refused")
	eventually(t, func() bool { return f.last() == 23 }, "the rest is delivered")

	letters := NewDeadLetters(r.conn)
	all, err := letters.List(t.Context(), spec.ID(), "", 100)
	require.NoError(t, err)
	require.Len(t, all, 16)
	rest, err := letters.List(t.Context(), spec.ID(), all[9].ID, 4)
	require.NoError(t, err)
	require.Equal(t, all[10:14], rest)

	h := r.host()
	refuse.Store(100)
	done, err := h.RetryDeadLetters(t.Context(), spec, nil)
	require.Equal(t, failure.DeliveryFailed, failure.CodeOf(err))
	require.Equal(t, Redelivery{}, done)

	refuse.Store(6) // 3, 9, 15 and 21 are taken now
	done, err = h.RetryDeadLetters(t.Context(), spec, []string{all[0].ID, all[2].ID})
	require.NoError(t, err)
	require.Equal(t, Redelivery{Delivered: 1, Refused: 1}, done)
	_, err = h.RetryDeadLetters(t.Context(), spec, []string{all[0].ID})
	require.Equal(t, failure.LetterMissing, failure.CodeOf(err), "it was delivered")
	_, err = h.RetryDeadLetters(t.Context(), spec, []string{"seven"})
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err))
	done, err = h.RetryDeadLetters(t.Context(), spec, nil)
	require.NoError(t, err)
	require.Equal(t, Redelivery{Delivered: 7, Refused: 8}, done)
	keys := make(map[string]int)
	for _, d := range f.all {
		keys[d.Key]++
	}
	require.Equal(t, 1, keys[all[0].Key], "with the key that it had")

	count, err := letters.Count(t.Context(), spec.ID())
	require.NoError(t, err)
	require.EqualValues(t, 8, count.Count)
	require.WithinDuration(t, time.Now(), count.Oldest, time.Minute)
	dropped, err := letters.Drop(t.Context(), spec.ID(), []string{all[2].ID})
	require.NoError(t, err)
	require.Equal(t, 1, dropped)
	_, err = letters.Drop(t.Context(), spec.ID(), []string{all[2].ID})
	require.Equal(t, failure.LetterMissing, failure.CodeOf(err))
	dropped, err = letters.Drop(t.Context(), spec.ID(), nil)
	require.NoError(t, err)
	require.Equal(t, 7, dropped)
	eventually(t, func() bool { return statusOf(running).DeadLetters.Count == 0 }, "the running reaction sees it")
	running.drained()

	never := component.ID{Kind: component.Source, Instance: "default", Name: "never"}
	none, err := letters.List(t.Context(), never, "", 10)
	require.NoError(t, err)
	require.Empty(t, none)
}

// TestDamagedDeadLetter has letters that cannot be decoded between others.
func TestDamagedDeadLetter(t *testing.T) {
	r := newRig(t)
	var open atomic.Bool
	f := &receiver{fail: func(*result.Event) error {
		if open.Load() {
			return nil
		}
		return failure.DeliveryRejected.Errorf("not now")
	}}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	letters := NewDeadLetters(r.conn)
	refused := func(count uint64) {
		out.publish(1)
		running := r.startReaction()
		eventually(t, func() bool { return statusOf(running).DeadLetters.Count == count }, "one more is refused")
		running.drained()
	}
	refused(1)
	log, err := r.conn.OpenLog(t.Context(), deadLetterLog("default", "notify"))
	require.NoError(t, err)
	for _, data := range []string{"no JSON", `{"query":"late","event":"AAAA"}`} {
		_, err = log.NewSharedWriter().Append(t.Context(), data, []byte(data))
		require.NoError(t, err)
	}
	refused(4)

	all, err := letters.List(t.Context(), notify.ID(), "", 10)
	require.NoError(t, err)
	require.Len(t, all, 4)
	for i, one := range all {
		require.Equal(t, strconv.Itoa(i+1), one.ID)
		require.Equal(t, i == 1 || i == 2, one.Damaged)
		if one.Damaged {
			require.Equal(t, failure.BadRecord.ID, one.Failure.Code)
			require.Contains(t, one.Failure.Message, "decoding dead letter "+one.ID+": ")
			require.NotEmpty(t, one.Record)
		}
	}

	open.Store(true)
	done, err := r.host().RetryDeadLetters(t.Context(), notify, nil)
	require.NoError(t, err)
	require.Equal(t, Redelivery{Delivered: 2, Refused: 2}, done)
	dropped, err := letters.Drop(t.Context(), notify.ID(), []string{"2", "3"})
	require.NoError(t, err)
	require.Equal(t, 2, dropped)
	count, err := letters.Count(t.Context(), notify.ID())
	require.NoError(t, err)
	require.Zero(t, count.Count)

	source := decodeLetter(component.Source, &stream.Message{Sequence: 7, Data: []byte("no JSON")})
	require.True(t, source.Damaged)
	require.Equal(t, []byte("no JSON"), source.Record)
}
