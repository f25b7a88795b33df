package pipeline

import (
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
}

// CopyChunks copies chunk after chunk of the snapshot into the bootstrap log, until all are copied, by this worker or by
// others. It reports after each chunk and about every second in between, and holds a lease on what it copies, so that a
// worker that vanishes is replaced. A chunk that fails is left to the next try; those that are done stay done.
func (h *Host) CopyChunks(ctx context.Context, ref BootstrapRef, spec component.SourceSpec, worker string, report func(CopyProgress)) (CopyProgress, error) {
	var total CopyProgress
	s, err := h.snapshotter(spec)
	if err != nil {
		return total, err
	}
	log, err := h.conn.EnsureLog(ctx, stream.LogOptions{
		Name: bootstrapLog(ref.Instance, ref.Query, ref.Source), Description: "copied rows of a snapshot",
	})
	if err != nil {
		return total, fmt.Errorf("opening the bootstrap log: %w", err)
	}
	for {
		b, record, err := h.current(ctx, ref)
		if err != nil {
			return total, err
		}
		chunks, err := h.chunks(ctx, b, ref.key())
		if err != nil {
			return total, err
		}
		left := 0
		for _, c := range chunks {
			if c.State == copied {
				continue
			}
			left++
			c, ok, err := lease(ctx, b, c, worker)
			if err != nil {
				return total, err
			}
			if !ok {
				continue
			}
			cp := &copying{copied: h.metrics.Copied(ref.Instance, ref.Query, ref.Source), bucket: b, log: log, snapshot: *record.Snapshot, chunk: c, total: total, report: report}
			if err := cp.run(ctx, s); err != nil {
				cp.release(ctx)
				return total, fmt.Errorf("copying chunk %d of %s: %w", c.Chunk.Number, c.Chunk.Scope, err)
			}
			total.Chunks++
			total.Rows += cp.rows
			report(total)
			left--
		}
		if left == 0 {
			return total, nil
		}
		report(total)
		select {
		case <-time.After(pollChunks):
		case <-ctx.Done():
			return total, ctx.Err()
		}
	}
}

// lease takes a chunk that waits or whose lease has ended, unless another worker is quicker.
func lease(ctx context.Context, b *stream.Bucket, c storedChunk, worker string) (storedChunk, bool, error) {
	if c.State == leased && time.Now().Before(c.Until) && c.Worker != worker {
		return c, false, nil
	}
	c.State, c.Worker, c.Until = leased, worker, time.Now().Add(leaseFor)
	c.Attempt++
	var err error
	c.revision, err = replace(ctx, b, c.key, c.chunkRecord, c.revision)
	if errors.Is(err, stream.ErrConflict) {
		return c, false, nil
	}
	return c, err == nil, err
}

// copying is one attempt to copy one chunk.
type copying struct {
	copied   interface{ Add(rows float64) } // counts them
	bucket   *stream.Bucket
	log      *stream.Log
	snapshot source.Snapshot
	chunk    storedChunk
	total    CopyProgress // before this chunk
	report   func(CopyProgress)

	rows     int64
	messages int
	reported time.Time
}

// errCopied ends the group of a chunk that is copied.
var errCopied = errors.New("copied")

func (c *copying) run(ctx context.Context, s source.Snapshotter) error {
	w := c.log.NewSharedWriter()
	out := newOutlet(
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
	g := newGroup(ctx)
	g.run(out.run)
	done := make(chan struct{})
	renewed := make(chan struct{})
	g.run(func(ctx context.Context) error {
		defer close(renewed)
		return c.renew(ctx, done)
	})
	g.run(func(ctx context.Context) error {
		err := s.ReadChunk(ctx, c.snapshot, c.chunk.Chunk, func(batch []graph.Change) error { return c.emit(ctx, out, batch) })
		close(done)
		if err != nil {
			return err
		}
		if err := out.flush(ctx); err != nil {
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

func (c *copying) emit(ctx context.Context, out *outlet[*changes], batch []graph.Change) error {
	for _, part := range split(batch) {
		err := out.add(ctx, false, func(p *changes) {
			if p.name == "" {
				p.name = copyOf{c.chunk.generation, c.chunk.Chunk.Number, c.chunk.Attempt}.message(c.messages)
				c.messages++
			}
			p.position = c.snapshot.Position
			p.encoder.Add(&graph.Transaction{Position: c.snapshot.Position, CommitTime: c.snapshot.TakenAt, Changes: part})
		})
		if err != nil {
			return err
		}
	}
	c.rows += int64(len(batch))
	c.copied.Add(float64(len(batch)))
	if time.Since(c.reported) >= time.Second {
		c.reported = time.Now()
		c.report(CopyProgress{c.total.Chunks, c.total.Rows + c.rows})
	}
	return nil
}

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
		c.chunk.Until = time.Now().Add(leaseFor)
		if err := c.store(ctx); err != nil {
			return err
		}
	}
}

func (c *copying) finish(ctx context.Context) error {
	c.chunk.State, c.chunk.Rows, c.chunk.Position = copied, c.rows, c.snapshot.Position
	return c.store(ctx)
}

// release gives the chunk back for anybody to copy. When that fails the lease ends by itself.
func (c *copying) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), releaseTimeout)
	defer cancel()
	c.chunk.State, c.chunk.Until = waiting, time.Time{}
	_ = c.store(ctx) // see above
}

// store writes the chunk's record if it is still this attempt's.
func (c *copying) store(ctx context.Context) error {
	for {
		revision, err := retried(ctx, func() (uint64, error) {
			return replace(ctx, c.bucket, c.chunk.key, c.chunk.chunkRecord, c.chunk.revision)
		})
		if err == nil {
			c.chunk.revision = revision
			return nil
		}
		if !errors.Is(err, stream.ErrConflict) {
			return err
		}
		var there chunkRecord
		revision, found, err := read(ctx, c.bucket, c.chunk.key, &there)
		if err != nil {
			return err
		}
		if !found || there.Worker != c.chunk.Worker || there.Attempt != c.chunk.Attempt {
			return failure.Unclassified.Errorf("another worker took over the chunk")
		}
		c.chunk.revision = revision // an earlier try of ours whose answer was lost
	}
}
