package activities

import (
	"encoding/json"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// SpecInput is the input of the activities that validate or provision. Specs travel as the JSON somebody wrote, so that
// a mistake in one is found by an activity, whose finding is history, and not by workflow code, which replays.
type SpecInput struct {
	Component string          `json:"component"`
	Spec      json.RawMessage `json:"spec"`
	// SpecRef is a reference to the spec, here as in all inputs, where that is too large to be given.
	SpecRef string `json:"specRef,omitempty"`
	// Unexpected lists what the workflow was started with beside its spec and does not know.
	Unexpected []string `json:"unexpected,omitempty"`
}

// RunInput is the input of the long activities.
type RunInput struct {
	Component string `json:"component"`
	// Generation orders the runs of a component, whatever workflow scheduled them; see Control.PlaceComponent.
	Generation  uint64          `json:"generation"`
	SpecVersion int             `json:"specVersion"`
	Spec        json.RawMessage `json:"spec"`
	SpecRef     string          `json:"specRef,omitempty"`
	// Reload, unless empty, names the request of a query to read its sources again while it goes on.
	Reload string `json:"reload,omitempty"`
	// Beside says that the workflow takes SignalNeed; without it a query that needs a bootstrap ends.
	Beside bool `json:"beside,omitempty"`
	// Ahead says that some sources of the query may have no change stream yet: it goes on with the state that it has, which may
	// be of others, or ends with OutcomeNeedsSources.
	Ahead bool `json:"ahead,omitempty"`
}

// Need is the payload of SignalNeed.
type Need struct {
	Generation uint64   `json:"generation"`
	Outcome    string   `json:"outcome"`           // as which the run would end without the state that it has
	Missing    *Missing `json:"missing,omitempty"` // nil: all of all its sources is to be read
	Held       bool     `json:"held,omitempty"`    // the result stays as it is until then
}

// Outcomes of a long activity that ended well.
const (
	OutcomeDrained        = "drained"        // it was asked to stop, and finished what it had begun
	OutcomeHandedOver     = "handedOver"     // so did its worker, and any host can go on
	OutcomeNeedsBootstrap = "needsBootstrap" // a query without state that fits its plan
	OutcomeNeedsResync    = "needsResync"    // a query whose source has lost changes: what differs is to be found
	OutcomeNeedsRebuild   = "needsRebuild"   // the same: all is to be read and published anew
	OutcomeNeedsSources   = "needsSources"   // a query without state, of which a source has no change stream yet
)

// RunResult is how a long activity ended, and how far it came. Numbers of 64 bits are strings, because many readers of
// JSON would round them.
type RunResult struct {
	Outcome   string    `json:"outcome"`
	Position  string    `json:"position,omitempty"`
	Offset    string    `json:"offset,omitempty"`
	Sequence  string    `json:"sequence,omitempty"`
	Host      string    `json:"host,omitempty"`
	Attempt   int32     `json:"attempt,omitempty"`
	StartedAt time.Time `json:"startedAt,omitzero"`
	// Missing is what a query lacks that needs a resync; nil: all of all its sources is to be read.
	Missing *Missing `json:"missing,omitempty"`
}

// Missing names elements by their source and labels.
type Missing struct {
	Source string   `json:"source"`
	Labels []string `json:"labels"`
}

// Checks is what an activity that validates found beside a valid spec.
type Checks struct {
	MissingSources []string `json:"missingSources,omitempty"` // sources of a query that have no change stream yet
}

// WaitInput is the input of Queries.WaitForSources.
type WaitInput struct {
	Instance string   `json:"instance"`
	Sources  []string `json:"sources"`
}

// TeardownInput is the input of the activities that tear down. They work without a spec that is only referred to, which may
// be gone: what it led to is on record.
type TeardownInput struct {
	Component string          `json:"component"`
	Spec      json.RawMessage `json:"spec"`
	SpecRef   string          `json:"specRef,omitempty"`
	// KeepResources leaves a source's log and what it has in the system behind it, such as a replication slot.
	KeepResources bool `json:"keepResources,omitempty"`
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
	// HeartbeatSeconds is how long the server waits for a heartbeat of the run; 0: UsualHeartbeat.
	HeartbeatSeconds int `json:"heartbeatSeconds,omitempty"`
}

// UsualHeartbeat is how long the server waits for a heartbeat of a long activity before it begins another attempt.
const UsualHeartbeat = 30 * time.Second

// GenerationInput is the input of Control.RequestDrain and Control.FenceBump.
type GenerationInput struct {
	Component  string `json:"component"`
	Generation uint64 `json:"generation"`
}

// LettersInput is the input of Reactions.RetryDeadLetters and Control.DropDeadLetters.
type LettersInput struct {
	Component string          `json:"component"`
	Spec      json.RawMessage `json:"spec,omitempty"` // of the reaction, to retry
	SpecRef   string          `json:"specRef,omitempty"`
	IDs       []string        `json:"ids,omitempty"` // empty: all that there are
}

// LettersResult is what became of dead letters. How many are left counts those that came meanwhile.
type LettersResult struct {
	Delivered int         `json:"delivered,omitempty"`
	Refused   int         `json:"refused,omitempty"` // for good, again
	Dropped   int         `json:"dropped,omitempty"`
	Left      DeadLetters `json:"left"`
	// Failure is what ended it before the last of them.
	Failure *failure.Report `json:"failure,omitempty"`
}

// ResultInput is the input of Reactions.SkipResult and Reactions.SetPosition.
type ResultInput struct {
	Component  string          `json:"component"`
	Spec       json.RawMessage `json:"spec"`
	SpecRef    string          `json:"specRef,omitempty"`
	Query      string          `json:"query"`
	Seq        string          `json:"seq"` // of an event of the query; "earliest" and "latest" are positions too
	Generation uint64          `json:"generation"`
}

// PositionResult says which event a reaction goes on behind.
type PositionResult struct {
	Seq string `json:"seq"`
}

// DeadLetters is how many dead letters a component has.
type DeadLetters struct {
	Count  string    `json:"count,omitempty"`
	Oldest time.Time `json:"oldest,omitzero"`
}

// Condition is the payload of SignalCondition. A component that is well has a closed target, and no queries and no
// interruption here.
type Condition struct {
	Generation  uint64           `json:"generation"`
	At          time.Time        `json:"at"`
	Target      string           `json:"target"`                // breaker: closed or open
	Since       time.Time        `json:"failingSince,omitzero"` // when tries began to fail
	LastError   *failure.Report  `json:"lastError,omitempty"`   // of the last try, while the target fails
	Queries     []QueryCondition `json:"queries,omitempty"`     // those whose results do not reach the reaction, up to a limit
	More        int              `json:"moreQueries,omitempty"` // beyond that limit
	DeadLetters DeadLetters      `json:"deadLetters"`
	// Host and Attempt say where the run is; in old signals they are missing.
	Host    string `json:"host,omitempty"`
	Attempt int32  `json:"attempt,omitempty"`
	// Loading is of a query: it has no answer yet.
	Loading bool `json:"loading,omitempty"`
	// Interruption is of a source, those before Host are of a reaction.
	Interruption *Interruption `json:"interruption,omitempty"`
}

// Interruption is why a source gets nothing from its system, which it goes on to try by itself.
type Interruption struct {
	At        time.Time      `json:"at"`           // when this was true
	Since     time.Time      `json:"failingSince"` // when tries began to fail
	Failures  int            `json:"failures"`     // tries in a row
	LastError failure.Report `json:"lastError"`    // of the last of them
}

// QueryCondition is why the results of a query do not reach a reaction.
type QueryCondition struct {
	Query   string `json:"query"`
	State   string `json:"state"` // waiting, which ends by itself, or failed
	Code    string `json:"code"`
	Message string `json:"message"`
}

// BootstrapRef names one bootstrap, and one generation of its snapshot.
type BootstrapRef struct {
	ID                 string `json:"id"`
	Instance           string `json:"instance"`
	Query              string `json:"query"`  // name
	Source             string `json:"source"` // name
	SnapshotGeneration int    `json:"snapGen"`
	// Rebuild has the query publish all rows anew, and not what differs.
	Rebuild bool `json:"rebuild,omitempty"`
	// Labels, if any, are those whose elements alone are read.
	Labels []string `json:"labels,omitempty"`
}

// PlanInput is the input of Bootstraps.Subscribe and PlanChunks.
type PlanInput struct {
	BootstrapRef
	Spec    json.RawMessage `json:"spec"` // of the query
	SpecRef string          `json:"specRef,omitempty"`
}

// BootstrapPlan is how much a bootstrap has to copy.
type BootstrapPlan struct {
	Tables      int   `json:"tables"`
	Chunks      int   `json:"chunks"`                // at most
	Rows        int64 `json:"rows,string"`           // estimate
	Parallelism int   `json:"parallelism,omitempty"` // copy workers that the source wants
	Kept        int64 `json:"kept,string,omitempty"` // rows that earlier snapshots left copied
}

// CopyInput is the input of Bootstraps.CopyWorker.
type CopyInput struct {
	BootstrapRef
	Worker string `json:"worker"`
}

// CopyResult is what one copy worker copied.
type CopyResult struct {
	Chunks int   `json:"chunks"`
	Rows   int64 `json:"rows,string"`
}

// TableFailure is why a table cannot be read for good. It is the payload of SignalTableFailed, too.
type TableFailure struct {
	SnapshotGeneration int            `json:"snapGen"`
	Table              string         `json:"table"`
	Failure            failure.Report `json:"failure"`
	At                 time.Time      `json:"at"`
}

// Verified is what Bootstraps.VerifyBootstrap found.
type Verified struct {
	// Failed are the tables that cannot be read; if there are any, nothing else was looked at.
	Failed []TableFailure `json:"failed,omitempty"`
}

// RetryInput is the input of Bootstraps.RetryTables.
type RetryInput struct {
	BootstrapRef
	Tables []string `json:"tables,omitempty"` // empty: all that failed
}

// SnapshotReady is the payload of SignalSnapshotReady. The snapshot's name stays in the store.
type SnapshotReady struct {
	SnapshotGeneration int    `json:"snapGen"`
	Position           string `json:"lsn"`
}

// BootstrapProgress is the payload of SignalBootstrapProgress: how far copying is.
type BootstrapProgress struct {
	SnapshotGeneration int       `json:"snapGen"`
	At                 time.Time `json:"at"`
	Rows               int64     `json:"rows,string"`     // copied so far
	Estimate           int64     `json:"estimate,string"` // of all rows
	RowsPerSecond      int64     `json:"rowsPerSecond,string"`
	Expected           time.Time `json:"expected,omitzero"` // when all is copied at this rate; zero: not known
	TablesCopied       int       `json:"tablesCopied"`
	// Tables are those that failed, then those that are being copied, that wait, and that are copied, up to a limit.
	Tables []TableProgress `json:"tables"`
}

// TableProgress is how far one table is copied.
type TableProgress struct {
	Name          string    `json:"name"`
	State         string    `json:"state"` // waiting, copying, copied or failed
	Rows          int64     `json:"rows,string"`
	Estimate      int64     `json:"estimate,string"`
	RowsPerSecond int64     `json:"rowsPerSecond,string,omitempty"`
	Expected      time.Time `json:"expected,omitzero"`
}

// Sealed is how a bootstrap ended.
type Sealed struct {
	Position string `json:"position"`
	Rows     int64  `json:"rows,string"`
}
