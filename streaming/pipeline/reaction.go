package pipeline

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/stream"
)

// closeTimeout bounds how long a reaction may take to release what it holds.
const closeTimeout = 10 * time.Second

// RunReaction brings the results of a reaction's queries to it until ctx ends, the attempt is asked to drain, or
// something fails that cannot be tried again in place.
func (h *Host) RunReaction(ctx context.Context, a Attempt, spec component.ReactionSpec) error {
	h.running.Add(1)
	defer h.running.Done()
	return failure.Guard(func() error { return h.runReaction(ctx, a, spec) })
}

func (h *Host) runReaction(ctx context.Context, a Attempt, spec component.ReactionSpec) (err error) {
	re, err := h.newReaction(spec, a.Epoch.Generation)
	if err != nil {
		return err
	}
	defer func() {
		if closeErr := closeReaction(ctx, re); err == nil {
			err = closeErr
		}
	}()
	id := spec.ID()
	fence, err := h.conn.Acquire(ctx, id.String(), a.Epoch, h.hostID)
	if err != nil {
		return fmt.Errorf("taking over the reaction: %w", err)
	}
	switch re := re.(type) {
	case reaction.Deliverer:
		return h.runDeliverer(ctx, a, spec, re, fence)
	case reaction.Server:
		return h.runServer(ctx, a, spec, re, fence)
	}
	return failure.Panic.Errorf("reaction kind %q neither delivers nor serves", spec.Kind)
}

func closeReaction(ctx context.Context, r reaction.Reaction) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	if err := r.Close(bounded); err != nil {
		return fmt.Errorf("closing the reaction: %w", err)
	}
	return nil
}

// runServer lets the reaction serve its clients until drained.
func (h *Host) runServer(ctx context.Context, a Attempt, spec component.ReactionSpec, s reaction.Server, fence *stream.Fence) error {
	id := spec.ID()
	metrics := h.metrics.Reaction(id.Instance, id.Name)
	defer metrics.Close()
	results := &served{NewResults(h.conn, id.Instance), id.Instance + "." + id.Name, id.Name, metrics, h.tracer(id.Instance)}
	a.Progress.Set(func(s *Status) { s.Phase = "serving" })
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error { return attend(ctx, a.Progress, fence, nil) })
	g.run(func(ctx context.Context) error {
		select {
		case <-a.Drain:
			return errDrained
		case <-ctx.Done():
			return nil
		}
	})
	g.run(func(ctx context.Context) error {
		err := s.Serve(ctx, results)
		if err == nil && ctx.Err() == nil {
			return failure.Unclassified.Errorf("the reaction ended by itself")
		}
		return err
	})
	err := g.wait()
	switch {
	case errors.Is(err, errDrained):
		return nil
	case err == nil:
		return ctx.Err()
	}
	return err
}

// TeardownReaction removes what RunReaction keeps: its places in the results and its dead letters.
func (h *Host) TeardownReaction(ctx context.Context, spec component.ReactionSpec) error {
	id := spec.ID()
	if err := h.conn.DeleteLog(ctx, deadLetterLog(id.Instance, id.Name)); err != nil {
		return fmt.Errorf("deleting the dead-letter log: %w", err)
	}
	deliveries, err := h.bucket(ctx, deliveriesBucket)
	if err != nil {
		return err
	}
	if err := removeKeys(ctx, deliveries, id.Instance+"."+id.Name); err != nil {
		return err
	}
	return h.unfence(ctx, id)
}

// unfence forgets who owned a component that is gone, so that one of the same name begins afresh. An attempt that still
// runs finds its claim missing and stops.
func (h *Host) unfence(ctx context.Context, id component.ID) error {
	fences, err := h.bucket(ctx, "fences")
	if err != nil {
		return err
	}
	return removeKeys(ctx, fences, id.String())
}

func (h *Host) openResultLog(ctx context.Context, instance, query string) (*stream.Log, error) {
	log, err := h.conn.OpenLog(ctx, resultLog(instance, query))
	if errors.Is(err, stream.ErrMissing) {
		return nil, failure.QueryMissing.Errorf("query %s.%s has no result log: %w", instance, query, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the result log of %s: %w", query, err)
	}
	return log, nil
}
