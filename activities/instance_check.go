package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"go.temporal.io/sdk/temporal"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// Problem is one thing that is wrong with the spec of an instance.
type Problem struct {
	Component string `json:"component,omitempty"` // empty: the instance itself
	Code      string `json:"code"`
	Message   string `json:"message"`
}

// InstanceChecks is what an activity found that validated an instance.
type InstanceChecks struct {
	Problems []Problem `json:"problems,omitempty"`
	// Members are the components of a spec that the instance has only a reference to, in the order of the spec.
	Members []string `json:"members,omitempty"`
}

const (
	maxProblems    = 64
	maxProblem     = 3 << 10 // of one component, which may have many
	maxAllProblems = 24 << 10
)

// ValidateInstance finds everything that is wrong with the spec of an instance and of its components. What is wrong is
// its result: an error is why it could not find out.
func (i *Instances) ValidateInstance(ctx context.Context, in SpecInput) (InstanceChecks, error) {
	if in.SpecRef != "" && len(in.Unexpected) == 0 { // a reference that leads to nothing is an error, and no problem of a spec
		var err error
		if in.Spec, err = i.store().GetSpec(ctx, in.SpecRef); err != nil {
			return InstanceChecks{}, translate(err)
		}
	}
	c := &instanceCheck{activities: i}
	for _, name := range in.Unexpected {
		c.addf("", "%s: unknown field; the input has spec or specRef, desired and requestedBy", name)
	}
	var spec component.InstanceSpec
	err := component.DecodeConfig(in.Spec, &spec)
	if err != nil {
		c.found("", err)
	}
	if c.instance, err = component.ParseInstanceID(in.Component); err != nil {
		c.addf("", "%s", err)
	} else if spec.Name != "" && spec.Name != c.instance {
		c.addf("", "name: must be left out or be %q, is %q", c.instance, spec.Name)
	}
	c.components = slices.Concat(declaredAs(component.Source, spec.Sources), declaredAs(component.Query, spec.Queries), declaredAs(component.Reaction, spec.Reactions))
	for n, part := range c.components {
		c.references(n, part)
		if err := c.validate(ctx, part); err != nil {
			return InstanceChecks{}, translate(err)
		}
	}
	checks := InstanceChecks{Problems: bounded(c.problems)}
	if in.SpecRef != "" && len(c.problems) == 0 {
		for _, p := range c.components {
			checks.Members = append(checks.Members, component.ID{Kind: p.kind, Instance: c.instance, Name: p.Name}.String())
		}
	}
	return checks, nil
}

// bounded is as many problems as an instance keeps, and how many more there are.
func bounded(problems []Problem) []Problem {
	size := 0
	for n, p := range problems {
		if size += len(p.Component) + len(p.Message); n == maxProblems || size > maxAllProblems {
			more := fmt.Sprintf("and %d more problems", len(problems)-n)
			return append(problems[:n:n], Problem{Code: failure.ConfigInvalid.ID, Message: more})
		}
	}
	return problems
}

// instanceCheck collects what is wrong.
type instanceCheck struct {
	activities *Instances
	instance   string
	components []part
	problems   []Problem
}

// part is a component in the spec of an instance.
type part struct {
	kind  component.Kind
	spec  json.RawMessage
	label string // its id, or its place in the spec when it has none
	// What the others need to know of it.
	Name     string   `json:"name"`
	Instance string   `json:"instance"`
	Sources  []string `json:"sources"`
	Queries  []string `json:"queries"`
}

var plural = map[component.Kind]string{component.Source: "sources", component.Query: "queries", component.Reaction: "reactions"}

func declaredAs(kind component.Kind, specs []json.RawMessage) []part {
	parts := make([]part, len(specs))
	for n, spec := range specs {
		p := part{kind: kind, spec: spec}
		_ = json.Unmarshal(spec, &p) // what is wrong with it, the validation says
		p.kind, p.spec = kind, spec
		if p.label = string(kind) + " " + p.Name; p.Name == "" {
			p.label = fmt.Sprintf("%s[%d]", plural[kind], n)
		}
		parts[n] = p
	}
	return parts
}

func (c *instanceCheck) addf(label, format string, args ...any) {
	c.problems = append(c.problems, Problem{label, failure.ConfigInvalid.ID, cut(fmt.Sprintf(format, args...), maxProblem)})
}

func (c *instanceCheck) found(label string, err error) {
	report := ReportOf(err)
	c.problems = append(c.problems, Problem{label, report.Code, cut(report.Message, maxProblem)})
}

// references checks what a component says of others.
func (c *instanceCheck) references(n int, p part) {
	if p.Instance != "" && p.Instance != c.instance {
		c.addf(p.label, "instance: must be left out or be %q, is %q", c.instance, p.Instance)
	}
	for _, earlier := range c.components[:n] {
		if earlier.kind == p.kind && earlier.Name == p.Name && p.Name != "" {
			c.addf(p.label, "name: is declared twice")
			break
		}
	}
	switch p.kind {
	case component.Query:
		c.mustExist(p, "sources", p.Sources, component.Source)
	case component.Reaction:
		c.mustExist(p, "queries", p.Queries, component.Query)
	}
}

func (c *instanceCheck) mustExist(p part, field string, names []string, wanted component.Kind) {
	for n, name := range names {
		switch {
		case c.has(wanted, name):
		case wanted == component.Source && c.has(component.Query, name):
			c.addf(p.label, "%s[%d]: %s is a query; a query reads sources and cannot read queries, itself included", field, n, name)
		case wanted == component.Query && c.has(component.Source, name):
			c.addf(p.label, "%s[%d]: %s is a source; a reaction gets the results of queries", field, n, name)
		default:
			c.addf(p.label, "%s[%d]: the instance has no %s %s", field, n, wanted, name)
		}
	}
}

func (c *instanceCheck) has(kind component.Kind, name string) bool {
	return slices.ContainsFunc(c.components, func(p part) bool { return p.kind == kind && p.Name == name })
}

// validate has a component's own validation look at it. The error is that it could not.
func (c *instanceCheck) validate(ctx context.Context, p part) error {
	spec, err := ofInstance(p.spec, component.InstanceOr(c.instance))
	if err != nil {
		c.found(p.label, err)
		return nil
	}
	in := SpecInput{Component: p.label, Spec: spec}
	switch p.kind {
	case component.Source:
		_, err = c.activities.sources.ValidateSource(ctx, in)
	case component.Query:
		_, err = c.activities.queries.ValidateQuery(ctx, in)
	case component.Reaction:
		_, err = c.activities.reactions.ValidateReaction(ctx, in)
	}
	var known *temporal.ApplicationError
	if err == nil || !errors.As(err, &known) || !known.NonRetryable() {
		return err
	}
	c.found(p.label, err)
	return nil
}
