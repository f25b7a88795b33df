package activities

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
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
	running map[*claim]struct{}
	newest  map[string]*claim // of those that run, by component
}

type claim struct {
	component string
	epoch     stream.Epoch
	began     time.Time
	stalled   time.Duration // a silence after which it is ended
	progress  *pipeline.Progress
	stop      context.CancelCauseFunc
	told      atomic.Pointer[time.Time] // when the loop was told to end; nil: it was not
	done      chan struct{}
}

// end tells the loop to end.
func (c *claim) end(cause error) {
	now := time.Now()
	c.told.CompareAndSwap(nil, &now)
	c.stop(cause)
}

// Loop is how one loop of this process does.
type Loop struct {
	Component  string
	Generation uint64
	Since      time.Time     // when the attempt began
	Silent     time.Duration // since it last got on with its work, or looked and found none
	Stalled    time.Duration // a silence after which it is ended
	Ending     time.Duration // since it was told to end; 0: it was not
	Status     pipeline.Status
}

// List returns the loops that run, those included that were told to end and have not yet, also when newer ones have begun
// since; ordered by component, the newest of each last.
func (l *Loops) List() []Loop {
	l.mu.Lock()
	defer l.mu.Unlock()
	claims := slices.SortedFunc(maps.Keys(l.running), func(a, b *claim) int {
		return cmp.Or(cmp.Compare(a.component, b.component), a.epoch.Compare(b.epoch))
	})
	now := time.Now()
	list := make([]Loop, 0, len(claims))
	for _, c := range claims {
		one := Loop{
			Component: c.component, Generation: c.epoch.Generation, Since: c.began, Silent: silent(c.progress, c.began, now),
			Stalled: c.stalled, Status: c.progress.Snapshot(),
		}
		if told := c.told.Load(); told != nil {
			one.Ending = now.Sub(*told)
		}
		list = append(list, one)
	}
	return list
}

// count returns how many loops run.
func (l *Loops) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.running)
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

// claim enters an attempt and ends an older one of the same component. The returned function leaves; a loop that does not
// end never does.
func (l *Loops) claim(ctx context.Context, mine *claim) (leave func(), err error) {
	mine.done = make(chan struct{})
	l.mu.Lock()
	older := l.newest[mine.component]
	if older != nil && older.epoch.Compare(mine.epoch) > 0 {
		l.mu.Unlock()
		return nil, failure.FencedOff.Errorf("attempt %s of %s is older than %s, which runs here", mine.epoch, mine.component, older.epoch)
	}
	if l.running == nil {
		l.running, l.newest = make(map[*claim]struct{}), make(map[string]*claim)
	}
	l.running[mine], l.newest[mine.component] = struct{}{}, mine
	l.mu.Unlock()

	if older != nil {
		older.end(errSuperseded)
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
		delete(l.running, mine)
		if l.newest[mine.component] == mine {
			delete(l.newest, mine.component)
		}
	}, nil
}
