package workflows

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// Phase is what a component is doing.
type Phase string

// The phases.
const (
	Created          Phase = "Created"
	Validating       Phase = "Validating"
	Provisioning     Phase = "Provisioning"
	WaitingForSource Phase = "WaitingForSource"
	Bootstrapping    Phase = "Bootstrapping"
	Starting         Phase = "Starting"
	PhaseRunning     Phase = "Running"
	Draining         Phase = "Draining"
	PhasePaused      Phase = "Paused"
	PhaseStopped     Phase = "Stopped"
	BreakerOpen      Phase = "BreakerOpen"
	NeedsOperator    Phase = "NeedsOperator"
	TearingDown      Phase = "TearingDown"
	DeleteBlocked    Phase = "DeleteBlocked"
	Deleted          Phase = "Deleted"
)

// stateVersion is the version of State that this build writes.
const stateVersion = 1

// State is what a workflow remembers of its component. It is plain data: decide reads it, status shows it, and
// ContinueAsNew carries it over, so fields are only ever added.
type State struct {
	Version     int             `json:"v"`
	Component   string          `json:"component"`
	SpecVersion int             `json:"specVersion"`
	Desired     Desired         `json:"desired"`
	RequestedBy string          `json:"requestedBy,omitempty"`
	Phase       Phase           `json:"phase"`
	Since       time.Time       `json:"since,omitzero"`
	Spec        json.RawMessage `json:"-"` // travels as Input.Spec
	Generation  uint64          `json:"generation"`

	// What has been achieved for this spec.
	Validated    bool          `json:"validated,omitempty"`
	Provisioned  bool          `json:"provisioned,omitempty"`
	Missing      []string      `json:"missing,omitempty"` // sources without a change stream
	Bootstrap    bootstrapping `json:"bootstrap,omitzero"`
	Touched      bool          `json:"touched,omitempty"` // something may exist that a delete has to remove
	Avoid        string        `json:"avoid,omitempty"`   // a host that did not take the last run in time
	Host         string        `json:"host,omitempty"`
	Attempt      int32         `json:"attempt,omitempty"`
	Position     string        `json:"position,omitempty"`
	Offset       string        `json:"offset,omitempty"`
	Sequence     string        `json:"sequence,omitempty"`
	Breaker      Breaker       `json:"breaker"`
	Parked       bool          `json:"parked,omitempty"` // only a command changes that
	Restart      bool          `json:"restart,omitempty"`
	Upgrade      bool          `json:"upgrade,omitempty"`
	Rebootstrap  bool          `json:"rebootstrap,omitempty"` // once nothing is in flight
	Delete       *deletion     `json:"delete,omitempty"`
	Commands     []Command     `json:"commands,omitempty"`
	Requests     []request     `json:"requests,omitempty"`
	Declared     bool          `json:"declared"`  // the spec passed the checks that need no I/O
	Continued    int           `json:"continued"` // how often the history began anew
	WithAttrs    bool          `json:"-"`
	TornDown     bool          `json:"-"`
	TeardownFail bool          `json:"-"`
}

// bootstrapping is what a query knows of its snapshots.
type bootstrapping struct {
	Known  bool      `json:"known,omitempty"`  // whether one is needed is known
	Needed bool      `json:"needed,omitempty"` // before the next run
	Count  int       `json:"count,omitempty"`  // bootstraps begun so far
	Sealed []string  `json:"sealed,omitempty"` // sources that are done, of the ones begun together
	At     time.Time `json:"at,omitzero"`      // when the last one ended well
}

// deletion is what a delete asked for.
type deletion struct {
	KeepResources bool `json:"keepResources,omitempty"`
	Force         bool `json:"force,omitempty"`
	Seconds       int  `json:"seconds,omitempty"`
}

// LastError is the last failure that reached the workflow.
type LastError struct {
	failure.Report
	At time.Time `json:"at"`
}

// request is a command that came with an id, remembered so that it is not done twice.
type request struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
}

// Outcomes of a command.
const (
	Applied  = "applied"
	Noop     = "noop"
	Rejected = "rejected"
)

// Command is the record of one command.
type Command struct {
	RequestID string    `json:"requestId,omitempty"`
	Name      string    `json:"name"`
	Outcome   string    `json:"outcome"`
	Error     string    `json:"error,omitempty"`
	Reason    string    `json:"reason,omitempty"`
	At        time.Time `json:"at"`
}

const (
	keptCommands = 16
	keptRequests = 64
)

// record keeps c among the last commands.
func (s *State) record(c Command) {
	s.Commands = append(s.Commands, c)
	s.Commands = s.Commands[max(0, len(s.Commands)-keptCommands):]
	if c.RequestID == "" {
		return
	}
	s.Requests = append(s.Requests, request{c.RequestID, c.Outcome, c.Error})
	s.Requests = s.Requests[max(0, len(s.Requests)-keptRequests):]
}

// answered returns how the command with that request id ended, when there was one.
func (s *State) answered(requestID string) (request, bool) {
	if requestID == "" {
		return request{}, false
	}
	i := slices.IndexFunc(s.Requests, func(r request) bool { return r.ID == requestID })
	if i < 0 {
		return request{}, false
	}
	return s.Requests[i], true
}
