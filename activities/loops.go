package activities

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
)

// errSuperseded is the cause with which an older attempt in this process is cancelled.
var errSuperseded = errors.New("a newer attempt of the component runs in this process")

// Loops knows the loops of this process. Two attempts of one component can meet in one process, because Temporal
// hands the next attempt to whoever asks for work, a process that was frozen included. The zero value is ready to use; it
// is safe for concurrent use.
type Loops struct {
	mu      sync.Mutex
	running map[string]*claim
}

type claim struct {
	epoch    stream.Epoch
	began    time.Time
	progress *pipeline.Progress
	stop     context.CancelCauseFunc
	done     chan struct{}
}

// Loop is how one loop of this process does.
type Loop struct {
	Component  string
	Generation uint64
	Since      time.Time     // when the attempt began
	Silent     time.Duration // since it last got on with its work, or looked and found none
	Status     pipeline.Status
}

// List returns the loops that run, those included that were told to end and have not yet; ordered by component.
func (l *Loops) List() []Loop {
	l.mu.Lock()
	defer l.mu.Unlock()
	list := make([]Loop, 0, len(l.running))
	for _, component := range slices.Sorted(maps.Keys(l.running)) {
		c := l.running[component]
		list = append(list, Loop{component, c.epoch.Generation, c.began, silent(c.progress, c.began, time.Now()), c.progress.Snapshot()})
	}
	return list
}

// silent is how long a loop has made no progress.
func silent(p *pipeline.Progress, began, now time.Time) time.Duration {
	last := p.LastTick()
	if last.Before(began) {
		last = began
	}
	return now.Sub(last)
}

// supersedeWait bounds the wait for an older attempt. Its fence keeps it from harm when it takes longer.
const supersedeWait = 10 * time.Second

// claim enters an attempt and ends an older one of the same component. The returned function leaves.
func (l *Loops) claim(ctx context.Context, component string, mine *claim) (leave func(), err error) {
	mine.done = make(chan struct{})
	l.mu.Lock()
	older := l.running[component]
	if older != nil && older.epoch.Compare(mine.epoch) > 0 {
		l.mu.Unlock()
		return nil, failure.FencedOff.Errorf("attempt %s of %s is older than %s, which runs here", mine.epoch, component, older.epoch)
	}
	if l.running == nil {
		l.running = make(map[string]*claim)
	}
	l.running[component] = mine
	l.mu.Unlock()

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
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.running[component] == mine {
			delete(l.running, component)
		}
	}, nil
}
