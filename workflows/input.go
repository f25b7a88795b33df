package workflows

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"go.temporal.io/sdk/converter"

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
// component.ReactionSpec; only its decoder looks inside, so that a mistake in it becomes state instead of a workflow
// that cannot begin.
type Input struct {
	Spec        json.RawMessage `json:"spec"`
	Desired     Desired         `json:"desired,omitempty"` // Running when empty
	RequestedBy string          `json:"requestedBy,omitempty"`
	// Carry is what a run of the workflow hands to the next; only ContinueAsNew fills it.
	Carry *State `json:"carry,omitempty"`
}

// Result is how the workflow of a component ends, when it does.
type Result struct {
	Outcome    string    `json:"outcome"` // "Deleted"
	Generation uint64    `json:"generation"`
	Position   string    `json:"position,omitempty"`
	At         time.Time `json:"at"`
}

const maxInput = 64 << 10

// decodeInput reads what a workflow was started with. Of a malformed input it returns as much as can be understood,
// with the failure.
func decodeInput(raw converter.RawValue) (Input, error) {
	data := payloadData(raw)
	if len(data) == 0 {
		return Input{}, failure.ConfigInvalid.Errorf("the workflow was started without an input; it needs {\"spec\":{...}}")
	}
	// What an earlier run carries is read leniently: it may come from a build that knew other fields.
	var carried struct {
		Input
		Spec json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(data, &carried) == nil && carried.Carry != nil {
		carried.Input.Spec = carried.Spec
		return carried.Input, nil
	}
	if len(data) > maxInput {
		return Input{}, failure.ConfigInvalid.Errorf("the input has %d bytes; the most is %d", len(data), maxInput)
	}
	var in Input
	if err := decodeStrictly(data, &in); err != nil {
		return Input{Desired: in.Desired, RequestedBy: in.RequestedBy}, failure.ConfigInvalid.Errorf("decoding the input: %w", err)
	}
	switch in.Desired {
	case "":
		in.Desired = Running
	case Running, Paused, Stopped:
	default:
		return in, failure.ConfigInvalid.Errorf("decoding the input: desired is %q; it must be Running, Paused or Stopped", in.Desired)
	}
	return in, nil
}

// decodeStrictly decodes one JSON value and refuses what v has no field for.
func decodeStrictly(data []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		if errors.Is(err, io.EOF) {
			return errors.New("it is empty")
		}
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("there is something after the JSON value, at byte %d", d.InputOffset())
	}
	return nil
}

// payloadData returns the JSON in a payload; nothing for a missing one and for null.
func payloadData(raw converter.RawValue) []byte {
	data := bytes.TrimSpace(raw.Payload().GetData())
	if bytes.Equal(data, []byte("null")) {
		return nil
	}
	return data
}
