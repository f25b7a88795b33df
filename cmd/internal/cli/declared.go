package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/catalog"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/workflows"
)

// declared is what a file declares: a component or an instance.
type declared struct {
	kind    component.Kind // empty: an instance
	id      string         // of its workflow
	name    string
	spec    json.RawMessage
	desired string
}

// readDeclared reads the input of a workflow, or the spec in it alone, from a file or, for "-", from the standard input.
func readDeclared(file string, stdin io.Reader) (declared, error) {
	text, err := readText(file, stdin)
	if err != nil {
		return declared{}, failure.ConfigInvalid.Errorf("reading the spec: %w", err).WithFix("Give the path of a file that can be read, or - for the standard input.")
	}
	raw, err := component.JSONOf(text)
	if err != nil {
		return declared{}, err
	}
	var in struct {
		Spec        json.RawMessage `json:"spec"`
		Desired     string          `json:"desired"`
		RequestedBy string          `json:"requestedBy"`
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(raw, &members); err != nil {
		return declared{}, failure.ConfigInvalid.Errorf("the spec must be an object: %w", err)
	}
	in.Spec = raw
	if _, wrapped := members["spec"]; wrapped {
		if err := component.DecodeConfig(raw, &in); err != nil {
			return declared{}, err
		}
	}
	d := declared{spec: in.Spec, desired: in.Desired}
	return d, d.identify()
}

func readText(file string, stdin io.Reader) ([]byte, error) {
	if file == "-" {
		return io.ReadAll(stdin)
	}
	return os.ReadFile(file)
}

// identify finds out what the spec is of.
func (d *declared) identify() error {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(d.spec, &members); err != nil {
		return failure.ConfigInvalid.Errorf("the spec must be an object: %w", err)
	}
	var instance string
	_ = json.Unmarshal(members["name"], &d.name) // what is wrong with it, the validation says
	_ = json.Unmarshal(members["instance"], &instance)
	switch d.kind = kindOf(members); {
	case d.kind == "":
		d.name = cmp.Or(d.name, component.DefaultInstance)
		d.id = component.InstanceID(d.name)
	default:
		d.id = component.ID{Kind: d.kind, Instance: component.InstanceOr(instance), Name: d.name}.String()
	}
	return nil
}

// kindOf returns the kind of component whose spec has such members, none for an instance.
func kindOf(members map[string]json.RawMessage) component.Kind {
	has := func(name string) bool { _, there := members[name]; return there }
	names := func(name string) bool { // and not whole components
		var list []string
		return json.Unmarshal(members[name], &list) == nil && len(list) > 0
	}
	switch {
	case has("query"), names("sources"):
		return component.Query
	case names("queries"), has("delivery"):
		return component.Reaction
	case has("kind"), has("config"):
		return component.Source
	}
	return ""
}

// check reports everything that is wrong with the spec, as the workflow's validation would, without reading secrets: those
// are on the workers.
func (d *declared) check(ctx context.Context, conn *stream.Conn) error {
	host, err := pipeline.NewHost(pipeline.Options{
		Stream: conn, Sources: catalog.Sources(), Reactions: catalog.Reactions(),
		Secret: func(string) (string, error) { return "postgres://localhost/", nil }, // fit for a URL and for a password
	})
	if err != nil {
		return err
	}
	set := activities.New(activities.Options{Host: host, Store: activities.NewStore(conn)})
	in := activities.SpecInput{Component: d.id, Spec: d.spec}
	switch d.kind {
	case component.Source:
		_, err = set.Sources.ValidateSource(ctx, in)
	case component.Query:
		_, err = set.Queries.ValidateQuery(ctx, in)
	case component.Reaction:
		_, err = set.Reactions.ValidateReaction(ctx, in)
	default:
		var found activities.InstanceChecks
		if found, err = set.Instances.ValidateInstance(ctx, in); err == nil {
			return problemsOf(found.Problems)
		}
	}
	return plain(err)
}

func problemsOf(problems []activities.Problem) error {
	if len(problems) == 0 {
		return nil
	}
	lines := make([]string, len(problems))
	for n, p := range problems {
		if lines[n] = p.Message; p.Component != "" {
			lines[n] = p.Component + ": " + p.Message
		}
	}
	return failure.ConfigInvalid.Errorf("%s", strings.Join(lines, "\n")).WithFix("Correct what is named and try again.")
}

// plain is the failure that an activity or a workflow reported.
func plain(err error) error {
	if err == nil {
		return nil
	}
	return reported(activities.ReportOf(err))
}

// reported is the failure that was reported.
func reported(report failure.Report) error {
	n := slices.IndexFunc(failure.Codes(), func(c *failure.Code) bool { return c.ID == report.Code })
	if n < 0 {
		return errors.New(report.Message)
	}
	return failure.Codes()[n].Errorf("%s", report.Message).WithFix("%s", report.Fix)
}

// workflowType is what the workflow is started as.
func (d *declared) workflowType() string {
	if d.kind == "" {
		return workflows.TypeInstance
	}
	return workflows.WorkflowType(d.kind)
}
