package pipeline

import (
	"context"
	"sync"
	"time"
)

const (
	// maxMessage is the size at which a message is closed. Larger ones gain no throughput and cost latency.
	maxMessage = 512 << 10
	// maxFragment is the size at which a part of a large transaction is divided. It is more than a source hands over at a time
	// as a rule: such a transaction is taken as a whole, so that only the number of syncs counts.
	maxFragment = 2 << 20
	// maxWaiting is how many encoded bytes may wait for their acknowledgement before those who add are held up.
	maxWaiting = 8 << 20
	// mostFree is how many empty messages are kept to be filled again.
	mostFree = maxWaiting / maxMessage / 2
	// stuckAfter is how long a publish may take before the loop that waits for it counts as stalled.
	stuckAfter = 30 * time.Second
	// deafAfter is how long whoever reads a log may neither get a message, nor hear that there is none, before the loop counts
	// as stalled. A reader takes as long to give up on a server that is away, and then fails.
	deafAfter = 30 * time.Second
)

// parcel is a message that is being filled.
type parcel interface {
	reset()
	size() int
	id() string
	// data ends the message; the bytes are valid until reset.
	data() []byte
}

// outlet publishes parcels one at a time; while one is in flight, whatever is added goes into the next. So an idle
// pipeline sends each thing at once, and a busy one in groups that grow just as large as the log needs: there is no
// linger to configure. Its methods are safe for concurrent use; run is called once.
type outlet[P parcel] struct {
	fresh  func() P
	append func(ctx context.Context, id string, data []byte) (sequence uint64, err error)
	acked  func(p P, sequence uint64) // called in order, by run

	wake chan struct{}

	mu      sync.Mutex
	sealed  []box[P] // full, oldest first
	open    *box[P]  // being filled
	free    []P
	waiting int           // bytes in sealed, open and in flight
	flying  time.Time     // since when a publish is in flight, zero if none
	moved   chan struct{} // closed at the next change of waiting or failed; nil while nobody waits
	failed  error
}

type box[P parcel] struct {
	parcel P
	bytes  int
}

func newOutlet[P parcel](
	fresh func() P,
	append func(ctx context.Context, id string, data []byte) (uint64, error),
	acked func(p P, sequence uint64),
) *outlet[P] {
	return &outlet[P]{fresh: fresh, append: append, acked: acked, wake: make(chan struct{}, 1)}
}

// queued returns how many encoded bytes wait for their acknowledgement.
func (o *outlet[P]) queued() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting
}

// add lets fill put something into the open parcel, after waiting for room. An alone addition gets a parcel of its own.
func (o *outlet[P]) add(ctx context.Context, alone bool, fill func(P)) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.room(ctx); err != nil {
		return err
	}
	if alone {
		o.seal()
	}
	if o.open == nil {
		o.open = &box[P]{parcel: o.recycled()}
	}
	fill(o.open.parcel)
	size := o.open.parcel.size()
	o.waiting += size - o.open.bytes
	o.open.bytes = size
	if alone || size >= maxMessage {
		o.seal()
	}
	o.notify()
	return nil
}

// notify has run look for what to publish.
func (o *outlet[P]) notify() {
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// blank returns an empty parcel to be filled apart from what is added, and then put.
func (o *outlet[P]) blank() P {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.recycled()
}

// put adds a parcel that was filled apart, after waiting for room.
func (o *outlet[P]) put(ctx context.Context, p P) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if err := o.room(ctx); err != nil {
		return err
	}
	o.seal()
	o.sealed = append(o.sealed, box[P]{p, p.size()})
	o.waiting += p.size()
	o.notify()
	return nil
}

// room waits until something may be added.
func (o *outlet[P]) room(ctx context.Context) error {
	for o.failed == nil && o.waiting >= maxWaiting {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	return o.failed
}

func (o *outlet[P]) recycled() P {
	var p P
	if n := len(o.free); n > 0 {
		p, o.free = o.free[n-1], o.free[:n-1]
	} else {
		p = o.fresh()
	}
	p.reset()
	return p
}

func (o *outlet[P]) seal() {
	if o.open != nil {
		o.sealed = append(o.sealed, *o.open)
		o.open = nil
	}
}

// wait releases the lock until something moved.
func (o *outlet[P]) wait(ctx context.Context) error {
	if o.moved == nil {
		o.moved = make(chan struct{})
	}
	moved := o.moved
	o.mu.Unlock()
	defer o.mu.Lock()
	select {
	case <-moved:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (o *outlet[P]) announce() {
	if o.moved != nil {
		close(o.moved)
		o.moved = nil
	}
}

// flush waits until everything that was added is acknowledged.
func (o *outlet[P]) flush(ctx context.Context) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for o.failed == nil && !o.idle() {
		if err := o.wait(ctx); err != nil {
			return err
		}
	}
	return o.failed
}

func (o *outlet[P]) idle() bool { return o.open == nil && len(o.sealed) == 0 && o.flying.IsZero() }

// isIdle reports whether everything that was added is acknowledged.
func (o *outlet[P]) isIdle() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.idle()
}

// isStuck reports whether a publish is in flight for longer than any healthy log takes.
func (o *outlet[P]) isStuck() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return !o.flying.IsZero() && time.Since(o.flying) > stuckAfter
}

// isFull reports whether additions are held up.
func (o *outlet[P]) isFull() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.waiting >= maxWaiting
}

// run publishes until ctx ends or a publish fails; what is not sent by then is not sent.
func (o *outlet[P]) run(ctx context.Context) error {
	for {
		next, ok := o.take()
		if !ok {
			select {
			case <-o.wake:
				continue
			case <-ctx.Done():
				o.fail(ctx.Err())
				return nil
			}
		}
		sequence, err := o.append(ctx, next.parcel.id(), next.parcel.data())
		if err != nil {
			o.fail(err)
			return err
		}
		o.acked(next.parcel, sequence)
		o.done(next)
	}
}

func (o *outlet[P]) take() (box[P], bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.sealed) == 0 {
		o.seal()
	}
	if len(o.sealed) == 0 {
		return box[P]{}, false
	}
	next := o.sealed[0]
	o.sealed = o.sealed[1:]
	o.flying = time.Now()
	return next, true
}

func (o *outlet[P]) done(b box[P]) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.flying = time.Time{}
	o.waiting -= b.bytes
	if len(o.free) < mostFree {
		o.free = append(o.free, b.parcel)
	}
	o.announce()
}

func (o *outlet[P]) fail(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.failed = err
	o.announce()
}
