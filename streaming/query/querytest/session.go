// Package querytest runs scripts that say what continuous queries answer, and replays each script in many other ways
// that must lead to the same answers. README.md describes the script language.
package querytest

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query"
	"github.com/perdure/perdure/streaming/result"
)

const source = "script"

// T is what a session needs of a test; *testing.T and *rapid.T both have it.
type T interface {
	require.TestingT
	Helper()
}

// Session is a query under test. Beside the query it keeps a replica of the result set, made of nothing but events, and
// holds the two against each other.
type Session struct {
	t       T
	backend index.Backend
	plan    *query.Plan
	Query   *query.Query
	store   string // name
	replica map[result.RowKey][]graph.Value
	next    uint64 // sequence of the next event
	offset  uint64
	clock   time.Time
}

// Start is the time at which all sessions start.
var Start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)

// NewSession opens a query on an empty store of the back end.
func NewSession(t T, backend index.Backend, text string, parameters map[string]graph.Value) *Session {
	plan, err := query.Compile(text, query.Options{
		Parameters: parameters, Now: func() time.Time { return Start },
	})
	require.NoError(t, err)
	s := &Session{t: t, backend: backend, plan: plan, replica: make(map[result.RowKey][]graph.Value), next: 1, clock: Start, store: "query"}
	s.Query = s.open()
	return s
}

func (s *Session) open() *query.Query {
	store, err := s.backend.Open(s.store)
	require.NoError(s.t, err)
	q, err := query.Open(s.plan, store)
	require.NoError(s.t, err)
	return q
}

// Close closes the query.
func (s *Session) Close() { require.NoError(s.t, s.Query.Close()) }

// Reopen closes the query and opens it again, as a restart does.
func (s *Session) Reopen() {
	s.Close()
	s.Query = s.open()
}

// Load loads elements in several steps and seals.
func (s *Session) Load(elements []graph.Change) {
	s.load(elements)
	s.again(func() error { return s.Query.Seal(result.State{}, 2) })
	s.snapshot()
}

func (s *Session) load(elements []graph.Change) {
	half := len(elements) / 2
	for i, part := range [][]graph.Change{elements[:half], elements[half:]} {
		s.again(func() error { return s.Query.Load(source, []byte{byte(i)}, part) })
		require.Equal(s.t, []byte{byte(i)}, s.Query.Token(source))
	}
}

// Resync builds the state anew from all elements that there are now, whatever became of them unseen, and returns the
// differences to what the query answered before.
func (s *Session) Resync(elements []graph.Change) []result.Diff {
	return s.resync(func(*query.Query) { s.load(elements) })
}

// ResyncLabels does so for elements with some labels, of which it takes a snapshot as it is; what became of the others is
// told by changes.
func (s *Session) ResyncLabels(labels []string, snapshot, changes []graph.Change) []result.Diff {
	return s.resync(func(old *query.Query) {
		s.again(func() error { return s.Query.LoadFrom(old, source, []byte("old"), labels) })
		require.Equal(s.t, []byte("old"), s.Query.Token(source))
		s.load(snapshot)
		s.load(changes)
	})
}

func (s *Session) resync(load func(old *query.Query)) []result.Diff {
	old := s.Query
	before := s.next
	s.store += "+"
	s.Query = s.open()
	load(old)
	s.again(func() error {
		return s.Query.Resync(old, result.State{Offsets: map[string]uint64{source: s.offset}})
	})
	require.NoError(s.t, old.Close())
	var diffs []result.Diff
	more := false
	s.outbox(before-1, func(e *result.Event) {
		require.False(s.t, e.Snapshot)
		s.replay(e)
		diffs, more = append(diffs, e.Diffs...), e.More
	})
	require.False(s.t, more, "the differences are not complete")
	s.Check()
	return diffs
}

// Begin starts with an empty graph.
func (s *Session) Begin() {
	s.again(func() error { return s.Query.Begin(result.State{}) })
	s.snapshot()
}

func (s *Session) snapshot() {
	s.outbox(0, func(e *result.Event) {
		require.True(s.t, e.Snapshot)
		s.replay(e)
	})
	s.Check()
}

// outbox visits the events after a sequence.
func (s *Session) outbox(after uint64, visit func(*result.Event)) {
	err := s.Query.Outbox(after, func(_ uint64, encoded []byte) (bool, error) {
		e, rest, err := result.DecodeEvent(encoded)
		require.NoError(s.t, err)
		require.Empty(s.t, rest)
		visit(e)
		return true, nil
	})
	require.NoError(s.t, err)
}

// Apply applies transactions as one batch and checks all that must hold of the events.
func (s *Session) Apply(transactions ...[]graph.Change) []result.Event {
	s.offset++
	position := graph.Position(fmt.Sprint(s.offset))
	b := query.Batch{Source: source, Offset: s.offset, Position: position}
	for _, changes := range transactions {
		b.Transactions = append(b.Transactions, graph.Transaction{Position: position, Changes: changes})
	}
	before := s.next
	var events []result.Event
	s.again(func() (err error) {
		events, err = s.Query.Apply(b)
		return err
	})
	for i := range events {
		s.replay(&events[i])
	}
	again, err := s.Query.Apply(b)
	require.NoError(s.t, err)
	require.Empty(s.t, again, "a batch that was applied changes nothing")
	s.checkOutbox(before, events)
	s.Check()
	return events
}

// Advance moves the clock of the query forward, and checks all that must hold of the events.
func (s *Session) Advance(by time.Duration) []result.Event {
	s.clock = s.clock.Add(by)
	before := s.next
	var events []result.Event
	s.again(func() (err error) {
		events, err = s.Query.Advance(s.clock)
		return err
	})
	for i := range events {
		s.replay(&events[i])
	}
	again, err := s.Query.Advance(s.clock)
	require.NoError(s.t, err)
	require.Empty(s.t, again, "a time that has passed changes nothing")
	s.checkOutbox(before, events)
	s.Check()
	return events
}

// replay applies an event to the replica; a diff that does not fit it is a bug.
func (s *Session) replay(e *result.Event) {
	require.Equal(s.t, s.next, e.Sequence)
	s.next++
	require.NotEmpty(s.t, e.Diffs)
	for _, d := range e.Diffs {
		old, there := s.replica[d.Key]
		require.Equal(s.t, d.Op != result.Added, there, "%s row %s", d.Op, d.Key)
		if there {
			require.True(s.t, slices.EqualFunc(old, d.Before, graph.Identical), "before is %v, was %v", d.Before, old)
		}
		if d.Op == result.Deleted {
			delete(s.replica, d.Key)
			continue
		}
		require.False(s.t, there && slices.EqualFunc(old, d.After, graph.Identical), "an update that changes nothing")
		s.replica[d.Key] = d.After
	}
}

func (s *Session) checkOutbox(from uint64, events []result.Event) {
	i := 0
	err := s.Query.Outbox(from-1, func(sequence uint64, encoded []byte) (bool, error) {
		require.Less(s.t, i, len(events))
		require.Equal(s.t, events[i].Sequence, sequence)
		require.Equal(s.t, string(result.AppendEvent(nil, &events[i])), string(encoded))
		i++
		return true, nil
	})
	require.NoError(s.t, err)
	require.Len(s.t, events, i)
}

// Check compares the view with the replica.
func (s *Session) Check() {
	var replica []string
	for _, values := range s.replica {
		replica = append(replica, s.text(values))
	}
	slices.Sort(replica)
	require.Equal(s.t, strings.Join(replica, "\n"), strings.Join(s.View(), "\n"), "the events do not add up to the view")
	require.EqualValues(s.t, len(replica), s.Query.Stats().Rows)
}

// View returns the rows as text, sorted.
func (s *Session) View() []string {
	v, err := s.Query.View()
	require.NoError(s.t, err)
	defer v.Close()
	var rows []string
	require.NoError(s.t, v.Scan(func(row result.Row) error {
		rows = append(rows, s.text(row.Values))
		return nil
	}))
	slices.Sort(rows)
	return rows
}

func (s *Session) text(values []graph.Value) string {
	parts := make([]string, len(values))
	for i, v := range values {
		parts[i] = s.plan.Columns()[i] + ": " + v.String()
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// EventText shows an event, a diff a line, sorted by text.
func (s *Session) EventText(e *result.Event) []string {
	var lines []string
	for _, d := range e.Diffs {
		switch d.Op {
		case result.Added:
			lines = append(lines, "+ "+s.text(d.After))
		case result.Deleted:
			lines = append(lines, "- "+s.text(d.Before))
		default:
			lines = append(lines, "~ "+s.text(d.Before)+" -> "+s.text(d.After))
		}
	}
	slices.Sort(lines)
	return lines
}

// Rows returns the result set in its order.
func (s *Session) Rows() []result.Row {
	v, err := s.Query.View()
	require.NoError(s.t, err)
	defer v.Close()
	var rows []result.Row
	require.NoError(s.t, v.Scan(func(row result.Row) error { rows = append(rows, row); return nil }))
	return rows
}
