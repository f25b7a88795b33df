package query

import (
	"cmp"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/operator"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/query/internal/touched"
	"github.com/perdure/perdure/streaming/result"
)

// ErrFingerprint says that stored state belongs to another query: it must be built anew.
var ErrFingerprint = errors.New("the stored state belongs to another query")

// Phase is how far a query's state is.
type Phase uint8

// The phases.
const (
	// Empty state has seen nothing yet.
	Empty Phase = iota
	// Loading state takes in a snapshot and yields no events.
	Loading
	// Live state applies batches.
	Live
)

var phaseNames = [...]string{"empty", "loading", "live"}

// String returns the phase in lower case.
func (p Phase) String() string {
	if int(p) < len(phaseNames) {
		return phaseNames[p]
	}
	return "phase?"
}

// Caches of the neighbours of nodes and of groups; beyond them reads go to the index, which caches records itself.
const (
	neighbourBytes = 64 << 20
	groupBytes     = 32 << 20
)

// Query is a plan with its state. One goroutine uses it, except where a method says otherwise.
type Query struct {
	plan      *Plan
	store     index.Store
	meta      *store.Meta
	elements  *store.Elements
	network   *operator.Network
	touched   touched.List[graph.ElementID, touch] // by the transaction at hand
	differing []string                             // scratch: properties
	random    rand.PCG
	masks     []uint64 // scratch: by Match, the positions at which a change makes a difference
	outbox    outbox
	trim      uint64 // outbox sequence up to which the next batch trims
	key       []byte
	ids       []graph.ElementID // scratch
	alive     func()
	silent    bool // no events are made; see Recall
}

// Watch has alive called while a batch is applied, at least once for each element that it changes.
func (q *Query) Watch(alive func()) { q.alive = alive }

// Open opens the state of a plan, which the query then owns. State of another plan gives ErrFingerprint and leaves the
// store to the caller.
func Open(p *Plan, s index.Store) (*Query, error) {
	indexes := make([]store.Index, len(p.plan.Indexes))
	for i, index := range p.plan.Indexes {
		indexes[i] = store.Index{Scan: index.Scan, Property: index.Property}
	}
	elements := store.NewElements(p.plan.Relevance, indexes, neighbourBytes)
	q := &Query{plan: p, store: s, elements: elements}
	q.network = operator.NewNetwork(p.plan, elements, operator.Options{
		Policy: policies[p.options.OnError], MaxSteps: cmp.Or(p.options.MaxPathSteps, DefaultMaxPathSteps),
		MaxRows: cmp.Or(p.options.MaxRows, DefaultMaxRows), CacheBytes: groupBytes, Analyze: p.options.Analyze,
	})
	q.network.Env.Random = rand.New(&q.random) //nolint:gosec // it need not be secret, but repeatable
	q.masks = make([]uint64, len(p.plan.Matches))
	if err := q.reload(); err != nil {
		return nil, err
	}
	if q.meta.Fingerprint != p.fingerprint {
		return nil, ErrFingerprint
	}
	return q, nil
}

// reload makes everything in memory what the store says, at the start and after a batch that failed.
func (q *Query) reload() error {
	m, err := store.ReadMeta(q.store)
	if err != nil {
		return err
	}
	if m == nil {
		m = &store.Meta{Fingerprint: q.plan.fingerprint}
	}
	q.meta = m
	q.network.Reset()
	q.network.Failed, q.network.Output.Rows = m.Failed, m.Rows
	q.trim = max(q.trim, m.Trimmed)
	if err := q.outbox.load(q.store); err != nil {
		return err
	}
	return q.elements.Load(q.store, m.Elements)
}

// write runs change in one batch and commits it; when anything fails nothing has happened.
func (q *Query) write(change func(b index.Batch) error) error {
	b := q.store.NewBatch()
	defer b.Discard()
	q.network.Batch = b
	q.network.Env.Now = q.meta.Clock
	err := failure.Guard(func() error {
		if err := change(b); err != nil {
			return err
		}
		return q.finish(b)
	})
	if err == nil {
		err = b.Commit()
	}
	q.network.Batch = nil
	if err != nil {
		return errors.Join(err, q.reload())
	}
	return nil
}

// finish adds to a batch what every batch ends with.
func (q *Query) finish(b index.Batch) error {
	if err := q.network.Save(); err != nil {
		return err
	}
	if err := q.writeOutbox(b); err != nil {
		return err
	}
	q.meta.Rows, q.meta.Failed, q.meta.Elements = q.network.Output.Rows, q.network.Failed, q.elements.Count()
	return q.meta.Write(b)
}

// chance makes the random numbers that come next those of the next transaction, which are the same whenever it is
// applied.
func (q *Query) chance() {
	q.meta.Transactions++
	q.random.Seed(q.meta.Transactions, 0)
}

// tick moves the clock of the query forward to a time at which something happened. It never goes back.
func (q *Query) tick(now time.Time) {
	if now.After(q.meta.Clock) {
		q.meta.Clock = now.UTC()
	}
	q.network.Env.Now = q.meta.Clock
}

func (q *Query) want(p Phase) error {
	if q.Phase() != p {
		return failure.StateCorrupt.Errorf("the query is %s and should be %s", q.Phase(), p)
	}
	return nil
}

// Phase returns how far the state is.
func (q *Query) Phase() Phase { return Phase(q.meta.Phase) }

// State returns up to where the result set has come.
func (q *Query) State() result.State { return stateOf(q.meta) }

func stateOf(m *store.Meta) result.State {
	s := result.State{
		Sequence: m.Sequence, Positions: make(map[string]graph.Position), Offsets: make(map[string]uint64),
	}
	for _, source := range m.Sources {
		s.Positions[source.Name], s.Offsets[source.Name] = source.Position, source.Offset
	}
	return s
}

// Stats are counters of a query.
type Stats struct {
	Rows       int64 // in the result set
	FailedRows int64 // left out because an expression fails
	Elements   int64 // stored
	Bytes      uint64
}

// Stats returns counters.
func (q *Query) Stats() Stats {
	return Stats{Rows: q.meta.Rows, FailedRows: q.meta.Failed, Elements: q.meta.Elements, Bytes: q.store.Bytes()}
}

// Failure is a row that is left out.
type Failure struct {
	Origin string // ids of the elements or keys of the group that it is made of
	Cause  string
}

// Failures returns at most limit of the rows that are left out now.
func (q *Query) Failures(limit int) ([]Failure, error) {
	var list []Failure
	from, to := store.FailedBounds()
	err := q.store.Scan(from, to, func(_, record []byte) (bool, error) {
		if len(list) == limit {
			return false, nil
		}
		r := store.Reader{Src: slices.Clone(record)}
		list = append(list, Failure{Origin: r.Text(), Cause: r.Text()})
		return true, r.Err
	})
	return list, err
}

// Sync makes everything applied durable against a crash of the machine.
func (q *Query) Sync() error { return q.store.Sync() }

// Checkpoint makes a copy of the state's files as they are after the last batch. The store must be an
// index.DurableStore.
func (q *Query) Checkpoint() (*index.Checkpoint, error) {
	s, ok := q.store.(index.DurableStore)
	if !ok {
		return nil, failure.Panic.Errorf("the index of the query keeps no files")
	}
	return s.Checkpoint()
}

// Close closes the query and its store.
func (q *Query) Close() error { return q.store.Close() }
