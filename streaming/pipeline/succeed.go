package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/stream"
)

// A query that needs a bootstrap while it has a state goes on with that: its changes, if it can apply them, else its
// result as it is. Meanwhile the bootstrap's rows come into a state beside it, with the changes since, so that little is
// left to be done when the one takes the place of the other, and the difference between their results is published. The two
// may be of other sources: until then, the query has its share of the sources of both.

// Need is what a query asks for that goes on with the state that it has.
type Need struct {
	Outcome Outcome  // as which it would end without that state
	Missing *Missing // see Status.Missing
	// Held says that the result stays as it is until then.
	Held bool
}

// successor is the state that is to take the place of the one that is followed: of which plan, and why.
type successor struct {
	plan *query.Plan
	spec component.QuerySpec
	need Need
}

// errSucceeded ends a run whose successor waits for its place.
var errSucceeded = errors.New("another state takes the place of this one")

const (
	// awaitBootsEvery is how often a query that waits for a bootstrap looks whether it is sealed.
	awaitBootsEvery = 500 * time.Millisecond
	// A query that waits for a bootstrap asks for it again after askAgain, then after twice that and so on, but at least
	// every askAtLeast: nobody listens while an earlier one ends.
	askAgain   = 2 * time.Second
	askAtLeast = 10 * time.Minute
	// aheadWithin is how many messages may be left to load when the successor asks for its place.
	aheadWithin = 1000
)

// planOf returns the plan of the state on record: the one of this run if the state is what this run asks for, of the same
// sources too, of which a plan knows nothing; another one, or nil if that is not known any more.
func (r *queryRun) planOf(record queryRecord) *query.Plan {
	if r.asksFor(record) {
		return r.plan
	}
	if record.Spec == nil {
		return nil
	}
	plan, err := compile(*record.Spec)
	if err != nil || plan.Fingerprint() != record.Fingerprint {
		return nil // the language may have changed
	}
	return plan
}

// asksFor reports whether the state on record is of the plan and the sources of this run.
func (r *queryRun) asksFor(record queryRecord) bool {
	return record.Fingerprint == r.plan.Fingerprint() && slices.Equal(record.Sources, r.spec.Sources)
}

// comesAfter settles the order of the sources, which is part of the ids of their elements: those that the state before has
// stay where they are.
func (r *queryRun) comesAfter(before []string) {
	mine := slices.Sorted(slices.Values(r.spec.Sources))
	r.spec.Sources = slices.DeleteFunc(slices.Clone(before), func(name string) bool { return !slices.Contains(mine, name) })
	for _, name := range mine {
		if !slices.Contains(r.spec.Sources, name) {
			r.spec.Sources = append(r.spec.Sources, name)
		}
	}
	r.whole = !slices.Equal(before, r.spec.Sources)
}

// openLogs opens the change logs of the sources. What is missing is the failure of one that has none.
func (r *queryRun) openLogs(ctx context.Context) (missing, err error) {
	r.logs = make(map[string]*stream.Log, len(r.spec.Sources))
	for _, name := range r.spec.Sources {
		log, err := r.host.openChangeLog(ctx, r.id.Instance, name)
		switch {
		case failure.CodeOf(err) == failure.SourceMissing:
			missing = err
		case err != nil:
			return nil, err
		default:
			r.logs[name] = log
		}
	}
	return missing, nil
}

// goOn resumes the state on record, as one that is to have a successor if it is of another plan or other sources, or if the
// sources are to be read again or have been. It returns nil when there is none.
func (r *queryRun) goOn(ctx context.Context, records *stream.Bucket, current *queryRecord, boots []*boot) (*query.Query, error) {
	next := &successor{plan: r.plan, spec: r.spec}
	waits := r.attempt.Need != nil && r.spec.Bootstrap != "none"
	reloads := waits && r.attempt.Reload != "" && r.attempt.Reload != current.Reload || boots != nil && !r.begun(boots, *current)
	switch plan := r.planOf(*current); {
	case plan == nil || plan != r.plan && !waits:
		return nil, nil
	case plan != r.plan:
		next.need.Outcome = NeedsBootstrap
		r.next, r.plan, r.spec = next, plan, *current.Spec
		r.spec.Sources = current.Sources
		r.spec.Bootstrap = next.spec.Bootstrap // the successor's, which mends what this one cannot apply
	case reloads:
		next.need.Outcome = NeedsResync
		r.next = next
	}
	missing, err := r.openLogs(ctx)
	if err != nil {
		return nil, err
	}
	if missing != nil {
		if r.plan == next.plan {
			return nil, missing
		}
		r.gone, next.need.Held = missing, true
	}
	if err := r.want(ctx); err != nil {
		return nil, err
	}
	if r.next == nil {
		if err := r.setNext(ctx, records, current, ""); err != nil {
			return nil, err
		}
	}
	r.built = current.Bootstraps
	q, err := r.resume(ctx, records, current)
	if q == nil {
		r.next, r.gone, r.plan, r.spec = nil, nil, next.plan, next.spec
	}
	return q, err
}

// setNext puts down which store is being loaded, so that nobody takes it for an orphan, and removes the one that was before.
func (r *queryRun) setNext(ctx context.Context, records *stream.Bucket, current *queryRecord, store string) error {
	before := current.Next
	if before == store {
		return nil
	}
	current.Next = store
	if err := r.put(ctx, records, *current); err != nil || before == "" {
		return err
	}
	if err := r.host.index.Remove(before); err != nil {
		return fmt.Errorf("removing the index of a state that is not to come any more: %w", err)
	}
	return nil
}

// want tells the sources what the plan reads.
func (r *queryRun) want(ctx context.Context) error {
	for name := range r.logs {
		if err := r.host.want(ctx, r.id.Instance, name, r.id.Name, needsOf(r.plan)); err != nil {
			return err
		}
	}
	return nil
}

// holds reports whether the query may keep its result as it is instead of ending with an error: a successor comes in any
// case, or can be asked for. It is safe for concurrent use.
func (r *queryRun) holds(err error) bool {
	need := Need{Outcome: NeedsResync, Held: true}
	switch lost := lossOf(err); {
	case r.attempt.Need == nil || r.spec.Bootstrap == "none":
		return false
	case lost != nil && lost.rebuild:
		need.Outcome = NeedsRebuild
	case lost != nil:
		need.Missing = lost.missing
	case r.next != nil && r.next.plan != r.plan && errors.Is(err, stream.ErrMissing): // the source was deleted meanwhile
	case r.next == nil || !isOfChanges(err):
		return false
	}
	r.succeeds.Store(true)
	r.tellHeld(err)
	select {
	case r.needed <- need:
	default: // one is on its way; if it does not help, the next run finds out
	}
	return true
}

// isOfChanges reports whether an error is about the changes that cannot be applied: whoever comes to them meets it again.
func isOfChanges(err error) bool {
	class := failure.ClassOf(err)
	return lossOf(err) != nil || !ended(err) && !errors.Is(err, index.ErrDamaged) && !class.Retryable() && class != failure.Fenced
}

func (r *queryRun) tellHeld(why error) {
	r.attempt.Progress.SetDetail("held", why.Error())
	r.host.logFor(r.id).Warn("the result stays as it is until the sources are read again", zap.Error(why))
}

// succeed gets a bootstrap when one is needed and loads the successor from it. When that waits for its place only,
// succeeded is closed.
func (r *queryRun) succeed(ctx context.Context) error {
	next := r.next
	var need Need
	select {
	case need = <-r.needed:
	case <-ctx.Done():
		return nil
	}
	if next == nil {
		next = &successor{plan: r.plan, spec: r.spec}
	}
	n := &queryRun{
		host: r.host, metrics: r.metrics, tracer: r.tracer, attempt: Attempt{ID: r.attempt.ID, Epoch: r.attempt.Epoch, Reload: r.attempt.Reload},
		spec: next.spec, id: r.id, plan: next.plan, fence: r.fence,
	}
	n.comesAfter(r.spec.Sources)
	tell := func(text string) { r.attempt.Progress.SetDetail("successor", text) }
	if err := n.awaitLogs(ctx, tell); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	tell("waits for a bootstrap")
	boots, err := n.awaitBoots(ctx, func() error { return r.attempt.Need(ctx, need) })
	if err != nil {
		return err
	}
	if boots == nil {
		return nil
	}
	if !partial(boots) { // which take the rest from the state that is followed
		tell("is loading")
		err := n.loadAhead(ctx, boots)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil { // what is left is done in its place, or fails there again
			r.host.logFor(r.id).Warn("the state that is to take the place of the present one could not be loaded beside it", zap.Error(err))
		}
	}
	tell("takes its place")
	close(r.succeeded)
	return nil
}

// awaitLogs waits until all sources have a change log, before which there is nothing to ask for.
func (r *queryRun) awaitLogs(ctx context.Context, tell func(string)) error {
	for {
		missing, err := retried(ctx, func() (error, error) { return r.openLogs(ctx) })
		if err != nil || missing == nil {
			return err
		}
		tell("waits: " + missing.Error())
		select {
		case <-time.After(awaitBootsEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// awaitBoots waits until the bootstraps are sealed, and asks for them, again and again while they are not. It returns nil
// when ctx ends.
func (r *queryRun) awaitBoots(ctx context.Context, ask func() error) ([]*boot, error) {
	wait := askAgain
	again := time.NewTimer(0)
	defer again.Stop()
	ticker := time.NewTicker(awaitBootsEvery)
	defer ticker.Stop()
	for due := false; ; {
		boots, err := retried(ctx, func() ([]*boot, error) { return r.sealed(ctx) })
		if ctx.Err() != nil {
			return nil, nil
		}
		if err != nil || boots != nil {
			return boots, err
		}
		if due {
			if err := ask(); err != nil {
				if ctx.Err() != nil {
					return nil, nil
				}
				return nil, fmt.Errorf("asking for a bootstrap: %w", err)
			}
			again.Reset(wait)
			wait, due = min(2*wait, askAtLeast), false
		}
		select {
		case <-ticker.C:
		case <-again.C:
			due = true // unless it is there by now
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// loadAhead loads the bootstraps and most of the changes since, while the state before goes on.
func (r *queryRun) loadAhead(ctx context.Context, boots []*boot) error {
	records, err := r.host.bucket(ctx, queriesBucket)
	if err != nil {
		return err
	}
	current, err := r.claim(ctx, records)
	if err != nil {
		return err
	}
	store := r.record(boots, current).Store
	if err := r.setNext(ctx, records, &current, store); err != nil {
		return err
	}
	q, cause, err := r.openSound(ctx, r.plan, store, query.Empty)
	if cause != nil {
		q, err = r.openStore(ctx, r.plan, store, query.Empty)
	}
	if err != nil || q == nil {
		return err
	}
	defer q.Close() //nolint:errcheck // it is synced
	r.query = q
	for _, b := range boots { // the order in which they are met stays
		if len(q.Token(b.source)) > 0 {
			continue
		}
		if err := q.Load(b.source, token{}.bytes(), nil); err != nil {
			return fmt.Errorf("beginning to load source %s: %w", b.source, err)
		}
	}
	for left := uint64(aheadWithin) + 1; left > aheadWithin && q.Phase() != query.Live; {
		left = 0
		for _, b := range boots {
			end, err := r.changesEnd(ctx, b.source)
			if err != nil {
				return err
			}
			if _, err := r.loadUpTo(ctx, b, max(end, b.record.SealOffset)); err != nil {
				return err
			}
			now, err := r.changesEnd(ctx, b.source)
			if err != nil {
				return err
			}
			left += now - end
		}
	}
	if err := q.Sync(); err != nil {
		return fmt.Errorf("syncing the index: %w", err)
	}
	return nil
}

// changesEnd returns the last message of a source's change log. What is after it, such as the mark of a source that was
// started again, is none that could be waited for.
func (r *queryRun) changesEnd(ctx context.Context, source string) (uint64, error) {
	last, err := r.logs[source].Last(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the change log: %w", err)
	}
	if last == nil {
		return 0, nil
	}
	return last.Sequence, nil
}
