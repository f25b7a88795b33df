package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"sync"
	"time"

	"go.temporal.io/sdk/activity"
	"golang.org/x/sync/errgroup"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
)

// Instances has the activities of instances: they speak to the workflows of components as any other client does.
type Instances struct {
	sources   *Sources
	queries   *Queries
	reactions *Reactions
}

// ComponentState is what an instance knows of one of its components.
type ComponentState struct {
	Component   string         `json:"component"`
	Desired     string         `json:"desired"`
	Phase       string         `json:"phase"` // PhaseMissing when it has no workflow
	Health      string         `json:"health"`
	SpecVersion int            `json:"specVersion"`
	Error       ComponentError `json:"error,omitzero"`
}

// ComponentError is why a component is not as it should be.
type ComponentError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Fix     string `json:"fix,omitempty"`
}

// PhaseMissing is the phase of a component whose workflow does not exist or has ended.
const PhaseMissing = "Missing"

// EnsureInput is the input of Instances.EnsureComponent.
type EnsureInput struct {
	Component    string          `json:"component"`
	WorkflowType string          `json:"type"`
	Spec         json.RawMessage `json:"spec"`
	SpecRef      string          `json:"specRef,omitempty"` // to the spec of the whole instance
	Desired      string          `json:"desired"`
	RequestedBy  string          `json:"requestedBy,omitempty"` // who started it, should it be started
	Resume       bool            `json:"resume,omitempty"`      // if it waits after a failure, it tries again at once
	Restart      bool            `json:"restart,omitempty"`
}

// EnsureComponent makes a component be what it is to be: it starts its workflow, or sends the workflow the commands that
// are needed. A component that is as it should be gets none.
func (i *Instances) EnsureComponent(ctx context.Context, in EnsureInput) (ComponentState, error) {
	var state ComponentState
	err := beating(ctx, func(ctx context.Context) error {
		return patiently(ctx, func() (err error) {
			state, err = i.ensure(ctx, in)
			return err
		})
	})
	return state, translate(err)
}

func (i *Instances) store() *Store { return i.sources.runner.store }

func (i *Instances) ensure(ctx context.Context, in EnsureInput) (ComponentState, error) {
	id, err := component.ParseID(in.Component)
	if err != nil {
		return ComponentState{}, failure.ConfigInvalid.Errorf("reading the input: %w", err)
	}
	if in.SpecRef != "" {
		if in.Spec, err = i.memberSpec(ctx, in.SpecRef, id); err != nil {
			return ComponentState{}, err
		}
	}
	if err := i.store().useSpec(ctx, component.InstanceID(id.Instance), in.SpecRef); err != nil {
		return ComponentState{}, err
	}
	spec, err := ofInstance(in.Spec, id.Instance)
	if err != nil {
		return ComponentState{}, err
	}
	c := newRemote(ctx, in.Component)
	status, err := c.status(ctx)
	if err == nil && status.Deleting { // it was removed, and is wanted again
		if err = c.awaitClosed(ctx); err == nil {
			err = errNoWorkflow
		}
	}
	if errors.Is(err, errNoWorkflow) {
		var given command
		if given, err = i.given(ctx, in.Component, spec); err != nil {
			return ComponentState{}, err
		}
		if err = c.start(ctx, in, given); err != nil {
			return ComponentState{}, err
		}
		status, err = c.status(ctx)
	}
	if err != nil {
		return ComponentState{}, err
	}

	// A pause or a stop goes before all else: it must not wait until a spec is checked.
	if in.Desired != desiredRunning && status.Desired != in.Desired {
		name := CommandStop
		if in.Desired == desiredPaused {
			name = CommandPause
		}
		if status, err = c.command(ctx, name, nil); err != nil {
			return ComponentState{}, err
		}
	}
	var current json.RawMessage
	if err := c.query(ctx, QuerySpec, &current); err != nil {
		return ComponentState{}, err
	}
	same, err := i.sameSpec(ctx, current, spec)
	if err != nil {
		return ComponentState{}, err
	}
	if !same {
		given, err := i.given(ctx, in.Component, spec)
		if err != nil {
			return ComponentState{}, err
		}
		if status, err = c.command(ctx, CommandReconfigure, given); err != nil {
			return ComponentState{}, err
		}
	}
	if in.Desired == desiredRunning && (status.Desired != in.Desired || in.Resume && status.Health == HealthFailing) {
		if status, err = c.command(ctx, CommandResume, nil); err != nil {
			return ComponentState{}, err
		}
	}
	if in.Desired == desiredRunning && in.Restart {
		if status, err = c.command(ctx, CommandRestart, nil); err != nil {
			return ComponentState{}, err
		}
	}
	return status.state(), nil
}

// memberSpec returns the spec of a component of an instance whose spec is stored.
func (i *Instances) memberSpec(ctx context.Context, ref string, id component.ID) (json.RawMessage, error) {
	spec, err := decode[component.InstanceSpec](ctx, i.store(), nil, ref)
	if err != nil {
		return nil, err
	}
	specs := map[component.Kind][]json.RawMessage{component.Source: spec.Sources, component.Query: spec.Queries, component.Reaction: spec.Reactions}
	for _, p := range declaredAs(id.Kind, specs[id.Kind]) {
		if p.Name == id.Name {
			return p.spec, nil
		}
	}
	return nil, failure.ConfigInvalid.Errorf("spec %s declares no %s", ref, id)
}

// given is a spec as a component's workflow is sent it: one that is too large for that is stored.
func (i *Instances) given(ctx context.Context, id string, spec json.RawMessage) (command, error) {
	if len(spec) <= MostInline {
		return command{"spec": spec}, nil
	}
	ref, err := i.store().PutSpec(ctx, id, spec)
	return command{"specRef": ref}, err
}

// sameSpec reports whether a component's workflow, by its answer to the query spec, has a spec already.
func (i *Instances) sameSpec(ctx context.Context, answer, spec json.RawMessage) (bool, error) {
	var current SpecAnswer
	if json.Unmarshal(answer, &current) != nil || current.SpecRef == "" {
		return sameJSON(answer, spec), nil
	}
	stored, err := i.store().GetSpec(ctx, current.SpecRef)
	if failure.CodeOf(err) == failure.ConfigInvalid { // it is gone: the component is given another one
		return false, nil
	}
	return err == nil && sameJSON(stored, spec), err
}

// SpecAnswer is the answer of a workflow to the query spec where it has but a reference to its spec. No spec has such a field.
type SpecAnswer struct {
	SpecRef string `json:"specRef"`
	Shown   string `json:"shownBy"` // what prints the spec
	*SpecHead
}

const (
	desiredRunning = "Running"
	desiredPaused  = "Paused"
)

// ofInstance returns a component's spec with the instance that it belongs to, which it need not name.
func ofInstance(spec json.RawMessage, instance string) (json.RawMessage, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(spec, &fields); err != nil || fields == nil {
		return nil, failure.ConfigInvalid.Errorf("a component must be an object")
	}
	if _, named := fields["instance"]; named || instance == component.DefaultInstance {
		return spec, nil
	}
	fields["instance"], _ = json.Marshal(instance)
	return json.Marshal(fields)
}

// sameJSON reports whether two texts are the same JSON value, numbers to the last digit.
func sameJSON(a, b []byte) bool {
	value := func(text []byte) (v any, err error) {
		d := json.NewDecoder(bytes.NewReader(text))
		d.UseNumber()
		err = d.Decode(&v)
		return v, err
	}
	x, errX := value(a)
	y, errY := value(b)
	return errX == nil && errY == nil && reflect.DeepEqual(x, y)
}

// WatchInput is the input of Instances.WatchComponents: what is known of the components.
type WatchInput struct {
	Components []ComponentState `json:"components"`
}

const (
	watchSoon   = 250 * time.Millisecond
	watchSeldom = 10 * time.Second
	// watchEach keeps instances of very many components from asking all the time.
	watchEach = 20 * time.Millisecond
	// settleWithin is how long components may be on their way before that is told; telling each step would cost history.
	settleWithin = 2 * time.Second
	askAtOnce    = 8
)

// WatchComponents returns what is new of the components, however long it takes until something is.
func (i *Instances) WatchComponents(ctx context.Context, in WatchInput) ([]ComponentState, error) {
	var news []ComponentState
	err := beating(ctx, func(ctx context.Context) (err error) {
		news, err = watch(ctx, in.Components, observe)
		return err
	})
	return news, translate(err)
}

// watch looks often while something changes and seldom when nothing does, also where a component is on its way for long.
func watch(ctx context.Context, known []ComponentState, look func(context.Context, []ComponentState) ([]ComponentState, error)) ([]ComponentState, error) {
	every, last := watchSoon, known
	var since time.Time // of the first news
	for {
		seen, err := look(ctx, known)
		if err != nil {
			return nil, err
		}
		var news []ComponentState
		pending := false
		for n, s := range seen {
			pending = pending || s.Health == HealthPending
			if s != known[n] {
				news = append(news, s)
			}
		}
		if len(news) > 0 {
			if since.IsZero() {
				since = time.Now()
			}
			if !pending || time.Since(since) > settleWithin {
				return news, nil
			}
		}
		if every = min(2*every, watchSeldom); !slices.Equal(seen, last) {
			every = watchSoon
		}
		last = seen
		select {
		case <-time.After(max(every, time.Duration(len(known))*watchEach)):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// observe asks all components for their states. One that does not answer counts as it was, except that this is said.
func observe(ctx context.Context, known []ComponentState) ([]ComponentState, error) {
	seen := slices.Clone(known)
	var (
		group errgroup.Group
		mu    sync.Mutex
	)
	group.SetLimit(askAtOnce)
	for n, k := range known {
		group.Go(func() error {
			return failure.Guard(func() error {
				state, err := newRemote(ctx, k.Component).state(ctx, k)
				mu.Lock()
				defer mu.Unlock()
				seen[n] = state
				return err
			})
		})
	}
	return seen, group.Wait()
}

// newRemote speaks to a component's workflow with the client of the activity's worker.
func newRemote(ctx context.Context, id string) *remote {
	info := activity.GetInfo(ctx)
	// The same for each attempt at the activity, so that a command whose answer was lost is not done twice.
	return &remote{client: activity.GetClient(ctx), id: id, request: info.WorkflowExecution.RunID + "/" + info.ActivityID + "/"}
}
