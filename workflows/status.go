package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/streaming/component"
)

// Status is the answer to the query status and to every update.
type Status struct {
	Component   string          `json:"component"`
	Kind        component.Kind  `json:"kind"`
	Desired     Desired         `json:"desired"`
	Phase       Phase           `json:"phase"`
	Since       time.Time       `json:"since"`
	SpecVersion int             `json:"specVersion"`
	Generation  uint64          `json:"generation"`
	Attempt     int32           `json:"attempt,omitempty"` // of the last run that ended
	Host        string          `json:"host,omitempty"`
	RequestedBy string          `json:"requestedBy,omitempty"`
	Breaker     Breaker         `json:"breaker"`
	Bootstrap   BootstrapsState `json:"bootstrap,omitzero"`
	// Position, Offset and Sequence are where the last run ended; where the present one is shows in its heartbeats.
	Position string       `json:"position,omitempty"`
	Offset   string       `json:"offset,omitempty"`
	Sequence string       `json:"sequence,omitempty"`
	Commands []Command    `json:"commands"`
	History  HistoryState `json:"history"`
	Build    string       `json:"build,omitempty"`
}

// BootstrapsState is what a query's status says of its snapshots.
type BootstrapsState struct {
	Needed      bool     `json:"needed,omitempty"`
	WorkflowIDs []string `json:"workflowIds,omitempty"` // those in flight, which have a status of their own
	Sealed      []string `json:"sealed,omitempty"`      // sources that are done, while others are not
}

// HistoryState is how long the workflow's history is.
type HistoryState struct {
	Events int `json:"events"`
	Bytes  int `json:"bytes"`
}

func (e *entity) status() Status {
	s := &e.state
	info := workflow.GetInfo(e.root)
	status := Status{
		Component: e.id, Kind: e.kind.component, Desired: s.Desired, Phase: s.Phase, Since: s.Since,
		SpecVersion: s.SpecVersion, Generation: s.Generation, Attempt: s.Attempt, Host: s.Host, RequestedBy: e.requestedBy,
		Breaker:   s.Breaker,
		Bootstrap: BootstrapsState{Needed: s.Snapshots.Needed, Sealed: s.Snapshots.Sealed},
		Position:  s.Position, Offset: s.Offset, Sequence: s.Sequence,
		Commands: append([]Command{}, s.Commands...),
		History:  HistoryState{Events: info.GetCurrentHistoryLength(), Bytes: info.GetCurrentHistorySize()},
		Build:    info.GetCurrentBuildID(),
	}
	if e.task == taskBootstrap {
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
	attrHealth      = temporal.NewSearchAttributeKeyKeyword("PerdureHealth")
	attrHost        = temporal.NewSearchAttributeKeyKeyword("PerdureHost")
	attrSpecVersion = temporal.NewSearchAttributeKeyInt64("PerdureSpecVersion")
)

// SearchAttributes returns the search attributes that components show themselves with, for whoever registers them.
func SearchAttributes() []temporal.SearchAttributeKey {
	return []temporal.SearchAttributeKey{
		attrInstance, attrKind, attrComponent, attrPhase, attrDesired, attrHealth, attrHost, attrSpecVersion,
	}
}

// enter changes the phase, and only then the search attributes, since each upsert costs an event.
func (e *entity) enter(p Phase) {
	s := &e.state
	if s.Phase == p {
		return
	}
	first := s.Phase == ""
	s.Phase, s.Since = p, workflow.Now(e.ctx)
	e.report()
	if !e.attributes || first {
		return // what follows at once is upserted instead
	}
	instance := ""
	if id, err := component.ParseID(e.id); err == nil {
		instance = id.Instance
	}
	err := workflow.UpsertTypedSearchAttributes(e.ctx,
		attrInstance.ValueSet(instance), attrKind.ValueSet(string(e.kind.component)), attrComponent.ValueSet(e.id),
		attrPhase.ValueSet(string(p)), attrDesired.ValueSet(string(s.Desired)), attrHealth.ValueSet(health(p)),
		attrHost.ValueSet(s.Host), attrSpecVersion.ValueSet(int64(s.SpecVersion)))
	if err != nil {
		workflow.GetLogger(e.ctx).Error("search attributes are not shown", "error", err)
	}
}

// report logs that the component does not work, with what status and UI show too.
func (e *entity) report() {
	last := e.state.Breaker.LastError
	if health(e.state.Phase) != "failing" || last == nil {
		return
	}
	workflow.GetLogger(e.ctx).Error("the component does not work", "component", e.id, "phase", e.state.Phase,
		"code", last.Code, "error", last.Message, "fix", last.Fix)
}

// health sums a phase up.
func health(p Phase) string {
	switch p {
	case PhaseRunning:
		return "healthy"
	case PhaseBreakerOpen, PhaseNeedsOperator, PhaseDeleteBlocked:
		return "failing"
	case PhasePaused, PhaseStopped, PhaseDeleted:
		return "idle"
	}
	return "pending"
}

// describe tells the component's story to people who look at the workflow in the Temporal UI. It costs no history.
func (e *entity) describe() {
	s := &e.state
	var b strings.Builder
	fmt.Fprintf(&b, "**%s** since %s. Desired: %s. Spec %d, generation %d.\n", s.Phase, s.Since.UTC().Format(time.RFC3339), s.Desired, s.SpecVersion, s.Generation)
	if s.Position != "" {
		fmt.Fprintf(&b, "\nThe last run ended at position `%s`", s.Position)
		if s.Sequence != "" {
			fmt.Fprintf(&b, ", sequence %s", s.Sequence)
		}
		b.WriteString(".\n")
	}
	if len(s.Missing) > 0 {
		fmt.Fprintf(&b, "\nWaiting for the sources `%s`.\n", strings.Join(s.Missing, "`, `"))
	}
	if until := s.Breaker.OpenUntil; until != nil {
		fmt.Fprintf(&b, "\nFailed %d times in a row; the next try is at %s.\n", s.Breaker.Failures, until.UTC().Format(time.RFC3339))
	}
	if last := s.Breaker.LastError; last != nil {
		fmt.Fprintf(&b, "\nLast error: **%s** (%s) at %s: %s\n", last.Code, last.Class, last.At.UTC().Format(time.RFC3339), verbatim(last.Message))
		for _, cause := range last.Causes {
			if !strings.Contains(last.Message, cause) { // most messages end with their causes
				fmt.Fprintf(&b, "\nBecause: %s\n", verbatim(cause))
			}
		}
		if last.Fix != "" {
			fmt.Fprintf(&b, "\n**What to do:** %s\n", verbatim(last.Fix))
		}
	}
	if n := len(s.Commands); n > 0 {
		c := s.Commands[n-1]
		fmt.Fprintf(&b, "\nLast command: %s, %s", c.Name, c.Outcome)
		if c.Error != "" {
			fmt.Fprintf(&b, " (%s)", verbatim(c.Error))
		}
		b.WriteString(".\n")
	}
	workflow.SetCurrentDetails(e.ctx, b.String())
}

// verbatim makes text into Markdown code, so that it shows as it is: the UI would make typographic quotes of those in a SQL
// statement, and the mark below a query's mistake would not stay in its column. Only code within a line is wrapped.
func verbatim(text string) string {
	fence := "`"
	if strings.Contains(text, "\n") {
		fence = "```"
	}
	for strings.Contains(text, fence) {
		fence += "`"
	}
	if strings.Contains(text, "\n") {
		return "\n\n" + fence + "text\n" + text + "\n" + fence
	}
	return fence + " " + text + " " + fence
}
