package workflows

import (
	"encoding/json"
	"slices"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// part is what an instance declares of one component.
type part struct {
	id   component.ID
	spec json.RawMessage // nil: it is in the spec that the instance has a reference to
}

// kindsInOrder is the order in which the components of an instance are started. It is a comfort: each waits for what it
// needs.
var kindsInOrder = []component.Kind{component.Source, component.Query, component.Reaction}

// declareInstance reads the spec of an instance, as leniently as can be: finding mistakes is an activity's task. What one
// declares that there is but a reference to, an activity says.
func declareInstance(in CommandInput, workflowID string) ([]part, error) {
	name, err := component.ParseInstanceID(workflowID)
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("the workflow's id: %w", err).
			WithFix("Delete this workflow with the signal delete and start it again with a workflow id such as instance.default.")
	}
	if in.SpecRef != "" {
		return nil, nil
	}
	if len(in.Spec) == 0 {
		return nil, failure.ConfigInvalid.Errorf("spec: is missing; give spec, or specRef for one that is stored")
	}
	var whole component.InstanceSpec
	if err := json.Unmarshal(in.Spec, &whole); err != nil {
		return nil, failure.ConfigInvalid.Errorf("decoding the spec: %w", err)
	}
	var parts []part
	for n, specs := range [][]json.RawMessage{whole.Sources, whole.Queries, whole.Reactions} {
		for _, s := range specs {
			d, err := declare(kindsInOrder[n], s)
			if err != nil {
				continue // the validation says so, and nothing starts
			}
			d.id.Instance = name
			parts = append(parts, part{id: d.id, spec: s})
		}
	}
	return parts, nil
}

// partsOf are the components with these ids.
func partsOf(ids []string) []part {
	parts := make([]part, 0, len(ids))
	for _, id := range ids {
		if parsed, err := component.ParseID(id); err == nil {
			parts = append(parts, part{id: parsed})
		}
	}
	return parts
}

// declaredParts are the components of the spec that was accepted last.
func (s *InstanceState) declaredParts() []part {
	var ids []string
	for _, m := range s.Members {
		if !m.Removed {
			ids = append(ids, m.ID)
		}
	}
	return partsOf(ids)
}

// InstanceInput starts the workflow of an instance. Spec is a component.InstanceSpec; SpecRef is a reference to one that is too
// large for an input.
type InstanceInput = inputWith[InstanceState]

// InstanceState is what a workflow remembers of its instance. As State it is only ever added to.
type InstanceState struct {
	core
	Validated bool `json:"validated,omitempty"`
	// Problems are what was wrong with the spec that was last checked.
	Problems []activities.Problem `json:"problems,omitempty"`
	// Version of what is wanted of all components: commands and other specs make it grow.
	Wanted  int      `json:"wanted"`
	Members []member `json:"members,omitempty"`
	// Referred says that specs may be stored that are the instance's alone.
	Referred bool `json:"referred,omitempty"`
}

// member is a component that the instance started, or is about to.
type member struct {
	ID      string `json:"id"`
	Removed bool   `json:"removed,omitempty"` // no longer declared: it is to be deleted
	Tried   int    `json:"tried,omitempty"`   // the last version of what is wanted that was tried
	// Commands to be passed on, by the version of what is wanted that they made.
	Resume  int `json:"resume,omitempty"`
	Restart int `json:"restart,omitempty"`

	Failure *failure.Report           `json:"failure,omitempty"` // of the last try
	Seen    activities.ComponentState `json:"seen,omitzero"`
}

// declareMembers makes the components of a spec the members; those that it does not declare are to be removed.
func (s *InstanceState) declareMembers(parts []part) {
	members := make([]member, 0, len(parts))
	for _, p := range parts {
		m := member{ID: p.id.String()}
		if i := slices.IndexFunc(s.Members, func(known member) bool { return known.ID == m.ID }); i >= 0 {
			m = s.Members[i]
			m.Removed = false
		}
		members = append(members, m)
	}
	for _, m := range s.Members {
		if !slices.ContainsFunc(members, func(declared member) bool { return declared.ID == m.ID }) {
			m.Removed = true
			members = append(members, m)
		}
	}
	s.Members = members
}
