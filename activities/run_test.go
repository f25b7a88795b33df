package activities

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
)

func TestRunDrainsWhenAsked(t *testing.T) {
	b := newBench(t)
	started := make(chan struct{})
	b.host.loop = func(ctx context.Context, a pipeline.Attempt) error {
		require.Equal(t, orders, a.ID.String())
		require.Equal(t, uint64(3), a.Epoch.Generation)
		require.NotZero(t, a.Epoch.Started)
		a.Progress.Set(func(s *pipeline.Status) { s.Position, s.Offset, s.Sequence = "0/42", 7, 1<<60 })
		close(started)
		return untilDrained(ctx, a)
	}
	asked := make(chan error, 1)
	go func() {
		<-started
		// An earlier run's request is not meant for this one.
		err := b.Control.RequestDrain(t.Context(), GenerationInput{orders, 2})
		asked <- errors.Join(err, b.Control.RequestDrain(t.Context(), GenerationInput{orders, 3}))
	}()
	r, err := b.source(b.environment(nil), 3)
	require.NoError(t, err)
	require.NoError(t, <-asked)
	require.Equal(t, OutcomeDrained, r.Outcome)
	require.Equal(t, "0/42", r.Position)
	require.Equal(t, "7", r.Offset)
	require.Equal(t, "1152921504606846976", r.Sequence)
	require.Equal(t, "h1", r.Host)
}

func TestRunThatIsDrainedBeforeItBegins(t *testing.T) {
	b := newBench(t)
	require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{orders, 5}))
	r, err := b.source(b.environment(nil), 5)
	require.NoError(t, err)
	require.Equal(t, OutcomeDrained, r.Outcome)
}

func TestRunHandsOverWhenItsWorkerStops(t *testing.T) {
	b := newBench(t)
	stop := make(chan struct{})
	b.host.loop = func(ctx context.Context, a pipeline.Attempt) error {
		close(stop)
		return untilDrained(ctx, a)
	}
	_, err := b.source(b.environment(stop), 1)
	var handedOver *temporal.ApplicationError
	require.ErrorAs(t, err, &handedOver)
	require.Equal(t, failure.WorkerStopping.ID, handedOver.Type())
	require.False(t, handedOver.NonRetryable())
	require.Equal(t, 250*time.Millisecond, handedOver.NextRetryDelay())
	require.Equal(t, temporal.ApplicationErrorCategoryBenign, handedOver.Category())
	require.Equal(t, []string{`perdure_component_attempts_total{component="source.default.orders"} 1`}, b.measured("perdure_component_"))
}

// TestQueryMovesWhenItsWorkerStops: where any host can go on with a query, its workflow is to place it anew. Otherwise, or where
// the worker is told so, its host gets the time to come back.
func TestQueryMovesWhenItsWorkerStops(t *testing.T) {
	for name, c := range map[string]struct {
		outcome pipeline.Outcome
		stay    bool
		wanted  string // outcome; "": the server is to retry
	}{
		"all is stored":  {pipeline.Stored, false, OutcomeHandedOver},
		"it stays":       {pipeline.Stored, true, ""},
		"some is not":    {pipeline.Drained, false, ""},
		"it is to drain": {pipeline.Stored, false, OutcomeDrained},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.Queries.runner.stay = c.stay
			b.host.outcome = c.outcome
			in := runInput(1)
			in.Component = "query.default.big"
			stop := make(chan struct{})
			if c.wanted == OutcomeDrained {
				stop = nil
				require.NoError(t, b.Control.RequestDrain(t.Context(), GenerationInput{in.Component, 1}))
			} else {
				close(stop)
			}
			value, err := b.environment(stop).ExecuteActivity(b.Queries.QueryRun, in)
			if c.wanted == "" {
				require.Equal(t, failure.WorkerStopping.ID, ReportOf(err).Code)
				require.False(t, nonRetryable(t, err))
				return
			}
			require.NoError(t, err)
			var r RunResult
			require.NoError(t, value.Get(&r))
			require.Equal(t, c.wanted, r.Outcome)
		})
	}
}

func TestRunThatStallsIsRestarted(t *testing.T) {
	b := newBench(t)
	b.Sources.runner.stalled = 200 * time.Millisecond
	b.host.loop = func(ctx context.Context, a pipeline.Attempt) error {
		a.Progress.Tick()
		a.Progress.Set(func(s *pipeline.Status) { s.Phase, s.Backpressure = "streaming", "the change log" })
		<-ctx.Done()
		list := b.Sources.runner.loops.List()
		require.Len(t, list, 1)
		require.Equal(t, orders, list[0].Component)
		require.Greater(t, list[0].Silent, 200*time.Millisecond)
		require.Equal(t, 200*time.Millisecond, list[0].Stalled)
		return ctx.Err()
	}
	_, err := b.source(b.environment(nil), 1)
	require.Equal(t, failure.Stalled.ID, ReportOf(err).Code)
	require.Equal(t, "the loop made no progress for 200ms while streaming, waiting for the change log", ReportOf(err).Message)
	require.False(t, nonRetryable(t, err))
	require.Empty(t, b.Sources.runner.loops.List())
	require.Equal(t, []string{
		`perdure_component_attempts_total{component="source.default.orders"} 1`,
		`perdure_component_failures_total{code="Stalled",component="source.default.orders"} 1`,
	}, b.measured("perdure_component_"))
}

func TestRunThatPanics(t *testing.T) {
	b := newBench(t)
	b.host.loop = func(context.Context, pipeline.Attempt) error { panic("no such thing") }
	_, err := b.source(b.environment(nil), 1)
	report := ReportOf(err)
	require.Equal(t, failure.Panic.ID, report.Code)
	require.Contains(t, report.Message, "no such thing")
	require.Contains(t, report.Details["stack"], "run_test.go")
	require.True(t, nonRetryable(t, err))
}

func TestRunThatEndsByItself(t *testing.T) {
	b := newBench(t)
	b.host.loop = func(context.Context, pipeline.Attempt) error { return nil }
	_, err := b.source(b.environment(nil), 1)
	require.Contains(t, err.Error(), "nobody asked it to")
	require.False(t, nonRetryable(t, err))
}

func TestRunThatNeedsABootstrap(t *testing.T) {
	b := newBench(t)
	b.host.outcome = pipeline.NeedsBootstrap
	in := runInput(1)
	in.Component = "query.default.big"
	value, err := b.environment(nil).ExecuteActivity(b.Queries.QueryRun, in)
	require.NoError(t, err)
	var r RunResult
	require.NoError(t, value.Get(&r))
	require.Equal(t, OutcomeNeedsBootstrap, r.Outcome)
}

// TestRunThatNeedsASource says so where the workflow waits for it, and is tried again where it would not.
func TestRunThatNeedsASource(t *testing.T) {
	for _, ahead := range []bool{true, false} {
		b := newBench(t)
		b.host.loop = func(context.Context, pipeline.Attempt) error { return failure.SourceMissing.Errorf("late has no log") }
		in := runInput(1)
		in.Component, in.Ahead = "query.default.big", ahead
		value, err := b.environment(nil).ExecuteActivity(b.Queries.QueryRun, in)
		if !ahead {
			require.Equal(t, failure.SourceMissing.ID, ReportOf(err).Code)
			continue
		}
		require.NoError(t, err)
		var r RunResult
		require.NoError(t, value.Get(&r))
		require.Equal(t, OutcomeNeedsSources, r.Outcome)
	}
}

// TestRunGivesUpAfterManyFailures retries as the server does, with the details of the last heartbeat.
func TestRunGivesUpAfterManyFailures(t *testing.T) {
	b := newBench(t)
	b.host.loop = func(context.Context, pipeline.Attempt) error { return failure.Unreachable.Errorf("connecting") }
	last := beat{}
	for range givenUpAfter - 1 {
		env := b.environment(nil)
		env.SetHeartbeatDetails(last)
		_, err := b.source(env, 1)
		require.False(t, nonRetryable(t, err))
		last.Failures++
	}
	env := b.environment(nil)
	env.SetHeartbeatDetails(last)
	_, err := b.source(env, 1)
	require.True(t, nonRetryable(t, err))
	require.Equal(t, failure.Unreachable.ID, ReportOf(err).Code)
}

func TestProgressForgivesFailures(t *testing.T) {
	now := time.Unix(1000, 0)
	r := &runner{now: func() time.Time { return now }}
	a := &attempt{runner: r, began: now, progress: new(pipeline.Progress), failures: 9}
	require.Equal(t, 9, a.beat().Failures)
	a.progress.Set(func(s *pipeline.Status) { s.Offset = 1 })
	require.Equal(t, 9, a.beat().Failures, "where it began is no progress")
	a.progress.Set(func(s *pipeline.Status) { s.Offset = 2 })
	require.Zero(t, a.beat().Failures)

	a = &attempt{runner: r, began: now, progress: new(pipeline.Progress), failures: 9}
	now = now.Add(provenAfter + time.Second)
	require.Zero(t, a.beat().Failures, "nor does a quiet source fail")
}

func TestNewerAttemptEndsTheOlderOne(t *testing.T) {
	var r Loops
	var older error
	ended := make(chan struct{})
	ctx, stop := context.WithCancelCause(t.Context())
	leave, err := r.claim(t.Context(), &claim{component: orders, epoch: stream.Epoch{Generation: 1, Started: 1}, stop: stop})
	require.NoError(t, err)
	go func() {
		<-ctx.Done()
		older = context.Cause(ctx)
		leave()
		close(ended)
	}()
	leaveNewer, err := r.claim(t.Context(), &claim{component: orders, epoch: stream.Epoch{Generation: 1, Started: 2}})
	require.NoError(t, err)
	<-ended
	require.ErrorIs(t, older, errSuperseded)

	_, err = r.claim(t.Context(), &claim{component: orders, epoch: stream.Epoch{Generation: 1, Started: 1}})
	require.Equal(t, failure.FencedOff, failure.CodeOf(err), "an older attempt that comes late does not disturb")
	leaveNewer()
	require.Empty(t, r.List())
}

// TestLoopThatWasLeftBehindStaysKnown whatever becomes of the attempts that follow it: it still holds what it has.
func TestLoopThatWasLeftBehindStaysKnown(t *testing.T) {
	var r Loops
	enter := func(ctx context.Context, started int64) (*claim, func()) {
		c := &claim{
			component: orders, epoch: stream.Epoch{Generation: 1, Started: started}, began: time.Now(), progress: new(pipeline.Progress),
			stop: func(error) {},
		}
		leave, err := r.claim(ctx, c)
		require.NoError(t, err)
		return c, leave
	}
	hung, leave := enter(t.Context(), 1)
	require.Zero(t, r.List()[0].Ending)
	hung.end(errStalled)
	told := *hung.told.Load()
	impatient, cancel := context.WithCancel(t.Context())
	cancel() // it does not wait for the one before
	_, leaveNext := enter(impatient, 2)
	list := r.List()
	require.Len(t, list, 2)
	require.Positive(t, list[0].Ending)
	require.Zero(t, list[1].Ending, "the newest is the last")
	require.Equal(t, told, *hung.told.Load(), "told again")

	leaveNext()
	list = r.List()
	require.Len(t, list, 1)
	require.Positive(t, list[0].Ending)
	_, leaveNext = enter(impatient, 3)
	leaveNext()
	leave()
	require.Empty(t, r.List())
}

func TestErrorsKeepTheirChain(t *testing.T) {
	cause := fmt.Errorf("dial tcp 10.0.0.1:5432: %w", errors.New("connection refused"))
	err := translate(fmt.Errorf("opening the slot: %w", failure.Unreachable.Errorf("connecting: %w", cause).
		WithDetail("host", "10.0.0.1").WithFix("start it")))
	report := ReportOf(fmt.Errorf("activity error: %w", err))
	require.Equal(t, failure.Report{
		Code: failure.Unreachable.ID, Class: failure.Transient.String(),
		Message: "opening the slot: connecting: dial tcp 10.0.0.1:5432: connection refused",
		Causes: []string{
			"connecting: dial tcp 10.0.0.1:5432: connection refused",
			"dial tcp 10.0.0.1:5432: connection refused",
			"connection refused",
		},
		Fix: "start it", Details: map[string]string{"host": "10.0.0.1"},
	}, report)
	require.False(t, nonRetryable(t, err))
	require.Equal(t, failure.Transient, ClassOf(report))
}

func TestClassesDecideAboutRetries(t *testing.T) {
	for _, code := range failure.Codes() {
		err := translate(code.Errorf("something"))
		require.Equal(t, !code.Class.Retryable(), nonRetryable(t, err), code.ID)
		require.Equal(t, code.Class, ClassOf(ReportOf(err)), code.ID)
		require.Equal(t, err, translate(err), "what is translated stays so")
	}
	require.NoError(t, translate(nil))
	require.ErrorIs(t, translate(fmt.Errorf("reading: %w", context.Canceled)), context.Canceled)
	require.Equal(t, failure.Transient, ClassOf(ReportOf(errors.New("unheard of"))))
}

func nonRetryable(t *testing.T, err error) bool {
	t.Helper()
	var application *temporal.ApplicationError
	require.ErrorAs(t, err, &application)
	return application.NonRetryable()
}

func TestBeatsComeAtTheirPace(t *testing.T) {
	began := time.Now()
	a := &attempt{pace: 20 * time.Second, beaten: began, drain: make(chan struct{})}
	var beats []int
	for second := 5; second <= 60; second += 5 {
		if second == 50 {
			a.requestDrain(wantedDrain)
		}
		if a.beatDue(began.Add(time.Duration(second)*time.Second), 5*time.Second) {
			beats = append(beats, second)
		}
	}
	require.Equal(t, []int{20, 40, 50, 55, 60}, beats)
}
