package pipeline

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// laneQueue is how many deliveries may wait for a lane.
const laneQueue = 16

// delivery brings the events of one query to a reaction: it reads them in order and hands them to lanes, each of which
// delivers one thing at a time. What belongs to one row always goes to the same lane.
//
// How far it came is a key of a bucket and not the floor of a JetStream consumer: after a crash such a consumer would
// hand out new events before those in flight come again, unless only one may be in flight at a time. An attempt begins
// by putting its epoch on the key and writes it under its last revision, so that an older one cannot move it any more.
type delivery struct {
	*deliverer
	query  string
	log    *stream.Log
	logKey string // part of idempotency keys that tells the events of this log from those of one that was deleted
	done   *mark
	skip   uint64 // event that is tried just once; 0: none
	window *window
	lanes  []*lane
	// heard is when the reader last had an event handed out, or heard that there is none while all that it handed out was
	// delivered or on its way.
	heard moment
}

// lane is where deliveries wait for the one before them.
type lane struct {
	queue chan consignment
	left  chan struct{} // closed when nobody takes from the queue any more
	busy  atomic.Bool   // with a delivery, which may take as long as its target is down
	since moment        // when the try that is going on began, none if there is none
}

func newLane() *lane {
	return &lane{queue: make(chan consignment, laneQueue), left: make(chan struct{})}
}

// consignment is a delivery on its way, with the event that it is of.
type consignment struct {
	reaction.Delivery
	of *taken
}

// deliveryRecord is the value of bucket deliveries.
type deliveryRecord struct {
	Message  uint64       `json:"message"`  // of the result log, all of whose events are delivered
	Sequence uint64       `json:"sequence"` // of the last event that is delivered, as all before it are
	At       time.Time    `json:"at"`
	Owner    stream.Epoch `json:"owner"` // attempt that may move it
	// Log is when the result log was made, in nanoseconds: one of a query that was deleted and made again has other events
	// under the same numbers. 0 in old records, which are of the log that there is.
	Log int64 `json:"log,omitempty"`
}

// ownFailure is a failure that concerns one query of a reaction and neither the target nor the other queries.
type ownFailure struct{ error }

func (f ownFailure) Unwrap() error { return f.error }

// run delivers until the reaction drains; then everything delivered is on record.
func (d *delivery) run(ctx context.Context) error {
	g := newGroup(ctx)
	g.run(d.done.run)
	g.run(func(ctx context.Context) error {
		work := newGroup(ctx)
		for _, l := range d.lanes {
			work.run(func(ctx context.Context) error { return d.deliverAll(ctx, l) })
		}
		work.run(d.handOut)
		if err := work.wait(); err != nil {
			return err
		}
		if err := d.done.flush(ctx); err != nil {
			return err
		}
		return errDrained
	})
	if err := g.wait(); !errors.Is(err, errDrained) {
		return err
	}
	return nil
}

// handOut gives the lanes what they are to deliver until the reaction drains.
func (d *delivery) handOut(ctx context.Context) error {
	defer func() {
		for _, l := range d.lanes {
			close(l.queue)
		}
	}()
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error {
		select {
		case <-d.drain:
			return errDrained
		case <-ctx.Done():
			return nil
		}
	})
	g.run(func(reading context.Context) error { return d.read(ctx, reading) })
	err := g.wait()
	if ctx.Err() != nil || errors.Is(err, errDrained) || errors.Is(err, errLeft) {
		return ctx.Err()
	}
	return err
}

// read hands out events until reading ends; the last one is handed out as a whole.
func (d *delivery) read(ctx, reading context.Context) error {
	at := d.done.get()
	reader, err := d.open(reading, at)
	if err != nil {
		return ownFailure{fmt.Errorf("reading the result log of %s: %w", d.query, err)}
	}
	defer reader.Close()
	reader.OnIdle(func() {
		if d.isBusy() || d.window.isEmpty() {
			d.heard.set()
		}
	})
	for {
		d.heard.set()
		m, err := reader.Next(reading)
		if err != nil {
			return ownFailure{fmt.Errorf("reading the result log of %s: %w", d.query, err)}
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return ownFailure{fmt.Errorf("decoding message %d of the result log of %s: %w", m.Sequence, d.query, err)}
		}
		for i, e := range events {
			if e.Sequence <= at.Sequence {
				continue
			}
			if at.Sequence > 0 && e.Sequence != at.Sequence+1 && !isAnew(e) {
				return ownFailure{failure.StreamTrimmed.Errorf("event %d of query %s is no longer kept; the next is %d", at.Sequence+1, d.query, e.Sequence)}
			}
			at.Sequence = e.Sequence
			if i == len(events)-1 {
				at.Message = m.Sequence
			}
			d.heard.set()
			if err := d.hand(ctx, reading, &taken{event: e, at: at}); err != nil {
				return err
			}
		}
	}
}

// open begins to read behind a place. What is no longer kept of what follows it may be none but markers of the query's
// attempts, which the numbers of the events show; and a new reaction begins with the oldest event that is kept.
func (d *delivery) open(ctx context.Context, at deliveryRecord) (*stream.Reader, error) {
	from := at.Message + 1
	reader, err := d.log.Read(ctx, from)
	if failure.CodeOf(err) != failure.StreamTrimmed {
		return reader, err
	}
	state, stateErr := d.log.State(ctx)
	if stateErr != nil {
		return nil, stateErr
	}
	if state.First < from && at.Sequence > 0 {
		return nil, err // it ends before: it is another log than the one that was read
	}
	return d.log.Read(ctx, 0)
}

// hand gives an event to the lanes, after waiting for room until reading ends. One that voids all rows is delivered alone.
func (d *delivery) hand(ctx, reading context.Context, t *taken) error {
	t.left = len(t.event.Diffs)
	whole := !d.byRow || t.left == 0
	if whole {
		t.left = 1
	}
	alone := isAnew(t.event)
	if alone {
		if err := d.window.empty(reading); err != nil {
			return err
		}
	}
	if err := d.window.take(reading, t); err != nil {
		return err
	}
	key := fmt.Sprintf("%s:%s:%s:%d", d.id, d.query, d.logKey, t.event.Sequence)
	if whole {
		if err := d.lanes[0].put(ctx, consignment{reaction.Delivery{Query: d.query, Key: key, Event: t.event}, t}); err != nil {
			return err
		}
	}
	for i := 0; !whole && i < len(t.event.Diffs); i++ {
		row := *t.event
		row.Diffs = t.event.Diffs[i : i+1 : i+1]
		rowKey := row.Diffs[0].Key
		l := d.lanes[binary.BigEndian.Uint64(rowKey[:8])%uint64(len(d.lanes))] // it is a hash
		if err := l.put(ctx, consignment{reaction.Delivery{Query: d.query, Key: key + ":" + rowKey.String(), Event: &row}, t}); err != nil {
			return err
		}
	}
	if alone {
		return d.window.empty(reading)
	}
	return nil
}

func (l *lane) put(ctx context.Context, c consignment) error {
	select {
	case l.queue <- c:
		return nil
	case <-l.left:
		return errLeft
	case <-ctx.Done():
		return ctx.Err()
	}
}

// deliverAll delivers what is handed to a lane until no more is. What was handed out is delivered to its end, which only
// ctx cuts short, or a target that does not take it while the reaction drains.
func (d *delivery) deliverAll(ctx context.Context, l *lane) error {
	defer close(l.left)
	for p := range l.queue {
		l.busy.Store(true)
		err := d.deliver(ctx, l, p)
		l.busy.Store(false)
		if errors.Is(err, errLeft) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("delivering event %d of query %s: %w", p.Event.Sequence, d.query, err)
		}
		d.window.done(p.of)
	}
	return nil
}

func (d *delivery) isBusy() bool {
	return slices.ContainsFunc(d.lanes, func(l *lane) bool { return l.busy.Load() })
}

// hangs reports whether one of its stages does not get on though nothing outside keeps it. While a lane is busy, all that is
// before it may have to wait: it tries its target again for as long as that takes, and the status says so.
func (d *delivery) hangs() bool {
	for _, l := range d.lanes {
		if l.since.isOver(d.timeout + stuckAfter) { // the reaction does not heed the end of its context
			return true
		}
	}
	return d.heard.isOver(d.host.deafAfter) && !d.isBusy() || d.done.due.isOver(stuckAfter)
}

// recorded is called with each event that is delivered, in order.
func (d *delivery) recorded(t *taken) {
	e := t.event
	if !e.CommitTime.IsZero() {
		d.metrics.EndToEnd.Observe(max(0, time.Since(e.CommitTime).Seconds()))
	}
	d.done.set(t.at)
	d.progress.Set(func(s *Status) {
		s.Position, s.Sequence, s.CommitTime, s.Backpressure = e.Position, e.Sequence, e.CommitTime, ""
	})
	d.progress.setQuery(d.query, func(q *QueryDelivery) { q.Sequence, q.State, q.Error = e.Sequence, QueryDelivering, nil })
}

// deliver delivers one thing, trying transient failures again for as long as the spec says. What its target refuses for
// good goes to the dead letters, and so does, however it fails, what somebody wants to be skipped.
func (d *delivery) deliver(ctx context.Context, l *lane, p consignment) error {
	began := time.Now()
	followed, outcome := d.tracer.delivering(d.name, p.Delivery), telemetry.Interrupted
	defer func() { followed.ended(outcome) }()
	if p.Event.Sequence == d.skip {
		err := d.try(followed.context(ctx), l, p.Delivery)
		followed.tried(err)
		switch {
		case err == nil:
			outcome = telemetry.Delivered
			d.metrics.Deliveries.Inc()
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		outcome = telemetry.DeadLettered
		return d.bury(ctx, p, 1, err)
	}
	for tries := 1; ; tries++ {
		failures, err := d.target.admit(ctx)
		if err != nil {
			return err
		}
		err = d.try(followed.context(ctx), l, p.Delivery)
		followed.tried(err)
		d.target.settle(ctx, failures, err)
		switch {
		case err == nil:
			outcome = telemetry.Delivered
			d.metrics.Deliveries.Inc()
			d.metrics.Delivery.Observe(time.Since(began).Seconds())
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case failure.ClassOf(err) == failure.Data:
			outcome = telemetry.DeadLettered
			return d.bury(ctx, p, tries, err)
		case !failure.ClassOf(err).Retryable():
			outcome = telemetry.GivenUp
			return err
		}
		wait := max(backoffAfter(d.retry, tries), waitOf(err))
		if d.exhausted(tries, time.Since(began)+wait) {
			if d.retry.OnExhausted == "deadLetter" {
				outcome = telemetry.DeadLettered
				return d.bury(ctx, p, tries, err)
			}
			outcome = telemetry.GivenUp
			return failure.DeliveryExhausted.Errorf("the target did not take it in %d tries and %s: %w", tries, time.Since(began).Round(time.Millisecond), err)
		}
		report := failure.Describe(err)
		d.progress.setQuery(d.query, func(q *QueryDelivery) { q.State, q.Error = QueryRetrying, &report })
		d.progress.Set(func(s *Status) {
			s.Backpressure = fmt.Sprintf("event %d of query %s is tried again in %s: %s", p.Event.Sequence, d.query, wait.Round(time.Millisecond), err)
		})
		if err := rest(ctx, wait, d.drain, nil); err != nil {
			return err
		}
	}
}

func (d *delivery) exhausted(tries int, until time.Duration) bool {
	r := d.retry
	return r.Attempts > 0 && tries >= r.Attempts || r.Seconds > 0 && until > time.Duration(r.Seconds)*time.Second
}

// try asks the reaction once.
func (d *delivery) try(ctx context.Context, l *lane, delivery reaction.Delivery) error {
	l.since.set()
	defer l.since.clear()
	d.metrics.Attempts.Inc()
	return attemptDelivery(ctx, d.reaction, d.timeout, delivery)
}

// attemptDelivery asks a reaction once, within a bound.
func attemptDelivery(ctx context.Context, r reaction.Deliverer, timeout time.Duration, d reaction.Delivery) error {
	bounded, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	err := failure.Guard(func() error { return r.Deliver(bounded, d) })
	if err != nil && bounded.Err() != nil && ctx.Err() == nil && failure.Of(err) == nil {
		return failure.Timeout.Errorf("the target did not answer within %s: %w", timeout, err)
	}
	return err
}
