package pipeline

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// Status is what a running loop shows of itself.
type Status struct {
	Position     graph.Position    `json:"position,omitempty"`     // in the source
	Offset       uint64            `json:"offset,omitempty"`       // in the change log
	Sequence     uint64            `json:"sequence,omitempty"`     // of the last event
	CommitTime   time.Time         `json:"commitTime,omitzero"`    // of the last transaction
	Phase        string            `json:"phase,omitempty"`        // what the loop is doing: loading, following, retrying...
	Backpressure string            `json:"backpressure,omitempty"` // what the loop waits for, when it is held up
	Details      map[string]string `json:"details,omitempty"`
}

// Progress is how a loop tells its watcher that it lives and where it is. The zero value is ready to use, a nil one
// ignores everything; it is safe for concurrent use.
type Progress struct {
	tick   atomic.Int64
	mu     sync.Mutex
	status Status
}

// Tick says that the loop is alive and, if it has work, gets on with it.
func (p *Progress) Tick() {
	if p != nil {
		p.tick.Store(time.Now().UnixNano())
	}
}

// LastTick returns when Tick was last called, the zero time if never.
func (p *Progress) LastTick() time.Time {
	if p == nil {
		return time.Time{}
	}
	if t := p.tick.Load(); t != 0 {
		return time.Unix(0, t)
	}
	return time.Time{}
}

// Set changes the status.
func (p *Progress) Set(change func(*Status)) {
	if p != nil {
		p.mu.Lock()
		defer p.mu.Unlock()
		change(&p.status)
	}
}

// SetDetail sets one detail; an empty value removes it.
func (p *Progress) SetDetail(key, value string) {
	p.Set(func(s *Status) {
		switch {
		case value == "":
			delete(s.Details, key)
		case s.Details == nil:
			s.Details = map[string]string{key: value}
		default:
			s.Details[key] = value
		}
	})
}

// Snapshot returns a copy of the status.
func (p *Progress) Snapshot() Status {
	if p == nil {
		return Status{}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.status
	s.Details = maps.Clone(s.Details)
	return s
}
