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
