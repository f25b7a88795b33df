package activities

import (
	"context"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Bootstraps has the activities that give a query the data which is in a source already.
type Bootstraps struct {
	host   bootstrapHost
	runner *runner
}

func (r BootstrapRef) pipeline() pipeline.BootstrapRef {
	return pipeline.BootstrapRef{
		ID: r.ID, Instance: r.Instance, Query: r.Query, Source: r.Source, SnapshotGeneration: r.SnapshotGeneration, Rebuild: r.Rebuild,
		Labels: r.Labels,
	}
}

// source finds the spec that the source was last provisioned with.
func (b *Bootstraps) source(ctx context.Context, ref BootstrapRef) (component.SourceSpec, error) {
	id := component.ID{Kind: component.Source, Instance: ref.Instance, Name: ref.Source}
	spec, found, err := b.runner.store.provisionedSource(ctx, id.String())
	if err == nil && !found {
		err = failure.SourceMissing.Errorf("source %s was never provisioned", id)
	}
	return spec, err
}

// Subscribe makes the source's log keep everything from now on. It comes before the snapshot, so that no change falls
// between the two.
func (b *Bootstraps) Subscribe(ctx context.Context, in PlanInput) error {
	var query component.QuerySpec // empty where an earlier version of the workflow asks
	if len(in.Spec) > 0 || in.SpecRef != "" {
		var err error
		if query, err = decode[component.QuerySpec](ctx, b.runner.store, in.Spec, in.SpecRef); err != nil {
			return translate(err)
		}
	}
	_, err := b.host.Subscribe(ctx, in.pipeline(), query)
	return translate(err)
}

// HoldSnapshot opens a snapshot, tells the workflow when it is ready and keeps it open until the bootstrap is sealed or
// cancelled. It is not retried: nothing brings a lost snapshot back.
func (b *Bootstraps) HoldSnapshot(ctx context.Context, ref BootstrapRef) error {
	spec, err := b.source(ctx, ref)
	if err != nil {
		return translate(err)
	}
	info := activity.GetInfo(ctx)
	var opened atomic.Bool
	ready := func(position graph.Position) error {
		opened.Store(true)
		return activity.GetClient(ctx).SignalWorkflow(ctx, info.WorkflowExecution.ID, info.WorkflowExecution.RunID,
			SignalSnapshotReady, SnapshotReady{ref.SnapshotGeneration, string(position)})
	}
	alive := func() { activity.RecordHeartbeat(ctx, ref.SnapshotGeneration) }
	// A holder that ended before its bootstrap was sealed left its release behind; a query that is created anew has
	// bootstraps with the same ids.
	if err := b.runner.store.remove(ctx, controlBucket, ref.ID); err != nil {
		return translate(err)
	}
	released, err := b.runner.control.drain(ctx, ref.ID, uint64(ref.SnapshotGeneration))
	if err != nil {
		return translate(err)
	}

	holdCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	done := failure.Go(func() error { return b.host.HoldSnapshot(holdCtx, ref.pipeline(), spec, ready, alive) })
	// Opening a snapshot waits for transactions in flight, however long they take; from then on only a holder that can
	// reach its snapshot may say that it lives.
	ticker := time.NewTicker(beatEvery)
	defer ticker.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	reports := &copyReports{generation: ref.SnapshotGeneration, began: time.Now()}
	metrics := b.runner.metrics.Snapshot(ref.Instance, ref.Query, ref.Source)
	defer metrics.Close()
	sealed := false
	for {
		select {
		case err := <-done:
			switch {
			case ctx.Err() != nil:
				return ctx.Err()
			case sealed:
				if err := b.runner.store.remove(ctx, controlBucket, ref.ID); err != nil {
					b.runner.log.Debug("a key stays behind", zap.Error(err))
				}
				return nil
			case err == nil:
				err = failure.SnapshotLost.Errorf("the worker that held the snapshot stops")
			}
			return translate(err)
		case <-released:
			released, sealed = nil, true
			cancel()
		case <-stopping:
			stopping = nil
			cancel()
		case <-ticker.C:
			if !opened.Load() {
				alive()
			} else if err := b.report(ctx, ref, reports, metrics); err != nil { // the next one says it all
				b.runner.log.Debug("progress cannot be reported", zap.Error(err))
			}
		}
	}
}

// report tells the workflow how far copying is, when it is time for that.
func (b *Bootstraps) report(ctx context.Context, ref BootstrapRef, reports *copyReports, metrics *telemetry.Snapshot) error {
	now := time.Now().UTC()
	if !reports.due(now) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	scopes, err := b.host.CopiedSoFar(ctx, ref.pipeline())
	if err != nil {
		return err
	}
	progress, news := reports.next(now, scopes)
	metrics.Rows.Set(float64(progress.Rows))
	metrics.Expected.Set(float64(progress.Estimate))
	if !news {
		return nil
	}
	execution := activity.GetInfo(ctx).WorkflowExecution
	return activity.GetClient(ctx).SignalWorkflow(ctx, execution.ID, execution.RunID, SignalBootstrapProgress, progress)
}

// PlanChunks divides what the query needs of the source into chunks, which stay in the store.
func (b *Bootstraps) PlanChunks(ctx context.Context, in PlanInput) (BootstrapPlan, error) {
	query, err := decode[component.QuerySpec](ctx, b.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return BootstrapPlan{}, translate(err)
	}
	var plan pipeline.Plan
	err = beating(ctx, func(ctx context.Context) error {
		source, err := b.source(ctx, in.BootstrapRef)
		if err != nil {
			return err
		}
		plan, err = b.host.PlanChunks(ctx, in.pipeline(), source, query)
		return err
	})
	return BootstrapPlan(plan), translate(err)
}

// CopyWorker copies chunk after chunk until none is left.
func (b *Bootstraps) CopyWorker(ctx context.Context, in CopyInput) (CopyResult, error) {
	var (
		progress atomic.Pointer[CopyResult]
		copied   pipeline.CopyProgress
		told     int // failures
	)
	progress.Store(&CopyResult{})
	err := beatingWith(ctx, func() any { return progress.Load() }, func(ctx context.Context) error {
		source, err := b.source(ctx, in.BootstrapRef)
		if err != nil {
			return err
		}
		copied, err = b.host.CopyChunks(ctx, in.pipeline(), source, in.Worker, func(p pipeline.CopyProgress) {
			progress.Store(&CopyResult{p.Chunks, p.Rows})
			for ; told < min(len(p.Failed), maxTables); told++ { // VerifyBootstrap finds the others
				b.tellFailed(ctx, in.SnapshotGeneration, p.Failed[told])
			}
		})
		return err
	})
	return CopyResult{copied.Chunks, copied.Rows}, translate(err)
}

// tellFailed tells the workflow of a table that cannot be read, as soon as that is known: the others may take hours.
func (b *Bootstraps) tellFailed(ctx context.Context, generation int, failed pipeline.FailedScope) {
	ctx, cancel := context.WithTimeout(ctx, beatEvery)
	defer cancel()
	execution := activity.GetInfo(ctx).WorkflowExecution
	err := activity.GetClient(ctx).SignalWorkflow(ctx, execution.ID, execution.RunID, SignalTableFailed, tableFailure(generation, failed, maxFailure))
	if err != nil { // VerifyBootstrap finds it, too
		b.runner.log.Debug("a table that failed is not reported", zap.Error(err))
	}
}

const (
	// maxFailure and maxOneOfMany are how many bytes texts have of the failure of a table, and of those beyond maxTables.
	maxFailure      = 1 << 10
	maxOneOfMany    = 100
	maxFailedTables = 1000
)

func tableFailure(generation int, f pipeline.FailedScope, most int) TableFailure {
	r := f.Report
	r.Message, r.Fix = cut(r.Message, most), cut(r.Fix, most)
	r.Causes, r.Details = nil, nil // the message ends with them
	return TableFailure{SnapshotGeneration: generation, Table: cut(f.Name, maxCause), Failure: r, At: f.At}
}

// failures are the tables that cannot be read. They stay in the history of the workflow, so only the first have all of it.
func failures(generation int, scopes []pipeline.FailedScope) (all []TableFailure) {
	for i, f := range scopes[:min(len(scopes), maxFailedTables)] {
		most := maxFailure
		if i >= maxTables {
			most = maxOneOfMany
		}
		all = append(all, tableFailure(generation, f, most))
	}
	return all
}

// RetryTables has tables that could not be read copied again.
func (b *Bootstraps) RetryTables(ctx context.Context, in RetryInput) error {
	return translate(b.host.RetryScopes(ctx, in.pipeline(), in.Tables))
}

// VerifyBootstrap checks that all tables are copied and that the changes after the snapshot are reachable, and waits until
// the source's log has reached it. When changes are lost, only another snapshot helps.
func (b *Bootstraps) VerifyBootstrap(ctx context.Context, ref BootstrapRef) (Verified, error) {
	var found Verified
	err := beating(ctx, func(ctx context.Context) error {
		failed, err := b.host.FailedScopes(ctx, ref.pipeline())
		if found.Failed = failures(ref.SnapshotGeneration, failed); err != nil || len(failed) > 0 {
			return err
		}
		source, err := b.source(ctx, ref)
		if err != nil {
			return err
		}
		return b.host.VerifyBootstrap(ctx, ref.pipeline(), source, func() {})
	})
	if failure.CodeOf(err) == failure.SnapshotLost {
		return Verified{}, exhausted(err)
	}
	return found, translate(err)
}

// SealBootstrap makes the copied rows, with the position they stand for, what the query begins with. Then the holder may
// let go of the snapshot; it is told through the store, because a cancellation takes until its next heartbeat.
func (b *Bootstraps) SealBootstrap(ctx context.Context, ref BootstrapRef) (Sealed, error) {
	position, rows, err := b.host.SealBootstrap(ctx, ref.pipeline())
	if err == nil {
		err = b.runner.store.write(ctx, controlBucket, ref.ID, control{uint64(ref.SnapshotGeneration), wantedDrain})
	}
	return Sealed{string(position), rows}, translate(err)
}

// AbandonBootstrap removes what a bootstrap left that was given up.
func (b *Bootstraps) AbandonBootstrap(ctx context.Context, ref BootstrapRef) error {
	return translate(b.host.AbandonBootstrap(ctx, ref.pipeline()))
}
