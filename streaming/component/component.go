// Package component is what users declare: sources, queries and reactions as plain data, their identity and status,
// and how a plugin's settings are decoded.
//
// The structs here are the input of workflows, the body of the API and the content of YAML files, with the same field
// names everywhere. They hold references to secrets, never secrets.
package component

import (
	"encoding/json"
	"fmt"
	"reflect"
	"regexp"
	"strings"
)

// Kind is what a component is.
type Kind string

// The kinds of components.
const (
	Source   Kind = "source"
	Query    Kind = "query"
	Reaction Kind = "reaction"
)

// DefaultInstance is the instance of components that name none.
const DefaultInstance = "default"

// ID names a component: "source.default.orders". It is its workflow id too.
type ID struct {
	Kind     Kind
	Instance string
	Name     string
}

// String returns the dotted form.
func (id ID) String() string { return string(id.Kind) + "." + id.Instance + "." + id.Name }

var namePattern = regexp.MustCompile(`^[a-z][a-z0-9-]{0,62}$`)

// ValidName reports whether a component or instance may be called so.
func ValidName(name string) bool { return namePattern.MatchString(name) }

// ParseID parses the dotted form.
func ParseID(s string) (ID, error) {
	part := strings.Split(s, ".")
	if len(part) == 3 {
		id := ID{Kind(part[0]), part[1], part[2]}
		switch id.Kind {
		case Source, Query, Reaction:
			if ValidName(id.Instance) && ValidName(id.Name) {
				return id, nil
			}
		}
	}
	return ID{}, fmt.Errorf("component id %q is not of the form source|query|reaction.<instance>.<name> with names of lower-case letters, digits and dashes", s)
}

// SourceSpec declares a source.
type SourceSpec struct {
	Name     string          `json:"name" doc:"Name of the source, unique in its instance." required:"true"`
	Instance string          `json:"instance,omitempty" doc:"Isolated set of components it belongs to." default:"default"`
	Kind     string          `json:"kind" doc:"Type of the source, such as postgres." required:"true"`
	Config   json.RawMessage `json:"config,omitempty" doc:"Settings of that type."`
	Policy   Policy          `json:"policy,omitzero" doc:"Time limits and retention."`
}

// QuerySpec declares a continuous query.
type QuerySpec struct {
	Name       string                     `json:"name" doc:"Name of the query, unique in its instance." required:"true"`
	Instance   string                     `json:"instance,omitempty" doc:"Isolated set of components it belongs to." default:"default"`
	Kind       string                     `json:"kind,omitempty" doc:"Query language." default:"cypher" enum:"cypher"`
	Query      string                     `json:"query" doc:"Text of the query." required:"true"`
	Parameters map[string]json.RawMessage `json:"parameters,omitempty" doc:"Values of $parameters."`
	Sources    []string                   `json:"sources" doc:"Names of the sources it reads, in the same instance." required:"true"`
	Bootstrap  string                     `json:"bootstrap,omitempty" doc:"auto reads a snapshot of each source first; none starts with the changes from now on." default:"auto" enum:"auto,none"`
	OnError    string                     `json:"onError,omitempty" doc:"What becomes of a row for which an expression fails: skip leaves it out, null makes the value null, stop stops the query." default:"skip" enum:"skip,null,stop"`
	Limits     Limits                     `json:"limits,omitzero" doc:"What one change may cost before the query stops."`
	Policy     Policy                     `json:"policy,omitzero" doc:"Time limits and retention."`
}

// Limits bound what one change may cost a query. Zero means the default.
type Limits struct {
	PathSteps int `json:"pathSteps,omitempty" doc:"Most relationships that variable-length patterns follow." default:"1000000" minimum:"0"`
	Rows      int `json:"rows,omitempty" doc:"Most rows that patterns and lists make." default:"10000000" minimum:"0"`
}

// ReactionSpec declares a reaction.
type ReactionSpec struct {
	Name     string          `json:"name" doc:"Name of the reaction, unique in its instance." required:"true"`
	Instance string          `json:"instance,omitempty" doc:"Isolated set of components it belongs to." default:"default"`
	Kind     string          `json:"kind" doc:"Type of the reaction, such as log." required:"true"`
	Queries  []string        `json:"queries" doc:"Names of the queries whose results it gets, in the same instance." required:"true"`
	Config   json.RawMessage `json:"config,omitempty" doc:"Settings of that type."`
	Policy   Policy          `json:"policy,omitzero" doc:"Time limits and retention."`
}

// Policy holds what every component lets users bound. Zero means the default.
type Policy struct {
	DrainSeconds    int   `json:"drainSeconds,omitempty" doc:"How long a stop waits for work in flight." default:"60" minimum:"1" maximum:"86400"`
	RetainBytes     int64 `json:"retainBytes,omitempty" doc:"Most bytes kept in the component's stream." default:"4294967296" minimum:"16777216"`
	RetainSeconds   int64 `json:"retainSeconds,omitempty" doc:"Longest time a message is kept in the component's stream." default:"604800" minimum:"60"`
	HeartbeatMillis int   `json:"heartbeatMillis,omitempty" doc:"How often a running loop reports its position." default:"5000" minimum:"100" maximum:"25000"`
}

// WithDefaults returns p with its zero fields set to their defaults.
func (p Policy) WithDefaults() Policy {
	for _, f := range fieldsOf(reflect.ValueOf(&p).Elem()) {
		if f.value.IsZero() {
			setDefault(f, &Problems{})
		}
	}
	return p
}
