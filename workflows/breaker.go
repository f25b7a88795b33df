package workflows

import (
	"fmt"
	"hash/fnv"
	"time"
)

// States of a breaker.
const (
	breakerClosed   = "closed"
	breakerOpen     = "open"
	breakerHalfOpen = "half-open"
)

// Breaker keeps a component that fails again and again from costing more than a try now and then. It only counts what
// reached the workflow: failures that the loop itself, and then Temporal's retries of its activity, did not overcome.
type Breaker struct {
	State     string     `json:"state"`
	Failures  int        `json:"failures"`
	OpenUntil *time.Time `json:"openUntil,omitempty"`
	LastError *LastError `json:"lastError,omitempty"`
}

const (
	breakerFirst = time.Minute
	breakerMost  = 30 * time.Minute
	// healthyFor is how long a run must last to show that what failed before is over.
	healthyFor = 10 * time.Minute
)

// waits are the first and the longest wait of a breaker.
type waits struct{ first, most time.Duration }

// wait returns the wait after so many failures in a row.
func (w waits) wait(failures int) time.Duration {
	if shift := failures - 1; w.first <= w.most>>shift { // or it may overflow
		return w.first << shift
	}
	return w.most
}

// fail opens the breaker. The wait doubles with each failure in a row; seed spreads it by a fifth either way, always
// the same for the same seed, so that a replay comes to the same time and many components do not try all at once.
func (b *Breaker) fail(now time.Time, seed string, w waits) {
	b.State = breakerOpen
	b.Failures++
	wait := w.wait(b.Failures)
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", seed, b.Failures)
	wait += wait * time.Duration(int64(h.Sum32()%401)-200) / 1000
	until := now.Add(wait.Round(time.Second))
	b.OpenUntil = &until
}

// probe lets one try through.
func (b *Breaker) probe() {
	if b.State == breakerOpen {
		b.State, b.OpenUntil = breakerHalfOpen, nil
	}
}

// reset forgets all failures; the last error stays, for people to read.
func (b *Breaker) reset() { b.State, b.Failures, b.OpenUntil = breakerClosed, 0, nil }
