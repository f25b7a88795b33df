package pipeline

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
)

// shortDeafness is a little more than a stream server that is well may be silent.
const shortDeafness = 2 * time.Second

// stopsTicking waits until a stage that runs makes no progress.
func (r *run) stopsTicking() {
	r.t.Helper()
	eventually(r.t, func() bool { return len(r.done) > 0 || time.Since(r.status.LastTick()) > 2*shortDeafness }, "the ticks stop")
	require.Empty(r.t, r.done, "the stage ended")
}

// ticksOn watches a stage for longer than it may be deaf.
func (r *run) ticksOn() {
	r.t.Helper()
	began := time.Now()
	eventually(r.t, func() bool { return r.status.LastTick().After(began) }, "it ticks")
	eventually(r.t, func() bool {
		require.Less(r.t, time.Since(r.status.LastTick()), 2*shortDeafness)
		return r.status.LastTick().Sub(began) > 3*shortDeafness
	}, "it ticks on")
}

// TestDeafStagesDoNotTick: a query and a reaction with nothing to do make progress as long as they hear that there is nothing.
func TestDeafStagesDoNotTick(t *testing.T) {
	r, _ := newReading(t, 3)
	r.deafAfter = shortDeafness
	r.reactions = append(r.reactions, &receiver{})
	query := r.startQuery(auto)
	r.following(query)
	reaction := r.startReaction()
	query.ticksOn()
	reaction.ticksOn()
	r.stopServer()
	query.stopsTicking()
	reaction.stopsTicking()
}

// TestBlockedDeliveryDoesNotTick: what was delivered is noted by a lane that is kept from it, and so is whoever hands out more.
func TestBlockedDeliveryDoesNotTick(t *testing.T) {
	r := newRig(t)
	r.deafAfter = shortDeafness
	r.reactions = append(r.reactions, &receiver{})
	out := r.results()
	running := r.startReaction()
	out.publish(1)
	eventually(t, func() bool { return running.status.Snapshot().Sequence == 1 }, "the first event")
	func() {
		running.status.mu.Lock()
		defer running.status.mu.Unlock()
		out.publish(1, 1)
		running.stopsTicking()
	}()
	eventually(t, func() bool { return running.status.Snapshot().Sequence == 3 }, "the last event")
	running.ticksOn()
	running.drained()
}

// TestWaitingForATargetIsNoStall, however many events wait behind the one that is not taken.
func TestWaitingForATargetIsNoStall(t *testing.T) {
	r := newRig(t)
	r.deafAfter = shortDeafness
	r.reactions = append(r.reactions, &receiver{hold: func(context.Context, reaction.Delivery) error {
		return failure.DeliveryFailed.Errorf("down")
	}})
	r.results().publish(windowSize, windowSize)
	spec := notify
	spec.Delivery.Retry = component.Retry{FirstMillis: 60_000, MaxMillis: 60_000}
	running := r.startReactionOf(spec)
	eventually(t, func() bool { return statusOf(running).Failures > 0 }, "a try")
	running.ticksOn()
	running.drained()
}

// TestDeliveriesThatHang: a try beyond its bound, a place that is not written, and events that nobody delivers.
func TestDeliveriesThatHang(t *testing.T) {
	longAgo := -int64(time.Hour)
	for name, block := range map[string]func(*delivery){
		"nothing": nil,
		"try":     func(d *delivery) { d.lanes[0].busy.Store(true); d.lanes[0].since.ticks.Store(longAgo) },
		"mark":    func(d *delivery) { d.done.due.ticks.Store(longAgo) },
		"reader":  func(d *delivery) { d.heard.ticks.Store(longAgo) },
	} {
		d := &delivery{deliverer: &deliverer{host: &Host{deafAfter: deafAfter}}, done: &mark{}, lanes: []*lane{newLane()}}
		d.heard.set()
		if block != nil {
			block(d)
		}
		require.Equal(t, block != nil, d.hangs(), name)
		d.deliverer.open = []*delivery{d}
		require.Equal(t, block != nil, d.deliverer.hangs(), name)
	}
	d := &delivery{deliverer: &deliverer{host: &Host{deafAfter: deafAfter}}, done: &mark{}, lanes: []*lane{newLane()}}
	d.heard.ticks.Store(longAgo)
	d.lanes[0].busy.Store(true)
	require.False(t, d.hangs(), "a lane waits for its target")
}
