package pipeline

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

const (
	// How often a query's state is made durable: soon after the last change, and seldom while changes come without
	// pause, since a sync holds them up. What lies between is done again after a crash of the machine, from the change
	// log, with the same results.
	syncEvery     = time.Second
	syncEveryBusy = 10 * time.Second
	busyWithin    = 100 * time.Millisecond // of the last change
	// Bounds of what is applied in one commit.
	maxBatchBytes        = 1 << 20
	maxBatchTransactions = 1000
	// damagedAtMost is how often the state may turn out to be damaged, and be restored or built anew, before it is a matter
	// for an operator: the disk does not keep what it is given.
	damagedAtMost = 3
	// buffered is how many decoded messages of a source wait for the query.
	buffered = 8
)

// RunQuery keeps a query's result set up to date and publishes every difference to its result log, until ctx ends, the
// attempt is asked to drain, or something fails that cannot be tried again in place.
func (h *Host) RunQuery(ctx context.Context, a Attempt, spec component.QuerySpec) (outcome Outcome, err error) {
	h.running.Add(1)
	defer h.running.Done()
	err = failure.Guard(func() error {
		outcome, err = h.runQuery(ctx, a, spec)
		return err
	})
	return outcome, err
}

func (h *Host) runQuery(ctx context.Context, a Attempt, spec component.QuerySpec) (Outcome, error) {
	plan, err := compile(spec)
	if err != nil {
		return "", err
	}
	id := spec.ID()
	fence, err := h.conn.Acquire(ctx, id.String(), a.Epoch, h.hostID)
	if err != nil {
		return "", fmt.Errorf("taking over the query: %w", err)
	}
	out, err := h.conn.EnsureLog(ctx, logOptions(resultLog(id.Instance, id.Name), spec.Policy, "results of "+id.String()))
	if err != nil {
		return "", fmt.Errorf("opening the result log: %w", err)
	}
	metrics := h.metrics.Query(id.Instance, id.Name)
	defer metrics.Close()
	for damaged := 0; ; {
		r := &queryRun{
			host: h, metrics: metrics, tracer: h.tracer(id.Instance), attempt: a, spec: spec, id: id, plan: plan, fence: fence, cause: err,
		}
		var outcome Outcome
		outcome, err = r.run(ctx, out)
		if errors.Is(err, errSucceeded) {
			a.Progress.SetDetail("held", "")
			a.Progress.SetDetail("successor", "")
			err = nil
			continue
		}
		if !errors.Is(err, index.ErrDamaged) || damaged == damagedAtMost {
			return outcome, err
		}
		damaged++
		h.logFor(id).Error("the query's state on this host is damaged and removed", zap.String("store", r.store), zap.Error(err))
		for _, store := range []string{r.store, r.previous} {
			if store == "" {
				continue
			}
			if removeErr := h.index.Remove(store); removeErr != nil {
				return "", errors.Join(err, fmt.Errorf("removing a damaged index: %w", removeErr))
			}
		}
	}
}

// run goes from the state that there is, or is made, to the end of the attempt.
func (r *queryRun) run(ctx context.Context, out *stream.Log) (_ Outcome, err error) {
	w, err := out.NewWriter(ctx, r.fence)
	if err != nil {
		return "", fmt.Errorf("opening the result log for writing: %w", err)
	}
	defer w.Close()
	if r.published, err = lastSequence(ctx, out); err != nil {
		return "", err
	}
	defer func() {
		if r.query != nil {
			_ = r.query.Close() // after an error; the error is what matters
		}
	}()
	if r.checkpoints, err = r.openCheckpoints(ctx); err != nil {
		return "", err
	}
	found, err := r.open(ctx)
	if lost := lossOf(err); lost != nil {
		return r.needs(lost)
	}
	if err != nil {
		return "", err
	}
	if !found {
		return NeedsBootstrap, nil
	}
	if err := r.checkpoints.fit(ctx); err != nil {
		return "", err
	}
	// Not before open, which may learn from subscriptions how far the events had come.
	if err := r.forget(ctx); err != nil {
		return "", err
	}
	err = r.follow(ctx, w)
	lost := lossOf(err)
	if lost == nil && !errors.Is(err, errDrained) {
		return "", err
	}
	outcome := Drained
	if r.checkpoints.ended() != "" && !r.succeeds.Load() { // or what is loaded beside it, on this host, would be lost
		outcome = Stored
	}
	q := r.query
	r.query = nil
	if err := q.Close(); err != nil {
		return "", fmt.Errorf("closing the index: %w", err)
	}
	if lost != nil {
		return r.needs(lost)
	}
	return outcome, nil
}

// lastSequence returns the sequence of the last event of a result log, 0 when it is empty.
func lastSequence(ctx context.Context, log *stream.Log) (uint64, error) {
	last, err := log.Last(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the result log: %w", err)
	}
	if last == nil {
		return 0, nil
	}
	events, err := result.DecodeMessage(last.Data)
	if err != nil {
		return 0, fmt.Errorf("decoding the last message of the result log: %w", err)
	}
	return events[len(events)-1].Sequence, nil
}

func compile(spec component.QuerySpec) (*query.Plan, error) {
	if err := component.ValidateQuery(spec); err != nil {
		return nil, err
	}
	parameters := make(map[string]graph.Value, len(spec.Parameters))
	for name, raw := range spec.Parameters {
		v, err := parameter(raw)
		if err != nil {
			return nil, failure.ConfigInvalid.Errorf("parameters.%s: %w", name, err)
		}
		parameters[name] = v
	}
	return query.Compile(spec.Query, query.Options{
		Parameters: parameters, OnError: query.ErrorPolicy(spec.OnError),
		MaxPathSteps: spec.Limits.PathSteps, MaxRows: spec.Limits.Rows,
	})
}

// queryRun is one attempt to run a query.
type queryRun struct {
	host      *Host
	attempt   Attempt
	spec      component.QuerySpec
	id        component.ID
	plan      *query.Plan
	fence     *stream.Fence
	metrics   *telemetry.Query
	tracer    *tracer
	logs      map[string]*stream.Log       // change logs by source, of those that have one
	whole     bool                         // the state before is of other sources: nothing of it can be taken over
	gone      error                        // a source's change log is: the result is held until there is another state
	schemas   map[string]map[string]string // see queryRecord
	published uint64                       // sequence of the last event in the result log

	checkpoints *checkpointer
	next        *successor    // nil: none is to come
	needed      chan Need     // has room for one
	succeeds    atomic.Bool   // a successor is to come
	succeeded   chan struct{} // closed when the successor waits for its place

	query    *query.Query
	store    string       // of query
	built    []string     // ids of the bootstraps that it was built from
	revision uint64       // of the record in bucket queries, as this run has left it
	cause    error        // what was wrong with the state that was there before; nil if nothing
	old      *query.Query // whose place query takes, while it is being built
	previous string       // store of old
	applied  time.Time    // when a batch was last applied
	synced   time.Time    // when the state was last made durable
	base     uint64       // added to the query's own sequences
	out      *outlet[*events]
	logged   reach   // sequence of the last event that is in the result log
	feeds    []*feed // of all sources, once it follows
	buf      []byte  // of show
}

// follow applies changes as they come and publishes what they change.
func (r *queryRun) follow(ctx context.Context, w *stream.Writer) error {
	state := r.state()
	progress := r.attempt.Progress
	progress.Set(func(s *Status) {
		s.Phase, s.Sequence, s.Offset = "following", state.Sequence, soleOffset(state)
	})
	sent := make(chan uint64, 1)
	r.out = newOutlet(
		func() *events { return &events{epoch: r.attempt.Epoch} },
		func(ctx context.Context, id string, data []byte) (uint64, error) {
			return retried(ctx, func() (uint64, error) { return w.Append(ctx, id, data) })
		},
		func(e *events, _ uint64) {
			replaceLatest(sent, e.last)
			r.logged.set(e.last)
			r.tracer.published(e.followed)
		},
	)
	r.needed, r.succeeded = make(chan Need, 1), make(chan struct{})
	if r.next != nil {
		r.succeeds.Store(true)
		r.needed <- r.next.need
	}
	if r.gone != nil {
		r.tellHeld(r.gone)
	}
	if r.checkpoints != nil {
		if err := r.checkpoints.end(ctx, ""); err != nil {
			return err
		}
	}
	g := newGroup(ctx)
	g.run(r.out.run)
	if err := r.publishOutbox(g.ctx); err != nil {
		g.stop()
		return err
	}
	if err := r.serveViews(g); err != nil {
		g.stop()
		return err
	}

	batches := make(chan message, buffered)
	reading, stopReading := context.WithCancel(g.ctx)
	defer stopReading()
	for name := range r.logs {
		from, f := state.Offsets[name]+1, r.feed(name, state.Positions[name] == "")
		r.feeds = append(r.feeds, f)
		g.run(func(ctx context.Context) error {
			err := f.run(reading, from, func(m message) error {
				m.followed = r.tracer.read(r.id.Name, m.Batch)
				select {
				case batches <- m:
					return nil
				case <-reading.Done():
					return reading.Err()
				}
			})
			if reading.Err() != nil {
				return nil // drained, or the group is ending
			}
			if r.holds(err) {
				return nil
			}
			return err
		})
	}
	if r.attempt.Need != nil {
		g.run(r.succeed)
	}
	synced := make(chan result.State, 1)
	g.run(func(ctx context.Context) error { return r.keep(ctx, synced) })
	if r.checkpoints != nil {
		g.run(r.checkpoints.store)
	}
	g.run(func(ctx context.Context) error { return r.apply(ctx, batches, sent, synced, stopReading) })
	err := g.wait()
	if err == nil && ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// feed returns what reads the changes of a source.
func (r *queryRun) feed(source string, anew bool) *feed {
	return &feed{source: source, log: r.logs[source], anew: anew, staged: func(ctx context.Context) (*stream.Log, error) {
		return r.host.openStaged(ctx, r.id.Instance, source)
	}}
}

// state returns the query's state with sequences as others know them.
func (r *queryRun) state() result.State {
	s := r.query.State()
	s.Sequence += r.base
	return s
}

// apply is the one goroutine that uses the query.
func (r *queryRun) apply(ctx context.Context, batches <-chan message, sent <-chan uint64, synced chan result.State, stopReading func()) error {
	r.attempt.Progress.Set(func(s *Status) { s.Phase = "following" })
	beat := time.NewTicker(syncEvery)
	defer beat.Stop()
	if err := r.sync(synced); err != nil {
		return err
	}
	held := make(chan message, 1) // taken from batches but not fit for the commit before; it is next
	for {
		next := batches
		if len(held) > 0 && next != nil {
			next = held
		}
		select {
		case m := <-next:
			if err := r.fits(m, nil); err != nil {
				stopReading()
				if settled := r.settle(ctx, synced, nil); settled != nil || !r.holds(err) {
					return cmp.Or(settled, err)
				}
				batches = nil
				continue
			}
			if err := r.applyBatch(ctx, m, batches, held); err != nil {
				if !r.holds(err) {
					return err
				}
				stopReading()
				batches = nil
			}
		case through := <-sent:
			if err := r.query.TrimOutbox(through - r.base); err != nil {
				return fmt.Errorf("trimming the outbox: %w", err)
			}
		case <-beat.C:
			r.tick()
			if err := r.checkpoints.ifDue(); err != nil {
				return fmt.Errorf("making a checkpoint: %w", err)
			}
			if time.Since(r.applied) < busyWithin && time.Since(r.synced) < syncEveryBusy {
				continue
			}
			if err := r.sync(synced); err != nil {
				return err
			}
		case <-r.succeeded:
			stopReading()
			return r.settle(ctx, synced, errSucceeded)
		case <-r.attempt.Drain:
			r.attempt.Progress.Set(func(s *Status) { s.Phase = "draining" })
			stopReading()
			if err := r.settle(ctx, synced, errDrained); !errors.Is(err, errDrained) {
				return err
			}
			if err := r.checkpoints.onStop(ctx); err != nil {
				return fmt.Errorf("making the last checkpoint: %w", err)
			}
			return errDrained
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// settle makes everything that was applied durable and returns the reason to end.
func (r *queryRun) settle(ctx context.Context, synced chan result.State, reason error) error {
	if err := r.out.flush(ctx); err != nil {
		return err
	}
	if err := r.sync(synced); err != nil {
		return err
	}
	return reason
}

// sync makes the query's state durable and passes on how far that is.
func (r *queryRun) sync(synced chan result.State) error {
	if r.applied.Before(r.synced) {
		return nil
	}
	state := r.state()
	r.synced = time.Now()
	if err := r.query.Sync(); err != nil {
		return fmt.Errorf("syncing the index: %w", err)
	}
	replaceLatest(synced, state)
	stats := r.query.Stats()
	r.attempt.Progress.SetDetail("rows", strconv.FormatInt(stats.Rows, 10))
	r.attempt.Progress.SetDetail("failedRows", strconv.FormatInt(stats.FailedRows, 10))
	r.attempt.Progress.SetDetail("elements", strconv.FormatInt(stats.Elements, 10))
	m := r.metrics
	m.Rows.Set(float64(stats.Rows))
	m.FailedRows.Set(float64(stats.FailedRows))
	m.Elements.Set(float64(stats.Elements))
	m.Bytes.Set(float64(stats.Bytes))
	m.Queue.Set(float64(r.out.queued()))
	return nil
}

// applyBatch applies a message and all that is waiting behind it, up to the bounds, in one commit. A message that it took
// but that belongs to another commit goes to held, which is empty.
func (r *queryRun) applyBatch(ctx context.Context, first message, batches <-chan message, held chan<- message) error {
	b, bytes, followed := first.Batch, first.bytes, first.followed
gather:
	for bytes < maxBatchBytes && len(b.Transactions) < maxBatchTransactions && b.Parts == nil {
		select {
		case m := <-batches:
			if m.Source != b.Source || m.Parts != nil || r.fits(m, nil) != nil {
				held <- m
				break gather
			}
			b.Transactions = append(b.Transactions, m.Transactions...)
			b.Offset, b.Position = m.Offset, m.Position
			bytes += m.bytes
			followed = append(followed, m.followed...)
		default:
			break gather
		}
	}
	r.checkpoints.took(bytes)
	began := time.Now()
	changed, err := r.query.Apply(b)
	r.applied = time.Now()
	r.metrics.Apply.Observe(r.applied.Sub(began).Seconds())
	if err != nil {
		return fmt.Errorf("applying changes up to message %d of source %s: %w", b.Offset, b.Source, err)
	}
	if len(changed) > 0 && len(r.spec.Sources) > 1 {
		// The order in which changes of several sources were taken is known to the index alone; results must not
		// outlive it.
		if err := r.query.Sync(); err != nil {
			return fmt.Errorf("syncing the index: %w", err)
		}
	}
	for i := range followed {
		followed[i].told.Applied = r.applied
	}
	for i := range changed {
		changed[i].Sequence += r.base
		if err := r.publish(ctx, &changed[i], followed); err != nil {
			return err
		}
		r.tick()
	}
	r.show(changed) // after the checks of publish, while the outlet is at work
	r.tracer.unchanged(followed, changed)
	r.progressed(b)
	return nil
}

// tick says that the query gets on: its results go out, and from each of its sources it gets what there is, or hears that there
// is nothing.
func (r *queryRun) tick() {
	deaf := func(f *feed) bool { return f.waits.isOver(r.host.deafAfter) }
	if (r.out == nil || !r.out.isStuck()) && !slices.ContainsFunc(r.feeds, deaf) {
		r.attempt.Progress.Tick()
	}
}

func (r *queryRun) progressed(b query.Batch) {
	r.tick()
	changes := 0
	for i := range b.Transactions {
		changes += len(b.Transactions[i].Changes)
	}
	r.metrics.Changes.Add(float64(changes))
	if n := len(b.Transactions); n > 0 && !b.Transactions[n-1].CommitTime.IsZero() {
		r.metrics.Lag.Observe(max(0, r.applied.Sub(b.Transactions[n-1].CommitTime).Seconds()))
	}
	r.attempt.Progress.Set(func(s *Status) {
		s.Position, s.Offset, s.Sequence, s.Backpressure = b.Position, b.Offset, max(s.Sequence, r.published), ""
		if n := len(b.Transactions); n > 0 {
			s.CommitTime = b.Transactions[n-1].CommitTime
		}
		if r.out.isFull() {
			s.Backpressure = "the result log takes results more slowly than the query makes them"
		}
	})
}

// soleOffset returns the offset in the change log of the only source; with several there is none to show.
func soleOffset(s result.State) uint64 {
	if len(s.Offsets) != 1 {
		return 0
	}
	for _, offset := range s.Offsets {
		return offset
	}
	return 0
}

// replaceLatest leaves only the newest value in a channel of capacity one, whose only sender is the caller.
func replaceLatest[T any](c chan T, v T) {
	select {
	case <-c:
	default:
	}
	c <- v
}
