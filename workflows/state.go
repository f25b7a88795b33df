package workflows

import (
	"time"

	"github.com/perdure/perdure/activities"
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

	// PhaseDegraded is an instance's: some of its components are not as they should be, and its status names them.
	PhaseDegraded Phase = "Degraded"
)

// State is what a workflow remembers of its component. It is plain data that ContinueAsNew carries over, so fields are
// only ever added.
type State struct {
	core
	Generation uint64 `json:"generation"`

	// What has been achieved for this spec.
	Validated   bool       `json:"validated,omitempty"`
	Provisioned bool       `json:"provisioned,omitempty"`
	Touched     bool       `json:"touched,omitempty"` // something may exist that a delete has to remove
	Reached     bool       `json:"reached,omitempty"` // the system behind the source has answered
	Missing     []string   `json:"missing,omitempty"` // sources without a change stream
	Ahead       bool       `json:"ahead,omitempty"`   // the next run does not wait for those: it goes on with the state that it has
	Snapshots   snapshots  `json:"snapshots,omitzero"`
	Placement   *placement `json:"placement,omitempty"` // of the next run
	Avoid       string     `json:"avoid,omitempty"`     // a host that did not take the last run in time

	// What the last run said.
	Host     string `json:"host,omitempty"`
	Attempt  int32  `json:"attempt,omitempty"`
	Position string `json:"position,omitempty"`
	Offset   string `json:"offset,omitempty"`
	Sequence string `json:"sequence,omitempty"`

	// What commands asked for beside the desired state.
	Restart     bool `json:"restart,omitempty"`
	Rebootstrap bool `json:"rebootstrap,omitempty"`
	Rebuild     bool `json:"rebuild,omitempty"` // with it

	// What a reaction's loop last told of itself, and how many dead letters there are.
	Condition   *activities.Condition   `json:"condition,omitempty"`
	DeadLetters *activities.DeadLetters `json:"deadLetters,omitempty"`
}

// placement is where and as what a run is scheduled.
type placement struct {
	Host  string `json:"host,omitempty"`
	Queue string `json:"queue"`
	// HeartbeatSeconds is that of activities.Placement.
	HeartbeatSeconds int `json:"heartbeatSeconds,omitempty"`
}

// snapshots is what a query knows of its bootstraps.
type snapshots struct {
	Known   bool `json:"known,omitempty"`   // it is known whether one is needed
	Needed  bool `json:"needed,omitempty"`  // before the next run
	Rebuild bool `json:"rebuild,omitempty"` // all rows are to be published anew, and not what differs
	// Missing is what alone is to be read; nil: all of all sources.
	Missing *activities.Missing `json:"missing,omitempty"`
	Count   int                 `json:"count,omitempty"`   // begun so far
	Sealed  []string            `json:"sealed,omitempty"`  // sources that are done, of those begun together
	Reload  bool                `json:"reload,omitempty"`  // the next run is to ask for one, while the query goes on
	Held    bool                `json:"held,omitempty"`    // the run keeps its result as it is until they are done
	Failing bool                `json:"failing,omitempty"` // those beside the run failed, and are tried again
	At      time.Time           `json:"at,omitzero"`       // when the last ones were done
	Host    string              `json:"host,omitempty"`    // for which host
	Trouble []trouble           `json:"trouble,omitempty"` // of those in flight
}

// changed forgets what was achieved for the spec; what exists because of it may still exist.
func (s *State) changed() {
	s.Validated, s.Provisioned, s.Reached, s.Missing, s.Ahead, s.Placement, s.Parked = false, false, false, nil, false, nil, false
}
