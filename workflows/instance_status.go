package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
)

// InstanceStatus is the answer to the query status of an instance, and to every update.
type InstanceStatus struct {
	Component   string    `json:"component"` // the workflow's id
	Kind        string    `json:"kind"`
	Desired     Desired   `json:"desired"`
	Phase       Phase     `json:"phase"`
	Health      string    `json:"health"`
	Since       time.Time `json:"since"`
	Deleting    bool      `json:"deleting,omitempty"`
	SpecVersion int       `json:"specVersion"`
	SpecRef     string    `json:"specRef,omitempty"` // of a spec that is stored
	RequestedBy string    `json:"requestedBy,omitempty"`
	// Components are those of the spec, and those that are yet to be deleted.
	Components []ComponentStatus `json:"components"`
	Failing    []string          `json:"failing"` // those of them that have an error
	// Problems are what was wrong with the spec that was last sent; it was not taken.
	Problems []activities.Problem `json:"problems,omitempty"`
	Breaker  Breaker              `json:"breaker"`
	Commands []Command            `json:"commands"`
	History  HistoryState         `json:"history"`
	Build    string               `json:"build,omitempty"`
}

// ComponentStatus is what an instance knows of one of its components. The component's own status says more, and sooner.
type ComponentStatus struct {
	ID          string                     `json:"id"`
	Desired     string                     `json:"desired"`
	Phase       string                     `json:"phase"`
	SpecVersion int                        `json:"specVersion"`
	Removed     bool                       `json:"removed,omitempty"` // it is no longer declared
	Error       *activities.ComponentError `json:"error,omitempty"`
}

// answer implements owner.
func (i *instance) answer() any { return i.status() }

func (i *instance) status() InstanceStatus {
	s := &i.state
	status := InstanceStatus{
		Component: i.id, Kind: KindInstance, Desired: s.Desired, Phase: s.Phase, Health: healthOf(s.Phase), Since: s.Since,
		Deleting: s.Delete != nil, SpecVersion: s.SpecVersion, SpecRef: i.specRef, RequestedBy: i.requestedBy,
		Components: []ComponentStatus{}, Failing: []string{}, Problems: s.Problems, Breaker: s.Breaker,
		Commands: append([]Command{}, s.Commands...), History: i.history(), Build: workflow.GetInfo(i.root).GetCurrentBuildID(),
	}
	for _, m := range s.Members {
		c := m.status()
		status.Components = append(status.Components, c)
		if c.Error != nil {
			status.Failing = append(status.Failing, c.ID)
		}
	}
	return status
}

func (m member) status() ComponentStatus {
	c := ComponentStatus{
		ID: m.ID, Desired: m.Seen.Desired, Phase: m.Seen.Phase, SpecVersion: m.Seen.SpecVersion, Removed: m.Removed,
	}
	switch {
	case m.Failure != nil:
		c.Error = &activities.ComponentError{Code: m.Failure.Code, Message: m.Failure.Message, Fix: m.Failure.Fix}
	case m.Seen.Error.Code != "":
		seen := m.Seen.Error
		c.Error = &seen
	}
	return c
}

// phase sums up the phases of the components, once they have all been told what is wanted.
func (i *instance) phase() Phase {
	target := map[Desired]Phase{Running: PhaseRunning, Paused: PhasePaused, Stopped: PhaseStopped}[i.state.Desired]
	phase := target
	for _, m := range i.state.Members {
		switch {
		case m.Failure != nil, m.Seen.Health == activities.HealthFailing:
			return PhaseDegraded
		case m.Seen.Phase == string(target):
		case m.Seen.Health == activities.HealthPending, m.Seen.Health == "":
			phase = i.onTheWay()
		case phase == target: // somebody wants it otherwise
			phase = PhaseDegraded
		}
	}
	return phase
}

// onTheWay is the phase of an instance whose components are to become what is desired.
func (i *instance) onTheWay() Phase {
	if i.state.Desired == Running {
		return PhaseStarting
	}
	return PhaseDraining
}

// describe tells the instance's story to people who look at the workflow in the Temporal UI. It costs no history.
func (i *instance) describe() {
	s := &i.state
	var b strings.Builder
	fmt.Fprintf(&b, "**%s** since %s. Desired: %s. Spec %s.\n", s.Phase, s.Since.UTC().Format(time.RFC3339), s.Desired, i.specShown())
	for n, m := range s.Members {
		c := m.status()
		if n == 0 {
			b.WriteString("\n| component | phase | desired | spec |\n|---|---|---|---|\n")
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %d |\n", c.ID, c.Phase, c.Desired, c.SpecVersion)
	}
	for _, m := range s.Members {
		if c := m.status(); c.Error != nil {
			fmt.Fprintf(&b, "\n%s: **%s** %s\n", c.ID, c.Error.Code, verbatim(c.Error.Message))
		}
	}
	i.describeTrouble(&b)
	workflow.SetCurrentDetails(i.ctx, b.String())
}
