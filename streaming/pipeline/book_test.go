package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// book is a database in memory with a log of transactions, and the factory of sources that stream it. Positions are the
// numbers of its transactions.
type book struct {
	mu           sync.Mutex
	moved        chan struct{}
	log          []graph.Transaction
	elements     map[graph.ElementID]graph.Element
	confirmed    graph.Position
	parts        bool           // large transactions come in parts
	stages       bool           // of which the first is staged, between those of another one, which is rolled back
	between      func(part int) // called before each of them
	beforeStaged func()         // called before what was staged is appended
	repeats      bool           // sources send the last transactions again now and then, as after a reconnect

	snapshots map[string]map[graph.ElementID]graph.Element
	pace      source.Pace
	failChunk func(source.Chunk) error // asked before a chunk is read
	readRows  func()                   // called between two batches of a chunk
	renewed   graph.Position           // changes before it are lost
}

func newBook() *book {
	return &book{
		moved: make(chan struct{}), elements: make(map[graph.ElementID]graph.Element),
		snapshots: make(map[string]map[graph.ElementID]graph.Element),
		pace:      source.Pace{Parallelism: 3, ChunkTime: time.Nanosecond}, // chunks stay small
	}
}

func positionOf(n int) graph.Position {
	if n == 0 {
		return ""
	}
	return graph.Position(strconv.Itoa(n))
}

func (b *book) number(p graph.Position) int {
	n, _ := strconv.Atoi(string(p))
	return n
}

// commit applies changes as one transaction and returns its position.
func (b *book) commit(changes ...graph.Change) graph.Position {
	return b.write(graph.Transaction{Changes: changes})
}

func (b *book) write(tx graph.Transaction) graph.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(tx.Changes)
	tx.Position, tx.CommitTime = positionOf(len(b.log)+1), time.Now().UTC()
	b.log = append(b.log, tx)
	close(b.moved)
	b.moved = make(chan struct{})
	return tx.Position
}

func (b *book) change(changes []graph.Change) {
	for _, c := range changes {
		if c.Op == graph.OpDelete {
			delete(b.elements, c.Element.ID)
		} else {
			b.elements[c.Element.ID] = c.Element
		}
	}
}

// miss changes elements in a way that no transaction tells of, as when changes are lost.
func (b *book) miss(changes ...graph.Change) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.change(changes)
}

// tell says in the log that changes were missed, of elements with some labels or of any.
func (b *book) tell(what string, labels ...string) {
	b.write(graph.Transaction{Schema: []graph.SchemaChange{{Op: graph.SchemaMissed, Labels: labels, From: "1", To: what}}})
}

func (b *book) end() graph.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return positionOf(len(b.log))
}

func (b *book) confirmedAt() graph.Position {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.confirmed
}

var itemShape = graph.NewShape("id", "name", "amount")

func item(op graph.Op, label string, id int, name string, amount int) graph.Change {
	c := graph.Change{Op: op, Element: graph.Element{ID: graph.ElementID(fmt.Sprintf("%s:%d", label, id)), Labels: []string{label}}}
	if op != graph.OpDelete {
		c.Element.Shape = itemShape
		c.Element.Values = []graph.Value{graph.Int(int64(id)), graph.String(name), graph.Int(int64(amount))}
	}
	return c
}

// Kind implements source.Factory.
func (b *book) Kind() string { return "book" }

// New implements source.Factory.
func (b *book) New(json.RawMessage, source.Settings) (source.Source, error) {
	return &bookSource{book: b}, nil
}

type bookSource struct{ *book }

func (s *bookSource) Provision(context.Context) error { return nil }
func (s *bookSource) Teardown(context.Context) error  { return nil }
func (s *bookSource) Describe() map[string]string     { return map[string]string{"book": "in memory"} }

// Run implements source.Source.
func (s *bookSource) Run(ctx context.Context, from graph.Position, sink source.Sink) error {
	confirm := func() {
		s.mu.Lock()
		if d := sink.Durable(); d.Compare(s.confirmed) > 0 {
			s.confirmed = d
		}
		s.mu.Unlock()
	}
	next := s.number(from)
	for {
		sink.Tick()
		s.mu.Lock()
		pending, moved := s.log[min(next, len(s.log)):], s.moved
		s.mu.Unlock()
		for i := range pending {
			tx := pending[i]
			if err := s.append(ctx, sink, &tx); err != nil {
				confirm()
				return err
			}
			next++
		}
		if s.repeats && len(pending) > 3 {
			next -= 3
			continue
		}
		sink.Idle(positionOf(next))
		select {
		case <-moved:
		case <-sink.DurableChanged():
			confirm()
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			confirm()
			return ctx.Err()
		}
	}
}

// append hands over a transaction, a large one in parts if the book says so. Then it begins a second time, as after an
// interruption.
func (s *bookSource) append(ctx context.Context, sink source.Sink, tx *graph.Transaction) error {
	third := len(tx.Changes) / 3
	if !s.parts || third == 0 {
		return sink.Append(ctx, tx)
	}
	part := func(number, from, to int) error {
		if s.between != nil {
			s.between(number)
		}
		if s.stages && number == 0 {
			return s.stage(ctx, sink, tx, tx.Changes[from:to])
		}
		p := &graph.Transaction{CommitTime: tx.CommitTime, Changes: tx.Changes[from:to]}
		last := to == len(tx.Changes)
		if last {
			p.Position = tx.Position
		}
		return sink.AppendPart(ctx, p, number, last)
	}
	for _, step := range [][3]int{{0, 0, third}, {1, third, 2 * third}, {0, 0, third}, {1, third, third}, {2, third, len(tx.Changes)}} {
		if err := part(step[0], step[1], step[2]); err != nil {
			return err
		}
	}
	return nil
}

// stage hands over the first part of a transaction in progress, which then commits.
func (s *bookSource) stage(ctx context.Context, sink source.Sink, tx *graph.Transaction, changes []graph.Change) error {
	const commits, rollsBack = 7, 8
	half := len(changes) / 2
	wrong := []graph.Change{item(graph.OpInsert, "Item", 999, "rolled back", 999)}
	for _, step := range []struct {
		transaction uint64
		changes     []graph.Change
	}{{rollsBack, wrong}, {commits, changes[:half]}, {rollsBack, wrong}, {commits, changes[half:]}} {
		if err := sink.Stage(ctx, step.transaction, step.changes); err != nil {
			return err
		}
	}
	sink.Unstage(rollsBack)
	if s.beforeStaged != nil {
		s.beforeStaged()
	}
	return sink.AppendStaged(ctx, commits, tx.CommitTime)
}

// HoldSnapshot implements source.Snapshotter.
func (s *bookSource) HoldSnapshot(ctx context.Context, ready func(source.Snapshot) error, alive func()) error {
	s.mu.Lock()
	snapshot := source.Snapshot{Name: fmt.Sprint("s", time.Now().UnixNano()), Position: positionOf(len(s.log)), System: "book", TakenAt: time.Now()}
	s.snapshots[snapshot.Name] = maps.Clone(s.elements)
	s.mu.Unlock()
	if err := ready(snapshot); err != nil {
		return err
	}
	for {
		s.mu.Lock()
		_, there := s.snapshots[snapshot.Name]
		s.mu.Unlock()
		if !there {
			return failure.SnapshotLost.Errorf("snapshot %s is lost", snapshot.Name)
		}
		alive()
		select {
		case <-time.After(5 * time.Millisecond):
		case <-ctx.Done():
			s.mu.Lock()
			defer s.mu.Unlock()
			delete(s.snapshots, snapshot.Name)
			return nil
		}
	}
}

// lose ends all snapshots.
func (b *book) lose() {
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.snapshots)
}

func (s *bookSource) snapshot(name string) (map[graph.ElementID]graph.Element, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rows, there := s.snapshots[name]
	if !there {
		return nil, failure.SnapshotLost.Errorf("snapshot %s is lost", name)
	}
	return rows, nil
}

const chunkRows = 100

// sorted returns the ids of a snapshot's elements with a label.
func sorted(rows map[graph.ElementID]graph.Element, label string) (ids []graph.ElementID) {
	for id, e := range rows {
		if e.Labels[0] == label {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// PlanSnapshot implements source.Snapshotter: a scope for each label, whose places are ids.
func (s *bookSource) PlanSnapshot(_ context.Context, snapshot source.Snapshot, wanted source.Wanted) (source.SnapshotPlan, error) {
	plan := source.SnapshotPlan{Pace: s.pace}
	rows, err := s.snapshot(snapshot.Name)
	if err != nil {
		return plan, err
	}
	for _, label := range []string{"Item", "Other"} {
		if n := int64(len(sorted(rows, label))); wanted.Any(label) {
			plan.Scopes = append(plan.Scopes, source.Scope{Name: label, Labels: []string{label}, Properties: wanted.Properties(label), Places: n, Rows: n, Least: chunkRows})
		}
	}
	return plan, nil
}

// OpenSnapshot implements source.Snapshotter.
func (s *bookSource) OpenSnapshot(_ context.Context, snapshot source.Snapshot) (source.SnapshotReader, error) {
	return &bookReader{s, snapshot}, nil
}

type bookReader struct {
	*bookSource
	source.Snapshot
}

// Close implements source.SnapshotReader.
func (s *bookReader) Close() {}

// ReadChunk implements source.SnapshotReader.
func (s *bookReader) ReadChunk(_ context.Context, c source.Chunk, to source.ChunkSink) error {
	if s.failChunk != nil {
		if err := s.failChunk(c); err != nil {
			return err
		}
	}
	rows, err := s.snapshot(s.Snapshot.Name)
	if err != nil {
		return err
	}
	for i, id := range sorted(rows, c.Name)[c.From:min(c.To, c.Places)] {
		change := graph.Change{Op: graph.OpInsert, Element: rows[id]}
		to.Take(&change)
		if i%30 == 29 {
			if err := to.Pause(); err != nil {
				return err
			}
			if s.readRows != nil {
				s.readRows()
			}
		}
	}
	return to.Pause()
}

// VerifySnapshot implements source.Snapshotter.
func (s *bookSource) VerifySnapshot(_ context.Context, snapshot source.Snapshot) error {
	if snapshot.Position.Compare(s.renewed) < 0 {
		return failure.SnapshotLost.Errorf("changes after %s are lost", snapshot.Position)
	}
	_, err := s.snapshot(snapshot.Name)
	return err
}
