package pipeline

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// Status is what a running loop shows of itself.
type Status struct {
	Position     graph.Position    `json:"position,omitempty"`     // in the source
	Offset       uint64            `json:"offset,omitempty"`       // in the change log
	Sequence     uint64            `json:"sequence,omitempty"`     // of the last event
	CommitTime   time.Time         `json:"commitTime,omitzero"`    // of the last transaction
	Phase        string            `json:"phase,omitempty"`        // what the loop is doing: streaming, interrupted, loading, following, delivering, serving, draining
	Backpressure string            `json:"backpressure,omitempty"` // what the loop waits for, when it is held up
	Details      map[string]string `json:"details,omitempty"`
	// Missing is what a query lacks that ended with NeedsResync; nil then: all of all its sources is to be read.
	Missing  *Missing        `json:"missing,omitempty"`
	Intake   *IntakeStatus   `json:"intake,omitempty"`   // of a source; nil: it has yet to find out
	Delivery *DeliveryStatus `json:"delivery,omitempty"` // of a reaction that pushes
}

// IntakeStatus is how a source gets on with its system. It is never changed, but replaced.
type IntakeStatus struct {
	Failures     int             `json:"failures,omitempty"`    // tries in a row that failed
	FailingSince time.Time       `json:"failingSince,omitzero"` // when the first of them ended
	LastError    *failure.Report `json:"lastError,omitempty"`   // of the last of them; nil: changes come
}

// DeliveryStatus is how a reaction gets on with its target.
type DeliveryStatus struct {
	Target       string          `json:"target"`                // breaker: closed, open or half-open
	Failures     int             `json:"failures,omitempty"`    // tries in a row that failed
	FailingSince time.Time       `json:"failingSince,omitzero"` // when the first of them ended
	LastError    *failure.Report `json:"lastError,omitempty"`   // of the last of them
	Queries      []QueryDelivery `json:"queries"`               // in the order of the spec
	DeadLetters  DeadLetterCount `json:"deadLetters"`
}

// States of the delivery of one query.
const (
	QueryDelivering = "delivering"
	QueryRetrying   = "retrying" // the target does not take an event for now
	QueryWaiting    = "waiting"  // its results cannot be read for now
	QueryFailed     = "failed"   // its results can no longer be read; the other queries go on
)

// QueryDelivery is how far the results of one query are delivered.
type QueryDelivery struct {
	Query    string          `json:"query"`
	State    string          `json:"state"`
	Sequence uint64          `json:"sequence,omitempty"` // of the last event that is delivered, as all before it are
	Error    *failure.Report `json:"error,omitempty"`    // why it does not get on
}

// Progress is how a loop tells its watcher that it lives and where it is. The zero value is ready to use, a nil one
// ignores everything; it is safe for concurrent use.
type Progress struct {
	tick   moment
	mu     sync.Mutex
	status Status
}

// Tick says that the loop is alive and, if it has work, gets on with it.
func (p *Progress) Tick() {
	if p != nil {
		p.tick.set()
	}
}

// LastTick returns when Tick was last called, the zero time if never.
func (p *Progress) LastTick() time.Time {
	if p == nil {
		return time.Time{}
	}
	return p.tick.get()
}

// moment is a time that can be set and read at once, none at first. It keeps to the clock that only goes forward: whoever
// sets the time of day makes nobody look hung.
type moment struct{ ticks atomic.Int64 }

var firstMoment = time.Now()

func (m *moment) set()   { m.ticks.Store(int64(time.Since(firstMoment)) + 1) }
func (m *moment) clear() { m.ticks.Store(0) }

// isOver reports whether the moment is longer ago than that; none never is.
func (m *moment) isOver(d time.Duration) bool {
	t := m.get()
	return !t.IsZero() && time.Since(t) > d
}

// get returns the zero time when there is none.
func (m *moment) get() time.Time {
	if t := m.ticks.Load(); t != 0 {
		return firstMoment.Add(time.Duration(t))
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

// setDelivery changes the status of a reaction's delivery.
func (p *Progress) setDelivery(change func(*DeliveryStatus)) {
	p.Set(func(s *Status) {
		if s.Delivery == nil {
			s.Delivery = &DeliveryStatus{Target: TargetClosed}
		}
		change(s.Delivery)
	})
}

// setQuery changes the status of one query's delivery.
func (p *Progress) setQuery(name string, change func(*QueryDelivery)) {
	p.setDelivery(func(d *DeliveryStatus) {
		i := slices.IndexFunc(d.Queries, func(q QueryDelivery) bool { return q.Query == name })
		if i < 0 {
			i = len(d.Queries)
			d.Queries = append(d.Queries, QueryDelivery{Query: name, State: QueryDelivering})
		}
		change(&d.Queries[i])
	})
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
	if s.Delivery != nil {
		d := *s.Delivery
		d.Queries = slices.Clone(d.Queries)
		s.Delivery = &d
	}
	return s
}
