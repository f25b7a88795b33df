package workflows

// task is the one thing that a component has in flight.
type task string

// The tasks. Each is an activity, except the bootstraps of a query, which are children.
const (
	noTask           task = ""
	taskRead         task = "read" // a spec that there is but a reference to
	taskValidate     task = "validate"
	taskProvision    task = "provision"
	taskAwaitSources task = "awaitSources"
	taskBootstrap    task = "bootstrap"
	taskPlace        task = "place"
	taskRun          task = "run"
	taskTeardown     task = "teardown"
	taskReconcile    task = "reconcile" // of an instance
)

// ending is how far ending the task has come. Each step is bounded, and the next one is stronger.
type ending string

// The steps. Only a run is asked to drain; everything else is cancelled at once.
const (
	notEnding  ending = ""
	draining   ending = "draining"
	cancelling ending = "cancelling"
	fencing    ending = "fencing"
	fenced     ending = "fenced"
)

// situation is everything that decide looks at.
type situation struct {
	Desired   Desired `json:"desired"`
	Declared  bool    `json:"declared"`         // the spec can be read and belongs to the workflow
	Unread    bool    `json:"unread,omitempty"` // it may be, and is to be read yet
	Cancelled bool    `json:"cancelled,omitempty"`
	Deleting  bool    `json:"deleting,omitempty"`
	Force     bool    `json:"force,omitempty"`
	TornDown  bool    `json:"tornDown,omitempty"` // or there is nothing to tear down
	Blocked   bool    `json:"blocked,omitempty"`  // the teardown failed
	Restart   bool    `json:"restart,omitempty"`
	Upgrade   bool    `json:"upgrade,omitempty"`
	Parked    bool    `json:"parked,omitempty"`
	Open      bool    `json:"open,omitempty"` // the breaker, and its time has not come

	Task         task   `json:"task,omitempty"`
	Ending       ending `json:"ending,omitempty"`
	Overdue      bool   `json:"overdue,omitempty"`      // the bound of that step is over
	ChildrenHeld bool   `json:"childrenHeld,omitempty"` // the bootstraps are paused

	Validated      bool `json:"validated,omitempty"`
	Provisioned    bool `json:"provisioned,omitempty"`
	SourcesReady   bool `json:"sourcesReady,omitempty"`
	NeedsBootstrap bool `json:"needsBootstrap,omitempty"`
	Placed         bool `json:"placed,omitempty"`

	// Of an instance.
	Reconciled bool `json:"reconciled,omitempty"` // all components were told what is wanted of them
	Outdated   bool `json:"outdated,omitempty"`   // the task works for something that is no longer wanted

	Suggested bool `json:"suggested,omitempty"` // the server asks for a new history
	Long      bool `json:"long,omitempty"`      // the history is long enough for a new one where that costs nothing
	Busy      bool `json:"busy,omitempty"`      // a command is being handled
}

// action is what to do next.
type action string

// The actions that wait for something to happen.
const (
	actWait    action = "wait"
	actRest    action = "rest" // paused or stopped
	actPark    action = "park"
	actBreaker action = "awaitBreaker"
	actBlock   action = "block"
)

// The actions that begin, end or change something.
const (
	actRead         action = "read"
	actValidate     action = "validate"
	actProvision    action = "provision"
	actAwaitSources action = "awaitSources"
	actBootstrap    action = "bootstrap"
	actPlace        action = "place"
	actRun          action = "run"
	actTeardown     action = "teardown"
	actHold         action = "hold"
	actRelease      action = "release"
	actDrain        action = "drain"
	actCancel       action = "cancel"
	actFence        action = "fence"
	actAbandon      action = "abandon"
	actReconcile    action = "reconcile"
	actWatch        action = "watch"
)

// The actions that end the run of the workflow.
const (
	actContinue action = "continueAsNew"
	actLeave    action = "leave" // it was cancelled: everything is kept
	actClose    action = "close"
)

// decide says what to do. What somebody wants comes before whatever is in progress: delete, then cancel, then pause and
// stop, then everything else.
func decide(s situation) action {
	if s.Task != noTask {
		return decideInFlight(s)
	}
	if act, decided := decideFirst(s); decided {
		return act
	}
	switch {
	case s.Desired != Running:
		return actRest
	case s.Parked || !s.Declared && !s.Unread:
		return actPark
	case s.Open:
		return actBreaker
	case s.Unread:
		return actRead
	case !s.Validated:
		return actValidate
	case !s.Provisioned:
		return actProvision
	case !s.SourcesReady:
		return actAwaitSources
	case s.NeedsBootstrap:
		return actBootstrap
	case !s.Placed:
		return actPlace
	}
	return actRun
}

// decideFirst is what comes before anything else when nothing is in flight, for whatever takes commands.
func decideFirst(s situation) (act action, decided bool) {
	switch {
	case s.Deleting && (s.TornDown || s.Blocked && s.Force):
		return actClose, true
	case s.Deleting && s.Blocked && !s.Cancelled:
		return actBlock, true
	case s.Deleting && !s.Blocked:
		return actTeardown, true
	case s.Busy && (s.Cancelled || s.Upgrade || s.Suggested || s.Long):
		return actWait, true
	case s.Cancelled:
		return actLeave, true
	case s.Upgrade || s.Suggested || s.Long:
		return actContinue, true
	}
	return "", false
}

func decideInFlight(s situation) action {
	switch s.Ending {
	case notEnding:
		switch {
		case unwanted(s) && s.Task == taskRun:
			return actDrain
		case unwanted(s):
			return actCancel
		case s.Task == taskBootstrap && s.Desired == Paused && !s.ChildrenHeld:
			return actHold
		case s.Task == taskBootstrap && s.Desired == Running && s.ChildrenHeld:
			return actRelease
		}
	// What has begun to end is brought to its end, also when it is wanted again: it begins anew afterwards.
	case draining:
		if s.Overdue {
			return actCancel
		}
	case cancelling:
		if s.Overdue && s.Task == taskRun {
			return actFence
		}
	case fenced:
		return actAbandon
	}
	return actWait
}

// unwanted reports whether the task in flight is in the way of what somebody wants.
func unwanted(s situation) bool {
	switch {
	case s.Task == taskTeardown:
		return s.Force
	case s.Deleting, s.Cancelled, s.Restart, s.Upgrade, s.Desired == Stopped:
		return true
	case s.Desired == Paused:
		return s.Task != taskBootstrap // which pauses by itself and keeps what it has
	}
	// Those may last for ever, while each command makes the history longer.
	return s.Suggested && (s.Task == taskRun || s.Task == taskAwaitSources)
}

// decideInstance is decide for an instance. It differs from a component in that pausing and stopping are work too, and
// that there is nothing to run: what is left to do is to watch.
func decideInstance(s situation) action {
	if s.Task != noTask {
		if s.Ending == notEnding && inTheWay(s) {
			return actCancel
		}
		return actWait
	}
	if act, decided := decideFirst(s); decided {
		return act
	}
	switch {
	case s.Parked || !s.Declared:
		return actPark
	case s.Open:
		return actBreaker
	case !s.Validated:
		return actValidate
	case !s.Reconciled:
		return actReconcile
	}
	return actWatch
}

// inTheWay is unwanted for an instance. A teardown is only given up for another one.
func inTheWay(s situation) bool {
	if s.Task == taskTeardown {
		return s.Outdated
	}
	return s.Outdated || s.Deleting || s.Cancelled || s.Upgrade
}
