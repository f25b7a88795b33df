// Package activities is Temporal's view of the data plane: it runs the loops of streaming/pipeline under heartbeats,
// does the short errands of the control plane, and translates failures for Temporal.
//
// One activity attempt owns these goroutines, and joins all of them before it returns:
//
//	goroutine        started by   stops when                            on error
//	activity body    Temporal     the loop ended                        returns a translated failure
//	loop             run          its context ends or drain is closed   its failure ends the attempt
//	heartbeat        run          the loop ended                        a stalled loop is cancelled
//	control watcher  run          the loop ended                        logs, and tries again
//
// The only exception is a loop that does not react to the end of its context: it is left behind after a bound, shut out
// by its fence, because an attempt that never ends would hold its component for ever.
package activities
