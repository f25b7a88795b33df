// Package reaction is the contract of anything that consumes differences.
//
// A reaction is a folder below this one; copy log to add another. It exports only a Factory. It is one of two things: a
// Deliverer, to which the pipeline pushes each event from the durable result log and retries, or a Server, whose own clients
// come for results and keep their own positions.
package reaction

import (
	"context"
	"encoding/json"

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

// Deliverer is pushed to. Deliver returns once the effect happened; the event is acknowledged only then. Events of one
// query come in order; after an error the same event comes again, so that Deliver is at least once and uses (query,
// sequence) as its idempotency key. Errors are classified: transient ones are retried, data errors go to the dead letters.
// A Snapshot event without differences voids all rows known so far: the query was built anew, and Snapshot events with
// the new rows follow.
type Deliverer interface {
	Reaction
	Deliver(ctx context.Context, query string, event *result.Event) error
}

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
