package activities

import (
	"time"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// Run is what every long activity is told beside its spec.
type Run struct {
	// Generation orders the runs of a component, whatever workflow scheduled them; see Control.PlaceComponent.
	Generation  uint64 `json:"generation"`
	SpecVersion int    `json:"specVersion"`
}

// SourceRunInput is the input of Sources.SourceRun.
type SourceRunInput struct {
	Run
	Spec component.SourceSpec `json:"spec"`
}

// QueryRunInput is the input of Queries.QueryRun.
type QueryRunInput struct {
	Run
	Spec component.QuerySpec `json:"spec"`
}

// ReactionRunInput is the input of Reactions.ReactionRun.
type ReactionRunInput struct {
	Run
	Spec component.ReactionSpec `json:"spec"`
}

// Outcomes of a long activity that ended well.
const (
	OutcomeDrained        = "drained"        // it was asked to stop, and finished what it had begun
	OutcomeNeedsBootstrap = "needsBootstrap" // a query without state that fits its plan
)

// RunResult is how a long activity ended, and how far it came. Numbers of 64 bits are strings, since they are read by
// people and programs through JSON.
type RunResult struct {
	Outcome   string    `json:"outcome"`
	Position  string    `json:"position,omitempty"`
	Offset    string    `json:"offset,omitempty"`
	Sequence  string    `json:"sequence,omitempty"`
	Host      string    `json:"host,omitempty"`
	Attempt   int32     `json:"attempt,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
}

// QueryChecks is what Queries.ValidateQuery found beside a valid spec.
type QueryChecks struct {
	MissingSources []string `json:"missingSources,omitempty"` // sources that have no change stream yet
}

// TeardownInput is the input of the teardown activities.
type TeardownInput[Spec any] struct {
	Spec Spec `json:"spec"`
	// DropResources also removes what lies outside of Perdure, such as a replication slot.
	DropResources bool `json:"dropResources"`
}

// PlaceInput is the input of Control.PlaceComponent.
type PlaceInput struct {
	Component  string `json:"component"`
	Generation uint64 `json:"generation"`          // the workflow's last one
	NeedsHost  bool   `json:"needsHost,omitempty"` // its state is on a host's disk
	Avoid      string `json:"avoid,omitempty"`     // a host that did not take the last run in time
}

// Placement says as what, and where, a component runs next.
type Placement struct {
	Generation uint64 `json:"generation"`
	Host       string `json:"host,omitempty"`
	Queue      string `json:"queue"`
}

// GenerationInput is the input of Control.RequestDrain and Control.FenceBump.
type GenerationInput struct {
	Component  string `json:"component"`
	Generation uint64 `json:"generation"`
}

// BootstrapRef names one bootstrap, and one generation of its snapshot.
type BootstrapRef struct {
	ID                 string `json:"id"`
	Instance           string `json:"instance"`
	Query              string `json:"query"`  // name
	Source             string `json:"source"` // name
	SnapshotGeneration int    `json:"snapshotGeneration"`
}

// BootstrapPlan is how much a bootstrap has to copy.
type BootstrapPlan struct {
	Tables int   `json:"tables"`
	Chunks int   `json:"chunks"`
	Rows   int64 `json:"rows,string"` // estimate
}

// CopyInput is the input of Bootstraps.CopyWorker.
type CopyInput struct {
	BootstrapRef
	Worker int `json:"worker"`
}

// CopyResult is what one copy worker copied.
type CopyResult struct {
	Chunks int   `json:"chunks"`
	Rows   int64 `json:"rows,string"`
}

// SnapshotReady is the payload of SignalSnapshotReady. The snapshot's name stays in the store.
type SnapshotReady struct {
	SnapshotGeneration int    `json:"snapGen"`
	Position           string `json:"lsn"`
}

// Sealed is how a bootstrap ended.
type Sealed struct {
	Position string `json:"position"`
	Rows     int64  `json:"rows,string"`
}

// Failure is the details of every error that an activity returns.
type Failure = failure.Report
