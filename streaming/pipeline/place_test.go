package pipeline

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// TestSkip: a reaction that stops at one result goes on without it, and only without it.
func TestSkip(t *testing.T) {
	for _, code := range []*failure.Code{failure.DeliveryFailed, failure.AuthFailed} { // one that is tried again and one that is not
		r := newRig(t)
		f := &receiver{fail: func(e *result.Event) error {
			if e.Sequence == 2 || e.Sequence == 4 {
				return code.Errorf("not event %d", e.Sequence)
			}
			return nil
		}}
		r.reactions = []reaction.Factory{f}
		out := r.results()
		out.publish(1, 2)
		spec := notify
		spec.Delivery.Retry = component.Retry{FirstMillis: 1, MaxMillis: 5, Attempts: 2}
		require.ErrorContains(t, r.startReactionOf(spec).result(), "not event 2")

		skip := func(sequence uint64) error { return r.host().SkipResult(t.Context(), spec, "late", sequence) }
		for _, wrong := range []uint64{1, 3, 9} {
			err := skip(wrong)
			require.Equal(t, failure.PlaceInvalid, failure.CodeOf(err))
			require.ErrorContains(t, err, "not the one that waits, which is 2")
		}
		require.Equal(t, failure.PlaceInvalid, failure.CodeOf(r.host().SkipResult(t.Context(), spec, "other", 2)))
		require.NoError(t, skip(2))
		out.publish(2)
		require.ErrorContains(t, r.startReactionOf(spec).result(), "not event 4", "a skip holds for one event")
		require.Equal(t, uint64(3), f.last())
		require.NoError(t, skip(4))
		running := r.startReactionOf(spec)
		eventually(t, func() bool { return f.last() == 5 }, "it goes on without both")
		running.drained()
		require.ErrorContains(t, skip(6), "all are delivered")
		letters, err := NewDeadLetters(r.conn).List(t.Context(), notify.ID(), "", 10)
		require.NoError(t, err)
		require.Len(t, letters, 2)
		require.Equal(t, code.ID, letters[0].Failure.Code)
		require.Contains(t, letters[0].Failure.Message, "not event 2")
		require.Equal(t, uint64(4), letters[1].Event.Sequence)
	}
}

// TestSetPlace moves a reaction that does not run about in the results of a query.
func TestSetPlace(t *testing.T) {
	r := newRig(t)
	f := &receiver{}
	r.reactions = []reaction.Factory{f}
	out := r.results()
	out.publish(2, 1, 3, 4) // 10 events
	runs := func() (from, to uint64) {
		f.mu.Lock()
		f.got = nil
		f.mu.Unlock()
		running := r.startReaction()
		eventually(t, func() bool { return running.status.Snapshot().Sequence == 10 }, "all is delivered")
		running.drained()
		if d := f.delivered(); len(d) > 0 {
			return d[0], d[len(d)-1]
		}
		return 0, 0
	}
	set := func(to string) (uint64, error) {
		return r.host().SetPlace(t.Context(), notify, "late", to, stream.Epoch{Generation: r.attempts.Load() + 1})
	}
	runs()
	for to, first := range map[string]uint64{"1": 2, "2": 3, "3": 4, "4": 5, "6": 7, "9": 10, "earliest": 1} {
		_, err := set(to)
		require.NoError(t, err)
		from, last := runs()
		require.Equal(t, []uint64{first, 10}, []uint64{from, last}, "behind %s", to)
	}
	for _, to := range []string{"10", "latest"} {
		at, err := set(to)
		require.NoError(t, err)
		require.Equal(t, uint64(10), at)
	}
	for to, problem := range map[string]string{
		"11": "has no event 11; the last is 10", "0": "neither earliest", "x": "neither earliest", "-1": "neither earliest",
	} {
		_, err := set(to)
		require.Equal(t, failure.PlaceInvalid, failure.CodeOf(err))
		require.ErrorContains(t, err, problem)
	}

	state, err := out.log.State(t.Context())
	require.NoError(t, err)
	require.NoError(t, out.log.TrimBefore(t.Context(), state.Last)) // the last four events are left
	_, err = set("5")
	require.ErrorContains(t, err, "event 6 of query late is no longer kept; the oldest behind it is 7")
	_, err = set("6")
	require.NoError(t, err)
	from, _ := runs()
	require.Equal(t, uint64(7), from)

	running := r.startReaction()
	eventually(t, func() bool { q := statusOf(running).Queries; return len(q) == 1 && q[0].Sequence == 10 }, "it runs")
	_, err = r.host().SetPlace(t.Context(), notify, "late", "8", stream.Epoch{Generation: r.attempts.Load()})
	require.Equal(t, failure.FencedOff, failure.CodeOf(err), "a run that has begun keeps its place")
	running.drained()
}
