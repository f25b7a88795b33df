package workflows

import (
	"bytes"
	"encoding/json"
	"slices"
	"time"

	commonpb "go.temporal.io/api/common/v1"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/workflow"

	"github.com/perdure/perdure/activities"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// Desired is the state somebody wants a component to be in.
type Desired string

// The desired states.
const (
	Running Desired = "Running"
	Paused  Desired = "Paused"
	Stopped Desired = "Stopped"
)

// Input starts the workflow of a component. Spec is a component.SourceSpec, component.QuerySpec or
// component.ReactionSpec; SpecRef is a reference to one that is too large for an input. An activity checks it, so that what
// was once found wrong, or right, stays so when the workflow is replayed by a build with other rules.
type Input = inputWith[State]

// inputWith is an input with the state that the workflow carries over.
type inputWith[S any] struct {
	Spec        json.RawMessage `json:"spec,omitempty"`
	SpecRef     string          `json:"specRef,omitempty"`
	Desired     Desired         `json:"desired,omitempty"` // Running when empty
	RequestedBy string          `json:"requestedBy,omitempty"`
	// Carry is what a run of the workflow hands to the next; only ContinueAsNew fills it.
	Carry *S `json:"carry,omitempty"`

	unexpected []string // fields that are none of these
}

// Result is how the workflow of a component ends, when it does.
type Result struct {
	Outcome    string    `json:"outcome"` // "Deleted"
	Generation uint64    `json:"generation"`
	Position   string    `json:"position,omitempty"`
	Left       string    `json:"left,omitempty"` // why something of it is still there, where the deletion was forced
	At         time.Time `json:"at"`
}

const maxInput = 64 << 10

// tooLarge says what to do with a spec that does not fit in.
const tooLarge = `Store the spec with "perdure spec put FILE" and give {"specRef":"..."}, with the reference that it prints, in place of spec; "perdure apply FILE" does both.`

// decodeInput reads what a workflow was started with. What it returns with an error is fit to wait for an operator with.
func decodeInput[S any](raw converter.RawValue) (inputWith[S], error) {
	in, err := decodeFields[S](raw)
	switch in.Desired {
	case Running, Paused, Stopped:
	case "":
		in.Desired = Running
	default:
		if err == nil {
			err = failure.ConfigInvalid.Errorf("desired: must be Running, Paused or Stopped, is %q", in.Desired)
		}
		in.Desired = Running
	}
	return in, err
}

func decodeFields[S any](raw converter.RawValue) (inputWith[S], error) {
	var in inputWith[S]
	data := payloadData(raw)
	if len(data) == 0 {
		return in, failure.ConfigInvalid.Errorf(`the workflow was started without an input; it needs {"spec":{...}}`)
	}
	if err := json.Unmarshal(data, &in); err != nil {
		return in, failure.ConfigInvalid.Errorf("decoding the input: %w", err)
	}
	if in.Carry != nil {
		return in, nil
	}
	if len(data) > maxInput {
		return in, failure.ConfigInvalid.Errorf("the input has %d bytes; the most is %d", len(data), maxInput).WithFix(tooLarge)
	}
	in.unexpected = unexpectedFields(data, "spec", "specRef", "desired", "requestedBy", "carry")
	return in, nil
}

// changeSpecRef is the change since which specs may be given by reference.
const changeSpecRef = "spec by reference"

// byReference says what is wrong with how an input gives its spec, as far as that can be known without reading it. What a
// build that did not know references began with one goes on as it did.
func byReference[S any](ctx workflow.Context, in *inputWith[S]) error {
	if in.SpecRef == "" {
		return nil
	}
	if workflow.GetVersion(ctx, changeSpecRef, workflow.DefaultVersion, 1) == workflow.DefaultVersion {
		in.SpecRef, in.unexpected = "", append(in.unexpected, "specRef")
		return nil
	}
	return refuseSpec(in.Spec, in.SpecRef)
}

func refuseSpec(spec json.RawMessage, ref string) error {
	switch {
	case ref == "":
		return nil
	case hasSpec(spec):
		return failure.ConfigInvalid.Errorf("spec and specRef are both given; give one of them")
	}
	_, _, err := activities.ParseSpecRef(ref)
	return err
}

func hasSpec(spec json.RawMessage) bool {
	return len(spec) > 0 && !bytes.Equal(spec, []byte("null"))
}

// unexpectedFields returns the members of a JSON object that are none of the known ones, in their order.
func unexpectedFields(object []byte, known ...string) (unexpected []string) {
	d := json.NewDecoder(bytes.NewReader(object))
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return nil
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return unexpected
		}
		if field, ok := name.(string); ok && !slices.Contains(known, field) {
			unexpected = append(unexpected, field)
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return unexpected
		}
	}
	return unexpected
}

// The metadata of a payload that is encrypted, which workflows see when this process has not the key.
const (
	EncodingEncrypted = "binary/encrypted"
	MetadataKey       = "encryption-key-id"
)

// MissingKey is what cannot be done about such a payload.
func MissingKey(p *commonpb.Payload) error {
	return failure.SecretMissing.Errorf("a payload is encrypted with key %s, which is not among the payload keys of this process", p.GetMetadata()[MetadataKey]).
		WithFix("Give the process the key with --payload-keys.")
}

// payloadData returns the JSON in a payload; nothing for a missing one and for null. One that is still encrypted fails the
// workflow task, which waits for a worker that has the key: whatever was done without, a replay with it would do otherwise.
func payloadData(raw converter.RawValue) []byte {
	if raw.Payload() == nil {
		return nil
	}
	if string(raw.Payload().GetMetadata()[converter.MetadataEncoding]) == EncodingEncrypted {
		panic(MissingKey(raw.Payload()))
	}
	data := bytes.TrimSpace(raw.Payload().GetData())
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	return data
}

// declared is the little that workflows know of a spec.
type declared struct {
	id        component.ID
	sources   []string // of a query
	bootstrap bool     // a query that begins with a snapshot of its sources
	drain     time.Duration
	waits     waits // of the breaker
}

const defaultDrain = 60 * time.Second

// declare reads a spec of a kind. It is as lenient as can be: finding mistakes is an activity's task.
func declare(kind component.Kind, spec json.RawMessage) (declared, error) {
	var head activities.SpecHead
	if len(spec) == 0 {
		return declared{}, failure.ConfigInvalid.Errorf("spec: is missing; give spec, or specRef for one that is stored")
	}
	if err := json.Unmarshal(spec, &head); err != nil {
		return declared{}, failure.ConfigInvalid.Errorf("decoding the spec: %w", err)
	}
	return declareHead(kind, head)
}

// declareHead is declare for what an activity has read of a spec.
func declareHead(kind component.Kind, head activities.SpecHead) (declared, error) {
	d := declared{
		id:      component.ID{Kind: kind, Instance: head.Instance, Name: head.Name},
		sources: head.Sources, bootstrap: head.Bootstrap != "none", drain: defaultDrain,
		waits: waits{breakerFirst, breakerMost},
	}
	if head.Instance == "" {
		d.id.Instance = component.DefaultInstance
	}
	if _, err := component.ParseID(d.id.String()); err != nil {
		return declared{}, failure.ConfigInvalid.Errorf("name: %w", err)
	}
	if s := head.Policy.DrainSeconds; s > 0 {
		d.drain = time.Duration(s) * time.Second
	}
	if s := head.Policy.BreakerSeconds; s > 0 {
		d.waits.first = time.Duration(s) * time.Second
	}
	if s := head.Policy.BreakerMostSeconds; s > 0 {
		d.waits.most = time.Duration(s) * time.Second
	}
	return d, nil
}

// declareAs is declare for the spec of a workflow, whose id must be the component's.
func declareAs(kind component.Kind, spec json.RawMessage, workflowID string) (declared, error) {
	d, err := declare(kind, spec)
	return d.as(workflowID, err)
}

// as returns what is declared, if it is for a workflow of that id.
func (d declared) as(workflowID string, err error) (declared, error) {
	if err != nil {
		return declared{}, err
	}
	if d.id.String() != workflowID {
		return declared{}, failure.ConfigInvalid.Errorf("the workflow's id is %q, but the spec declares %q", workflowID, d.id).
			WithFix("Delete this workflow with the signal delete and start it again with the workflow id %s, or correct name and instance in the spec.", d.id)
	}
	return d, nil
}
