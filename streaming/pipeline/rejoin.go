package pipeline

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

// rejoin has a state of several sources that was restored from a checkpoint, with this base, go on where the lost one was.
//
// What was published since the checkpoint is in the result log; nothing else was seen by anybody (see show). But the
// changes that led there are taken in another order now. So they are applied without events, as far as the sources are,
// and what differs then between the rows that are published and those that there are is published as one transaction.
//
// Where the result log does not go back to the checkpoint, all rows are published anew, with the base that is returned.
func (r *queryRun) rejoin(ctx context.Context, q *query.Query, from checkpoint, base uint64) (uint64, error) {
	nothingSince := r.published > 0 && r.published <= from.Sequence // what is not published is in the outbox
	if nothingSince || r.checkpoints.ended() == from.Files.Object {
		return base, nil
	}
	recalled, err := q.Recall(func(visit func(*result.Event) error) error {
		return r.visitPublished(ctx, from.Sequence, func(e *result.Event) error {
			r.attempt.Progress.Tick()
			e.Sequence -= base
			return visit(e)
		})
	})
	if failure.CodeOf(err) == failure.StreamTrimmed {
		r.host.logFor(r.id).Warn("all rows are published anew", zap.Error(err))
		return r.restate(ctx, q, base)
	}
	if err != nil {
		return 0, fmt.Errorf("reading what was published since the checkpoint: %w", err)
	}
	defer recalled.Close()
	for source := range r.logs {
		err := r.replay(ctx, q, source)
		if err != nil && !isOfChanges(err) {
			return 0, err
		}
		if err != nil { // it will be met again at the same place
			r.host.logFor(r.id).Warn("not all changes since the checkpoint can be applied", zap.Error(err))
		}
	}
	if err := ticking(ctx, r.attempt.Progress, func() error { return q.Rejoin(recalled) }); err != nil {
		return 0, fmt.Errorf("publishing what differs after the restore: %w", err)
	}
	return base, nil
}

// restate has all rows published anew, with the base that is returned.
func (r *queryRun) restate(ctx context.Context, q *query.Query, base uint64) (uint64, error) {
	known, err := r.lastKnown(ctx)
	if err != nil {
		return 0, err
	}
	if err := ticking(ctx, r.attempt.Progress, func() error { return q.Restate(rowsPerSnapshotEvent) }); err != nil {
		return 0, fmt.Errorf("beginning anew with a restored state: %w", err)
	}
	return max(known, base) + rebuiltAfter, nil
}

// visitPublished reads the events of the result log after one. It gives a StreamTrimmed failure when it does not have them
// all, which one that is empty does not tell.
func (r *queryRun) visitPublished(ctx context.Context, after uint64, visit func(*result.Event) error) error {
	gone := failure.StreamTrimmed.Errorf("the result log does not have all events any more that followed event %d, with which the checkpoint ends", after)
	if r.published == 0 {
		return gone
	}
	log, err := r.host.conn.OpenLog(ctx, resultLog(r.id.Instance, r.id.Name))
	if err != nil {
		return fmt.Errorf("opening the result log: %w", err)
	}
	at, err := NewResults(r.host.conn, r.id.Instance).locate(ctx, log, r.id.Name, after)
	if err != nil {
		return err
	}
	reader, err := log.Read(ctx, at)
	if err != nil {
		return fmt.Errorf("reading the result log: %w", err)
	}
	defer reader.Close()
	for next := after + 1; next <= r.published; {
		m, err := reader.Next(ctx)
		if err != nil {
			return fmt.Errorf("reading the result log: %w", err)
		}
		events, err := result.DecodeMessage(m.Data)
		if err != nil {
			return fmt.Errorf("decoding message %d of the result log: %w", m.Sequence, err)
		}
		for _, e := range events {
			if e.Sequence < next {
				continue
			}
			if e.Sequence > next {
				return gone
			}
			if err := visit(e); err != nil {
				return err
			}
			next++
		}
	}
	return nil
}

// replay applies the changes of a source that are in its log.
func (r *queryRun) replay(ctx context.Context, q *query.Query, source string) error {
	state := q.State()
	end, err := r.changesEnd(ctx, source)
	// Before it has got anything of a source, reading might have to wait for a transaction that is not complete.
	if err != nil || state.Offsets[source] >= end || state.Positions[source] == "" {
		return err
	}
	err = r.feed(source, false).run(ctx, state.Offsets[source]+1, func(m message) error {
		r.attempt.Progress.Tick()
		if err := r.fits(m, nil); err != nil {
			return err
		}
		if _, err := q.Apply(m.Batch); err != nil {
			return fmt.Errorf("applying changes up to message %d of source %s: %w", m.Offset, source, err)
		}
		if m.sequence >= end {
			return errLoaded
		}
		return nil
	})
	if errors.Is(err, errLoaded) {
		return nil
	}
	return err
}
