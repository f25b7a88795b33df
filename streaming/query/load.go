package query

import (
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Loading stores elements only. Sealing then evaluates the query once on the whole graph, in batches that are small
// enough for memory, and remembers after each how far it is.
const (
	sealNone     = iota
	sealMatches  // the view is being filled; the cursor is the last element
	sealSnapshot // events are being made of the view; the cursor is the last row
)

// sealElements and sealRows bound what one batch of sealing takes in.
const (
	sealElements = 4096
	sealRows     = 16384
)

// Load takes changes while the state is empty or loading: no events, no order between elements. The token is stored in
// the same batch, so that loading goes on where it stopped.
func (q *Query) Load(source string, token []byte, changes []graph.Change) error {
	if err := q.loading(); err != nil {
		return err
	}
	return q.write(func(b index.Batch) error {
		q.meta.Source(source).Token = token
		if q.insertsOnly(changes) {
			return q.loadInserts(b, source, changes)
		}
		if err := q.gather(b, source, changes); err != nil {
			return err
		}
		for i := range q.touched.All {
			t := &q.touched.All[i].Value
			if t.old == nil && t.now == nil || sameElement(t.old, t.now) {
				continue
			}
			if err := q.elements.Write(b, t.old, t.now); err != nil {
				return err
			}
		}
		return nil
	})
}

// loading makes an empty state a loading one, in memory.
func (q *Query) loading() error {
	if q.Phase() == Empty && q.meta.SealStage == sealNone {
		q.meta.Phase = byte(Loading)
	}
	if err := q.want(Loading); err != nil {
		return err
	}
	if q.meta.SealStage != sealNone {
		return failure.StateCorrupt.Errorf("loading into a query that is being sealed")
	}
	return nil
}

// insertsOnly reports whether changes can be stored without a look at what is there: whole elements, and a plan that
// keeps nothing of an element beside itself.
func (q *Query) insertsOnly(changes []graph.Change) bool {
	p := q.plan.plan
	return len(p.Scans) == 0 &&
		!slices.ContainsFunc(p.Matches, func(m *plan.Match) bool { return m.Nodes < len(m.Positions) }) &&
		!slices.ContainsFunc(changes, func(c graph.Change) bool { return c.Op != graph.OpInsert || c.Element.ID == "" })
}

func (q *Query) loadInserts(b index.Batch, source string, changes []graph.Change) error {
	prefix := q.prefix(source)
	for i := range changes {
		e, err := q.changed(b, prefix, &changes[i], nil)
		if err != nil {
			return err
		}
		var old *store.Element
		if e == nil { // it may have been relevant before
			old = &store.Element{Element: graph.Element{ID: qualify(prefix, changes[i].Element.ID)}}
		}
		if err := q.elements.Write(b, old, e); err != nil {
			return err
		}
	}
	return nil
}

// LoadFrom is Load of the elements of a source that another state of the same plan has, but for those with one of these
// labels. The other state is live, has come to an end and is only read. The token is stored with the last of them; after
// an interruption before that, the same call goes on.
func (q *Query) LoadFrom(old *Query, source string, token []byte, but []string) error {
	if err := q.loading(); err != nil {
		return err
	}
	if err := q.follows(old); err != nil {
		return err
	}
	for more := true; more; {
		err := q.write(func(b index.Batch) (err error) {
			more, err = q.loadPage(b, old, source, but)
			if !more {
				q.meta.Source(source).Token, q.meta.SealCursor = token, nil
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// loadPage takes over the next elements of another state.
func (q *Query) loadPage(b index.Batch, old *Query, source string, but []string) (more bool, err error) {
	for i := range old.meta.Sources { // their order is part of the ids
		q.meta.Source(old.meta.Sources[i].Name)
	}
	prefix := q.prefix(source)
	if prefix != old.prefix(source) {
		return false, failure.StateCorrupt.Errorf("taking over elements of source %s: the order of sources is another one", source)
	}
	cursor := graph.ElementID(q.meta.SealCursor)
	seen := 0
	err = old.elements.Scan(old.store, max(cursor, graph.ElementID(prefix)), func(e *store.Element) (bool, error) {
		if !strings.HasPrefix(string(e.ID), prefix) {
			return false, nil
		}
		if e.ID == cursor {
			return true, nil
		}
		seen++
		q.meta.SealCursor = []byte(e.ID)
		if !q.owns(prefix, e.ID) || slices.ContainsFunc(but, e.HasLabel) {
			return seen < sealElements, nil
		}
		taken, err := q.elements.Prune(b, &e.Element, nil, false)
		if err == nil {
			err = q.elements.Write(b, nil, taken)
		}
		return seen < sealElements, err
	})
	return seen == sealElements, err
}

// Token returns the last token that Load stored for a source: where loading goes on after a crash.
func (q *Query) Token(source string) []byte {
	for i := range q.meta.Sources {
		if q.meta.Sources[i].Name == source {
			return q.meta.Sources[i].Token
		}
	}
	return nil
}

// Begin makes an empty query live without loading. What the query answers on an empty graph, such as a count of 0,
// becomes a Snapshot event.
func (q *Query) Begin(state result.State) error {
	if err := q.want(Empty); err != nil {
		return err
	}
	return q.write(func(b index.Batch) error {
		if err := q.sealStart(b); err != nil {
			return err
		}
		return q.sealEvents(b, state, 1)
	})
}

// Seal ends loading: the whole result set becomes Snapshot events of at most rowsPerEvent rows each, in the outbox, and
// the query is live at state, whose sequence does not count. When it fails or the process ends, calling it again with
// the same arguments goes on.
func (q *Query) Seal(state result.State, rowsPerEvent int) error {
	if err := q.want(Loading); err != nil {
		return err
	}
	return q.seal(q.sealStart, func(b index.Batch) error { return q.sealEvents(b, state, max(rowsPerEvent, 1)) })
}

// Restate makes a live state begin anew for those who follow it: all its rows become Snapshot events of at most
// rowsPerEvent rows each, numbered from 1, in an outbox that has nothing else. When it fails or the process ends, the
// state is not live and of no more use.
func (q *Query) Restate(rowsPerEvent int) error {
	if err := q.want(Live); err != nil {
		return err
	}
	state := q.State()
	err := q.write(func(b index.Batch) error {
		for _, sequence := range q.outbox.records {
			if err := b.Delete(store.OutboxKey(nil, sequence)); err != nil {
				return err
			}
		}
		q.outbox.records, q.trim, q.meta.Sequence = nil, 0, 0
		q.silent = false
		return q.showAgain(b)
	})
	if err != nil {
		return err
	}
	return q.seal(q.sealStart, func(b index.Batch) error { return q.sealEvents(b, state, max(rowsPerEvent, 1)) })
}

// seal evaluates the query and has events made of the view, batch by batch, until the query is live.
func (q *Query) seal(start, events func(index.Batch) error) error {
	if q.meta.SealStage == sealNone {
		if err := q.write(start); err != nil {
			return err
		}
	}
	for q.meta.SealStage == sealMatches {
		if err := q.write(q.sealMatch); err != nil {
			return err
		}
	}
	for q.Phase() != Live {
		if err := q.write(events); err != nil {
			return err
		}
	}
	return nil
}

// sealStart makes the rows that need no element of a first Match. A query that starts with the time of its start.
func (q *Query) sealStart(index.Batch) error {
	q.meta.Phase, q.meta.SealStage, q.meta.SealMatch, q.meta.SealCursor = byte(Loading), sealMatches, 0, nil
	q.elements.SetCount(0)
	q.tick(q.plan.options.now())
	q.chance()
	if err := q.network.Begin(); err != nil {
		return err
	}
	_, err := q.network.Diffs()
	return err
}

// sealMatch inserts the matches of one Match that have one of the next elements at its first position; each match has
// one there. That goes for the Matches that take no rows from others: those get theirs from them.
func (q *Query) sealMatch(b index.Batch) error {
	const first = 1 << 0
	q.chance()
	matches := q.plan.plan.Matches
	number := int(q.meta.SealMatch)
	root := number < len(matches) && matches[number].Root
	var elements []*store.Element
	seen := 0
	if root || number == 0 { // the first time elements are counted as well
		cursor := graph.ElementID(q.meta.SealCursor)
		err := q.elements.Scan(b, cursor, func(e *store.Element) (bool, error) {
			if e.ID == cursor {
				return true, nil
			}
			if root && e.Relevance().Positions[number]&first != 0 {
				elements = append(elements, e)
			}
			seen++
			q.meta.SealCursor = []byte(e.ID)
			return seen < sealElements, nil
		})
		if err != nil {
			return err
		}
	}
	if number == 0 {
		q.elements.SetCount(q.elements.Count() + int64(seen))
	}
	for _, e := range elements {
		if err := q.network.Delta(number, e, first, 1); err != nil {
			return err
		}
	}
	if _, err := q.network.Diffs(); err != nil {
		return err
	}
	if seen < sealElements {
		q.meta.SealMatch, q.meta.SealCursor = q.meta.SealMatch+1, nil
		if int(q.meta.SealMatch) >= len(matches) {
			q.meta.SealStage, q.meta.SealMatch = sealSnapshot, 0
		}
	}
	return nil
}

// sealEvents turns the next rows of the view into events; behind the last row the query is live.
func (q *Query) sealEvents(b index.Batch, state result.State, rowsPerEvent int) error {
	if err := q.network.Output.Save(); err != nil { // the view is read below
		return err
	}
	from, to := store.ViewBounds()
	if len(q.meta.SealCursor) > 0 {
		from = append(q.meta.SealCursor, 0)
	}
	var rows []result.Diff
	var keys [][]byte
	limit := (sealRows + rowsPerEvent - 1) / rowsPerEvent * rowsPerEvent
	err := scanRows(b, from, to, len(q.plan.plan.Columns), func(key []byte, row result.Row) (bool, error) {
		keys = append(keys, slices.Clone(key))
		rows = append(rows, result.Diff{Op: result.Added, Key: row.Key, After: row.Values})
		return len(rows) < limit, nil
	})
	if err != nil {
		return err
	}
	last := len(rows) < limit
	for len(rows) > 0 {
		n := min(rowsPerEvent, len(rows))
		e := result.Event{Snapshot: true, Diffs: rows[:n]}
		e.Source, e.Position = sole(state)
		if _, err := q.emit(b, nil, e); err != nil {
			return err
		}
		q.meta.SealCursor = keys[n-1]
		rows, keys = rows[n:], keys[n:]
	}
	if last {
		q.live(state)
	}
	return nil
}

func (q *Query) live(state result.State) {
	q.meta.Phase, q.meta.SealStage, q.meta.SealCursor = byte(Live), sealNone, nil
	for _, name := range sortedNames(state.Positions, state.Offsets) {
		s := q.meta.Source(name)
		s.Position, s.Offset = state.Positions[name], state.Offsets[name]
	}
}
