package pipeline

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
)

// verifyEvery is how often a bootstrap looks whether the source has caught up with the snapshot.
const verifyEvery = 50 * time.Millisecond

// Plan is what a snapshot consists of.
type Plan struct {
	Tables      int
	Chunks      int   // at most; they become larger where reading is quick
	Rows        int64 // estimate
	Parallelism int   // chunks that should be copied at the same time
	Kept        int64 // rows that earlier snapshots left copied
}

// Subscribe begins a bootstrap: from now on the source's change log keeps what the query will need, and the source knows
// what that is. It returns the first message of it. What an earlier bootstrap of the same query and source left is removed.
func (h *Host) Subscribe(ctx context.Context, ref BootstrapRef, query component.QuerySpec) (uint64, error) {
	var needs source.Wanted // everything, if an earlier version of the control plane asks
	if query.Query != "" {
		compiled, err := compile(query)
		if err != nil {
			return 0, err
		}
		needs = needsOf(compiled)
	}
	log, err := h.openChangeLog(ctx, ref.Instance, ref.Source) // first: where there is no source, nothing is put down
	if err != nil {
		return 0, err
	}
	if err := h.want(ctx, ref.Instance, ref.Source, ref.Query+bootstrapSuffix, needs); err != nil {
		return 0, err
	}
	boots, record, revision, err := h.bootstrap(ctx, ref)
	if err == nil {
		return record.From, nil
	}
	if !errors.Is(err, errNoBootstrap) {
		return 0, err
	}
	if err := h.removeCopy(ctx, boots, ref); err != nil {
		return 0, err
	}
	end, err := h.holdOn(ctx, log, subscriptionKey(ref.Instance, ref.Source, ref.Query)+bootstrapSuffix, 0)
	if err != nil {
		return 0, err
	}
	record = bootstrapRecord{ID: ref.ID, Rebuild: ref.Rebuild, Only: ref.Labels, From: end + 1}
	if _, err := replace(ctx, boots, ref.key(), record, revision); err != nil {
		return 0, err
	}
	return record.From, nil
}

// holdOn makes a change log keep what comes after its end as it is now, which it returns, under the key of a subscription.
//
// The source trims what it saw to be free a round ago, so a subscription that is on record within less than a round of
// looking at the log's end is in time.
func (h *Host) holdOn(ctx context.Context, log *stream.Log, key string, sequence uint64) (uint64, error) {
	subscriptions, err := h.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, trimEvery/2)
	defer cancel()
	end, err := log.State(ctx)
	if err != nil {
		return 0, fmt.Errorf("reading the end of the change log: %w", err)
	}
	_, err = write(ctx, subscriptions, key, subscription{Offset: end.Last, Sequence: sequence})
	return end.Last, err
}

var errNoBootstrap = errors.New("no such bootstrap")

// bootstrap reads the record of a bootstrap. With errNoBootstrap, the revision is that of another one's record.
func (h *Host) bootstrap(ctx context.Context, ref BootstrapRef) (*stream.Bucket, bootstrapRecord, uint64, error) {
	b, err := h.bucket(ctx, bootstrapBucket)
	if err != nil {
		return nil, bootstrapRecord{}, 0, err
	}
	var record bootstrapRecord
	revision, _, err := read(ctx, b, ref.key(), &record)
	if err != nil {
		return nil, bootstrapRecord{}, 0, err
	}
	if record.ID != ref.ID {
		return b, bootstrapRecord{}, revision, fmt.Errorf("bootstrap %s of %s: %w", ref.ID, ref.key(), errNoBootstrap)
	}
	return b, record, revision, nil
}

// edit changes the record of a bootstrap, however many others do so at the same time.
func (h *Host) edit(ctx context.Context, ref BootstrapRef, change func(*bootstrapRecord) error) (bootstrapRecord, error) {
	for {
		b, record, revision, err := h.bootstrap(ctx, ref)
		if err != nil {
			return record, err
		}
		if err := change(&record); err != nil {
			return record, err
		}
		if _, err = replace(ctx, b, ref.key(), record, revision); !errors.Is(err, stream.ErrConflict) {
			return record, err
		}
	}
}

func (h *Host) snapshotter(spec component.SourceSpec) (source.Snapshotter, error) {
	src, err := h.newSource(spec, 0)
	if err != nil {
		return nil, err
	}
	s, ok := src.(source.Snapshotter)
	if !ok {
		return nil, failure.Unsupported.Errorf("sources of kind %s have no snapshots", spec.Kind).
			WithFix("Set bootstrap: none in the query's spec, so that it starts with the changes from now on.")
	}
	return s, nil
}

// HoldSnapshot opens the snapshot of the ref's generation and keeps it open until ctx ends or it is lost. It calls ready
// once, when others may read it, and alive as long as it is. The snapshot is taken when the change log has what the query
// reads.
func (h *Host) HoldSnapshot(ctx context.Context, ref BootstrapRef, spec component.SourceSpec, ready func(graph.Position) error, alive func()) error {
	s, err := h.snapshotter(spec)
	if err != nil {
		return err
	}
	if err := h.awaitServed(ctx, ref.Instance, ref.Source, ref.Query+bootstrapSuffix, alive); err != nil {
		return err
	}
	return failure.Guard(func() error {
		return s.HoldSnapshot(ctx, func(snapshot source.Snapshot) error {
			_, err := h.edit(ctx, ref, func(r *bootstrapRecord) error {
				if r.Generation > ref.SnapshotGeneration {
					return failure.FencedOff.Errorf("snapshot %d came after this one, %d", r.Generation, ref.SnapshotGeneration)
				}
				r.Generation, r.Snapshot, r.Pace, r.Verified = ref.SnapshotGeneration, &snapshot, nil, false
				return nil
			})
			if err != nil {
				return fmt.Errorf("recording the snapshot: %w", err)
			}
			return ready(snapshot.Position)
		}, alive)
	})
}

// current returns the bootstrap's record if its snapshot is that of the ref.
func (h *Host) current(ctx context.Context, ref BootstrapRef) (*stream.Bucket, bootstrapRecord, error) {
	b, record, _, err := h.bootstrap(ctx, ref)
	if err == nil && (record.Snapshot == nil || record.Generation != ref.SnapshotGeneration) {
		err = failure.SnapshotLost.Errorf("snapshot %d is not there; the bootstrap is at snapshot %d", ref.SnapshotGeneration, record.Generation)
	}
	return b, record, err
}

// PlanChunks records what the query reads of the source, to be copied in chunks. Labels that were copied completely from
// earlier snapshots keep their rows; of the others those chunks do that were, where the source says that they are of use.
func (h *Host) PlanChunks(ctx context.Context, ref BootstrapRef, spec component.SourceSpec, query component.QuerySpec) (Plan, error) {
	s, err := h.snapshotter(spec)
	if err != nil {
		return Plan{}, err
	}
	compiled, err := compile(query)
	if err != nil {
		return Plan{}, err
	}
	b, record, err := h.current(ctx, ref)
	if err != nil {
		return Plan{}, err
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return Plan{}, err
	}
	if record.Pace == nil {
		var pace source.Pace
		if scopes, pace, err = h.plan(ctx, b, ref, s, &record, scopes, needsOf(compiled)); err != nil {
			return Plan{}, err
		}
		if record, err = h.edit(ctx, ref, func(r *bootstrapRecord) error {
			r.Pace, r.Fingerprint = &pace, compiled.Fingerprint()
			r.Labels, r.Continued = keptLabels(scopes, ref.SnapshotGeneration), continuedLabels(scopes, ref.SnapshotGeneration)
			return nil
		}); err != nil {
			return Plan{}, err
		}
	}
	plan := Plan{Parallelism: record.Pace.Parallelism}
	for _, scope := range scopes {
		if scope.generation != ref.SnapshotGeneration {
			plan.Kept += scope.rows()
		}
		if scope.Continued {
			continue
		}
		plan.Tables++
		plan.Chunks += int((scope.Places + scope.Least - 1) / scope.Least)
		plan.Rows += scope.Rows
	}
	return plan, nil
}

// plan replaces the scopes that are not of use any more by those of the present snapshot.
func (h *Host) plan(
	ctx context.Context, b *stream.Bucket, ref BootstrapRef, s source.Snapshotter, record *bootstrapRecord, scopes []*storedScope, wanted source.Wanted,
) ([]*storedScope, source.Pace, error) {
	_, everything := wanted[""]
	kept, rest := divide(scopes, ref.SnapshotGeneration, !everything)
	for label := range keptLabels(kept, ref.SnapshotGeneration) {
		delete(wanted, label)
	}
	var plan source.SnapshotPlan
	if err := failure.Guard(func() (err error) {
		plan, err = s.PlanSnapshot(ctx, *record.Snapshot, wanted)
		return err
	}); err != nil {
		return nil, source.Pace{}, err
	}
	var planned []*storedScope
	for number, scope := range plan.Scopes {
		if record.reads(scope.Labels) {
			planned = append(planned, &storedScope{
				scopeRecord: scopeRecord{Scope: scope, Position: record.Snapshot.Position, Failed: failedBefore(rest, scope.Name)},
				key:         scopeKey(ref.key(), ref.SnapshotGeneration, number), generation: ref.SnapshotGeneration, number: number,
			})
		}
	}
	continued, dropped := goOn(planned, rest)
	if err := forget(ctx, b, dropped); err != nil {
		return nil, source.Pace{}, err
	}
	for _, scope := range continued { // first: what is left of it alone is known to be a part
		if err := scope.update(ctx, b, func(s *scopeRecord) error { s.end(); return nil }); err != nil {
			return nil, source.Pace{}, err
		}
	}
	for _, scope := range planned {
		var err error
		if scope.revision, err = write(ctx, b, scope.key, scope.scopeRecord); err != nil {
			return nil, source.Pace{}, err
		}
	}
	return slices.Concat(kept, continued, planned), plan.Pace, nil
}

// VerifyBootstrap checks that all chunks are copied and that the changes from their snapshots on are reachable, and waits
// until the source has written all that the snapshot contains to its change log. When changes are lost, so is everything
// that was copied.
func (h *Host) VerifyBootstrap(ctx context.Context, ref BootstrapRef, spec component.SourceSpec, alive func()) error {
	s, err := h.snapshotter(spec)
	if err != nil {
		return err
	}
	b, record, err := h.current(ctx, ref)
	if err != nil {
		return err
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return err
	}
	if record.Pace == nil {
		return failure.SnapshotLost.Errorf("snapshot %d has no plan that this version can read", ref.SnapshotGeneration)
	}
	for _, s := range scopes {
		if !s.copied() {
			return failure.Unclassified.Errorf("%s is not copied completely yet", s.Name)
		}
	}
	oldest := *record.Snapshot
	for _, position := range record.Labels {
		if position.Compare(oldest.Position) < 0 {
			oldest.Position = position
		}
	}
	if err := failure.Guard(func() error { return s.VerifySnapshot(ctx, oldest) }); err != nil {
		if failure.CodeOf(err) == failure.SnapshotLost {
			err = errors.Join(err, forget(ctx, b, scopes))
		}
		return err
	}
	if err := h.awaitSource(ctx, ref, record.Snapshot.Position, alive); err != nil {
		return err
	}
	log, err := h.openChangeLog(ctx, ref.Instance, ref.Source)
	if err != nil {
		return err
	}
	last, err := log.Last(ctx)
	if err != nil {
		return fmt.Errorf("reading the end of the change log: %w", err)
	}
	_, err = h.edit(ctx, ref, func(r *bootstrapRecord) error {
		r.Verified = true
		if last != nil {
			r.SealOffset = last.Sequence
		}
		return nil
	})
	return err
}

// awaitSource waits until the source is durable up to a position.
func (h *Host) awaitSource(ctx context.Context, ref BootstrapRef, position graph.Position, alive func()) error {
	positions, err := h.bucket(ctx, positionsBucket)
	if err != nil {
		return err
	}
	for {
		var at sourcePosition
		if _, _, err := read(ctx, positions, ref.Instance+"."+ref.Source, &at); err != nil {
			return err
		}
		if at.Position.Compare(position) >= 0 {
			return nil
		}
		alive()
		select {
		case <-time.After(verifyEvery):
		case <-ctx.Done():
			return fmt.Errorf("waiting for source %s to come from %q to the snapshot's position %q: %w", ref.Source, at.Position, position, ctx.Err())
		}
	}
}

// SealBootstrap declares the copy complete; the query may be built from it. It returns the snapshot's position and how
// many rows were copied.
func (h *Host) SealBootstrap(ctx context.Context, ref BootstrapRef) (graph.Position, int64, error) {
	b, record, err := h.current(ctx, ref)
	if err != nil {
		return "", 0, err
	}
	if !record.SealedAt.IsZero() {
		return record.Snapshot.Position, record.Rows, nil
	}
	if !record.Verified {
		return "", 0, failure.Panic.Errorf("bootstrap %s is to be sealed without having been verified", ref.ID)
	}
	scopes, err := h.scopes(ctx, b, ref.key())
	if err != nil {
		return "", 0, err
	}
	var rows int64
	for _, s := range scopes {
		rows += s.rows()
	}
	var lastMessage uint64
	log, err := h.conn.OpenLog(ctx, bootstrapLog(ref.Instance, ref.Query, ref.Source))
	if err == nil {
		var last *stream.Message
		if last, err = log.Last(ctx); last != nil {
			lastMessage = last.Sequence
		}
	}
	if err != nil && !errors.Is(err, stream.ErrMissing) { // without rows there is no log
		return "", 0, fmt.Errorf("reading the end of the bootstrap log: %w", err)
	}
	record, err = h.edit(ctx, ref, func(r *bootstrapRecord) error {
		r.SealedAt, r.LastMessage, r.Rows = time.Now().UTC(), lastMessage, rows
		return nil
	})
	if err != nil {
		return "", 0, err
	}
	return record.Snapshot.Position, rows, nil
}

// AbandonBootstrap removes what a bootstrap that was given up left, the subscription included.
func (h *Host) AbandonBootstrap(ctx context.Context, ref BootstrapRef) error {
	b, _, _, err := h.bootstrap(ctx, ref)
	if errors.Is(err, errNoBootstrap) {
		return nil // gone, or replaced by a later one
	}
	if err != nil {
		return err
	}
	if err := h.removeCopy(ctx, b, ref); err != nil {
		return err
	}
	subscriptions, err := h.bucket(ctx, subscriptionsBucket)
	if err != nil {
		return err
	}
	key := subscriptionKey(ref.Instance, ref.Source, ref.Query) + bootstrapSuffix
	if err := subscriptions.Delete(ctx, key); err != nil {
		return fmt.Errorf("deleting the subscription: %w", err)
	}
	if err := h.unwant(ctx, ref.Instance, ref.Source, ref.Query+bootstrapSuffix); err != nil {
		return err
	}
	return removeKeys(ctx, b, ref.key())
}

// removeCopy removes scopes and copied rows of whatever bootstrap there was.
func (h *Host) removeCopy(ctx context.Context, b *stream.Bucket, ref BootstrapRef) error {
	if err := removeKeys(ctx, b, ref.key()+".scope"); err != nil {
		return err
	}
	if err := h.conn.DeleteLog(ctx, bootstrapLog(ref.Instance, ref.Query, ref.Source)); err != nil {
		return fmt.Errorf("deleting the bootstrap log: %w", err)
	}
	return nil
}
