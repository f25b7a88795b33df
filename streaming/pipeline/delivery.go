package pipeline

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// deliverFor is how long one event is tried again in place before the reaction gives up and leaves the next try to
// whoever started it.
const deliverFor = 5 * time.Minute

// lane delivers the events of one query to a reaction, in order.
//
// How far it came is a key of a bucket and not the floor of a JetStream consumer: after a crash such a consumer would
// hand out new events before those in flight come again, unless only one may be in flight at a time. An attempt begins
// by putting its epoch on the key and writes it under its last revision, so that an older one cannot move it any more.
type lane struct {
	reaction reaction.Deliverer
	query    string
	log      *stream.Log
	letters  *stream.SharedWriter // dead letters
	progress *Progress
	metrics  *telemetry.Reaction

	done  *mark
	drain <-chan struct{}
	since atomic.Int64 // when the delivery that is going on began, 0 if none
}

// deliveryRecord is the value of bucket deliveries.
type deliveryRecord struct {
	Message  uint64       `json:"message"`  // of the result log, all of whose events are delivered
	Sequence uint64       `json:"sequence"` // of the last event that is delivered
	At       time.Time    `json:"at"`
	Owner    stream.Epoch `json:"owner"` // attempt that may move it
}

// deadLetter is a message of a dead-letter log.
type deadLetter struct {
	Query    string         `json:"query"`
	Sequence uint64         `json:"sequence"`
	Failure  failure.Report `json:"failure"`
	Event    *result.Event  `json:"event"`
}

// run delivers until the attempt is to be drained; then everything delivered is on record.
func (l *lane) run(ctx context.Context) error {
	g := newGroup(ctx)
	reading, stop := context.WithCancel(g.ctx)
	defer stop()
	g.run(func(ctx context.Context) error {
		select {
		case <-l.drain:
			stop()
		case <-ctx.Done():
		}
		return nil
	})
	g.run(l.done.run)
	g.run(func(ctx context.Context) error {
		if err := l.deliverAll(ctx, reading); err != nil {
			return err
		}
		if err := l.done.flush(ctx); err != nil {
			return err
		}
		return errDrained
	})
	if err := g.wait(); !errors.Is(err, errDrained) {
		return err
	}
	return nil
}

// deliverAll delivers until reading ends. An event that was taken is delivered to its end, which only ctx cuts short.
func (l *lane) deliverAll(ctx, reading context.Context) error {
	at := l.done.get()
	reader, err := l.open(reading, at)
	if err != nil {
		return fmt.Errorf("reading the result log of %s: %w", l.query, err)
	}
	defer reader.Close()
	for {
		m, err := reader.Next(reading)
		if reading.Err() != nil {
			return ctx.Err() // nil when draining
		}
		if err != nil {
			return fmt.Errorf("reading the result log of %s: %w", l.query, err)
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of the result log of %s: %w", m.Sequence, l.query, err)
		}
		for i, e := range events {
			if e.Sequence <= at.Sequence {
				continue
			}
			if at.Sequence > 0 && e.Sequence != at.Sequence+1 && !isAnew(e) {
				return failure.StreamTrimmed.Errorf("event %d of query %s is no longer kept; the next is %d", at.Sequence+1, l.query, e.Sequence)
			}
			if err := l.deliver(ctx, e); err != nil {
				return fmt.Errorf("delivering event %d of query %s: %w", e.Sequence, l.query, err)
			}
			if at.Sequence = e.Sequence; !e.CommitTime.IsZero() {
				l.metrics.EndToEnd.Observe(max(0, time.Since(e.CommitTime).Seconds()))
			}
			if i == len(events)-1 {
				at.Message = m.Sequence
			}
			l.done.set(at)
			l.progress.Set(func(s *Status) {
				s.Position, s.Sequence, s.CommitTime, s.Backpressure = e.Position, e.Sequence, e.CommitTime, ""
			})
			if reading.Err() != nil {
				break
			}
		}
	}
}

// open begins to read behind a place. What is no longer kept of what follows it may be none but markers of the query's
// attempts, which the numbers of the events show; and a new reaction begins with the oldest event that is kept.
func (l *lane) open(ctx context.Context, at deliveryRecord) (*stream.Reader, error) {
	from := at.Message + 1
	reader, err := l.log.Read(ctx, from)
	if failure.CodeOf(err) != failure.StreamTrimmed {
		return reader, err
	}
	state, stateErr := l.log.State(ctx)
	if stateErr != nil {
		return nil, stateErr
	}
	if state.First < from && at.Sequence > 0 {
		return nil, err // it ends before: it is another log than the one that was read
	}
	return l.log.Read(ctx, 0)
}

// deliver delivers one event, trying transient failures again. What its target refuses for good goes to the dead
// letters.
func (l *lane) deliver(ctx context.Context, e *result.Event) error {
	defer l.since.Store(0)
	began := time.Now()
	wait := backoff.NewExponentialBackOff()
	wait.InitialInterval = 100 * time.Millisecond
	wait.MaxInterval = 30 * time.Second
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		l.since.Store(time.Now().UnixNano())
		l.metrics.Attempts.Inc()
		err := guard(func() error { return l.reaction.Deliver(ctx, l.query, e) })
		if err != nil && (ctx.Err() != nil || !failure.ClassOf(err).Retryable()) {
			err = backoff.Permanent(err)
		}
		return struct{}{}, err
	},
		backoff.WithBackOff(wait),
		backoff.WithMaxElapsedTime(deliverFor),
		backoff.WithNotify(func(err error, next time.Duration) {
			l.progress.Set(func(s *Status) {
				s.Backpressure = fmt.Sprintf("event %d of query %s is tried again in %s: %s", e.Sequence, l.query, next.Round(time.Millisecond), err)
			})
		}),
	)
	if err == nil {
		l.metrics.Deliveries.Inc()
		l.metrics.Delivery.Observe(time.Since(began).Seconds())
	}
	if err == nil || failure.ClassOf(err) != failure.Data {
		return err
	}
	l.metrics.DeadLetters.Inc()
	letter, encodeErr := json.Marshal(deadLetter{l.query, e.Sequence, failure.Describe(err), e})
	if encodeErr != nil {
		return fmt.Errorf("encoding a dead letter: %w", encodeErr)
	}
	_, err = retried(ctx, func() (uint64, error) {
		return l.letters.Append(ctx, fmt.Sprintf("%s:%d", l.query, e.Sequence), letter)
	})
	if err != nil {
		return fmt.Errorf("writing a dead letter: %w", err)
	}
	return nil
}

// runDeliverer delivers the results of all queries until drained, each query in its own order.
func (h *Host) runDeliverer(ctx context.Context, a Attempt, spec component.ReactionSpec, d reaction.Deliverer, fence *stream.Fence) error {
	id := spec.ID()
	letters, err := h.conn.EnsureLog(ctx, logOptions(deadLetterLog(id.Instance, id.Name), spec.Policy, "dead letters of "+id.String()))
	if err != nil {
		return fmt.Errorf("opening the dead-letter log: %w", err)
	}
	deliveries, err := h.bucket(ctx, deliveriesBucket)
	if err != nil {
		return err
	}
	metrics := h.metrics.Reaction(id.Instance, id.Name)
	defer metrics.Close()
	lanes := make([]*lane, 0, len(spec.Queries))
	for _, name := range spec.Queries {
		log, err := h.openResultLog(ctx, id.Instance, name)
		if err != nil {
			return err
		}
		done, err := openMark(ctx, deliveries, id.Instance+"."+id.Name+"."+name, a.Epoch)
		if err != nil {
			return err
		}
		lanes = append(lanes, &lane{
			reaction: d, query: name, log: log, letters: letters.NewSharedWriter(), progress: a.Progress, metrics: metrics,
			done: done, drain: a.Drain,
		})
	}
	a.Progress.Set(func(s *Status) { s.Phase = "delivering" })
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error { return attend(ctx, a.Progress, fence, lanes) })
	g.run(func(ctx context.Context) error {
		work := newGroup(ctx)
		for _, l := range lanes {
			work.run(l.run)
		}
		if err := work.wait(); err != nil {
			return err
		}
		return errDrained
	})
	if err := g.wait(); !errors.Is(err, errDrained) {
		return err
	}
	return nil
}

// attend says that the reaction is alive as long as no delivery hangs, and stops it when a newer attempt took over.
func attend(ctx context.Context, p *Progress, fence *stream.Fence, lanes []*lane) error {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	healthy, checked := time.Now(), time.Now()
	for {
		hanging := slices.ContainsFunc(lanes, func(l *lane) bool {
			since := l.since.Load()
			return since != 0 && time.Since(time.Unix(0, since)) > stuckAfter
		})
		if !hanging {
			p.Tick()
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil
		}
		if time.Since(checked) < fenceEvery {
			continue
		}
		if err := fence.Check(ctx); err == nil {
			healthy, checked = time.Now(), time.Now()
		} else if ctx.Err() == nil && (!failure.ClassOf(err).Retryable() || time.Since(healthy) > patience) {
			return err
		}
	}
}
