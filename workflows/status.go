package workflows

import (
	"fmt"
	"strings"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
)

// Status is the answer to the query status and to every update.
type Status struct {
	Component   string          `json:"component"`
	Kind        component.Kind  `json:"kind"`
	Desired     Desired         `json:"desired"`
	Phase       Phase           `json:"phase"`
	Health      string          `json:"health"` // healthy, degraded, pending, idle or failing: the phase in short
	Since       time.Time       `json:"since"`
	Deleting    bool            `json:"deleting,omitempty"`
	SpecVersion int             `json:"specVersion"`
	SpecRef     string          `json:"specRef,omitempty"` // of a spec that is stored
	Generation  uint64          `json:"generation"`
	Attempt     int32           `json:"attempt,omitempty"` // of the run that there is, or else of the last one
	Host        string          `json:"host,omitempty"`    // of the run that there is, or else of the last one
	RequestedBy string          `json:"requestedBy,omitempty"`
	Breaker     Breaker         `json:"breaker"`
	Bootstrap   BootstrapsState `json:"bootstrap,omitzero"`
	// Position, Offset and Sequence are where the last run ended; where the present one is shows in its heartbeats.
	Position string `json:"position,omitempty"`
	Offset   string `json:"offset,omitempty"`
	Sequence string `json:"sequence,omitempty"`
	// Interruption is why a running source gets nothing from its system, nil as long as it does.
	Interruption *activities.Interruption `json:"interruption,omitempty"`
	// Delivery is how a running reaction gets on, nil until that is known. DeadLetters was true when it was last told, or a
	// command changed it.
	Delivery    *activities.Condition   `json:"delivery,omitempty"`
	DeadLetters *activities.DeadLetters `json:"deadLetters,omitempty"`
	Commands    []Command               `json:"commands"`
	History     HistoryState            `json:"history"`
	Build       string                  `json:"build,omitempty"`
}

// BootstrapsState is what a query's status says of its snapshots.
type BootstrapsState struct {
	Needed      bool     `json:"needed,omitempty"`
	WorkflowIDs []string `json:"workflowIds,omitempty"` // those in flight, which have a status of their own
	Sealed      []string `json:"sealed,omitempty"`      // sources that are done, while others are not
	// Beside says that the query goes on meanwhile, Held that its result stays as it is.
	Beside bool `json:"beside,omitempty"`
	Held   bool `json:"held,omitempty"`
	// Trouble is what those in flight cannot copy.
	Trouble []trouble `json:"trouble,omitempty"`
}

// HistoryState is how long the workflow's history is.
type HistoryState struct {
	Events int `json:"events"`
	Bytes  int `json:"bytes"`
}

// answer implements owner.
func (e *entity) answer() any { return e.status() }

func (e *entity) status() Status {
	s := &e.state
	status := Status{
		Component: e.id, Kind: e.kind.component, Desired: s.Desired, Phase: s.Phase, Since: s.Since,
		Health: e.health(), Deleting: s.Delete != nil,
		SpecVersion: s.SpecVersion, SpecRef: e.specRef, Generation: s.Generation, Attempt: s.Attempt, Host: s.Host, RequestedBy: e.requestedBy,
		Breaker:   s.Breaker,
		Bootstrap: BootstrapsState{Needed: s.Snapshots.Needed, Sealed: s.Snapshots.Sealed, Trouble: s.Snapshots.Trouble},
		Position:  s.Position, Offset: s.Offset, Sequence: s.Sequence,
		DeadLetters: s.DeadLetters,
		Commands:    append([]Command{}, s.Commands...),
		History:     e.history(),
		Build:       workflow.GetInfo(e.root).GetCurrentBuildID(),
	}
	switch c := s.Condition; {
	case c == nil:
	case e.kind.component == component.Source:
		status.Interruption = c.Interruption
	case e.kind.component == component.Reaction:
		status.Delivery = c
	}
	if e.beside != nil {
		status.Bootstrap.Beside, status.Bootstrap.Held = true, s.Snapshots.Held
	}
	if e.task == taskBootstrap || e.beside != nil {
		status.Bootstrap.WorkflowIDs = e.childIDs
	}
	return status
}

// The search attributes of components.
var (
	attrInstance    = temporal.NewSearchAttributeKeyKeyword("PerdureInstance")
	attrKind        = temporal.NewSearchAttributeKeyKeyword("PerdureKind")
	attrComponent   = temporal.NewSearchAttributeKeyKeyword("PerdureComponent")
	attrPhase       = temporal.NewSearchAttributeKeyKeyword("PerdurePhase")
	attrDesired     = temporal.NewSearchAttributeKeyKeyword("PerdureDesired")
	attrHealth      = temporal.NewSearchAttributeKeyKeyword(HealthAttribute)
	attrHost        = temporal.NewSearchAttributeKeyKeyword("PerdureHost")
	attrSpecVersion = temporal.NewSearchAttributeKeyInt64("PerdureSpecVersion")
)

// HealthAttribute is the search attribute that sums up how a component does.
const HealthAttribute = "PerdureHealth"

// ShownAs returns the phase and the health that a component's search attributes show, empty where they are missing.
func ShownAs(attributes *commonpb.SearchAttributes) (phase, health string) {
	text := func(name string) (s string) {
		if converter.GetDefaultDataConverter().FromPayload(attributes.GetIndexedFields()[name], &s) != nil {
			return ""
		}
		return s
	}
	return text(attrPhase.GetName()), text(HealthAttribute)
}

// SearchAttributes returns the search attributes that components show themselves with, for whoever registers them.
func SearchAttributes() []temporal.SearchAttributeKey {
	return []temporal.SearchAttributeKey{
		attrInstance, attrKind, attrComponent, attrPhase, attrDesired, attrHealth, attrHost, attrSpecVersion,
	}
}

// health sums up how the component does. What shows it degraded comes with a signal, and goes with the run.
func (e *entity) health() string {
	h := healthOf(e.state.Phase)
	if s := &e.state.Snapshots; h == activities.HealthHealthy && (s.Held || s.Failing) || s.degrades(e.state.Phase, h) {
		return activities.HealthDegraded
	}
	if c := e.state.Condition; h == activities.HealthHealthy && c != nil && (c.Target != "closed" || len(c.Queries) > 0 || c.Interruption != nil) {
		return activities.HealthDegraded
	}
	return h
}

// healthOf sums a phase up.
func healthOf(p Phase) string {
	switch p {
	case PhaseRunning:
		return activities.HealthHealthy
	case PhaseBreakerOpen, PhaseNeedsOperator, PhaseDeleteBlocked, PhaseDegraded:
		return activities.HealthFailing
	case PhasePaused, PhaseStopped, PhaseDeleted:
		return activities.HealthIdle
	}
	return activities.HealthPending
}

// describe tells the component's story to people who look at the workflow in the Temporal UI. It costs no history.
func (e *entity) describe() {
	s := &e.state
	var b strings.Builder
	fmt.Fprintf(&b, "**%s** since %s. Desired: %s. Spec %s, generation %d.\n", s.Phase, s.Since.UTC().Format(time.RFC3339), s.Desired, e.specShown(), s.Generation)
	if s.Position != "" {
		fmt.Fprintf(&b, "\nThe last run ended at position `%s`", s.Position)
		if s.Sequence != "" {
			fmt.Fprintf(&b, ", sequence %s", s.Sequence)
		}
		b.WriteString(".\n")
	}
	if e.beside != nil {
		fmt.Fprintf(&b, "\nIts sources are read again by `%s`; meanwhile it goes on as it is.\n", strings.Join(e.childIDs, "`, `"))
	}
	if len(s.Missing) > 0 && !s.Ahead {
		fmt.Fprintf(&b, "\nWaiting for the sources `%s`.\n", strings.Join(s.Missing, "`, `"))
	}
	if c := s.Condition; c != nil && c.Interruption != nil {
		describeError(&b, fmt.Sprintf("Gets nothing from its system since %s", c.Interruption.Since.UTC().Format(time.RFC3339)), c.Interruption.LastError)
	}
	e.describeTrouble(&b)
	workflow.SetCurrentDetails(e.ctx, b.String())
}
