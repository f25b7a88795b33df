package pipeline

import (
	"context"
	"fmt"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
)

// events is a message of a result log that is being filled.
type events struct {
	epoch       stream.Epoch
	buf         []byte
	first, last uint64
}

func (e *events) reset()       { e.buf, e.first, e.last = result.BeginMessage(e.buf[:0]), 0, 0 }
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
// from a state that lost its end in a crash of the machine.
func (r *queryRun) publish(ctx context.Context, e *result.Event) error {
	e.Sequence += r.base
	if e.Sequence <= r.published {
		return nil
	}
	if e.Sequence != r.published+1 && r.published > 0 {
		return failure.StateCorrupt.Errorf("event %d follows event %d", e.Sequence, r.published)
	}
	return r.send(ctx, e)
}

func (r *queryRun) send(ctx context.Context, e *result.Event) error {
	r.published = e.Sequence
	return r.out.add(ctx, false, func(p *events) {
		p.buf = result.AppendEvent(p.buf, e)
		p.took(e.Sequence)
	})
}

// publishOutbox publishes what was committed but not published when the attempt before ended. A state that was built
// anew begins with a Snapshot event without differences, which says that all rows known so far are void; without it,
// who follows could not tell where one snapshot ends and the next begins, or that the new one has no rows.
func (r *queryRun) publishOutbox(ctx context.Context) error {
	if r.published < r.base {
		anew := &result.Event{Sequence: r.base, Snapshot: true, Columns: r.plan.Columns()}
		if err := r.send(ctx, anew); err != nil {
			return err
		}
	}
	after := r.published - min(r.published, r.base)
	err := r.query.Outbox(after, func(_ uint64, encoded []byte) (bool, error) {
		e, _, err := result.DecodeEvent(encoded)
		if err != nil {
			return false, err
		}
		return true, r.publish(ctx, e)
	})
	if err != nil {
		return fmt.Errorf("publishing the outbox: %w", err)
	}
	return nil
}
