package activities

// Task queues. Separate ones, because a loop holds its slot for months and must not keep short errands from running.
const (
	QueueWorkflows = "perdure"      // workflow tasks: what users name when they start a workflow
	QueueControl   = "perdure-ctl"  // short activities
	QueueRun       = "perdure-run"  // loops that may run anywhere
	QueueBootstrap = "perdure-boot" // planning, copying and verifying of snapshots
	QueueSnapshot  = "perdure-snap" // holders of snapshots

	hostQueuePrefix = "perdure-host."
)

// HostQueue returns the task queue of the loops that must run on one host, because their state is on its disk.
func HostQueue(hostID string) string { return hostQueuePrefix + hostID }

// SignalSnapshotReady is the signal by which HoldSnapshot tells its workflow that copying may begin.
const SignalSnapshotReady = "snapshotReady"

// SignalBootstrapProgress is the signal by which HoldSnapshot tells its workflow how far copying is.
const SignalBootstrapProgress = "bootstrapProgress"
