// Package telemetry defines what is told about running components: the keys of log lines, once, so that one search finds
// what happened to a component whatever stage wrote the line, and the metrics.
package telemetry

// Log keys.
const (
	KeyInstance  = "instance"
	KeyComponent = "component" // the dotted id, such as source.default.orders
	KeySource    = "source"
	KeyQuery     = "query"
	KeyReaction  = "reaction"
	KeyPosition  = "position" // in the source
	KeyOffset    = "offset"   // in one of our logs
	KeySequence  = "sequence" // of a query's events
	KeyEpoch     = "epoch"    // of the attempt that owns the component
	KeyHost      = "host"
)
