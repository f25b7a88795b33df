package workflows

import (
	"errors"
	"slices"
	"strings"
	"time"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/failure"
)

// stateVersion is the version of the states that this build writes.
const stateVersion = 1

// core is what every workflow that obeys commands remembers.
type core struct {
	Version     int       `json:"v"`
	Desired     Desired   `json:"desired"`
	Phase       Phase     `json:"phase"`
	Since       time.Time `json:"since,omitzero"`
	SpecVersion int       `json:"specVersion"`
	// Head is what is known of a component's spec that it has but a reference to.
	Head       *activities.SpecHead `json:"head,omitempty"`
	Unexpected []string             `json:"unexpected,omitempty"` // fields of the input that are unknown

	Breaker Breaker   `json:"breaker"`
	Parked  bool      `json:"parked,omitempty"` // nothing but a command helps
	Upgrade bool      `json:"upgrade,omitempty"`
	Delete  *deletion `json:"delete,omitempty"`

	Commands []Command `json:"commands,omitempty"`
	Requests []request `json:"requests,omitempty"`
}

// begin is the core of a workflow that was just started.
func begin(desired Desired, unexpected []string) core {
	return core{Desired: desired, SpecVersion: 1, Breaker: Breaker{State: breakerClosed}, Unexpected: unexpected}
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
	Code      string    `json:"code,omitempty"`   // with the error, where an activity found it: of what failed,
	Causes    []string  `json:"causes,omitempty"` // why,
	Fix       string    `json:"fix,omitempty"`    // and what to do
	Result    string    `json:"result,omitempty"` // what it did, where that is more than the outcome says
	Reason    string    `json:"reason,omitempty"`
	At        time.Time `json:"at"`
}

// request is what became of a command that came with an id, kept longer than the command itself.
type request struct {
	ID      string `json:"id"`
	Outcome string `json:"outcome"`
	Error   string `json:"error,omitempty"`
	// Desired and SpecVersion are what it left behind; empty in states of earlier builds.
	Desired     Desired `json:"desired,omitempty"`
	SpecVersion int     `json:"specVersion,omitempty"`
}

// err is why the command was rejected, nil if it was not.
func (r request) err() error {
	if r.Outcome == Rejected {
		return errors.New(r.Error)
	}
	return nil
}

// refused is why a command was not done, as an activity found.
type refused struct{ failure.Report }

func (r refused) Error() string { return r.Code + ": " + r.Message }

// refusal makes the failure of an activity the reason of a refusal.
func refusal(err error) error {
	if err == nil {
		return nil
	}
	return refused{trimmed(activities.ReportOf(err))}
}

const (
	keptCommands = 16
	keptRequests = 64
	maxName      = 64
	maxReason    = 250
	// maxProblems bounds a message that may name many problems; the server cuts off longer ones.
	maxProblems = 3 << 10
)

// record keeps a command among the last ones.
func (c *core) record(done Command) {
	done.Name, done.Reason, done.Error = shorten(done.Name, maxName), shorten(done.Reason, maxReason), shorten(done.Error, maxProblems)
	c.Commands = append(c.Commands, done)
	c.Commands = slices.Clone(c.Commands[max(0, len(c.Commands)-keptCommands):])
	if done.RequestID == "" {
		return
	}
	c.Requests = append(c.Requests, request{done.RequestID, done.Outcome, shorten(done.Error, maxReason), c.Desired, c.SpecVersion})
	c.Requests = slices.Clone(c.Requests[max(0, len(c.Requests)-keptRequests):])
}

func shorten(s string, most int) string {
	if len(s) <= most {
		return s
	}
	if most < 3 {
		return ""
	}
	return strings.ToValidUTF8(s[:most-3], "") + "..."
}

// answered returns what became of an earlier command with the same request id.
func (c *core) answered(requestID string) (request, bool) {
	if requestID == "" {
		return request{}, false
	}
	i := slices.IndexFunc(c.Requests, func(r request) bool { return r.ID == requestID })
	if i < 0 {
		return request{}, false
	}
	return c.Requests[i], true
}

// want does a command that changes nothing but what is wanted, and reports whether that changed anything.
func (c *core) want(name string, in CommandInput) bool {
	before := c.Desired
	switch name {
	case CommandPause:
		c.Desired = Paused
	case CommandStop:
		c.Desired = Stopped
	case CommandResume:
		c.Desired = Running
	case CommandUpgrade:
		c.Upgrade = true
		return true
	case CommandDelete:
		c.Delete = &deletion{
			KeepResources: in.DropResources != nil && !*in.DropResources, Force: in.Force, Seconds: in.TimeoutSeconds,
			Done: c.Delete != nil && c.Delete.Done,
			// A teardown that failed is tried again, unless it is no longer asked for.
			Failed: c.Delete != nil && c.Delete.Failed && in.Force,
		}
		return true
	}
	return c.Desired != before
}
