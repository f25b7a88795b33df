package pipeline

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

const (
	fenceEvery = 5 * time.Second
	trimEvery  = 10 * time.Second
	// patience is how long housekeeping may fail before the stage does.
	patience = time.Minute
)

// errDrained ends a group whose work is done.
var errDrained = errors.New("drained")

// RunSource writes a source's changes to its change log until ctx ends, the attempt is asked to drain, or something
// fails that cannot be tried again in place. The source's system must have been provisioned.
func (h *Host) RunSource(ctx context.Context, a Attempt, spec component.SourceSpec) error {
	h.running.Add(1)
	defer h.running.Done()
	return failure.Guard(func() error { return h.runSource(ctx, a, spec) })
}

func (h *Host) runSource(ctx context.Context, a Attempt, spec component.SourceSpec) error {
	id := spec.ID()
	src, err := h.newSource(spec, a.Epoch.Generation)
	if err != nil {
		return err
	}
	fence, err := h.conn.Acquire(ctx, id.String(), a.Epoch, h.hostID)
	if err != nil {
		return fmt.Errorf("taking over the source: %w", err)
	}
	log, err := h.conn.EnsureLog(ctx, logOptions(changeLog(id.Instance, id.Name), spec.Policy, "changes of "+id.String()))
	if err != nil {
		return fmt.Errorf("opening the change log: %w", err)
	}
	w, err := log.NewWriter(ctx, fence)
	if err != nil {
		return fmt.Errorf("opening the change log for writing: %w", err)
	}
	defer w.Close()
	positions, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	key := id.Instance + "." + id.Name
	resume, err := resumeAt(ctx, log, positions, key)
	if err != nil {
		return err
	}
	staging, err := h.newStaging(ctx, spec, fence, positions, w.Last())
	if err != nil {
		return err
	}
	defer staging.close()
	from := resume.Position
	schema, err := h.learner(id)(ctx)
	if err != nil {
		return err
	}

	metrics := h.metrics.Source(id.Instance, id.Name)
	defer metrics.Close()
	s := newSink(w, a.Epoch, resume, schema, a.Progress, metrics)
	s.tracer, s.name, s.kind, s.staging = h.tracer(id.Instance), id.Name, spec.Kind, staging
	wants := &wantsKeeper{host: h, key: key, epoch: a.Epoch, sink: s}
	s.withhold = wants.withhold
	keeper := &keeper{host: h, spec: spec, log: log, fence: fence, sink: s, wants: wants, positions: positions, key: key, progress: a.Progress, learned: schema}
	a.Progress.Set(func(st *Status) {
		st.Phase, st.Position, st.Offset, st.Details = "streaming", from, resume.Offset, src.Describe()
	})
	if err := h.showLeft(ctx, id, a.Progress); err != nil {
		return err
	}

	g := newGroup(ctx)
	g.run(s.out.run)
	g.run(staging.out.run)
	g.run(keeper.run)
	g.run(func(ctx context.Context) error { return streamSource(ctx, a, src, from, s) })
	if err := g.wait(); !errors.Is(err, errDrained) {
		return err
	}
	return keeper.report(ctx)
}

// streamSource runs the source until ctx ends or, when the attempt is to be drained, everything taken is durable.
func streamSource(ctx context.Context, a Attempt, src source.Source, from graph.Position, s *sink) error {
	a.Progress.Set(func(st *Status) { st.Phase = "streaming" })
	running, stop := context.WithCancel(ctx)
	g := newGroup(running)
	drained := false
	g.run(func(ctx context.Context) error {
		select {
		case <-a.Drain:
		case <-ctx.Done():
			return nil
		}
		a.Progress.Set(func(st *Status) { st.Phase = "draining" })
		if err := s.pause(ctx); err != nil {
			return err
		}
		drained = true
		stop()
		return nil
	})
	err := failure.Guard(func() error { return src.Run(running, from, s) })
	stop()
	pauseErr := g.wait()
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case drained && (err == nil || ended(err)):
		return errDrained
	case err == nil && pauseErr != nil:
		return pauseErr
	case err == nil:
		return failure.Unclassified.Errorf("the source ended by itself")
	}
	return err
}

// resumeAt finds the position from which to go on: that of the log's last message, unless the source was known to be
// further when it was idle, or the log aged away.
func resumeAt(ctx context.Context, log *stream.Log, positions *stream.Bucket, key string) (sourcePosition, error) {
	var known sourcePosition
	if _, _, err := read(ctx, positions, key, &known); err != nil {
		return sourcePosition{}, err
	}
	last, err := log.Last(ctx)
	if err != nil {
		return sourcePosition{}, fmt.Errorf("reading the end of the change log: %w", err)
	}
	if known.Offset = 0; last == nil {
		return known, nil
	}
	m, err := new(graph.Decoder).Decode(last.Data)
	if err != nil {
		return sourcePosition{}, fmt.Errorf("decoding message %d of the change log: %w", last.Sequence, err)
	}
	known.Offset = last.Sequence
	// Message by message the log knows best. The bucket may be ahead only by idle positions, behind which nothing is.
	if open := len(m.Transactions) > 0 && !m.Transactions[len(m.Transactions)-1].Last; !open && known.Position.Compare(m.Position) > 0 {
		return known, nil
	}
	known.Position = m.Position
	return known, nil
}

// keeper does a source's housekeeping beside its stream: it publishes where the source is and trims what nobody needs.
type keeper struct {
	host      *Host
	spec      component.SourceSpec
	log       *stream.Log
	fence     *stream.Fence
	sink      *sink
	wants     *wantsKeeper
	positions *stream.Bucket
	key       string
	progress  *Progress

	reported sourcePosition
	learned  []byte // the schema on record
	trimTo   uint64 // what the round before found trimmable
}

func (k *keeper) run(ctx context.Context) error {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	var fenced, trimmed time.Time
	healthy := time.Now()
	for {
		err := k.sink.beat(ctx)
		if err == nil && time.Since(fenced) >= fenceEvery {
			if err = k.fence.Check(ctx); err == nil {
				fenced = time.Now()
			}
		}
		if err == nil {
			err = k.report(ctx)
		}
		if err == nil {
			err = k.wants.keep(ctx)
		}
		if err == nil && time.Since(trimmed) >= trimEvery {
			if err = k.trim(ctx); err == nil {
				trimmed = time.Now()
			}
		}
		if err == nil {
			healthy = time.Now()
		} else if ctx.Err() == nil && (!failure.ClassOf(err).Retryable() || time.Since(healthy) > patience) {
			return err
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// report writes the source's position where bootstraps and other processes look for it.
func (k *keeper) report(ctx context.Context) error {
	if schema := k.sink.durableSchema(); !bytes.Equal(schema, k.learned) {
		if _, err := k.positions.Put(ctx, k.key+schemaSuffix, schema); err != nil {
			return fmt.Errorf("recording the schema: %w", err)
		}
		k.learned = schema
	}
	now, commit := k.sink.where()
	k.sink.metrics.Queue.Set(float64(k.sink.out.queued() + k.sink.staging.out.queued()))
	k.progress.Set(func(s *Status) {
		s.Position, s.Offset, s.CommitTime, s.Backpressure = now.Position, now.Offset, commit, k.sink.heldUp()
	})
	if now.Position == k.reported.Position && now.Offset == k.reported.Offset && now.System == k.reported.System {
		return nil
	}
	if _, err := write(ctx, k.positions, k.key, now); err != nil {
		return err
	}
	k.reported = now
	return nil
}

// trim drops what every subscriber has consumed, with what was staged of it, but never the last message, which says where to
// resume. What this round finds is dropped in the next: a query that subscribes in between has seen the log as it is until
// then.
func (k *keeper) trim(ctx context.Context) error {
	limit := k.sink.offsetNow()
	least, err := k.host.leastSubscribed(ctx, k.key)
	if err != nil {
		return err
	}
	limit = min(limit, least)
	to := min(k.trimTo, limit)
	if to > 1 {
		if err := k.log.TrimBefore(ctx, to); err != nil {
			return fmt.Errorf("trimming the change log: %w", err)
		}
	}
	state, err := k.log.State(ctx)
	if err != nil {
		return fmt.Errorf("reading the state of the change log: %w", err)
	}
	if err := k.sink.staging.trim(ctx, max(to, state.First)); err != nil {
		return err
	}
	k.trimTo = limit // last: a round that failed is repeated at once and must not count
	warning, bound := "", uint64(k.spec.Policy.WithDefaults().RetainBytes)
	k.sink.metrics.Log.Set(float64(state.Bytes))
	k.sink.metrics.LogLimit.Set(float64(bound))
	if state.Bytes > bound/5*4 {
		warning = fmt.Sprintf("holds %d of at most %d bytes; the slowest query must catch up before the oldest are dropped", state.Bytes, bound)
	}
	k.progress.SetDetail("changeLog", warning)
	k.progress.SetDetail("stagedLog", k.sink.staging.warning())
	return nil
}

// leastSubscribed returns the first offset that some query of the source still needs; without any, the highest number.
func (h *Host) leastSubscribed(ctx context.Context, key string) (uint64, error) {
	b, err := h.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return 0, err
	}
	keys, err := b.Keys(ctx, key+".")
	if err != nil {
		return 0, fmt.Errorf("listing subscriptions: %w", err)
	}
	least := ^uint64(0)
	for _, k := range keys {
		var s subscription
		_, found, err := read(ctx, b, k, &s)
		if err != nil {
			return 0, err
		}
		if found {
			least = min(least, s.Offset+1)
		}
	}
	return least, nil
}

func (s *sink) offsetNow() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offset
}

// SourceReady returns a SourceMissing failure while the source has no change log.
func (h *Host) SourceReady(ctx context.Context, instance, name string) error {
	_, err := h.openChangeLog(ctx, instance, name)
	return err
}

func (h *Host) openChangeLog(ctx context.Context, instance, name string) (*stream.Log, error) {
	log, err := h.conn.OpenLog(ctx, changeLog(instance, name))
	if errors.Is(err, stream.ErrMissing) {
		return nil, failure.SourceMissing.Errorf("source %s.%s has no change log: %w", instance, name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("opening the change log of %s: %w", name, err)
	}
	return log, nil
}
