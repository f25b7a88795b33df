package workflows

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/streaming/failure"
)

// Phase is what a component is doing.
type Phase string

// The phases.
const (
	PhaseCreated          Phase = "Created"
	PhaseValidating       Phase = "Validating"
	PhaseProvisioning     Phase = "Provisioning"
	PhaseWaitingForSource Phase = "WaitingForSource"
	PhaseBootstrapping    Phase = "Bootstrapping"
	PhaseStarting         Phase = "Starting"
	PhaseRunning          Phase = "Running"
	PhaseDraining         Phase = "Draining"
	PhasePaused           Phase = "Paused"
	PhaseStopped          Phase = "Stopped"
	PhaseBreakerOpen      Phase = "BreakerOpen"
	PhaseNeedsOperator    Phase = "NeedsOperator"
	PhaseTearingDown      Phase = "TearingDown"
	PhaseDeleteBlocked    Phase = "DeleteBlocked"
	PhaseDeleted          Phase = "Deleted"
)

const (
	// stateVersion is the version of State that this build writes.
	stateVersion = 1
)

// State is what a workflow remembers of its component. It is plain data that ContinueAsNew carries over, so fields are
// only ever added.
type State struct {
	Version     int       `json:"v"`
	Desired     Desired   `json:"desired"`
	Phase       Phase     `json:"phase"`
	Since       time.Time `json:"since,omitzero"`
	SpecVersion int       `json:"specVersion"`
	Generation  uint64    `json:"generation"`
	Unexpected  []string  `json:"unexpected,omitempty"` // fields of the input that are unknown

	// What has been achieved for this spec.
	Validated   bool       `json:"validated,omitempty"`
	Provisioned bool       `json:"provisioned,omitempty"`
	Touched     bool       `json:"touched,omitempty"` // something may exist that a delete has to remove
	Reached     bool       `json:"reached,omitempty"` // the system behind the source has answered
	Missing     []string   `json:"missing,omitempty"` // sources without a change stream
	Snapshots   snapshots  `json:"snapshots,omitzero"`
	Placement   *placement `json:"placement,omitempty"` // of the next run
	Avoid       string     `json:"avoid,omitempty"`     // a host that did not take the last run in time

	// What the last run said.
	Host     string `json:"host,omitempty"`
	Attempt  int32  `json:"attempt,omitempty"`
	Position string `json:"position,omitempty"`
	Offset   string `json:"offset,omitempty"`
	Sequence string `json:"sequence,omitempty"`

	Breaker Breaker `json:"breaker"`
	Parked  bool    `json:"parked,omitempty"` // nothing but a command helps

	// What commands asked for beside the desired state.
	Restart     bool      `json:"restart,omitempty"`
	Upgrade     bool      `json:"upgrade,omitempty"`
	Rebootstrap bool      `json:"rebootstrap,omitempty"`
	Rebuild     bool      `json:"rebuild,omitempty"` // with it
	Delete      *deletion `json:"delete,omitempty"`

	Commands []Command `json:"commands,omitempty"`
	Requests []request `json:"requests,omitempty"`
}

// placement is where and as what a run is scheduled.
type placement struct {
	Host  string `json:"host,omitempty"`
	Queue string `json:"queue"`
}

// snapshots is what a query knows of its bootstraps.
type snapshots struct {
	Known   bool      `json:"known,omitempty"`   // it is known whether one is needed
	Needed  bool      `json:"needed,omitempty"`  // before the next run
	Rebuild bool      `json:"rebuild,omitempty"` // all rows are to be published anew, and not what differs
	Count   int       `json:"count,omitempty"`   // begun so far
	Sealed  []string  `json:"sealed,omitempty"`  // sources that are done, of those begun together
	At      time.Time `json:"at,omitzero"`       // when the last ones were done
}

// deletion is what a delete asked for.
type deletion struct {
	KeepResources bool `json:"keepResources,omitempty"`
	Force         bool `json:"force,omitempty"`
	Seconds       int  `json:"seconds,omitempty"` // bound of the teardown
	Failed        bool `json:"failed,omitempty"`
	Done          bool `json:"done,omitempty"`
}

// mostTeardown keeps a bound that somebody mistyped from becoming one that the server refuses, which would block the
// workflow.
const mostTeardown = 24 * time.Hour

// within is how long the teardown may take.
func (d *deletion) within() time.Duration {
	if d.Seconds <= 0 {
		return teardownBound
	}
	return time.Duration(min(d.Seconds, int(mostTeardown/time.Second))) * time.Second
}

// LastError is the last failure that reached the workflow.
type LastError struct {
	failure.Report
	At time.Time `json:"at"`
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

// request is what became of a command that came with an id, kept longer than the command itself.
type request struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
}

// err is why the command was rejected, nil if it was not.
func (r request) err() error {
	if r.Outcome == Rejected {
		return errors.New(r.Error)
	}
	return nil
}

const (
	keptCommands = 16
	keptRequests = 64
	maxName      = 64
	maxReason    = 250
)

// record keeps c among the last commands.
func (s *State) record(c Command) {
	c.Name, c.Reason, c.Error = shorten(c.Name, maxName), shorten(c.Reason, maxReason), shorten(c.Error, maxReason)
	s.Commands = append(s.Commands, c)
	s.Commands = slices.Clone(s.Commands[max(0, len(s.Commands)-keptCommands):])
	if c.RequestID == "" {
		return
	}
	s.Requests = append(s.Requests, request{c.RequestID, c.Outcome, c.Error})
	s.Requests = slices.Clone(s.Requests[max(0, len(s.Requests)-keptRequests):])
}

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// answered returns what became of an earlier command with the same request id.
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

// changed forgets what was achieved for the spec; what exists because of it may still exist.
func (s *State) changed() {
	s.Validated, s.Provisioned, s.Reached, s.Missing, s.Placement, s.Parked = false, false, false, nil, nil, false
}
