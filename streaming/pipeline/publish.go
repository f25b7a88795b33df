package pipeline

import (
	"context"
	"fmt"
	"sync"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// events is a message of a result log that is being filled.
type events struct {
	epoch       stream.Epoch
	buf         []byte
	first, last uint64
	followed    []applying // what those of the events belong to that are followed
}

func (e *events) reset() {
	e.buf, e.first, e.last, e.followed = result.BeginMessage(e.buf[:0]), 0, 0, e.followed[:0]
}

func (e *events) size() int    { return len(e.buf) }
func (e *events) data() []byte { return e.buf }

// id names the message; as in a change log, only the very same message may ever be taken for a duplicate.
func (e *events) id() string { return fmt.Sprintf("%d-%d:%s", e.first, e.last, e.epoch) }

func (e *events) took(sequence uint64) {
	if e.first == 0 {
		e.first = sequence
	}
	e.last = sequence
}

// publish hands an event to the outlet, unless an earlier attempt published it: then this one has only made it again,
// from a state that lost its end in a crash of the machine. The work is what is known of the transactions that are followed.
func (r *queryRun) publish(ctx context.Context, e *result.Event, work []applying) error {
	if e.Sequence <= r.published {
		return nil
	}
	if e.Sequence != r.published+1 && r.published > 0 {
		return failure.StateCorrupt.Errorf("event %d follows event %d", e.Sequence, r.published)
	}
	return r.send(ctx, e, work)
}

func (r *queryRun) send(ctx context.Context, e *result.Event, work []applying) error {
	r.published = e.Sequence
	r.metrics.Events.Inc()
	return r.out.add(ctx, false, func(p *events) {
		p.buf = result.AppendEvent(p.buf, e)
		p.took(e.Sequence)
		if a := r.tracer.event(r.id.Name, e, work); a != nil {
			p.followed = append(p.followed, *a)
		}
	})
}

// publishedBefore sets the last event that was published when the result log does not say, being empty because all events
// have aged out of it: everything but what is in the outbox was. While nothing was ever taken out of the outbox, nothing
// may have been published, and that is what counts: who has seen the events before passes over them.
func (r *queryRun) publishedBefore() error {
	if r.published > 0 {
		return nil
	}
	trimmed := r.query.State().Sequence
	err := r.query.Outbox(0, func(sequence uint64, _ []byte) (bool, error) {
		trimmed = sequence - 1
		return false, nil
	})
	if err != nil {
		return fmt.Errorf("looking for the beginning of the outbox: %w", err)
	}
	if trimmed > 0 {
		r.published = r.base + trimmed
	}
	return nil
}

// publishOutbox publishes what was committed but not published when the attempt before ended. A state that was built
// anew begins with a Snapshot event without differences, which says that all rows known so far are void; without it,
// who follows could not tell where one snapshot ends and the next begins, or that the new one has no rows.
func (r *queryRun) publishOutbox(ctx context.Context) error {
	if err := r.publishedBefore(); err != nil {
		return err
	}
	r.logged.set(r.published)
	if r.published < r.base {
		anew := &result.Event{Sequence: r.base, Snapshot: true, Columns: r.plan.Columns()}
		if err := r.send(ctx, anew, nil); err != nil {
			return err
		}
	}
	after := r.published - min(r.published, r.base)
	err := r.query.Outbox(after, func(_ uint64, encoded []byte) (bool, error) {
		e, _, err := result.DecodeEvent(encoded)
		if err != nil {
			return false, err
		}
		e.Sequence += r.base
		return true, r.publish(ctx, e, nil)
	})
	if err != nil {
		return fmt.Errorf("publishing the outbox: %w", err)
	}
	return nil
}

// rebuiltAfter is the distance between the last event that is known of a state and the first of one that is built anew.
// In between are the numbers of events that the former state may have shown, in a view or by show, but not published:
// those that waited in an outlet, of at least 26 bytes each, and one commit's. No other event may have their numbers.
const rebuiltAfter = 1 << 20

// isAnew reports whether an event says that the state was built anew and all rows known so far are void. It alone need
// not have the number that follows that of the event before.
func isAnew(e *result.Event) bool { return e.Snapshot && len(e.Diffs) == 0 }

// maxShown is the size of a message up to which events are shown: a query that has more to tell at a time is behind, and
// then the log is just as quick.
const maxShown = 16 << 10

// show tells whoever follows the query of events before they are in the result log, which saves the time of a sync.
//
// Nothing rests on it. The log remains the only record: what is trimmed from the outbox, or delivered to a reaction, is in
// the log, and whoever follows puts both together by the events' numbers. So a message that is lost or late costs time
// and nothing else; and its loss is no error.
//
// An event that was shown and then lost in a crash comes again with the same number and content. It is derived from the
// change log, where its transaction was on disk before it got here. Either the index still has it, in its outbox; or the
// index lost its end (invariant 3), and the same transactions are applied again to the same state: one event for each
// that changes the result, whatever commits they are grouped in. Where the state is built anew, the numbers of what was
// shown are passed over (rebuiltAfter). The same holds for an attempt that was taken over without knowing: what it still
// shows, its successor derives as well, or passes over.
//
// Of several sources the order is known to the index alone, and another host may make other events. So these are shown to
// nobody, and no view has them, before they are in the log.
func (r *queryRun) show(events []result.Event) {
	if len(r.spec.Sources) > 1 {
		return
	}
	r.buf = result.BeginMessage(r.buf[:0])
	for i := range events {
		if r.buf = result.AppendEvent(r.buf, &events[i]); len(r.buf) > maxShown {
			return
		}
	}
	if len(events) > 0 {
		_ = r.host.conn.NATS().Publish(shownSubject(r.id.Instance, r.id.Name), r.buf)
	}
}

// reach is a number that grows, and for which others wait. It is safe for concurrent use.
type reach struct {
	mu    sync.Mutex
	at    uint64
	moved chan struct{} // closed when at grows; nil while nobody waits
}

func (r *reach) set(at uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.at = at; r.moved != nil {
		close(r.moved)
		r.moved = nil
	}
}

// await waits until the number is at least that.
func (r *reach) await(ctx context.Context, least uint64) error {
	for {
		r.mu.Lock()
		there := r.at >= least
		if !there && r.moved == nil {
			r.moved = make(chan struct{})
		}
		moved := r.moved
		r.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
