package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.temporal.io/sdk/activity"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
)

// Queries has the activities of continuous queries.
type Queries struct {
	host   queryHost
	runner *runner
}

// ValidateQuery reports everything that is wrong with a query, its text included, and which of its sources have no
// change stream yet.
func (q *Queries) ValidateQuery(ctx context.Context, in SpecInput) (Checks, error) {
	spec, err := decodeStrictly[component.QuerySpec](ctx, q.runner.store, in)
	if err != nil {
		return Checks{}, translate(err)
	}
	if err := failure.Guard(func() error { return q.host.ValidateQuery(ctx, spec) }); err != nil {
		return Checks{}, translate(err)
	}
	missing, err := q.missing(ctx, WaitInput{Instance: spec.ID().Instance, Sources: spec.Sources})
	return Checks{MissingSources: missing}, translate(err)
}

func (q *Queries) missing(ctx context.Context, in WaitInput) (missing []string, err error) {
	for _, name := range in.Sources {
		switch err := q.host.SourceReady(ctx, in.Instance, name); {
		case err == nil:
		case failure.CodeOf(err) == failure.SourceMissing:
			missing = append(missing, name)
		default:
			return nil, err
		}
	}
	return missing, nil
}

// sourcesEvery is how often WaitForSources looks.
const sourcesEvery = time.Second

// WaitForSources returns when all sources have a change stream, however long that takes.
func (q *Queries) WaitForSources(ctx context.Context, in WaitInput) error {
	ticker := time.NewTicker(sourcesEvery)
	defer ticker.Stop()
	stopping := activity.GetWorkerStopChannel(ctx)
	for {
		missing, err := q.missing(ctx, in)
		if err != nil {
			return translate(err)
		}
		if len(missing) == 0 {
			return nil
		}
		activity.RecordHeartbeat(ctx, WaitInput{in.Instance, missing})
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stopping:
			return handOver()
		case <-ticker.C:
		}
	}
}

// QueryRun keeps a query's result up to date until it is asked to stop, or finds that the query needs a bootstrap.
func (q *Queries) QueryRun(ctx context.Context, in RunInput) (RunResult, error) {
	spec, err := decode[component.QuerySpec](ctx, q.runner.store, in.Spec, in.SpecRef)
	if err != nil {
		return RunResult{}, translate(err)
	}
	q.runner.uses(ctx, in)
	asks := asker(ctx, in)
	teller := q.runner.newTeller(ctx, in)
	teller.of, teller.every = queryConditionOf, 0
	return q.runner.run(ctx, in, spec.Policy, teller.beside(func(ctx context.Context, a pipeline.Attempt) (string, error) {
		a.Reload, a.Need = in.Reload, asks
		outcome, err := q.host.RunQuery(ctx, a, spec)
		if in.Ahead && failure.CodeOf(err) == failure.SourceMissing {
			return OutcomeNeedsSources, nil
		}
		return string(outcome), err
	}))
}

// asker returns what asks a query's workflow for a bootstrap, for as long as it takes until that hears it; nil where it
// would not listen.
func asker(ctx context.Context, in RunInput) func(context.Context, pipeline.Need) error {
	if !in.Beside {
		return nil
	}
	execution, c := activity.GetInfo(ctx).WorkflowExecution, activity.GetClient(ctx)
	return func(ctx context.Context, n pipeline.Need) error {
		need := Need{in.Generation, string(n.Outcome), (*Missing)(n.Missing), n.Held}
		_, err := backoff.Retry(ctx, func() (struct{}, error) {
			bounded, cancel := context.WithTimeout(ctx, beatEvery)
			defer cancel()
			err := c.SignalWorkflow(bounded, execution.ID, execution.RunID, SignalNeed, need)
			if superseded(err) {
				err = backoff.Permanent(failure.FencedOff.Errorf("the workflow is gone: %w", err))
			}
			return struct{}{}, err
		}, backoff.WithMaxElapsedTime(0))
		return err
	}
}

// TeardownQuery removes a query: its state, its result log and its subscriptions.
func (q *Queries) TeardownQuery(ctx context.Context, in TeardownInput) error {
	return translate(beating(ctx, func(ctx context.Context) error { return q.tearDown(ctx, in) }))
}

func (q *Queries) tearDown(ctx context.Context, in TeardownInput) error {
	spec, err := decodeTeardown[component.QuerySpec](ctx, q.runner.store, in)
	if err != nil {
		return err
	}
	id, store := spec.ID(), q.runner.store
	return errors.Join(
		q.host.TeardownQuery(ctx, spec), store.forget(ctx, in.Component),
		store.removeBelow(ctx, controlBucket, fmt.Sprintf("bootstrap.%s.%s.", id.Instance, id.Name)),
	)
}
