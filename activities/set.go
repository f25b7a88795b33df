package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/pipeline"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Host is what activities need of the data plane; a pipeline.Host is one.
type Host interface {
	sourceHost
	queryHost
	reactionHost
	bootstrapHost
}

type sourceHost interface {
	ValidateSource(context.Context, component.SourceSpec) error
	ProvisionSource(context.Context, component.SourceSpec) error
	RunSource(context.Context, pipeline.Attempt, component.SourceSpec) error
	TeardownSource(context.Context, component.SourceSpec) error
	CheckSource(context.Context, component.SourceSpec) ([]pipeline.Check, error)
}

type queryHost interface {
	ValidateQuery(context.Context, component.QuerySpec) error
	SourceReady(ctx context.Context, instance, name string) error
	RunQuery(context.Context, pipeline.Attempt, component.QuerySpec) (pipeline.Outcome, error)
	TeardownQuery(context.Context, component.QuerySpec) error
}

type reactionHost interface {
	ValidateReaction(context.Context, component.ReactionSpec) error
	RunReaction(context.Context, pipeline.Attempt, component.ReactionSpec) error
	TeardownReaction(context.Context, component.ReactionSpec) error
	RetryDeadLetters(ctx context.Context, spec component.ReactionSpec, ids []string) (pipeline.Redelivery, error)
	SkipResult(ctx context.Context, spec component.ReactionSpec, query string, sequence uint64) error
	SetPlace(ctx context.Context, spec component.ReactionSpec, query, to string, owner stream.Epoch) (uint64, error)
}

type bootstrapHost interface {
	Subscribe(context.Context, pipeline.BootstrapRef, component.QuerySpec) (offset uint64, err error)
	HoldSnapshot(ctx context.Context, ref pipeline.BootstrapRef, source component.SourceSpec, ready func(graph.Position) error, alive func()) error
	PlanChunks(ctx context.Context, ref pipeline.BootstrapRef, source component.SourceSpec, query component.QuerySpec) (pipeline.Plan, error)
	CopyChunks(ctx context.Context, ref pipeline.BootstrapRef, source component.SourceSpec, worker string, report func(pipeline.CopyProgress)) (pipeline.CopyProgress, error)
	CopiedSoFar(context.Context, pipeline.BootstrapRef) ([]pipeline.ScopeProgress, error)
	FailedScopes(context.Context, pipeline.BootstrapRef) ([]pipeline.FailedScope, error)
	RetryScopes(ctx context.Context, ref pipeline.BootstrapRef, names []string) error
	VerifyBootstrap(ctx context.Context, ref pipeline.BootstrapRef, source component.SourceSpec, alive func()) error
	SealBootstrap(context.Context, pipeline.BootstrapRef) (graph.Position, int64, error)
	AbandonBootstrap(context.Context, pipeline.BootstrapRef) error
}

// Options is what the activities work with.
type Options struct {
	Host   Host
	Store  *Store
	HostID string
	Loops  *Loops // to be looked at; nil: nobody does
	// HeartbeatRate is how many heartbeats a second all loops of the process may send together, about; 100 when zero. When
	// there are more loops than that allows, each beats less often, and the server waits longer before it gives one up.
	HeartbeatRate int
	// HeartbeatTimeout is how long the server is to wait for a heartbeat of a run at least; UsualHeartbeat when shorter.
	HeartbeatTimeout time.Duration
	// HandOver is how long a loop may drain when its worker stops; 20 s when zero.
	HandOver time.Duration
	// StayOnStop has queries wait for this host when its worker stops; without it they go on at once on another host, which
	// takes their state from its checkpoint.
	StayOnStop bool
	// Metrics count attempts and follow snapshots; when nil, nobody sees them.
	Metrics *telemetry.Metrics
	Log     *zap.Logger
	// StopWithControlPlane ends the loops when the Temporal server does not answer: some 20 s after the last heartbeat that
	// it took, so that none runs when the server, which waits for longer, hands its component to another attempt. Without
	// it they go on under their fences, and end when another attempt takes over.
	StopWithControlPlane bool
}

// Set is all activities of a process.
type Set struct {
	Sources    *Sources
	Queries    *Queries
	Reactions  *Reactions
	Bootstraps *Bootstraps
	Control    *Control
	Instances  *Instances
}

// New returns the activities.
func New(o Options) *Set {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Loops == nil {
		o.Loops = new(Loops)
	}
	if o.Metrics == nil {
		o.Metrics = telemetry.NewMetrics("")
	}
	if o.HeartbeatRate <= 0 {
		o.HeartbeatRate = 100
	}
	o.HandOver = cmp.Or(o.HandOver, endOfStop)
	r := &runner{
		store: o.Store, hostID: o.HostID, loops: o.Loops, control: &controlWatch{store: o.Store, log: o.Log},
		metrics: o.Metrics, log: o.Log, outlive: !o.StopWithControlPlane, now: time.Now, stalled: stalledAfter, handOver: o.HandOver,
		stay: o.StayOnStop,
	}
	s := &Set{
		Sources:    &Sources{host: o.Host, runner: r},
		Queries:    &Queries{host: o.Host, runner: r},
		Reactions:  &Reactions{host: o.Host, runner: r},
		Bootstraps: &Bootstraps{host: o.Host, runner: r},
		Control:    &Control{store: o.Store, loops: o.Loops, heartbeatRate: o.HeartbeatRate, heartbeatTimeout: o.HeartbeatTimeout},
	}
	s.Instances = &Instances{sources: s.Sources, queries: s.Queries, reactions: s.Reactions}
	return s
}

// decode reads a spec that was validated before, or the one that a reference stands for, leniently: it may have been by a
// build that knew other fields.
func decode[Spec any](ctx context.Context, store *Store, raw json.RawMessage, ref string) (Spec, error) {
	var spec Spec
	raw, err := store.spec(ctx, raw, ref)
	if err != nil {
		return spec, err
	}
	if err := json.Unmarshal(raw, &spec); err != nil {
		return spec, failure.ConfigInvalid.Errorf("decoding the spec: %w", err)
	}
	return spec, nil
}

// decodeTeardown reads what a teardown needs of a spec.
func decodeTeardown[Spec any](ctx context.Context, store *Store, in TeardownInput) (Spec, error) {
	if in.SpecRef == "" {
		return decode[Spec](ctx, store, in.Spec, "")
	}
	var none Spec
	id, err := component.ParseID(in.Component)
	if err != nil {
		return none, failure.ConfigInvalid.Errorf("reading the input: %w", err)
	}
	spec, err := bareSpec(id)
	if err != nil {
		return none, err
	}
	return decode[Spec](ctx, store, spec, "")
}

// bareSpec is a spec of any kind that says whose it is, and nothing else.
func bareSpec(id component.ID) (json.RawMessage, error) {
	spec, err := json.Marshal(component.SourceSpec{Name: id.Name, Instance: id.Instance})
	if err != nil {
		return nil, fmt.Errorf("encoding the spec: %w", err)
	}
	return spec, nil
}

// decodeStrictly reads a spec as somebody wrote it and reports all that is wrong with it.
func decodeStrictly[Spec any](ctx context.Context, store *Store, in SpecInput) (Spec, error) {
	var spec Spec
	if len(in.Unexpected) > 0 {
		return spec, failure.ConfigInvalid.Errorf("%s: unknown field; the input has spec or specRef, desired and requestedBy", in.Unexpected[0])
	}
	raw, err := store.spec(ctx, in.Spec, in.SpecRef)
	if err != nil {
		return spec, err
	}
	return spec, component.DecodeConfig(raw, &spec)
}
