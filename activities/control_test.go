package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
)

func TestGenerationsOnlyGrow(t *testing.T) {
	b := newBench(t)
	p, err := b.Control.PlaceComponent(t.Context(), PlaceInput{Component: orders})
	require.NoError(t, err)
	require.Equal(t, Placement{Generation: 1, Queue: QueueRun}, p)
	p, err = b.Control.PlaceComponent(t.Context(), PlaceInput{Component: orders, Generation: 9})
	require.NoError(t, err)
	require.Equal(t, uint64(10), p.Generation)
	p, err = b.Control.PlaceComponent(t.Context(), PlaceInput{Component: orders})
	require.NoError(t, err)
	require.Equal(t, uint64(11), p.Generation, "a workflow that was started anew goes on above the old one")
}

// A component that is created anew goes on above the one that was deleted, though that left nothing of its own.
func TestGenerationsOutliveADeletion(t *testing.T) {
	b := newBench(t)
	env := b.environment(nil)
	const other = "source.default.others"
	for _, id := range []string{orders, other, orders} {
		for range 3 {
			_, err := b.Control.PlaceComponent(t.Context(), PlaceInput{Component: id})
			require.NoError(t, err)
		}
	}
	for _, id := range []string{other, orders, orders} {
		_, err := env.ExecuteActivity(b.Sources.TeardownSource, TeardownInput{Component: id, Spec: json.RawMessage(`{"name":"x"}`)})
		require.NoError(t, err)
	}
	bucket, err := b.store.bucket(t.Context(), placementBucket)
	require.NoError(t, err)
	keys, err := bucket.Keys(t.Context(), "")
	require.NoError(t, err)
	require.Equal(t, []string{deletedKey}, keys)
	p, err := b.Control.PlaceComponent(t.Context(), PlaceInput{Component: orders})
	require.NoError(t, err)
	require.Equal(t, uint64(7), p.Generation)
}

// lossy fails each first attempt when it has done its work, as when its worker is killed before it answers.
type lossy struct {
	interceptor.WorkerInterceptorBase
}

func (*lossy) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &lossyActivity{interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type lossyActivity struct {
	interceptor.ActivityInboundInterceptorBase
}

func (l *lossyActivity) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	result, err := l.Next.ExecuteActivity(ctx, in)
	if activity.GetInfo(ctx).Attempt == 1 {
		return nil, errors.New("the worker is killed")
	}
	return result, err
}

// TestLettersOfAnEarlierAttempt shows that letters which an attempt before is done with are no mistake, and that nothing
// but what the command names is touched when none is left.
func TestLettersOfAnEarlierAttempt(t *testing.T) {
	const notify = "reaction.default.notify"
	b := newBench(t)
	log, err := b.store.conn.EnsureLog(t.Context(), stream.LogOptions{Name: "LETTERS_default_notify", Removable: true})
	require.NoError(t, err)
	for _, key := range []string{"a", "b", "c", "d"} {
		_, err := log.NewSharedWriter().Append(t.Context(), key, []byte("{}"))
		require.NoError(t, err)
	}
	var asked [][]string
	b.host.retryLetters = func(ids []string) (done pipeline.Redelivery, err error) {
		asked = append(asked, ids)
		done.Delivered, err = pipeline.NewDeadLetters(b.store.conn).Drop(t.Context(), component.ID{Kind: component.Reaction, Instance: "default", Name: "notify"}, ids[:1])
		return done, err
	}
	run := func(do any, in LettersInput) (result LettersResult) {
		var suite testsuite.WorkflowTestSuite
		env := suite.NewTestWorkflowEnvironment()
		env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&lossy{}}})
		env.RegisterActivity(b.Control)
		env.RegisterActivity(b.Reactions)
		env.ExecuteWorkflow(func(ctx workflow.Context) (result LettersResult, err error) {
			ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute})
			err = workflow.ExecuteActivity(ctx, do, in).Get(ctx, &result)
			return result, err
		})
		require.NoError(t, env.GetWorkflowResult(&result))
		return result
	}
	result := run(b.Control.DropDeadLetters, LettersInput{Component: notify, IDs: []string{"1"}})
	require.Nil(t, result.Failure)
	require.Equal(t, "3", result.Left.Count)

	spec := json.RawMessage(`{"name":"notify","kind":"x","queries":["q"]}`)
	result = run(b.Reactions.RetryDeadLetters, LettersInput{Component: notify, Spec: spec, IDs: []string{"2", "3"}})
	require.Nil(t, result.Failure)
	require.Equal(t, [][]string{{"2", "3"}, {"3"}}, asked)
	require.Equal(t, "1", result.Left.Count)
}

func TestPlacement(t *testing.T) {
	b := newBench(t)
	place := func(avoid string) (Placement, error) {
		return b.Control.PlaceComponent(t.Context(), PlaceInput{Component: "query.default.big", NeedsHost: true, Avoid: avoid})
	}
	_, err := place("")
	require.Equal(t, failure.NoHost.ID, ReportOf(err).Code)
	require.True(t, Unplaced(err))
	var asked *temporal.ApplicationError
	require.ErrorAs(t, err, &asked)
	require.Equal(t, hostsEvery, asked.NextRetryDelay(), "it goes on soon after a host is there")

	for _, host := range []string{"h1", "h2", "h3"} {
		require.NoError(t, b.store.AnnounceHost(t.Context(), host))
	}
	first, err := place("")
	require.NoError(t, err)
	require.Equal(t, HostQueue(first.Host), first.Queue)
	again, err := place("")
	require.NoError(t, err)
	require.Equal(t, first.Host, again.Host, "its state is there")
	moved, err := place(first.Host)
	require.NoError(t, err)
	require.NotEqual(t, first.Host, moved.Host)
	require.NoError(t, b.store.WithdrawHost(t.Context(), moved.Host))
	again, err = place("")
	require.NoError(t, err)
	require.NotEqual(t, moved.Host, again.Host)
}

func TestChoose(t *testing.T) {
	require.Equal(t, "a", choose("x", []string{"a"}, "", "a"), "a suspect is better than none")
	require.Empty(t, choose("x", nil, "a", ""))
	used := map[string]int{}
	for i := range 300 {
		used[choose(string(rune('a'+i%26))+string(rune('a'+i/26)), []string{"h1", "h2", "h3"}, "", "")]++
	}
	for host, n := range used {
		require.Greater(t, n, 50, host)
	}
}

func TestFenceBumpShutsOutAGeneration(t *testing.T) {
	b := newBench(t)
	fence, err := b.store.conn.Acquire(t.Context(), orders, stream.Epoch{Generation: 4, Started: 100}, "h1")
	require.NoError(t, err)
	require.NoError(t, b.Control.FenceBump(t.Context(), GenerationInput{orders, 4}))
	require.Equal(t, failure.FencedOff, failure.CodeOf(fence.Check(t.Context())))
	_, err = b.store.conn.Acquire(t.Context(), orders, stream.Epoch{Generation: 5, Started: 50}, "h1")
	require.NoError(t, err, "the next generation may")
}

func TestValidation(t *testing.T) {
	b := newBench(t)
	env := b.environment(nil)
	validate := func(in SpecInput) failure.Report {
		_, err := env.ExecuteActivity(b.Sources.ValidateSource, in)
		if err == nil {
			return failure.Report{}
		}
		return ReportOf(err)
	}
	require.Empty(t, validate(SpecInput{Spec: json.RawMessage(`{"name":"orders","kind":"x"}`)}))
	r := validate(SpecInput{Spec: json.RawMessage(`{"name":"orders","kind":"x","polici":{}}`)})
	require.Equal(t, failure.ConfigInvalid.ID, r.Code)
	require.Contains(t, r.Message, "polici")
	r = validate(SpecInput{Spec: json.RawMessage(`{"name":"orders","kind":"x"}`), Unexpected: []string{"desird"}})
	require.Contains(t, r.Message, "desird")
	b.host.validate = func() error { panic("oh") }
	require.Equal(t, failure.Panic.ID, validate(SpecInput{Spec: json.RawMessage(`{"name":"orders","kind":"x"}`)}).Code)
}

func TestSourcesAreWaitedFor(t *testing.T) {
	b := newBench(t)
	asked := 0
	b.host.ready = func(name string) error {
		if asked++; asked < 3 {
			return failure.SourceMissing.Errorf("%s has no log", name)
		}
		return nil
	}
	_, err := b.environment(nil).ExecuteActivity(b.Queries.WaitForSources, WaitInput{"default", []string{"orders"}})
	require.NoError(t, err)

	stop := make(chan struct{})
	b.host.ready = func(name string) error { return failure.SourceMissing.Errorf("%s has no log", name) }
	close(stop)
	_, err = b.environment(stop).ExecuteActivity(b.Queries.WaitForSources, WaitInput{"default", []string{"orders"}})
	require.Equal(t, failure.WorkerStopping.ID, ReportOf(err).Code)
}

var ref = BootstrapRef{ID: "b1", Instance: "default", Query: "big", Source: "orders", SnapshotGeneration: 1}

// provisioned makes the source's spec known, as a source that runs does.
func (b *bench) provisioned() {
	_, err := b.environment(nil).ExecuteActivity(b.Sources.ProvisionSource,
		SpecInput{Component: orders, Spec: json.RawMessage(`{"name":"orders","kind":"x"}`)})
	require.NoError(b.t, err)
}

func TestBootstrapNeedsItsSource(t *testing.T) {
	b := newBench(t)
	_, err := b.environment(nil).ExecuteActivity(b.Bootstraps.VerifyBootstrap, ref)
	require.Equal(t, failure.SourceMissing.ID, ReportOf(err).Code)
}

func TestBootstrapActivities(t *testing.T) {
	b := newBench(t)
	b.provisioned()
	env := b.environment(nil)
	value, err := env.ExecuteActivity(b.Bootstraps.PlanChunks, PlanInput{BootstrapRef: ref, Spec: json.RawMessage(`{"name":"big"}`)})
	require.NoError(t, err)
	var plan BootstrapPlan
	require.NoError(t, value.Get(&plan))
	require.Equal(t, BootstrapPlan{2, 3, 4, 5, 6}, plan)

	b.host.copy = func(context.Context) (pipeline.CopyProgress, error) {
		return pipeline.CopyProgress{Chunks: 3, Rows: 30}, nil
	}
	value, err = env.ExecuteActivity(b.Bootstraps.CopyWorker, CopyInput{ref, "copy-1-1"})
	require.NoError(t, err)
	var copied CopyResult
	require.NoError(t, value.Get(&copied))
	require.Equal(t, CopyResult{3, 30}, copied)

	stop := make(chan struct{})
	b.host.copy = func(ctx context.Context) (pipeline.CopyProgress, error) {
		close(stop)
		<-ctx.Done()
		return pipeline.CopyProgress{}, ctx.Err()
	}
	_, err = b.environment(stop).ExecuteActivity(b.Bootstraps.CopyWorker, CopyInput{ref, "copy-1-1"})
	require.Equal(t, failure.WorkerStopping.ID, ReportOf(err).Code)
}

// TestTablesThatFailed are found in the end, however many there are, and can be tried again.
func TestTablesThatFailed(t *testing.T) {
	b := newBench(t) // the source is not even looked at
	env := b.environment(nil)
	for i := range maxFailedTables + 1 {
		report := failure.Describe(failure.PermissionDenied.Errorf("%s", strings.Repeat("x", 2*maxFailure)))
		b.host.failed = append(b.host.failed, pipeline.FailedScope{Name: fmt.Sprint("t", i), Report: report})
	}
	value, err := env.ExecuteActivity(b.Bootstraps.VerifyBootstrap, ref)
	require.NoError(t, err)
	var verified Verified
	require.NoError(t, value.Get(&verified))
	require.Len(t, verified.Failed, maxFailedTables)
	require.Equal(t, "t0", verified.Failed[0].Table)
	require.Equal(t, ref.SnapshotGeneration, verified.Failed[0].SnapshotGeneration)
	require.Len(t, verified.Failed[0].Failure.Message, maxFailure)
	data, err := json.Marshal(verified)
	require.NoError(t, err)
	require.Less(t, len(data), 512<<10, "it stays in the history")

	_, err = env.ExecuteActivity(b.Bootstraps.RetryTables, RetryInput{ref, []string{"t1"}})
	require.NoError(t, err)
	require.Equal(t, []string{"t1"}, b.host.retried)
}

func TestHolderLetsGoWhenTheBootstrapIsSealed(t *testing.T) {
	b := newBench(t)
	b.provisioned()
	sealed := make(chan error, 1)
	b.host.hold = func(ctx context.Context, _ func(graph.Position) error, alive func()) error {
		alive()
		go func() {
			_, err := b.Bootstraps.SealBootstrap(t.Context(), ref)
			sealed <- err
		}()
		<-ctx.Done()
		return nil
	}
	_, err := b.environment(nil).ExecuteActivity(b.Bootstraps.HoldSnapshot, ref)
	require.NoError(t, err)
	require.NoError(t, <-sealed)
}

// TestHolderIsNotReleasedByABootstrapBefore: a query that is deleted and created anew has bootstraps with the same ids.
func TestHolderIsNotReleasedByABootstrapBefore(t *testing.T) {
	b := newBench(t)
	b.provisioned()
	require.NoError(t, b.store.write(t.Context(), controlBucket, ref.ID, control{uint64(ref.SnapshotGeneration), wantedDrain}))
	var (
		left     control
		revision uint64
		readErr  error
	)
	b.host.hold = func(context.Context, func(graph.Position) error, func()) error {
		revision, readErr = b.store.read(t.Context(), controlBucket, ref.ID, &left)
		return failure.SnapshotLost.Errorf("pinging: %w", errors.New("terminated"))
	}
	_, err := b.environment(nil).ExecuteActivity(b.Bootstraps.HoldSnapshot, ref)
	require.Equal(t, failure.SnapshotLost.ID, ReportOf(err).Code)
	require.NoError(t, readErr)
	require.Zero(t, revision)
}

func TestHolderThatLosesItsSnapshot(t *testing.T) {
	b := newBench(t)
	b.provisioned()
	b.host.hold = func(context.Context, func(graph.Position) error, func()) error {
		return failure.SnapshotLost.Errorf("pinging: %w", errors.New("terminated"))
	}
	_, err := b.environment(nil).ExecuteActivity(b.Bootstraps.HoldSnapshot, ref)
	require.Equal(t, failure.SnapshotLost.ID, ReportOf(err).Code)
}

// TestManyLoopsBeatLessOften: what all loops of a process send together is bounded, and so is how late a lost one is noticed.
func TestManyLoopsBeatLessOften(t *testing.T) {
	b := newBench(t)
	b.Control.heartbeatRate = 1
	place := func() Placement {
		p, err := b.Control.PlaceComponent(t.Context(), PlaceInput{Component: orders})
		require.NoError(t, err)
		return p
	}
	for range 10 {
		require.Zero(t, place().HeartbeatSeconds, "the usual timeout has room for them")
		enter(t, b.Control.loops)
	}
	require.Equal(t, 33, place().HeartbeatSeconds)
	b.Control.heartbeatTimeout = 45 * time.Second
	require.Equal(t, 45, place().HeartbeatSeconds, "what the settings ask for")
	for range 10 {
		enter(t, b.Control.loops)
	}
	require.Equal(t, 63, place().HeartbeatSeconds)
	for range 200 {
		enter(t, b.Control.loops)
	}
	require.Equal(t, 300, place().HeartbeatSeconds)
}

// enter adds a loop of a component of its own.
func enter(t *testing.T, l *Loops) {
	_, err := l.claim(t.Context(), &claim{component: fmt.Sprintf("source.default.many-%d", l.count())})
	require.NoError(t, err)
}

// TestPlacesReachTheHost: the place is set for the run that comes next.
func TestPlacesReachTheHost(t *testing.T) {
	b := newBench(t)
	in := ResultInput{Spec: json.RawMessage(`{"name":"notify","kind":"x","queries":["q"]}`), Query: "q", Seq: "7", Generation: 3}
	require.NoError(t, b.Reactions.SkipResult(t.Context(), in))
	require.Equal(t, "skip q 7", b.host.placed)
	set, err := b.Reactions.SetPosition(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "7", set.Seq)
	require.Equal(t, "set q 7 4.0", b.host.placed)
	in.Seq = "x"
	require.Equal(t, failure.PlaceInvalid.ID, ReportOf(b.Reactions.SkipResult(t.Context(), in)).Code)
}
