package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// deliverer is a reaction that is pushed to, with what the deliveries of its queries share.
type deliverer struct {
	host     *Host
	reaction reaction.Deliverer
	id       string // <instance>.<reaction>
	instance string
	name     string
	byRow    bool
	laneN    int
	timeout  time.Duration
	retry    component.Retry
	target   *target
	letters  *stream.Log
	owner    stream.Epoch
	progress *Progress
	metrics  *telemetry.Reaction
	tracer   *tracer
	drain    <-chan struct{}
	buried   chan struct{} // has an element when a dead letter is not counted yet

	mu     sync.Mutex
	open   []*delivery // those that are under way
	failed int         // queries whose results can no longer be read
}

// runDeliverer delivers the results of all queries until drained, each query in its own order.
func (h *Host) runDeliverer(ctx context.Context, a Attempt, spec component.ReactionSpec, r reaction.Deliverer, fence *stream.Fence) error {
	id := spec.ID()
	letters, err := h.conn.EnsureLog(ctx, letterOptions(id, spec.Policy))
	if err != nil {
		return fmt.Errorf("opening the dead-letter log: %w", err)
	}
	metrics := h.metrics.Reaction(id.Instance, id.Name)
	defer metrics.Close()
	how := spec.Delivery.WithDefaults()
	d := &deliverer{
		host: h, reaction: r, id: id.Instance + "." + id.Name, instance: id.Instance, name: id.Name,
		byRow: how.Unit == "row", laneN: how.Lanes, timeout: time.Duration(how.TimeoutSeconds) * time.Second, retry: how.Retry,
		target:  newTarget(how.Retry, a.Drain, metrics, a.Progress),
		letters: letters, owner: a.Epoch, progress: a.Progress, metrics: metrics, tracer: h.tracer(id.Instance), drain: a.Drain,
		buried: make(chan struct{}, 1),
	}
	for _, name := range spec.Queries { // in this order, and also those that nothing was delivered of
		a.Progress.setQuery(name, func(*QueryDelivery) {})
	}
	if err := d.countLetters(ctx); err != nil {
		return err
	}
	a.Progress.Set(func(s *Status) { s.Phase = "delivering" })
	g := newGroup(ctx)
	g.run(func(ctx context.Context) error { return attend(ctx, a.Progress, fence, d.hangs) })
	g.run(d.watchLetters)
	g.run(func(ctx context.Context) error {
		work := newGroup(ctx)
		for _, name := range spec.Queries {
			work.run(func(ctx context.Context) error { return d.follow(ctx, name, len(spec.Queries)) })
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

const (
	firstLook = time.Second
	lastLook  = 30 * time.Second
)

// follow delivers one query until drained. What is wrong with that query alone leaves the other ones alone: it is tried
// again, or shown as failed where that does not help. Once none can be delivered, the run ends with the first failure.
func (d *deliverer) follow(ctx context.Context, query string, queries int) error {
	for look := firstLook; ; look = min(2*look, lastLook) {
		began := time.Now()
		err := d.deliverQuery(ctx, query)
		var own ownFailure
		if !errors.As(err, &own) || ctx.Err() != nil {
			return err
		}
		report := failure.Describe(err)
		if failure.ClassOf(err).Retryable() {
			if time.Since(began) > lastLook {
				look = firstLook
			}
			d.metrics.QueriesFailed.Inc()
			d.progress.setQuery(query, func(q *QueryDelivery) { q.State, q.Error = QueryWaiting, &report })
			err = rest(ctx, look, d.drain, nil)
			d.metrics.QueriesFailed.Dec()
			if err == nil {
				d.progress.setQuery(query, func(q *QueryDelivery) { q.State, q.Error = QueryDelivering, nil })
				continue
			}
		} else {
			d.metrics.QueriesFailed.Inc()
			d.progress.setQuery(query, func(q *QueryDelivery) { q.State, q.Error = QueryFailed, &report })
			if d.lost() == queries {
				return err
			}
			select {
			case <-d.drain:
				return nil
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if errors.Is(err, errLeft) {
			return nil
		}
		return err
	}
}

// lost counts a query that cannot be delivered any more, and returns how many those are.
func (d *deliverer) lost() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.failed++
	return d.failed
}

func (d *deliverer) deliverQuery(ctx context.Context, query string) error {
	log, err := d.host.openResultLog(ctx, d.instance, query)
	if err != nil {
		return ownFailure{err}
	}
	deliveries, err := d.host.bucket(ctx, deliveriesBucket)
	if err != nil {
		return err
	}
	done, err := openMark(ctx, deliveries, d.id+"."+query, d.owner, log.Created().UnixNano())
	if err != nil {
		return err
	}
	skip, err := skipOf(ctx, deliveries, d.id+"."+query, log.Created().UnixNano())
	if err != nil {
		return err
	}
	one := &delivery{
		deliverer: d, query: query, log: log, logKey: strconv.FormatInt(log.Created().UnixMilli(), 36), done: done, skip: skip,
	}
	one.window = newWindow(one.recorded)
	for range d.laneN {
		one.lanes = append(one.lanes, newLane())
	}
	one.heard.set()
	d.attach(one)
	defer d.detach(one)
	d.progress.setQuery(query, func(q *QueryDelivery) { q.Sequence = done.get().Sequence })
	return one.run(ctx)
}

func (d *deliverer) attach(one *delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = append(d.open, one)
}

func (d *deliverer) detach(one *delivery) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.open = slices.DeleteFunc(d.open, func(other *delivery) bool { return other == one })
}

// hangs reports whether the results of a query do not get on. A query that is tried again after a pause is not among those
// that are under way: the status says so of it.
func (d *deliverer) hangs() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.ContainsFunc(d.open, (*delivery).hangs)
}

// attend says that the reaction is alive as long as nothing hangs, and stops it when a newer attempt took over. A reaction that
// serves has nothing that could hang for all: each client asks for what it gets, has its own bounds, and comes again when it
// gets nothing.
func attend(ctx context.Context, p *Progress, fence *stream.Fence, hangs func() bool) error {
	beat := time.NewTicker(time.Second)
	defer beat.Stop()
	healthy, checked := time.Now(), time.Now()
	for {
		if hangs == nil || !hangs() {
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
