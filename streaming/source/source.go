// Package source is the contract of anything that produces changes.
//
// A source is a folder below this one; copy postgres to add another. It exports only a Factory and imports no other
// stage: changes leave through the Sink that its Run is given, and nothing is confirmed to the system behind the source
// before the sink says that it is durable.
package source

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/graph"
)

// Settings is what the host gives a source beside its config.
type Settings struct {
	Instance   string
	Name       string
	Generation uint64      // grows each time the component is started anew
	Log        *zap.Logger // carries the component's name; silent when healthy
	// SpillDir is where a source may put what it cannot hold in memory, for as long as it runs; "": where the system puts
	// temporary files.
	SpillDir string
	// Secret resolves a reference such as "env:ORDERS_PW".
	Secret func(ref string) (string, error)
	// Reject keeps a record that cannot be decoded among the dead letters of the source; when it returns nil, that is
	// durable and the source may go on behind the record. It is safe for concurrent use; nil: there are no dead letters.
	Reject func(ctx context.Context, letter DeadLetter) error
	// Learned returns what the source last said with Sink.Learn, as far as it is durable, for what it does beside Run; nil when
	// it never did. It is safe for concurrent use; nil: that is not kept.
	Learned func(ctx context.Context) ([]byte, error)
	// Made is where the source puts on record what it makes in the system behind it; nil: nobody remembers that for longer
	// than the source itself.
	Made Record
	// Read returns the identity of the system from which what is durable came, as Sink.System does; "" when nothing is. It is
	// safe for concurrent use; nil: that is not known.
	Read func(ctx context.Context) (string, error)
}

// Record keeps what a source has made in the system behind it, in the source's own notation. What is to be made is put on
// record first, so that nothing is made that a crash lets nobody know of, and what is not on record is not the source's to
// remove. Several specs that a source had, one after the other, share it.
type Record interface {
	// Load returns what was saved last; nil: nothing.
	Load(ctx context.Context) ([]byte, error)
	// Save fails where somebody else has saved since the last Load. Empty: nothing is left.
	Save(ctx context.Context, made []byte) error
}

// DeadLetter is a record that cannot be decoded.
type DeadLetter struct {
	Position graph.Position // of the transaction or snapshot that it belongs to
	Scope    string         // what it is a record of, such as a table
	Cause    error
	Record   []byte // as it came
}

// Factory makes sources of one kind. It is safe for concurrent use.
type Factory interface {
	// Kind returns the name used in specs.
	Kind() string
	// New decodes and checks config, without I/O. All problems are reported at once, as one ConfigInvalid failure.
	New(config json.RawMessage, settings Settings) (Source, error)
}

// Source is one configured source. Its methods may be called concurrently, except that Run is called once at a time.
type Source interface {
	// Provision checks the system behind the source and creates what Run needs there (publication, slot). It is
	// idempotent, and it leaves nothing half-made: what a failing call created, it removes.
	Provision(ctx context.Context) error
	// Run streams changes to sink from the position after from (empty: from where Provision began) until ctx ends,
	// then stops cleanly: what the sink made durable is confirmed, connections are closed, and ctx's error or nil is
	// returned. It owns every goroutine it starts. Other errors are classified; transient ones it has already retried
	// for as long as settings allow.
	Run(ctx context.Context, from graph.Position, sink Sink) error
	// Teardown removes what Provision created, and nothing that was there before. What is gone already is no error.
	Teardown(ctx context.Context) error
	// Describe returns facts for an operator, such as the names of slot and publication; no secrets, no I/O.
	Describe() map[string]string
}

// Retirer is a source that puts on record what it makes, so that another spec may take the place of its own.
type Retirer interface {
	// Retire removes, of what is on record, that which this source's system has and for which the spec that was provisioned
	// last has no use. It reports whether nothing of the kind is on record any more, in other systems either.
	Retire(ctx context.Context) (done bool, err error)
}

// Sink takes a source's transactions in commit order. Only the goroutine of Run that reads the wire uses it.
type Sink interface {
	// Append takes one transaction, complete. It may block (back-pressure); the context bounds that. The transaction and all
	// it refers to are the source's again when the call returns, which may use the memory anew: a sink that keeps something
	// copies it.
	Append(ctx context.Context, tx *graph.Transaction) error
	// AppendPart takes the next part of a transaction that is too large to be held in memory: some of its changes, in
	// order. Parts are numbered from 0, and with the last, which alone has the Position, the transaction takes effect as a
	// whole. A source that cannot go on with one, because it lost its connection, begins again with part 0, or with
	// another transaction.
	AppendPart(ctx context.Context, part *graph.Transaction, number int, last bool) error
	// Stage takes some changes, in order, of a transaction of which it is not known yet whether it will commit, under a number
	// that the source gives it; others may be staged or appended in between. It may block, and is done with the changes when
	// it returns, as Append. A source need not stage anything, and should not while Stages is false: then what was staged
	// takes up as much room as it may.
	Stage(ctx context.Context, transaction uint64, changes []graph.Change) error
	Stages() bool
	// Unstage drops what was staged of a transaction, because that was rolled back or comes again from its begin; also of one
	// of which nothing was. It never blocks.
	Unstage(transaction uint64)
	// AppendStaged makes what was staged of a transaction, of which something must have been, its part 0: AppendPart goes on
	// with number 1. When it fails for reasons that may go away, what was staged may be lost: the source drops it, begins again
	// with that transaction, and appends it otherwise.
	AppendStaged(ctx context.Context, transaction uint64, committed time.Time) error
	// Idle says that the source stands at position with nothing to send, so that it may be confirmed once everything
	// appended before is durable. It never blocks.
	Idle(position graph.Position)
	// Durable returns the position up to which everything is durable; it may be confirmed to the system behind the
	// source. It never blocks and is safe for concurrent use.
	Durable() graph.Position
	// DurableChanged returns a channel that receives (capacity one, coalesced) when Durable moved.
	DurableChanged() <-chan struct{}
	// System returns the identity of the system from which what was appended before comes, also by earlier attempts; "" when
	// nothing was. A source compares it with the system that it is connected to, and calls Identify before it goes on.
	System() string
	Identify(system string)
	// Schema returns what the source last said with Learn, also in earlier attempts; nil when it never did. Learn keeps, in
	// the source's own notation, what elements look like behind everything that was appended so far; it becomes durable
	// after that. The slice belongs to the sink.
	Schema() []byte
	Learn(schema []byte)
	// Wanted returns what somebody reads of the source, or may come to read without asking for it; nil: everything.
	// WantedChanged returns a channel that receives (capacity one, coalesced) when it is another. Both are safe for
	// concurrent use. A source need not care: what it sends beyond that does no harm.
	Wanted() Wanted
	WantedChanged() <-chan struct{}
	// Withhold says that from now on the source may leave out what is not in wanted. Only when it reports true the source
	// may do so: whoever wants more waits from then on until Serve says that it is there. False: somebody does already. It is
	// safe for concurrent use with everything else.
	Withhold(ctx context.Context, wanted Wanted) (bool, error)
	// Serve says that the changes behind those that were appended so far have everything of wanted; it becomes known when
	// these are durable. It never blocks and is safe for concurrent use.
	Serve(wanted Wanted)
	// Note shows people a fact about what the source is doing, such as what it waits for; an empty value removes it. It
	// never blocks.
	Note(key, value string)
	// Measure exports a number that only the source can know, such as what the system keeps for it, as the metric
	// perdure_source_<name>; one that is not a number removes it. It never blocks and is safe for concurrent use.
	Measure(name string, value float64)
	// Interrupted says why the source gets nothing from its system for now: with each try that fails, all of which it repeats by
	// itself. Nil says that it gets what there is; a connection that breaks as soon as it is there is none yet. It never blocks.
	Interrupted(why error)
	// Tick tells the watchdog that the reading loop is alive; called at least every five seconds, also while idle.
	Tick()
}

// Snapshotter is a source that can be read as it stands at one position.
type Snapshotter interface {
	// HoldSnapshot opens a consistent snapshot, calls ready once with what others need to read it, keeps it open and
	// checks that it still is, until ctx ends (nil) or the snapshot is lost (SnapshotLost).
	HoldSnapshot(ctx context.Context, ready func(Snapshot) error, alive func()) error
	// PlanSnapshot says what wanted consists of. Nothing that is wanted is missing from the scopes.
	PlanSnapshot(ctx context.Context, snapshot Snapshot, wanted Wanted) (SnapshotPlan, error)
	// OpenSnapshot returns what reads chunks of the snapshot.
	OpenSnapshot(ctx context.Context, snapshot Snapshot) (SnapshotReader, error)
	// VerifySnapshot checks, after all chunks are read, that the changes from snapshot.Position on are reachable:
	// the slot is healthy, the server is the same one.
	VerifySnapshot(ctx context.Context, snapshot Snapshot) error
}

// SnapshotReader reads chunks of a snapshot, one after the other.
type SnapshotReader interface {
	// ReadChunk reads one chunk and hands over an insert for each of its elements, from one goroutine. After an error
	// nothing but Close may be called.
	ReadChunk(ctx context.Context, chunk Chunk, to ChunkSink) error
	// Close lets go of what the reader holds, within seconds. The snapshot stays open.
	Close()
}

// ChunkSink takes the elements of a chunk.
type ChunkSink interface {
	// Take takes a change and is done with it, and with all that it refers to, when it returns. It does not block.
	Take(c *graph.Change)
	// Pause is called after each BatchBytes or so, and at the end. It may block (back-pressure). Its error ends the chunk.
	Pause() error
}

// Snapshot identifies an open snapshot. Transactions whose Position is at or below the snapshot's are in it, later ones
// are not.
type Snapshot struct {
	Name     string         `json:"name"` // for the source's own use; never shown
	Position graph.Position `json:"position"`
	System   string         `json:"system"` // identity of the server and its timeline
	TakenAt  time.Time      `json:"takenAt"`
	// Schema names what elements look like in it, by label or type, as graph.SchemaChange.State does.
	Schema map[string]string `json:"schema,omitempty"`
}

// BatchBytes is about how much a ChunkSink is given between two pauses at most, unless one element alone is larger.
const BatchBytes = 128 << 10

// Wanted says, by label or type, what somebody reads. The label "" stands for every element. Nil: everything is wanted.
type Wanted map[string]Reads

// Reads is what somebody reads of the elements of a label.
type Reads struct {
	Properties []string `json:"properties"` // "*" stands for all of them
	Only       Only     `json:"only"`       // which elements
}

// Only says which elements somebody reads: those that have, of each of its properties, one of the values, as text. Nil: all.
// A source may send others as well.
type Only map[string][]string

// Any reports whether elements with one of these labels are wanted.
func (w Wanted) Any(labels ...string) bool {
	return w == nil || slices.ContainsFunc(append([]string{""}, labels...), func(l string) bool {
		_, wanted := w[l]
		return wanted
	})
}

// Properties returns the properties that are wanted of elements with one of these labels, in order; nil means all.
func (w Wanted) Properties(labels ...string) []string {
	if w == nil {
		return nil
	}
	names := []string{} // nothing is not all
	for _, l := range append([]string{""}, labels...) {
		names = append(names, w[l].Properties...)
	}
	if slices.Contains(names, "*") {
		return nil
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// Only returns which elements with a label are wanted, if any are; nil means all.
func (w Wanted) Only(label string) Only {
	if _, all := w[""]; all {
		return nil
	}
	return w[label].Only
}

// Covers reports whether everything of other is wanted, too.
func (w Wanted) Covers(other Wanted) bool {
	if w == nil || other == nil {
		return w == nil
	}
	for label := range other {
		have, needed := w.Properties(label), other.Properties(label)
		if !w.Any(label) || have != nil && (needed == nil || !containsAll(have, needed)) || !w.Only(label).Covers(other.Only(label)) {
			return false
		}
	}
	return true
}

// Union returns what is wanted by one of all; without any that is nothing.
func Union(all ...Wanted) Wanted {
	union := make(Wanted)
	for _, w := range all {
		if w == nil {
			return nil
		}
		for label, r := range w {
			before, is := union[label]
			if is {
				r.Only = r.Only.Or(before.Only)
			}
			union[label] = Reads{merged(before.Properties, r.Properties), r.Only}
		}
	}
	return union
}

// Covers reports whether o has all elements that other has.
func (o Only) Covers(other Only) bool {
	for property, values := range o {
		if fewer, is := other[property]; !is || !containsAll(values, fewer) {
			return false
		}
	}
	return true
}

// Or returns what has all elements of both, and as few others as it can say.
func (o Only) Or(other Only) (either Only) {
	for property, values := range o {
		if more, is := other[property]; is {
			if either == nil {
				either = make(Only)
			}
			either[property] = merged(values, more)
		}
	}
	return either
}

func containsAll(names, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(names, name) })
}

func merged(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// MarshalJSON writes the properties alone where all elements are read, as earlier versions do.
func (r Reads) MarshalJSON() ([]byte, error) {
	if r.Only == nil {
		return json.Marshal(r.Properties)
	}
	type plain Reads
	return json.Marshal(plain(r))
}

// UnmarshalJSON implements json.Unmarshaler.
func (r *Reads) UnmarshalJSON(data []byte) error {
	if !bytes.HasPrefix(data, []byte("{")) {
		r.Only = nil
		return json.Unmarshal(data, &r.Properties)
	}
	type plain Reads
	return json.Unmarshal(data, (*plain)(r))
}

// SnapshotPlan is what a snapshot consists of and how it is to be read.
type SnapshotPlan struct {
	Scopes []Scope
	Pace   Pace
}

// Pace is how a snapshot is to be read.
type Pace struct {
	Parallelism   int           `json:"parallelism"`             // chunks that should be read at the same time
	ChunkTime     time.Duration `json:"chunkTime"`               // how long reading a chunk should take
	RowsPerSecond int64         `json:"rowsPerSecond,omitempty"` // of all readers together, 0: no limit
}

// Scope is a part of a snapshot that is one thing to the source, such as a table. Its elements stand at places, which
// are numbered from 0, so that whoever reads it can divide it into chunks.
type Scope struct {
	Name       string   `json:"name"`       // in the source's own notation, such as the table's quoted name
	Labels     []string `json:"labels"`     // labels and types of the elements it yields, first the one that each row yields
	Properties []string `json:"properties"` // those that are wanted, in order; nil: all
	Only       Only     `json:"only,omitempty"`
	Places     int64    `json:"places"` // such as the blocks of a table; 0: it has nothing
	Rows       int64    `json:"rows"`   // estimate
	Least      int64    `json:"least"`  // places of the smallest chunk that is worth reading
	// Layout, if any, tells whether what was read of an earlier snapshot is still of use: while it is the same, elements that
	// did not change are at the same places, all elements look the same, and no change removed them all at once (OpTruncate).
	Layout string `json:"layout,omitempty"`
	Mark   string `json:"mark,omitempty"` // of the snapshot; see Chunk.Since
}

// Chunk is a part of a scope that is read, and retried, alone.
type Chunk struct {
	Scope
	From int64 `json:"from"` // the first place
	To   int64 `json:"to"`   // the place after the last; Places or more: to the end
	// Since, if any, is the Mark of an earlier snapshot, of the same Layout, of which these places were read. What is here as
	// it was here then need not be read again, nor what changes in between tell completely.
	Since string `json:"since,omitempty"`
}
