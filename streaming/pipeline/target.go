package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/telemetry"
)

// States of a target.
const (
	TargetClosed   = "closed"    // deliveries flow
	TargetOpen     = "open"      // none is tried until a pause is over
	TargetHalfOpen = "half-open" // one is being tried; its outcome decides for all
)

const (
	// opensAfter is how many tries in a row must fail before nobody but a probe goes to the target.
	opensAfter = 5
	// longestWait bounds how long a target can ask to be left alone.
	longestWait = time.Hour
)

// errLeft ends a delivery that is not taken while the reaction drains: the next run begins with it.
var errLeft = errors.New("the reaction drains and its target does not take the event")

// target is the circuit breaker before what a reaction delivers to. All lanes of all its queries share it, so that a
// target that is down gets one try at a time, at growing pauses, however many wait.
type target struct {
	retry    component.Retry
	drain    <-chan struct{}
	metrics  *telemetry.Reaction
	progress *Progress

	mu       sync.Mutex
	failures int // one after the other, in a row
	until    time.Time
	probing  bool
	moved    chan struct{} // closed at the next change
}

func newTarget(retry component.Retry, drain <-chan struct{}, metrics *telemetry.Reaction, progress *Progress) *target {
	return &target{retry: retry, drain: drain, metrics: metrics, progress: progress, moved: make(chan struct{})}
}

// backoffAfter is how long to wait after so many failures in a row: it doubles with each, and is spread by a fifth either way.
func backoffAfter(retry component.Retry, failures int) time.Duration {
	longest := time.Duration(retry.MaxMillis) * time.Millisecond
	p := longest
	if first := time.Duration(retry.FirstMillis) * time.Millisecond; first <= longest>>(failures-1) { // or it may overflow
		p = first << (failures - 1)
	}
	return p*4/5 + rand.N(p*2/5+1)
}

// admit waits until a try may begin and returns how many before it failed in a row. Whoever is admitted tells settle that
// number and how it went.
func (t *target) admit(ctx context.Context) (failures int, err error) {
	for {
		t.mu.Lock()
		wait := time.Until(t.until)
		if t.failures < opensAfter || wait <= 0 && !t.probing {
			if t.failures >= opensAfter {
				t.probing = true
				t.show(TargetHalfOpen)
			}
			failures = t.failures
			t.mu.Unlock()
			return failures, nil
		}
		if t.probing {
			wait = longestWait // its end is told
		}
		moved := t.moved
		t.mu.Unlock()
		if err := rest(ctx, wait, t.drain, moved); err != nil {
			return 0, err
		}
	}
}

// rest waits for a time, or until something moved. It fails when ctx ends or the reaction drains.
func rest(ctx context.Context, wait time.Duration, drain, moved <-chan struct{}) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-moved:
	case <-drain:
		return errLeft
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// settle takes the outcome of a try that was admitted after so many failures. A target that refuses one delivery for good is
// well. Tries that go on at the same time fail together, which says no more than one of them does: it counts as one failure.
func (t *target) settle(ctx context.Context, admitted int, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if admitted >= opensAfter {
		t.probing = false
	}
	switch {
	case err == nil || failure.ClassOf(err) == failure.Data:
		if t.failures > 0 {
			t.failures = 0
			t.progress.setDelivery(func(d *DeliveryStatus) { d.Failures, d.FailingSince, d.LastError = 0, time.Time{}, nil })
			t.show(TargetClosed)
		}
	case ctx.Err() != nil: // says nothing of the target
	default:
		until := time.Now().Add(waitOf(err))
		if admitted >= t.failures {
			t.failures++
			t.until = time.Now().Add(backoffAfter(t.retry, t.failures))
		}
		if until.After(t.until) {
			t.until = until
		}
		report := failure.Describe(err)
		t.progress.setDelivery(func(d *DeliveryStatus) {
			if d.Failures == 0 {
				d.FailingSince = time.Now().UTC()
			}
			d.Failures, d.LastError = t.failures, &report
		})
		if t.failures >= opensAfter {
			t.show(TargetOpen)
		}
	}
	close(t.moved)
	t.moved = make(chan struct{})
}

// show is called with the lock held.
func (t *target) show(state string) {
	t.progress.setDelivery(func(d *DeliveryStatus) { d.Target = state })
	open := 0.0
	if state != TargetClosed {
		open = 1
	}
	t.metrics.BreakerOpen.Set(open)
}

// waitOf is how long the target asked to be left alone, 0 if it did not.
func waitOf(err error) time.Duration {
	var asked reaction.Wait
	if !errors.As(err, &asked) {
		return 0
	}
	return min(time.Duration(asked), longestWait)
}
