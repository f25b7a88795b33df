package activities

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/stream"
)

// errSuperseded is the cause with which an older attempt in this process is cancelled.
var errSuperseded = errors.New("a newer attempt of the component runs in this process")

// registry knows the loops of this process. Two attempts of one component can meet in one process, because Temporal
// hands the next attempt to whoever asks for work, a process that was frozen included.
type registry struct {
	mu      sync.Mutex
	running map[string]*claim
}

type claim struct {
	epoch stream.Epoch
	stop  context.CancelCauseFunc
	done  chan struct{}
}

// supersedeWait bounds the wait for an older attempt. Its fence keeps it from harm when it takes longer.
const supersedeWait = 10 * time.Second

// claim enters an attempt and ends an older one of the same component. The returned function leaves.
func (r *registry) claim(ctx context.Context, component string, epoch stream.Epoch, stop context.CancelCauseFunc) (leave func(), err error) {
	mine := &claim{epoch: epoch, stop: stop, done: make(chan struct{})}
	r.mu.Lock()
	older := r.running[component]
	if older != nil && older.epoch.Compare(epoch) > 0 {
		r.mu.Unlock()
		return nil, failure.FencedOff.Errorf("attempt %s of %s is older than %s, which runs here", epoch, component, older.epoch)
	}
	if r.running == nil {
		r.running = make(map[string]*claim)
	}
	r.running[component] = mine
	r.mu.Unlock()

	if older != nil {
		older.stop(errSuperseded)
		timer := time.NewTimer(supersedeWait)
		defer timer.Stop()
		select {
		case <-older.done:
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return func() {
		close(mine.done)
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.running[component] == mine {
			delete(r.running, component)
		}
	}, nil
}
