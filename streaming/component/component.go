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

// instancePrefix begins the workflow id of an instance.
const instancePrefix = "instance."

// InstanceID returns the workflow id of an instance.
func InstanceID(name string) string { return instancePrefix + name }

// ParseInstanceID returns the name of the instance that a workflow id of the form instance.<name> is of.
func ParseInstanceID(s string) (string, error) {
	if name, ok := strings.CutPrefix(s, instancePrefix); ok && ValidName(name) {
		return name, nil
	}
	return "", fmt.Errorf("instance id %q is not of the form instance.<name> with a name of lower-case letters, digits and dashes", s)
}

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
	Checkpoint Checkpoint                 `json:"checkpoint,omitzero" doc:"How often the query's state is copied to the stream server, from where another worker restores it."`
	Limits     Limits                     `json:"limits,omitzero" doc:"What one change may cost before the query stops."`
	Policy     Policy                     `json:"policy,omitzero" doc:"Time limits and retention."`
}

// Checkpoint says how a query's state is copied to the stream server. Zero means the default.
type Checkpoint struct {
	Seconds int `json:"seconds,omitempty" doc:"Time between two copies, if changes came in between. What comes after the last but one is kept in the streams of the sources." default:"300" minimum:"0" maximum:"86400"`
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
	Delivery Delivery        `json:"delivery,omitzero" doc:"How results are delivered, for types that push them."`
	Policy   Policy          `json:"policy,omitzero" doc:"Time limits and retention."`
}

// InstanceSpec declares all components of an instance. Each one is a SourceSpec, QuerySpec or ReactionSpec, as somebody
// wrote it, so that what is wrong with one does not keep the others from being read. They belong to the instance and
// need not name it.
type InstanceSpec struct {
	Name      string            `json:"name,omitempty" doc:"Name of the instance; when left out, that of its workflow id, instance.<name>."`
	Sources   []json.RawMessage `json:"sources,omitempty" doc:"Sources of the instance."`
	Queries   []json.RawMessage `json:"queries,omitempty" doc:"Queries of the instance; they read sources of it."`
	Reactions []json.RawMessage `json:"reactions,omitempty" doc:"Reactions of the instance; they get results of queries of it."`
}

// Delivery says how a reaction's results are delivered to its target. Zero means the default.
type Delivery struct {
	Unit           string `json:"unit,omitempty" doc:"What is delivered at a time: an event, which is all that one transaction did to a query's rows, or a row of it." default:"event" enum:"event,row"`
	Lanes          int    `json:"lanes,omitempty" doc:"How many rows of a query are delivered at a time; those of one row always in order. More than one needs unit row." default:"1" minimum:"1" maximum:"64"`
	TimeoutSeconds int    `json:"timeoutSeconds,omitempty" doc:"How long the target may take to answer one try." default:"10" minimum:"1" maximum:"3600"`
	Retry          Retry  `json:"retry,omitzero" doc:"How often what the target does not take for now is tried again."`
}

// Retry bounds the tries of one delivery that fails for reasons that may go away. Zero means the default.
type Retry struct {
	FirstMillis int    `json:"firstMillis,omitempty" doc:"Pause after the first failure; it doubles with each failure in a row." default:"100" minimum:"1"`
	MaxMillis   int    `json:"maxMillis,omitempty" doc:"Longest pause." default:"30000" minimum:"1"`
	Attempts    int    `json:"attempts,omitempty" doc:"Most tries within one run; 0 sets no bound." minimum:"0"`
	Seconds     int    `json:"seconds,omitempty" doc:"Longest time of trying within one run; 0 sets no bound." minimum:"0"`
	OnExhausted string `json:"onExhausted,omitempty" doc:"What follows when such a bound is reached: stop waits for resume and loses nothing; deadLetter goes on without it. Without a bound, tries go on and what follows waits." default:"stop" enum:"stop,deadLetter"`
}

// WithDefaults returns d with its zero fields set to their defaults.
func (d Delivery) WithDefaults() Delivery {
	fillZero(reflect.ValueOf(&d).Elem())
	return d
}

// Policy holds what every component lets users bound. Zero means the default.
type Policy struct {
	DrainSeconds    int   `json:"drainSeconds,omitempty" doc:"How long a stop waits for work in flight." default:"60" minimum:"1" maximum:"86400"`
	RetainBytes     int64 `json:"retainBytes,omitempty" doc:"Most bytes kept in the component's stream." default:"4294967296" minimum:"16777216"`
	RetainSeconds   int64 `json:"retainSeconds,omitempty" doc:"Longest time a message is kept in the component's stream." default:"604800" minimum:"60"`
	HeartbeatMillis int   `json:"heartbeatMillis,omitempty" doc:"How often a running loop reports its position." default:"5000" minimum:"100" maximum:"25000"`
	StallSeconds    int   `json:"stallSeconds,omitempty" doc:"How long a running loop may make no progress before it is ended and started anew." default:"60" minimum:"10" maximum:"86400"`
	// Of the breaker, which opens when neither the loop nor its retries overcome a failure.
	BreakerSeconds     int `json:"breakerSeconds,omitempty" doc:"First wait before a component that failed is tried again; it doubles with each failure in a row." default:"60" minimum:"1" maximum:"86400"`
	BreakerMostSeconds int `json:"breakerMostSeconds,omitempty" doc:"Longest of these waits." default:"1800" minimum:"1" maximum:"86400"`
}

// WithDefaults returns p with its zero fields set to their defaults.
func (p Policy) WithDefaults() Policy {
	fillZero(reflect.ValueOf(&p).Elem())
	return p
}

// fillZero sets the zero fields of a struct, at any depth, to their defaults.
func fillZero(v reflect.Value) {
	for _, f := range fieldsOf(v) {
		if f.value.Kind() == reflect.Struct {
			fillZero(f.value)
		} else if f.value.IsZero() {
			setDefault(f, &Problems{})
		}
	}
}
