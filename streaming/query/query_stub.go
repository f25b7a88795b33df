// Package query compiles continuous queries and applies changes to them.
package query

import (
	"errors"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/result"
)

// Options are what a query needs beside its text.
type Options struct {
	// Parameters are the values of $name in the text.
	Parameters map[string]graph.Value
}

// Needs says what a plan reads.
type Needs struct {
	// Properties lists by label or type the properties that are read, "*" for all of them. The label "" stands for all
	// elements: the plan has a pattern without label.
	Properties map[string][]string
}

// Plan is a compiled query.
type Plan struct{}

// Compile compiles a query.
func Compile(text string, o Options) (*Plan, error) { panic("being built") }

// Columns returns the names of the result's columns.
func (p *Plan) Columns() []string { panic("being built") }

// Fingerprint says whether stored state fits the plan.
func (p *Plan) Fingerprint() string { panic("being built") }

// Explain describes the plan.
func (p *Plan) Explain() string { panic("being built") }

// Labels returns labels and types of the elements that the plan reads; nil means all.
func (p *Plan) Labels() []string { panic("being built") }

// Needs says which properties of which elements the plan reads.
func (p *Plan) Needs() Needs { panic("being built") }

// ErrFingerprint says that the stored state belongs to another plan.
var ErrFingerprint = errors.New("the stored state belongs to another query")

// Phase is how far a query's state is.
type Phase uint8

// The phases.
const (
	Empty Phase = iota
	Loading
	Live
)

// Batch is a message of a source's change stream.
type Batch struct {
	Source       string
	Offset       uint64
	Position     graph.Position // how far the source is after the batch
	Transactions []graph.Transaction
}

// Stats are counters of a query.
type Stats struct {
	Rows, FailedRows, Elements int64
	Bytes                      uint64
}

// Query is a plan with its state.
type Query struct{}

// Open opens the state of a plan.
func Open(p *Plan, s index.Store) (*Query, error) { panic("being built") }

// Phase returns how far the state is.
func (q *Query) Phase() Phase { panic("being built") }

// State returns up to where the result set has come.
func (q *Query) State() result.State { panic("being built") }

// Load takes elements while loading.
func (q *Query) Load(source string, token []byte, changes []graph.Change) error { panic("being built") }

// Token returns the last token that Load stored for a source.
func (q *Query) Token(source string) []byte { panic("being built") }

// Seal ends loading.
func (q *Query) Seal(state result.State, rowsPerEvent int) error { panic("being built") }

// Begin starts without loading.
func (q *Query) Begin(state result.State) error { panic("being built") }

// Apply applies a batch.
func (q *Query) Apply(b Batch) ([]result.Event, error) { panic("being built") }

// Outbox visits the events after a sequence that are not trimmed yet.
func (q *Query) Outbox(after uint64, visit func(sequence uint64, encoded []byte) (more bool, err error)) error {
	panic("being built")
}

// TrimOutbox forgets events up to and including through.
func (q *Query) TrimOutbox(through uint64) error { panic("being built") }

// View returns the result set as it stands.
func (q *Query) View() (*View, error) { panic("being built") }

// Stats returns counters.
func (q *Query) Stats() Stats { panic("being built") }

// Sync makes everything applied durable.
func (q *Query) Sync() error { panic("being built") }

// Close closes the query and its store.
func (q *Query) Close() error { panic("being built") }

// View is a result set at one moment.
type View struct{}

// State returns up to where the view has come.
func (v *View) State() result.State { panic("being built") }

// Columns returns the names of the columns.
func (v *View) Columns() []string { panic("being built") }

// Scan visits all rows.
func (v *View) Scan(visit func(result.Row) error) error { panic("being built") }

// Close releases the view.
func (v *View) Close() { panic("being built") }
