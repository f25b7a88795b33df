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

// SignalCondition is the signal by which the loop of a source tells its workflow how it gets on with its system, and that of a
// reaction with its target.
const SignalCondition = "condition"

// SignalNeed is the signal by which the loop of a query asks for a bootstrap while it goes on with the state that it has.
const SignalNeed = "need"

// SignalBootstrapProgress is the signal by which HoldSnapshot tells its workflow how far copying is.
const SignalBootstrapProgress = "bootstrapProgress"

// SignalTableFailed is the signal by which CopyWorker tells its workflow that a table cannot be read.
const SignalTableFailed = "tableFailed"

// Commands and queries of components' workflows that activities of instances use.
const (
	CommandPause       = "pause"
	CommandResume      = "resume"
	CommandStop        = "stop"
	CommandRestart     = "restart"
	CommandReconfigure = "reconfigure"
	CommandDelete      = "delete"

	QueryStatus = "status"
	QuerySpec   = "spec"

	// RejectedCommand is the type of the error with which an update says that it was not done.
	RejectedCommand = "Rejected"
)

// What a phase comes to, as statuses show it.
const (
	HealthHealthy  = "healthy"
	HealthDegraded = "degraded" // it works, but not as well as it should
	HealthPending  = "pending"  // on the way to something else
	HealthIdle     = "idle"
	HealthFailing  = "failing"
)
