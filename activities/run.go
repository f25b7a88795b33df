package activities

import (
	"context"
	"errors"
	"runtime"
	"time"

	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/worker"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

const (
	// stalledAfter is how long a loop may be silent; it ticks every few seconds also when it has nothing to do.
	stalledAfter = 60 * time.Second
	// endWithin is how long a loop may take to end once its context did.
	endWithin = 15 * time.Second
	// givenUpAfter is how many attempts in a row may end without progress before the workflow is asked what to do.
	givenUpAfter = 10
	// provenAfter is how long an attempt must last to count as progress, also when nothing happened in its source.
	provenAfter = 2 * time.Minute
)

// Reasons for which a loop is cancelled or asked to drain, as causes of its context.
var (
	errStalled     = errors.New("the loop made no progress")
	errWorkerStops = errors.New("the worker stops")
)

// runner runs the loops of one process. It is safe for concurrent use.
type runner struct {
	store   *Store
	hostID  string
	log     *zap.Logger
	outlive bool
	loops   *Loops
	control *controlWatch
	metrics *telemetry.Metrics
	now     func() time.Time
	stalled time.Duration
	// handOver is how long a loop may drain when its worker stops, so that it ends before the worker gives it up.
	handOver time.Duration
	// stay has queries wait for this host to come back when its worker stops, instead of going on elsewhere.
	stay bool
}

// loop is one of the pipeline's loops, with its spec.
type loop func(context.Context, pipeline.Attempt) (outcome string, err error)

// run carries one attempt of a long activity from its first heartbeat to its result.
func (r *runner) run(ctx context.Context, in RunInput, policy component.Policy, body loop) (result RunResult, err error) {
	id, err := component.ParseID(in.Component)
	if err != nil {
		return RunResult{}, translate(failure.ConfigInvalid.Errorf("reading the input: %w", err))
	}
	r.metrics.Began(in.Component)
	defer func() {
		if code := failedWith(err); code != "" {
			r.metrics.Failed(in.Component, code)
		}
	}()
	info := activity.GetInfo(ctx)
	a := &attempt{
		runner: r, in: in, info: info, began: r.now(),
		log:      r.log.With(zap.String(telemetry.KeyComponent, in.Component)),
		epoch:    stream.Epoch{Generation: in.Generation, Started: info.StartedTime.UnixNano()},
		progress: new(pipeline.Progress),
		drain:    make(chan struct{}),
		stalled:  r.stalled,
		beaten:   r.now(),
	}
	if policy.StallSeconds > 0 {
		a.stalled = time.Duration(policy.StallSeconds) * time.Second
	}
	var last beat
	if activity.HasHeartbeatDetails(ctx) {
		_ = activity.GetHeartbeatDetails(ctx, &last) // of another build perhaps; then counting begins anew
	}
	a.failures = last.Failures

	// The first heartbeat of an attempt goes to the server at once: an attempt that is outdated already learns so before
	// it touched anything.
	activity.RecordHeartbeat(ctx, a.beat())
	if ctx.Err() != nil {
		return RunResult{}, ctx.Err()
	}
	loopCtx, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	mine := &claim{component: in.Component, epoch: a.epoch, began: a.began, stalled: a.stalled, progress: a.progress, stop: stop}
	a.stop = mine.end
	leave, err := r.loops.claim(ctx, mine)
	if err != nil {
		return RunResult{}, translate(err)
	}
	asked, err := r.control.drain(loopCtx, in.Component, in.Generation)
	if err != nil {
		leave()
		return RunResult{}, a.failed(ctx, err)
	}
	var outcome string
	done := failure.Go(func() (err error) {
		defer leave()
		outcome, err = body(loopCtx, pipeline.Attempt{ID: id, Epoch: a.epoch, Drain: a.drain, Progress: a.progress})
		return err
	})
	every := time.Duration(policy.HeartbeatMillis) * time.Millisecond
	if every <= 0 {
		every = beatEvery
	}
	if a.pace = every; info.HeartbeatTimeout > UsualHeartbeat {
		a.pace = info.HeartbeatTimeout / beatsInTimeout
	}
	return a.supervise(ctx, loopCtx, every, asked, done, &outcome)
}

// uses notes which stored spec a component works with. Where that fails, it is noted by the next attempt.
func (r *runner) uses(ctx context.Context, in RunInput) {
	if err := r.store.useSpec(ctx, in.Component, in.SpecRef); err != nil {
		r.log.Warn("which stored spec the component uses is not noted", zap.String(telemetry.KeyComponent, in.Component), zap.Error(err))
	}
}

// attempt is one attempt of a long activity. Only supervise's goroutine uses its variables.
type attempt struct {
	*runner
	in       RunInput
	info     activity.Info
	log      *zap.Logger
	began    time.Time
	epoch    stream.Epoch
	progress *pipeline.Progress
	baseline *pipeline.Status // first position seen
	failures int
	stalled  time.Duration
	pace     time.Duration // between heartbeats
	beaten   time.Time     // when the last one was due
	drain    chan struct{}
	draining string // why: wantedDrain or stoppingWorker
	stop     func(cause error)
}

const stoppingWorker = "worker stops"

// supervise waits for the loop's end, by when outcome says what came of it, and passes on everything that is a reason to
// end it.
func (a *attempt) supervise(
	ctx, loopCtx context.Context, every time.Duration, asked <-chan struct{}, done <-chan error, outcome *string,
) (RunResult, error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var (
		over     = ctx.Done()
		ending   = loopCtx.Done()
		stopping = activity.GetWorkerStopChannel(ctx)
		stopped  <-chan time.Time
		late     <-chan time.Time
		beats    = newBeater(ctx)
		looked   = a.now()
	)
	defer beats.close()
	for {
		select {
		case err := <-done:
			beats.close()
			return a.finish(ctx, context.Cause(loopCtx), *outcome, err)
		case <-over:
			over = nil
			cause := context.Cause(ctx)
			if a.outlive && ctx.Err() == context.Canceled && unreachable(cause) { //nolint:errorlint // contexts return it bare
				a.log.Warn("the control plane does not answer; the loop goes on under its fence", zap.Error(cause))
				beats.detach(ctx, loopCtx, a.info.TaskToken)
				continue
			}
			a.stop(cause)
		case err := <-beats.lost:
			a.stop(err)
		case <-asked:
			asked = nil
			a.requestDrain(wantedDrain)
		case <-stopping:
			stopping, stopped = nil, time.After(a.handOver)
			a.requestDrain(stoppingWorker)
		case <-stopped:
			a.stop(worker.ErrWorkerShutdown)
		case <-ending: // for one of the reasons here, or because a newer attempt runs in this process
			ending, late = nil, time.After(endWithin)
		case <-late:
			a.log.Error("a loop did not end in time and is left behind", zap.Duration("bound", endWithin), zap.ByteString("stacks", stacks()))
			return RunResult{}, a.failed(ctx, failure.Stalled.Errorf("the loop did not end within %v", endWithin))
		case <-ticker.C:
			now := a.now()
			frozen := now.Sub(looked) > every+a.stalled/2 // the process, not the loop, which now gets the time to go on
			looked = now
			if silent := a.silent(); silent > a.stalled && !frozen {
				ticker.Stop()
				a.log.Error("a loop made no progress and is restarted", zap.Duration("silent", silent), zap.ByteString("stacks", stacks()))
				a.stop(errStalled)
				continue
			}
			if a.beatDue(now, every) {
				beats.beat(a.beat())
			}
		}
	}
}

// requestDrain asks the loop to finish. A request of the workflow counts more than the worker's stop, since it decides
// what happens next.
func (a *attempt) requestDrain(why string) {
	if a.draining == "" {
		close(a.drain)
	}
	if a.draining != wantedDrain {
		a.draining = why
	}
}

func (a *attempt) silent() time.Duration { return silent(a.progress, a.began, a.now()) }

// stalledAt says where the loop stopped.
func (a *attempt) stalledAt() error {
	status := a.progress.Snapshot()
	where := ""
	if status.Phase != "" {
		where = " while " + status.Phase
	}
	if status.Backpressure != "" {
		where += ", waiting for " + status.Backpressure
	}
	return failure.Stalled.Errorf("the loop made no progress for %v%s", a.stalled, where).
		WithDetail("phase", status.Phase).WithDetail("waitsFor", status.Backpressure).WithDetail("position", string(status.Position))
}

// beatDue reports whether it is time for a heartbeat, for somebody who asks every so often. A loop that drains may be
// cancelled next, of which only the answer to a heartbeat tells.
func (a *attempt) beatDue(now time.Time, every time.Duration) bool {
	due := a.draining != "" || now.Sub(a.beaten) > a.pace-every/2
	if due {
		a.beaten = now
	}
	return due
}

// beat returns the details of the next heartbeat.
func (a *attempt) beat() beat {
	status := a.progress.Snapshot()
	if a.baseline == nil && (status.Position != "" || status.Offset != 0 || status.Sequence != 0) {
		a.baseline = &status
	}
	if a.progressed(status) {
		a.failures = 0
	}
	b := beatOf(status)
	b.Generation, b.Host, b.Failures = a.in.Generation, a.hostID, a.failures
	return b
}

func (a *attempt) progressed(s pipeline.Status) bool {
	moved := a.baseline != nil && (s.Position != a.baseline.Position || s.Offset != a.baseline.Offset || s.Sequence != a.baseline.Sequence)
	return moved || a.now().Sub(a.began) > provenAfter
}

// finish turns the loop's end into the activity's.
func (a *attempt) finish(ctx context.Context, cause error, outcome string, err error) (RunResult, error) {
	status := a.progress.Snapshot()
	result := RunResult{
		Outcome: outcome, Position: string(status.Position), Offset: number(status.Offset), Sequence: number(status.Sequence),
		Host: a.hostID, Attempt: a.info.Attempt, StartedAt: a.began.UTC(), Missing: (*Missing)(status.Missing),
	}
	stored := outcome == string(pipeline.Stored)
	if stored {
		outcome, result.Outcome = OutcomeDrained, OutcomeDrained
	}
	switch {
	case err == nil && outcome != OutcomeDrained:
		return result, nil
	case err == nil && a.draining == wantedDrain:
		return result, nil
	case err == nil && a.draining == stoppingWorker && stored && !a.stay:
		result.Outcome = OutcomeHandedOver // the workflow places it anew, while the server would start it on this host again
		return result, nil
	case a.draining == stoppingWorker && (err == nil || cause == nil && errors.Is(err, context.Canceled)):
		return RunResult{}, handOver()
	case cause != nil:
		return RunResult{}, a.interrupted(ctx, cause, err)
	case err == nil:
		err = errors.New("the loop ended though nobody asked it to")
	}
	return RunResult{}, a.failed(ctx, err)
}

// interrupted says why an attempt ended whose loop was cancelled.
func (a *attempt) interrupted(ctx context.Context, cause, err error) error {
	switch {
	case temporal.IsCanceledError(cause), errors.Is(cause, activity.ErrActivityPaused), errors.Is(cause, activity.ErrActivityReset):
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return cause
	case errors.Is(cause, worker.ErrWorkerShutdown):
		return handOver()
	case errors.Is(cause, errStalled):
		return a.failed(ctx, a.stalledAt())
	case errors.Is(cause, errSuperseded):
		return translate(failure.FencedOff.Errorf("%w", cause))
	case superseded(cause):
		return translate(failure.FencedOff.Errorf("the server gave the component to another attempt: %w", cause))
	case unreachable(cause):
		return translate(failure.Unreachable.Errorf("the control plane does not answer: %w", cause))
	}
	if err == nil {
		err = cause
	}
	return a.failed(ctx, err)
}

// failed counts a failure and translates it. After many in a row the workflow is to decide what comes next, which it
// cannot as long as the server retries.
func (a *attempt) failed(ctx context.Context, err error) error {
	if !failure.ClassOf(err).Retryable() {
		return translate(err)
	}
	a.failures++
	if a.progressed(a.progress.Snapshot()) {
		a.failures = 1
	}
	if a.failures >= givenUpAfter {
		return exhausted(err)
	}
	b := a.beat()
	b.Failures = a.failures
	activity.RecordHeartbeat(ctx, b) // kept for the next attempt
	return translate(err)
}

// superseded reports whether the server no longer knows the attempt.
func superseded(cause error) bool {
	var notFound *serviceerror.NotFound
	return errors.As(cause, &notFound)
}

// unreachable reports whether the SDK ended the attempt only because the server did not answer.
func unreachable(cause error) bool {
	var (
		deadline    *serviceerror.DeadlineExceeded
		unavailable *serviceerror.Unavailable
		cancelled   *serviceerror.Canceled
		busy        *serviceerror.ResourceExhausted
		internal    *serviceerror.Internal
	)
	return errors.Is(cause, context.DeadlineExceeded) || errors.As(cause, &deadline) || errors.As(cause, &unavailable) || errors.As(cause, &cancelled) ||
		errors.As(cause, &busy) || errors.As(cause, &internal)
}

func stacks() []byte {
	buffer := make([]byte, 1<<20)
	return buffer[:runtime.Stack(buffer, true)]
}
