package workflows

import (
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
)

// The time limits and retries of all activities. Failures say themselves when retrying is of no use, so no policy lists
// types of errors. A limit on the time until an activity starts exists only where its queue may be dead for good.

const (
	year          = 365 * 24 * time.Hour
	heartbeat     = activities.UsualHeartbeat
	takenWithin   = 30 * time.Second // by the host that a run is placed on
	cancelWithin  = 20 * time.Second // two heartbeats, which is how a run learns of it
	drainGrace    = 10 * time.Second
	teardownBound = 5 * time.Minute
)

func retry(first, most time.Duration, attempts int32) *temporal.RetryPolicy {
	return &temporal.RetryPolicy{InitialInterval: first, BackoffCoefficient: 2, MaximumInterval: most, MaximumAttempts: attempts}
}

// withRun is for the loops: retried for ever, since what is transient goes away, and the loop says when it has had
// enough.
func withRun(ctx workflow.Context, id string, at placement, summary string) workflow.Context {
	o := workflow.ActivityOptions{
		TaskQueue: at.Queue, ActivityID: id, Summary: summary,
		StartToCloseTimeout: year, HeartbeatTimeout: max(heartbeat, time.Duration(at.HeartbeatSeconds)*time.Second), WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 30*time.Second, 0),
	}
	if at.Queue != activities.QueueRun {
		o.ScheduleToStartTimeout = takenWithin
	}
	return workflow.WithActivityOptions(ctx, o)
}

func withValidate(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: "check the spec",
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 5 * time.Minute,
		RetryPolicy: retry(time.Second, 10*time.Second, 5),
	})
}

func withReadSpec(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: "read the spec",
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 5 * time.Minute,
		RetryPolicy: retry(time.Second, 10*time.Second, 5),
	})
}

// withCheck is for somebody who waits for the answer.
func withCheck(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: "look at the source's system",
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 3 * time.Minute,
		RetryPolicy: retry(time.Second, 10*time.Second, 3),
	})
}

// withProvision gives up soon: then the breaker says why, and tries again less often.
func withProvision(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: "prepare the source's system",
		StartToCloseTimeout: 30 * time.Minute, HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 10*time.Second, 5),
	})
}

func withAwaitSources(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueRun, Summary: "wait for the sources",
		StartToCloseTimeout: year, HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 30*time.Second, 0),
	})
}

// withErrand is for what only reads or writes a few keys of the store.
func withErrand(ctx workflow.Context, summary string, within time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: summary,
		StartToCloseTimeout: 10 * time.Second, ScheduleToCloseTimeout: within,
		RetryPolicy: retry(500*time.Millisecond, 5*time.Second, 0),
	})
}

// withLetters gives up soon: what is left stays, and somebody waits for the answer.
func withLetters(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: summary,
		StartToCloseTimeout: 90 * time.Second, ScheduleToCloseTimeout: 5 * time.Minute, HeartbeatTimeout: heartbeat,
		RetryPolicy: retry(time.Second, 10*time.Second, 5),
	})
}

// withPlace is for somebody who waits for the answer, which may take some reads of a long log.
func withPlace(ctx workflow.Context, summary string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: summary,
		StartToCloseTimeout: time.Minute, ScheduleToCloseTimeout: 3 * time.Minute,
		RetryPolicy: retry(time.Second, 10*time.Second, 3),
	})
}

func withTeardown(ctx workflow.Context, within time.Duration) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueControl, Summary: "remove what the component created",
		StartToCloseTimeout: within, ScheduleToCloseTimeout: within, HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(2*time.Second, time.Minute, 0),
	})
}

// withHoldSnapshot allows one attempt, because a retry cannot bring a snapshot back.
func withHoldSnapshot(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueSnapshot, ActivityID: id, Summary: "hold the snapshot open",
		ScheduleToStartTimeout: 10 * time.Minute, StartToCloseTimeout: 72 * time.Hour,
		HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: &temporal.RetryPolicy{MaximumAttempts: 1},
	})
}

func withPlanChunks(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueBootstrap, Summary: "divide the tables into chunks",
		StartToCloseTimeout: 6 * time.Hour, ScheduleToCloseTimeout: 12 * time.Hour,
		HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, time.Minute, 10),
	})
}

func withCopyWorker(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueBootstrap, ActivityID: id, Summary: "copy chunks",
		StartToCloseTimeout: 72 * time.Hour, HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 30*time.Second, 0),
	})
}

func withVerify(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueBootstrap, Summary: "check that the changes after the snapshot are reachable",
		StartToCloseTimeout: 30 * time.Minute, ScheduleToCloseTimeout: 2 * time.Hour,
		HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 30*time.Second, 5),
	})
}

// withEnsure is for what starts or tells a component of an instance. It waits there for the short activities that its
// component needs, and so must not hold their slots.
func withEnsure(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueRun, Summary: id,
		StartToCloseTimeout: 10 * time.Minute, ScheduleToCloseTimeout: 15 * time.Minute,
		HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 15*time.Second, 0),
	})
}

// withRemove allows for all that deleting a component may take: its drain, its teardown, and what comes between.
func withRemove(ctx workflow.Context, id string) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueRun, Summary: "delete " + id,
		StartToCloseTimeout: 3 * mostTeardown, ScheduleToCloseTimeout: 3 * mostTeardown,
		HeartbeatTimeout: heartbeat, WaitForCancellation: true,
		RetryPolicy: retry(time.Second, 15*time.Second, 0),
	})
}

// withWatch is not waited for when it is cancelled: it only reads.
func withWatch(ctx workflow.Context) workflow.Context {
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		TaskQueue: activities.QueueRun, Summary: "watch the components",
		StartToCloseTimeout: year, HeartbeatTimeout: heartbeat,
		RetryPolicy: retry(time.Second, 30*time.Second, 0),
	})
}

// withBootstrap is for the bootstraps of a query. Stopping the query cancels them, and waits for them.
func withBootstrap(ctx workflow.Context, id, summary string) workflow.Context {
	return workflow.WithChildOptions(ctx, workflow.ChildWorkflowOptions{
		WorkflowID: id, StaticSummary: summary,
		WorkflowIDReusePolicy: enumspb.WORKFLOW_ID_REUSE_POLICY_ALLOW_DUPLICATE,
		ParentClosePolicy:     enumspb.PARENT_CLOSE_POLICY_REQUEST_CANCEL,
		WaitForCancellation:   true,
	})
}

// sleep is workflow.Sleep with a summary, which the UI shows instead of "Sleep".
func sleep(ctx workflow.Context, d time.Duration, summary string) error {
	return workflow.NewTimerWithOptions(ctx, d, workflow.TimerOptions{Summary: summary}).Get(ctx, nil)
}
