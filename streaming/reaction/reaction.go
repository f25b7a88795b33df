// Package reaction is the contract of anything that consumes differences.
//
// A reaction is a folder below this one; copy log to add another. It exports only a Factory. It is one of two things: a
// Deliverer, to which the pipeline pushes each event from the durable result log and retries, or a Server, whose own clients
// come for results and keep their own positions.
package reaction

import (
	"context"
	"encoding/json"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/result"
)

// Settings is what the host gives a reaction beside its config.
type Settings struct {
	Instance   string
	Name       string
	Queries    []string
	Generation uint64
	Log        *zap.Logger // carries the component's name; silent when healthy
	// Secret resolves a reference such as "env:HOOK_TOKEN".
	Secret func(ref string) (string, error)
}

// Factory makes reactions of one kind. It is safe for concurrent use.
type Factory interface {
	// Kind returns the name used in specs.
	Kind() string
	// New decodes and checks config, without I/O. The reaction is a Deliverer or a Server. All problems are reported at
	// once, as one ConfigInvalid failure.
	New(config json.RawMessage, settings Settings) (Reaction, error)
}

// Reaction is a Deliverer or a Server.
type Reaction interface {
	// Close releases what the reaction holds, within ctx.
	Close(ctx context.Context) error
}

// Deliverer is pushed to. Deliver returns once the effect happened, or ctx ended; the delivery is acknowledged only
// then. Deliveries come at least once. Those of one row of a query come in order: what failed comes again before what
// follows it. Deliveries of different queries, and where the spec says unit row of different rows, come at the same time.
//
// Errors are classified. Transient ones are tried again, after a pause that a Wait in their chain may lengthen; data
// errors, with which the target refuses for good, go to the dead letters; any other ends the reaction's run.
type Deliverer interface {
	Reaction
	Deliver(ctx context.Context, d Delivery) error
}

// Delivery is what is delivered at a time: an event, or one row of it.
//
// A Snapshot event without differences voids all rows of the query known so far: the query was built anew, and Snapshot
// events with the new rows follow. It comes after everything before it was delivered, and before anything that follows.
type Delivery struct {
	Query string
	// Key is the idempotency key: it is the same in every try of the delivery, also after a crash, and no other delivery
	// has it, nor has one of a query of the same name that was deleted before.
	Key string
	// Event must not be changed. Where rows are delivered one by one it has one difference.
	Event *result.Event
}

// Wait, in the chain of a transient error, is how long the target asks to be left alone.
type Wait time.Duration

// Error implements error.
func (w Wait) Error() string { return "it asks to be left alone for " + time.Duration(w).String() }

// Server is pulled from: Serve runs until ctx ends and answers its clients from results.
type Server interface {
	Reaction
	Serve(ctx context.Context, results Results) error
}

// Results reads results of the queries of one instance. It is safe for concurrent use.
type Results interface {
	// Snapshot calls begin with the query's columns and state and then visit with each current row, consistent with that
	// state. A query that does not run gives a QueryNotReady failure, one that does not exist QueryMissing.
	Snapshot(ctx context.Context, query string, begin func(columns []string, state result.State) error, visit func(result.Row) error) error
	// Follow calls visit with each event whose sequence is above after, in order and without gaps, as they come, until ctx
	// ends or visit fails. Only a Snapshot event without differences may have a sequence that does not follow. Events that are no longer kept give a StreamTrimmed failure. idle, if not nil, is called about
	// every ten seconds without an event.
	Follow(ctx context.Context, query string, after uint64, visit func(*result.Event) error, idle func() error) error
}
