package pipeline

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/reaction"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/stream"
	"github.com/perdure/perdure/streaming/telemetry"
)

// Options is what a Host works with.
type Options struct {
	Stream    *stream.Conn
	Sources   []source.Factory
	Reactions []reaction.Factory
	Index     index.Backend
	// SpillDir is where sources put what they cannot hold in memory; "": where the system puts temporary files.
	SpillDir string
	// HostID names the process that runs the stages, for fences and leases.
	HostID string
	Log    *zap.Logger
	// Metrics count what the stages do; when nil, nobody sees them.
	Metrics *telemetry.Metrics
	// Traces follow transactions through the stages; when nil, nobody does.
	Traces *telemetry.Traces
	// Secret reads what a reference such as "env:ORDERS_PW" stands for; component.ResolveSecret when nil.
	Secret func(ref string) (string, error)
}

// Host runs stages. It is safe for concurrent use.
type Host struct {
	conn      *stream.Conn
	sources   map[string]source.Factory
	reactions map[string]reaction.Factory
	index     index.Backend
	spillDir  string
	hostID    string
	log       *zap.Logger
	metrics   *telemetry.Metrics
	traces    *telemetry.Traces
	secret    func(ref string) (string, error)

	deafAfter time.Duration // see deafAfter; tests shorten it

	running sync.WaitGroup
	wanting chan struct{} // capacity one: who has it edits a wantsRecord

	mu      sync.Mutex
	buckets map[string]*stream.Bucket
}

// NewHost returns a host. Two factories of one kind are an error.
func NewHost(o Options) (*Host, error) {
	h := &Host{
		conn:      o.Stream,
		sources:   make(map[string]source.Factory, len(o.Sources)),
		reactions: make(map[string]reaction.Factory, len(o.Reactions)),
		index:     o.Index,
		spillDir:  o.SpillDir,
		hostID:    o.HostID,
		log:       o.Log,
		metrics:   o.Metrics,
		traces:    o.Traces,
		secret:    o.Secret,
		wanting:   make(chan struct{}, 1),
		buckets:   make(map[string]*stream.Bucket),
		deafAfter: deafAfter,
	}
	if h.log == nil {
		h.log = zap.NewNop()
	}
	if h.metrics == nil {
		h.metrics = telemetry.NewMetrics("")
	}
	if h.secret == nil {
		h.secret = component.ResolveSecret
	}
	for _, f := range o.Sources {
		if _, twice := h.sources[f.Kind()]; twice {
			return nil, fmt.Errorf("two source factories of kind %q", f.Kind())
		}
		h.sources[f.Kind()] = f
	}
	for _, f := range o.Reactions {
		if _, twice := h.reactions[f.Kind()]; twice {
			return nil, fmt.Errorf("two reaction factories of kind %q", f.Kind())
		}
		h.reactions[f.Kind()] = f
	}
	return h, nil
}

// Close waits until every stage that the host runs has ended, which their contexts decide, or until ctx ends. What the
// host was given stays open.
func (h *Host) Close(ctx context.Context) error {
	done := failure.Go(func() error { h.running.Wait(); return nil })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for stages to end: %w", ctx.Err())
	}
}

// Attempt is one run of a component's loop.
type Attempt struct {
	ID    component.ID
	Epoch stream.Epoch
	// Drain, when closed, asks the loop to take no more work, finish what it has and return nil. It may be nil.
	Drain <-chan struct{}
	// Progress is told about liveness and position. It may be nil.
	Progress *Progress
	// Reload, unless empty, has a query read its sources again. It names the request, so that it is done once.
	Reload string
	// Need, which may be nil, tells the control plane what a query needs that goes on with the state that it has, and
	// takes over the bootstrap when that is sealed. Without it the query ends, with what it needs as its outcome. An error
	// ends the attempt.
	Need func(context.Context, Need) error
}

// Outcome says why a query's loop returned without an error.
type Outcome string

const (
	// Drained means that the loop was asked to stop, and everything it took is durable.
	Drained Outcome = "drained"
	// Stored is Drained of a query whose newest checkpoint has all of it: any host can go on as well as this one.
	Stored Outcome = "stored"
	// NeedsBootstrap means that the query has no state and no sealed bootstrap to build it from.
	NeedsBootstrap Outcome = "needsBootstrap"
	// NeedsResync and NeedsRebuild mean that changes of a source are lost, or its tables changed in a way that the stream does
	// not tell, and a bootstrap must bring what is different, or all that there is anew. Status.Missing says of what.
	NeedsResync  Outcome = "needsResync"
	NeedsRebuild Outcome = "needsRebuild"
)

func (h *Host) newSource(spec component.SourceSpec, generation uint64) (source.Source, error) {
	if err := component.ValidateSource(spec); err != nil {
		return nil, err
	}
	f, ok := h.sources[spec.Kind]
	if !ok {
		return nil, failure.ConfigInvalid.Errorf("kind: there is no source of kind %q; known are %s", spec.Kind, kinds(h.sources))
	}
	id := spec.ID()
	return f.New(spec.Config, source.Settings{
		Instance: id.Instance, Name: id.Name, Generation: generation, Log: h.logFor(id), Secret: h.secret, SpillDir: h.spillDir,
		Reject: h.rejecter(spec), Learned: h.learner(id), Made: h.recordOf(spec), Read: h.reader(id),
	})
}

// reader returns what reads from which system a source has read; nil where nothing is kept.
func (h *Host) reader(id component.ID) func(context.Context) (string, error) {
	if h.conn == nil {
		return nil
	}
	return func(ctx context.Context) (string, error) {
		positions, err := h.bucket(ctx, positionsBucket)
		if err != nil {
			return "", err
		}
		var at sourcePosition
		if _, _, err := read(ctx, positions, id.Instance+"."+id.Name, &at); err != nil || at.Position == "" {
			return "", err
		}
		return at.System, nil
	}
}

// learner returns what reads the schema that a source has learned; nil where nothing is kept.
func (h *Host) learner(id component.ID) func(context.Context) ([]byte, error) {
	if h.conn == nil {
		return nil
	}
	return func(ctx context.Context) ([]byte, error) {
		positions, err := h.bucket(ctx, positionsBucket)
		if err != nil {
			return nil, err
		}
		schema, err := positions.Get(ctx, id.Instance+"."+id.Name+schemaSuffix)
		if err != nil && !errors.Is(err, stream.ErrMissing) {
			return nil, fmt.Errorf("reading the schema that was learned: %w", err)
		}
		return schema.Value, nil
	}
}

func (h *Host) newReaction(spec component.ReactionSpec, generation uint64) (reaction.Reaction, error) {
	if err := component.ValidateReaction(spec); err != nil {
		return nil, err
	}
	f, ok := h.reactions[spec.Kind]
	if !ok {
		return nil, failure.ConfigInvalid.Errorf("kind: there is no reaction of kind %q; known are %s", spec.Kind, kinds(h.reactions))
	}
	id := spec.ID()
	return f.New(spec.Config, reaction.Settings{
		Instance: id.Instance, Name: id.Name, Queries: slices.Clone(spec.Queries), Generation: generation,
		Log: h.logFor(id), Secret: h.secret,
	})
}

func (h *Host) logFor(id component.ID) *zap.Logger {
	return h.log.With(zap.String(telemetry.KeyComponent, id.String()))
}

func kinds[F any](factories map[string]F) string {
	return strings.Join(slices.Sorted(maps.Keys(factories)), ", ")
}

// bucket returns a key-value bucket, created when it is used for the first time.
func (h *Host) bucket(ctx context.Context, name string) (*stream.Bucket, error) {
	h.mu.Lock()
	b := h.buckets[name]
	h.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := h.conn.Bucket(ctx, stream.BucketOptions{Name: name})
	if err != nil {
		return nil, fmt.Errorf("opening bucket %s: %w", name, err)
	}
	h.mu.Lock()
	h.buckets[name] = b
	h.mu.Unlock()
	return b, nil
}
