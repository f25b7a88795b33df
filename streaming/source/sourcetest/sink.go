package sourcetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// Patience is how long tests wait for something that should happen soon.
const Patience = 30 * time.Second

// Sink is a source.Sink that remembers everything, and the graph that the changes make. It is durable at once, unless
// it is held.
type Sink struct {
	mu           sync.Mutex
	last         graph.Position // of what was appended, or said to be idle at
	durable      graph.Position
	transactions []*graph.Transaction
	parts        []graph.Change // of a transaction that is not complete
	part         int            // number of the next part
	mostParts    int
	staged       map[uint64][]graph.Change // of transactions in progress
	tookStaged   int                       // changes that were appended by AppendStaged
	refuses      bool
	repeated     int
	notes        []string
	measures     map[string]float64
	interrupted  error
	system       string
	schema       []byte
	wanted       source.Wanted
	wantChanged  chan struct{}
	served       *source.Wanted
	held         bool
	ticks        int
	graph        Graph
	changed      chan struct{}
}

var _ source.Sink = (*Sink)(nil)

// NewSink returns a sink whose graph begins with these elements and that stands at a position, which may be empty.
func NewSink(from graph.Position, elements ...graph.Element) *Sink {
	s := &Sink{last: from, durable: from, graph: Graph{}, changed: make(chan struct{}, 1), wantChanged: make(chan struct{}, 1)}
	for _, e := range elements {
		s.graph[e.ID] = e
	}
	return s
}

// Append implements source.Sink.
func (s *Sink) Append(ctx context.Context, tx *graph.Transaction) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if tx.Position.Compare(s.last) <= 0 {
		s.repeated++
		return nil
	}
	tx = clone(tx)
	s.transactions = append(s.transactions, tx)
	for i := range tx.Changes {
		s.graph.Apply(&tx.Changes[i])
	}
	s.moveTo(tx.Position)
	return nil
}

// AppendPart implements source.Sink.
func (s *Sink) AppendPart(ctx context.Context, part *graph.Transaction, number int, last bool) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	if number == 0 {
		s.parts, s.part = nil, 0
	}
	if number != s.part {
		s.mu.Unlock()
		return fmt.Errorf("part %d follows after %d parts", number, s.part)
	}
	s.parts, s.part = append(s.parts, clone(part).Changes...), s.part+1
	s.mostParts = max(s.mostParts, s.part)
	whole := &graph.Transaction{Position: part.Position, CommitTime: part.CommitTime, Changes: s.parts, Schema: part.Schema}
	s.mu.Unlock()
	if !last {
		return nil
	}
	return s.Append(ctx, whole)
}

// Stage implements source.Sink.
func (s *Sink) Stage(ctx context.Context, transaction uint64, changes []graph.Change) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.staged == nil {
		s.staged = make(map[uint64][]graph.Change)
	}
	s.staged[transaction] = append(s.staged[transaction], clone(&graph.Transaction{Changes: changes}).Changes...)
	return nil
}

// Stages implements source.Sink.
func (s *Sink) Stages() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.refuses
}

// RefuseToStage makes Stages false from now on.
func (s *Sink) RefuseToStage() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refuses = true
}

// Unstage implements source.Sink.
func (s *Sink) Unstage(transaction uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.staged, transaction)
}

// AppendStaged implements source.Sink.
func (s *Sink) AppendStaged(ctx context.Context, transaction uint64, committed time.Time) error {
	s.mu.Lock()
	changes := s.staged[transaction]
	delete(s.staged, transaction)
	s.tookStaged += len(changes)
	s.mu.Unlock()
	if len(changes) == 0 {
		return fmt.Errorf("nothing was staged of transaction %d", transaction)
	}
	return s.AppendPart(ctx, &graph.Transaction{CommitTime: committed, Changes: changes}, 0, false)
}

// Staged returns how many transactions in progress there are of which something was staged, and how many changes of others
// were staged before these were appended.
func (s *Sink) Staged() (transactions, appended int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.staged), s.tookStaged
}

// clone copies a transaction, whose memory is the source's.
func clone(tx *graph.Transaction) *graph.Transaction {
	own := *tx
	own.Changes = make([]graph.Change, len(tx.Changes))
	for i := range tx.Changes {
		e, _, err := graph.DecodeElement(graph.AppendElement(nil, &tx.Changes[i].Element))
		if err != nil {
			panic(err) // AppendElement writes what DecodeElement reads
		}
		own.Changes[i] = graph.Change{Op: tx.Changes[i].Op, Element: *e}
	}
	return &own
}

// MostParts returns how many parts the transaction had that had most.
func (s *Sink) MostParts() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mostParts
}

// Idle implements source.Sink.
func (s *Sink) Idle(position graph.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if position.Compare(s.last) > 0 {
		s.moveTo(position)
	}
}

func (s *Sink) moveTo(position graph.Position) {
	s.last = position
	if !s.held {
		s.confirm()
	}
}

func (s *Sink) confirm() {
	s.durable = s.last
	select {
	case s.changed <- struct{}{}:
	default:
	}
}

// Durable implements source.Sink.
func (s *Sink) Durable() graph.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable
}

// DurableChanged implements source.Sink.
func (s *Sink) DurableChanged() <-chan struct{} { return s.changed }

// System implements source.Sink.
func (s *Sink) System() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.system
}

// Identify implements source.Sink.
func (s *Sink) Identify(system string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.system = system
}

// Schema implements source.Sink.
func (s *Sink) Schema() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.schema
}

// Learn implements source.Sink.
func (s *Sink) Learn(schema []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.schema = schema
}

// SchemaChanges returns, as text and in order, what the transactions said about the schema.
func (s *Sink) SchemaChanges() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var texts []string
	for _, tx := range s.transactions {
		for i := range tx.Schema {
			texts = append(texts, tx.Schema[i].String())
		}
	}
	return texts
}

// Want makes something what is read of the source.
func (s *Sink) Want(wanted source.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wanted = wanted
	select {
	case s.wantChanged <- struct{}{}:
	default:
	}
}

// Wanted implements source.Sink.
func (s *Sink) Wanted() source.Wanted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted
}

// WantedChanged implements source.Sink.
func (s *Sink) WantedChanged() <-chan struct{} { return s.wantChanged }

// Withhold implements source.Sink.
func (s *Sink) Withhold(_ context.Context, wanted source.Wanted) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !wanted.Covers(s.wanted) {
		return false, nil
	}
	s.served = &wanted
	return true, nil
}

// Serve implements source.Sink.
func (s *Sink) Serve(wanted source.Wanted) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served = &wanted
}

// Serves reports whether what is appended from now on has everything of wanted.
func (s *Sink) Serves(wanted source.Wanted) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served == nil || s.served.Covers(wanted)
}

// Note implements source.Sink.
func (s *Sink) Note(key, value string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.notes = append(s.notes, key+": "+value)
}

// Measure implements source.Sink.
func (s *Sink) Measure(name string, value float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.measures == nil {
		s.measures = make(map[string]float64)
	}
	s.measures[name] = value
}

// Measures returns the latest of each number that was measured.
func (s *Sink) Measures() map[string]float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.measures)
}

// Notes returns all that was noted, as "key: value".
func (s *Sink) Notes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.notes)
}

// Interrupted implements source.Sink.
func (s *Sink) Interrupted(why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.interrupted = why
}

// Interruption returns why the source gets nothing, as it last said.
func (s *Sink) Interruption() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.interrupted
}

// Tick implements source.Sink.
func (s *Sink) Tick() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ticks++
}

// Ticks returns how often the source said that it is alive.
func (s *Sink) Ticks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ticks
}

// Hold makes everything from now on not durable, until Release.
func (s *Sink) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = true
}

// Release makes everything durable.
func (s *Sink) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held = false
	s.confirm()
}

// Position returns where the source stands.
func (s *Sink) Position() graph.Position {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// Repeated returns how many transactions came although they were there already.
func (s *Sink) Repeated() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.repeated
}

// Transactions returns what was appended.
func (s *Sink) Transactions() []*graph.Transaction {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.transactions)
}

// Graph returns a copy of what the changes make.
func (s *Sink) Graph() Graph {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.graph)
}

// Eventually waits until a condition holds.
func Eventually(t testing.TB, what string, condition func() bool) {
	t.Helper()
	require.Eventually(t, condition, Patience, 10*time.Millisecond, what)
}
