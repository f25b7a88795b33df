package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.uber.org/goleak"
	"go.uber.org/zap/zaptest"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/stream/streamtest"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m,
		goleak.IgnoreTopFunction("github.com/nats-io/nats-server/v2/server.(*Server).startGoRoutine.func1"))
}

// fakeHost stands in for the data plane. A method that a test does not set succeeds at once; loops run until they are
// asked to drain.
type fakeHost struct {
	validate     func() error
	provision    func(context.Context) error
	check        func(context.Context) ([]pipeline.Check, error)
	loop         func(context.Context, pipeline.Attempt) error
	outcome      pipeline.Outcome
	ready        func(name string) error
	hold         func(ctx context.Context, ready func(graph.Position) error, alive func()) error
	copy         func(context.Context) (pipeline.CopyProgress, error)
	retryLetters func(ids []string) (pipeline.Redelivery, error)
	failed       []pipeline.FailedScope
	retried      []string
	placed       string // what SkipResult or SetPlace was last asked for
}

func (f *fakeHost) run(ctx context.Context, a pipeline.Attempt) error {
	if f.loop != nil {
		return f.loop(ctx, a)
	}
	return untilDrained(ctx, a)
}

// untilDrained is a healthy loop.
func untilDrained(ctx context.Context, a pipeline.Attempt) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-a.Drain:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
			a.Progress.Tick()
		}
	}
}

func (f *fakeHost) ValidateSource(context.Context, component.SourceSpec) error {
	if f.validate != nil {
		return f.validate()
	}
	return nil
}

func (f *fakeHost) ProvisionSource(ctx context.Context, _ component.SourceSpec) error {
	if f.provision != nil {
		return f.provision(ctx)
	}
	return nil
}

func (f *fakeHost) CheckSource(ctx context.Context, _ component.SourceSpec) ([]pipeline.Check, error) {
	return f.check(ctx)
}

func (f *fakeHost) RunSource(ctx context.Context, a pipeline.Attempt, _ component.SourceSpec) error {
	return f.run(ctx, a)
}
func (f *fakeHost) TeardownSource(context.Context, component.SourceSpec) error { return nil }
func (f *fakeHost) ValidateQuery(context.Context, component.QuerySpec) error   { return nil }

func (f *fakeHost) SourceReady(_ context.Context, _, name string) error {
	if f.ready != nil {
		return f.ready(name)
	}
	return nil
}

func (f *fakeHost) RunQuery(ctx context.Context, a pipeline.Attempt, _ component.QuerySpec) (pipeline.Outcome, error) {
	if f.outcome == pipeline.NeedsBootstrap {
		return f.outcome, nil
	}
	return pipeline.Drained, f.run(ctx, a)
}
func (f *fakeHost) TeardownQuery(context.Context, component.QuerySpec) error       { return nil }
func (f *fakeHost) ValidateReaction(context.Context, component.ReactionSpec) error { return nil }

func (f *fakeHost) RunReaction(ctx context.Context, a pipeline.Attempt, _ component.ReactionSpec) error {
	return f.run(ctx, a)
}
func (f *fakeHost) TeardownReaction(context.Context, component.ReactionSpec) error { return nil }

func (f *fakeHost) RetryDeadLetters(_ context.Context, _ component.ReactionSpec, ids []string) (pipeline.Redelivery, error) {
	if f.retryLetters != nil {
		return f.retryLetters(ids)
	}
	return pipeline.Redelivery{}, nil
}

func (f *fakeHost) SkipResult(_ context.Context, _ component.ReactionSpec, query string, sequence uint64) error {
	f.placed = fmt.Sprint("skip ", query, " ", sequence)
	return nil
}

func (f *fakeHost) SetPlace(_ context.Context, _ component.ReactionSpec, query, to string, owner stream.Epoch) (uint64, error) {
	f.placed = fmt.Sprint("set ", query, " ", to, " ", owner)
	return 7, nil
}

func (f *fakeHost) Subscribe(context.Context, pipeline.BootstrapRef, component.QuerySpec) (uint64, error) {
	return 1, nil
}

func (f *fakeHost) HoldSnapshot(ctx context.Context, _ pipeline.BootstrapRef, _ component.SourceSpec, ready func(graph.Position) error, alive func()) error {
	return f.hold(ctx, ready, alive)
}

func (f *fakeHost) PlanChunks(context.Context, pipeline.BootstrapRef, component.SourceSpec, component.QuerySpec) (pipeline.Plan, error) {
	return pipeline.Plan{Tables: 2, Chunks: 3, Rows: 4, Parallelism: 5, Kept: 6}, nil
}

func (f *fakeHost) CopyChunks(ctx context.Context, _ pipeline.BootstrapRef, _ component.SourceSpec, _ string, report func(pipeline.CopyProgress)) (pipeline.CopyProgress, error) {
	report(pipeline.CopyProgress{Chunks: 1, Rows: 10})
	return f.copy(ctx)
}

func (f *fakeHost) CopiedSoFar(context.Context, pipeline.BootstrapRef) ([]pipeline.ScopeProgress, error) {
	return nil, nil
}

func (f *fakeHost) FailedScopes(context.Context, pipeline.BootstrapRef) ([]pipeline.FailedScope, error) {
	return f.failed, nil
}

func (f *fakeHost) RetryScopes(_ context.Context, _ pipeline.BootstrapRef, names []string) error {
	f.retried = append(f.retried, names...)
	return nil
}

func (f *fakeHost) VerifyBootstrap(context.Context, pipeline.BootstrapRef, component.SourceSpec, func()) error {
	return nil
}

func (f *fakeHost) SealBootstrap(context.Context, pipeline.BootstrapRef) (graph.Position, int64, error) {
	return "0/7", 70, nil
}
func (f *fakeHost) AbandonBootstrap(context.Context, pipeline.BootstrapRef) error { return nil }

// bench is a process with a fake data plane and a real store.
type bench struct {
	*Set
	t     *testing.T
	host  *fakeHost
	store *Store
}

func newBench(t *testing.T) *bench {
	host := &fakeHost{}
	store := NewStore(streamtest.Start(t))
	return &bench{Set: New(Options{Host: host, Store: store, HostID: "h1", Log: zaptest.NewLogger(t)}), t: t, host: host, store: store}
}

// measured returns the series whose names begin so.
func (b *bench) measured(prefix string) []string {
	w := httptest.NewRecorder()
	b.Sources.runner.metrics.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	var series []string
	for line := range strings.Lines(w.Body.String()) {
		if strings.HasPrefix(line, prefix) {
			series = append(series, strings.TrimSpace(line))
		}
	}
	return series
}

// environment runs activities as a worker does; closing stop is the worker's stop.
func (b *bench) environment(stop chan struct{}) *testsuite.TestActivityEnvironment {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{DefaultHeartbeatThrottleInterval: 10 * time.Millisecond})
	if stop != nil {
		env.SetWorkerStopChannel(stop)
	}
	env.RegisterActivity(b.Sources)
	env.RegisterActivity(b.Queries)
	env.RegisterActivity(b.Reactions)
	env.RegisterActivity(b.Bootstraps)
	env.RegisterActivity(b.Control)
	env.SetTestTimeout(30 * time.Second)
	return env
}

const orders = "source.default.orders"

func runInput(generation uint64) RunInput {
	return RunInput{Component: orders, Generation: generation, SpecVersion: 1,
		Spec: json.RawMessage(`{"name":"orders","kind":"x","policy":{"heartbeatMillis":100}}`)}
}

// source runs SourceRun to its end.
func (b *bench) source(env *testsuite.TestActivityEnvironment, generation uint64) (RunResult, error) {
	value, err := env.ExecuteActivity(b.Sources.SourceRun, runInput(generation))
	if err != nil {
		return RunResult{}, err
	}
	var r RunResult
	require.NoError(b.t, value.Get(&r))
	return r, nil
}
