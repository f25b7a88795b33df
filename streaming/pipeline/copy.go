package pipeline

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

const (
	leaseFor   = 30 * time.Second
	renewEvery = 5 * time.Second
	// releaseTimeout bounds giving a chunk back after it failed.
	releaseTimeout = 2 * time.Second
	// pollChunks is how often a worker without a chunk looks whether another one's lease has ended.
	pollChunks = 500 * time.Millisecond
)

// CopyProgress is how much a worker has copied so far.
type CopyProgress struct {
	Chunks int   `json:"chunks"`
	Rows   int64 `json:"rows"`
	// Failed are the scopes that it found to be unreadable.
	Failed []FailedScope `json:"failed,omitempty"`
}

// CopyChunks copies chunk after chunk of the snapshot into the bootstrap log, until all are copied, by this worker or by
// others. It reports after each chunk and about every second in between, and holds a lease on what it copies, so that a
// worker that vanishes is replaced. A chunk that fails is left to the next try; those that are done stay done. A scope that
// cannot be read for good is left out, see [FailedScope], and the others are copied.
func (h *Host) CopyChunks(ctx context.Context, ref BootstrapRef, spec component.SourceSpec, worker string, report func(CopyProgress)) (CopyProgress, error) {
	s, err := h.snapshotter(spec)
	if err != nil {
		return CopyProgress{}, err
	}
	name := bootstrapLog(ref.Instance, ref.Query, ref.Source)
	log, err := h.conn.EnsureLog(ctx, stream.LogOptions{Name: name, Yields: yields(name), Description: "copied rows of a snapshot"})
	if err != nil {
		return CopyProgress{}, fmt.Errorf("opening the bootstrap log: %w", err)
	}
	w := &copier{host: h, ref: ref, source: s, log: log, worker: worker, report: report, seen: make(leases), copied: h.metrics.Copied(ref.Instance, ref.Query, ref.Source)}
	defer w.close()
	for {
		if w.bucket, w.record, err = h.current(ctx, ref); err != nil {
			return w.total, err
		}
		if w.record.Pace == nil {
			return w.total, failure.SnapshotLost.Errorf("snapshot %d has no plan that this version can read", ref.SnapshotGeneration)
		}
		scopes, err := h.scopes(ctx, w.bucket, ref.key())
		if err != nil {
			return w.total, err
		}
		left := false
		for _, scope := range scopes {
			if err := w.copy(ctx, scope); err != nil {
				return w.total, err
			}
			left = left || !scope.copied() && scope.Failed == nil
		}
		if !left {
			return w.total, nil
		}
		report(w.total)
		w.close() // the wait may be long
		select {
		case <-time.After(pollChunks):
		case <-ctx.Done():
			return w.total, ctx.Err()
		}
	}
}

// copier is one worker of a bootstrap.
type copier struct {
	host   *Host
	ref    BootstrapRef
	source source.Snapshotter
	reader source.SnapshotReader // nil: not open
	log    *stream.Log
	bucket *stream.Bucket
	record bootstrapRecord
	worker string
	report func(CopyProgress)
	total  CopyProgress
	limit  limiter
	seen   leases
	copied interface{ Add(rows float64) } // counts them
}

func (w *copier) close() {
	if w.reader != nil {
		w.reader.Close()
		w.reader = nil
	}
}

// copy copies chunks of a scope until none is to be had.
func (w *copier) copy(ctx context.Context, scope *storedScope) error {
	for !scope.copied() {
		at := -1
		ended := w.seen.of(scope.key, time.Now())
		err := scope.update(ctx, w.bucket, func(s *scopeRecord) error {
			if at = s.lease(w.worker, ended, *w.record.Pace); at < 0 {
				return errNoChunk
			}
			return nil
		})
		if errors.Is(err, errNoChunk) {
			return nil
		}
		if err != nil {
			return err
		}
		c := w.started(scope, at)
		err = w.open(ctx)
		if err == nil {
			err = c.run(ctx)
		}
		if isOfScope(err) && ctx.Err() == nil {
			return c.quarantine(ctx, err)
		}
		if err != nil {
			c.release(ctx)
			return fmt.Errorf("copying chunk %d of %s: %w", at, scope.Name, err)
		}
		w.total.Chunks++
		w.total.Rows += c.done.Load()
		w.report(w.total)
	}
	return nil
}

// open opens a reader, unless there is one. What keeps it from that is no scope's own.
func (w *copier) open(ctx context.Context) (err error) {
	if w.reader == nil {
		w.reader, err = w.source.OpenSnapshot(ctx, *w.record.Snapshot)
	}
	return err
}

func (w *copier) started(scope *storedScope, at int) *copying {
	return &copying{copier: w, scope: scope, at: at, attempt: scope.Chunks[at].Attempt, label: scope.Labels[0], began: time.Now()}
}

var errNoChunk = errors.New("no chunk is free")

// copying is one attempt to copy one chunk.
type copying struct {
	*copier
	scope       *storedScope // the renewal changes its record while rows come
	at, attempt int
	label       string // of the elements that are rows
	began       time.Time

	out      *outlet[*changes]
	open     *changes // being filled
	messages int
	rows     int          // taken since the last pause
	done     atomic.Int64 // rows before that
	reported time.Time
}

// errCopied ends the group of a chunk that is copied.
var errCopied = errors.New("copied")

func (c *copying) run(ctx context.Context) error {
	if err := c.share(ctx); err != nil {
		return err
	}
	w := c.log.NewSharedWriter()
	c.out = newOutlet(
		func() *changes {
			p := &changes{}
			p.encoder.Grow(maxMessage / 4 * 5) // all of them are filled
			return p
		},
		func(ctx context.Context, id string, data []byte) (uint64, error) {
			return retried(ctx, func() (uint64, error) { return w.Append(ctx, id, data) })
		},
		func(*changes, uint64) {},
	)
	chunk := c.scope.chunk(c.at)
	g := newGroup(ctx)
	g.run(c.out.run)
	done := make(chan struct{})
	renewed := make(chan struct{})
	g.run(func(ctx context.Context) error {
		defer close(renewed)
		return c.renew(ctx, done)
	})
	g.run(func(ctx context.Context) error {
		c.begin()
		err := failure.Guard(func() error { return c.reader.ReadChunk(ctx, chunk, chunkSink{c, ctx}) })
		close(done)
		if err != nil {
			return &unreadableError{err}
		}
		if err := c.send(ctx); err != nil {
			return err
		}
		if err := c.out.flush(ctx); err != nil {
			return err
		}
		<-renewed // the record has one writer at a time
		if err := c.finish(ctx); err != nil {
			return err
		}
		return errCopied
	})
	err := g.wait()
	if errors.Is(err, errCopied) {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// chunkSink encodes elements as they come.
type chunkSink struct {
	*copying
	ctx context.Context //nolint:containedctx // the sink lives as long as the call that it is an argument of
}

// Take implements source.ChunkSink.
func (c chunkSink) Take(change *graph.Change) {
	c.open.encoder.Append(change)
	if change.Element.HasLabel(c.label) {
		c.rows++
	}
}

// Pause implements source.ChunkSink.
func (c chunkSink) Pause() error {
	rows := c.rows
	c.rows = 0
	c.done.Add(int64(rows))
	c.copied.Add(float64(rows))
	if c.open.size() >= maxMessage {
		if err := c.send(c.ctx); err != nil {
			return err
		}
		c.begin()
	}
	if time.Since(c.reported) >= time.Second {
		c.reported = time.Now()
		total := c.total
		total.Rows += c.done.Load()
		c.report(total)
	}
	return c.limit.wait(c.ctx, rows)
}

// begin begins a message. Messages are sent when they are full: nobody waits for half a chunk.
func (c *copying) begin() {
	snapshot := c.record.Snapshot
	c.open = c.out.blank()
	c.open.name = copyOf{hashOf(c.ref.ID), c.scope.generation, c.scope.number, c.at, c.attempt}.message(c.messages)
	c.open.position = snapshot.Position
	c.open.encoder.Open(&graph.Transaction{Position: snapshot.Position, CommitTime: snapshot.TakenAt})
	c.messages++
}

func (c *copying) send(ctx context.Context) error { return c.out.put(ctx, c.open) }

// renew keeps the lease until done is closed. A lease that another worker took stops the copy.
func (c *copying) renew(ctx context.Context, done <-chan struct{}) error {
	beat := time.NewTicker(renewEvery)
	defer beat.Stop()
	for {
		select {
		case <-beat.C:
		case <-done:
			return nil
		case <-ctx.Done():
			return nil
		}
		if err := c.update(ctx, func(_ *scopeRecord, own *chunkRecord) { own.Renewals++ }); err != nil {
			return err
		}
		if err := c.share(ctx); err != nil {
			return err
		}
	}
}

// share divides the rate that is allowed among those who copy now.
func (c *copying) share(ctx context.Context) error {
	allowed := c.record.Pace.RowsPerSecond
	if allowed == 0 {
		return nil
	}
	scopes, err := c.host.scopes(ctx, c.bucket, c.ref.key())
	if err != nil {
		return err
	}
	readers := 0
	for _, s := range scopes {
		readers += s.leases()
	}
	c.limit.set(float64(allowed) / float64(max(readers, 1)))
	return nil
}

func (c *copying) finish(ctx context.Context) error {
	return c.update(ctx, func(s *scopeRecord, own *chunkRecord) {
		own.Copied, own.Renewals = true, 0
		if own.Since == "" {
			s.Rate = float64(own.To-s.from(c.at)) / time.Since(c.began).Seconds()
		}
	})
}

// release gives the chunk back for anybody to copy. When that fails the lease ends by itself.
func (c *copying) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	_ = c.update(ctx, func(_ *scopeRecord, own *chunkRecord) { own.Renewals = 0 }) // see above
}

// update changes the chunk's record if it is still this attempt's.
func (c *copying) update(ctx context.Context, change func(*scopeRecord, *chunkRecord)) error {
	return c.scope.update(ctx, c.bucket, func(s *scopeRecord) error {
		if c.at >= len(s.Chunks) || s.Chunks[c.at].Worker != c.worker || s.Chunks[c.at].Attempt != c.attempt {
			return failure.Unclassified.Errorf("another worker took over the chunk")
		}
		own := &s.Chunks[c.at]
		own.Rows = c.done.Load()
		change(s, own)
		return nil
	})
}

// limiter holds a worker to a number of rows per second; set may be called while another goroutine waits.
type limiter struct {
	pause atomic.Int64 // nanoseconds for each row
	due   time.Time
}

func (l *limiter) set(perSecond float64) { l.pause.Store(int64(float64(time.Second) / perSecond)) }

// wait waits until so many more rows are due.
func (l *limiter) wait(ctx context.Context, rows int) error {
	pause := time.Duration(l.pause.Load() * int64(rows))
	if pause == 0 {
		return nil
	}
	now := time.Now()
	if l.due.Before(now) {
		l.due = now
	}
	l.due = l.due.Add(pause)
	select {
	case <-time.After(l.due.Sub(now)):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
