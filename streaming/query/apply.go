package query

import (
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Batch is a message of a source's change stream.
type Batch struct {
	Source       string
	Offset       uint64         // of the message in the stream; 0: the batch comes from no stream
	Position     graph.Position // how far the source is after the batch
	Transactions []graph.Transaction
	// Parts yields the changes of the only transaction of a batch, part by part, when there are too many to be held in
	// memory; its Changes are nil then. Yielding begins anew when the batch is tried again.
	Parts func(yield func([]graph.Change) error) error
}

// touch is what a transaction does to an element, so that one that changes several times counts once, with what it was
// before and what it is afterwards.
type touch struct{ old, now *store.Element } // nil: not stored

// Apply applies a batch in one commit and returns the events of each transaction that changed the result set. A batch
// that was applied before changes nothing. After an error nothing has happened and the same batch may be tried again.
func (q *Query) Apply(b Batch) ([]result.Event, error) {
	if err := q.want(Live); err != nil {
		return nil, err
	}
	if b.Offset != 0 && b.Offset <= q.meta.Source(b.Source).Offset {
		return nil, nil
	}
	var events []result.Event
	err := q.write(func(batch index.Batch) error {
		q.expect(batch, b)
		for i := range b.Transactions {
			tx := &b.Transactions[i]
			q.tick(tx.CommitTime)
			q.chance()
			diffs, err := q.transact(batch, &b, tx)
			if err != nil {
				return err
			}
			if len(diffs) == 0 {
				continue
			}
			if events == nil {
				events = make([]result.Event, 0, len(b.Transactions)-i)
			}
			event := result.Event{Source: b.Source, Position: tx.Position, CommitTime: tx.CommitTime, Diffs: diffs}
			if events, err = q.emit(batch, events, event); err != nil {
				return err
			}
		}
		s := q.meta.Source(b.Source)
		s.Offset = max(s.Offset, b.Offset)
		if b.Position.Compare(s.Position) > 0 {
			s.Position = b.Position
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return events, nil
}

// expect has the index look for the elements of many small transactions at once.
func (q *Query) expect(batch index.Batch, b Batch) {
	const few, many = 4, 1000 // with more, the first are gone from the caches when they are needed
	if len(b.Transactions) < few {
		return
	}
	q.ids = q.ids[:0]
	prefix := q.prefix(b.Source)
	for i := range b.Transactions {
		for j := range b.Transactions[i].Changes {
			if len(q.ids) < many {
				q.ids = append(q.ids, qualify(prefix, b.Transactions[i].Changes[j].Element.ID))
			}
		}
	}
	q.elements.Expect(batch, q.ids)
}

// transact applies the changes of one transaction and returns what they did to the result set.
//
// Elements change one after the other: the matches with the element as it was are retracted while all others are as
// they are at this moment, then it is replaced, then the matches with the element as it is now are inserted. Each step
// leads from one graph to another and is exact by itself, so their sum is.
//
// A Match behind another one joins the rows of the first with its own matches. Retracting goes from the first Match to
// the last, so that a row that goes is joined with the old matches and matches that go are joined with the rows that
// stay; inserting goes from the last to the first, so that new matches are joined with the rows that were there, and new
// rows with the new matches.
//
// The parts of a large transaction follow each other in the same way, and what they make of rows is summed up.
func (q *Query) transact(batch index.Batch, b *Batch, tx *graph.Transaction) ([]result.Diff, error) {
	var err error
	if b.Parts != nil {
		err = b.Parts(func(changes []graph.Change) error { return q.alter(batch, b.Source, changes) })
	} else {
		err = q.alter(batch, b.Source, tx.Changes)
	}
	if err != nil {
		return nil, err
	}
	return q.network.Diffs()
}

// alter changes the graph.
func (q *Query) alter(b index.Batch, source string, changes []graph.Change) error {
	if err := q.gather(b, source, changes); err != nil {
		return err
	}
	for i := range q.touched.All {
		t := &q.touched.All[i].Value
		if q.alive != nil {
			q.alive()
		}
		if err := q.replace(b, t.old, t.now); err != nil {
			return err
		}
	}
	return nil
}

// replace puts one element in the place of another one of the same id; either may be nil.
func (q *Query) replace(b index.Batch, old, now *store.Element) error {
	if sameElement(old, now) {
		return nil
	}
	q.affected(old, now)
	if old != nil {
		for i, positions := range q.masks {
			if old.Relevance().Positions[i]&positions != 0 {
				if err := q.network.Delta(i, old, positions, -1); err != nil {
					return err
				}
			}
		}
	}
	if err := q.elements.Put(b, old, now); err != nil || now == nil {
		return err
	}
	for i := len(q.masks) - 1; i >= 0; i-- {
		if now.Relevance().Positions[i]&q.masks[i] != 0 {
			if err := q.network.Delta(i, now, q.masks[i], 1); err != nil {
				return err
			}
		}
	}
	return nil
}

// gather folds the changes of a transaction into one touch per element.
func (q *Query) gather(b index.Batch, source string, changes []graph.Change) error {
	q.touched.Reset()
	prefix := q.prefix(source)
	for i := range changes {
		c := &changes[i]
		if c.Op == graph.OpTruncate {
			if err := q.truncate(b, prefix, c.Element.Labels); err != nil {
				return err
			}
			continue
		}
		if c.Element.ID == "" {
			return failure.BadRecord.Errorf("applying a change (%s) of an element without an id", c.Op)
		}
		t, err := q.touch(b, qualify(prefix, c.Element.ID))
		if err != nil {
			return err
		}
		if t.now, err = q.changed(b, prefix, c, t.now); err != nil {
			return err
		}
	}
	return nil
}

// touch returns the entry of an element; valid until the next call.
func (q *Query) touch(b index.Batch, id graph.ElementID) (*touch, error) {
	if t := q.touched.Find(id); t != nil {
		return t, nil
	}
	old, err := q.elements.Get(b, id)
	if err != nil {
		return nil, err
	}
	return q.touched.Add(id, touch{old, old}), nil
}

// changed returns what is stored of an element after a change; old is what is stored before, or nil.
func (q *Query) changed(b index.Batch, prefix string, c *graph.Change, old *store.Element) (*store.Element, error) {
	e := c.Element
	e.ID, e.Start, e.End = qualify(prefix, e.ID), qualify(prefix, e.Start), qualify(prefix, e.End)
	if c.Op == graph.OpDelete {
		return nil, nil
	}
	if c.Op == graph.OpMerge && old != nil {
		if len(e.Labels) == 0 {
			e.Labels = old.Labels
		}
		if e.Start == "" && e.End == "" {
			e.Start, e.End = old.Start, old.End
		}
	}
	if err := wellFormed(&e, old); err != nil {
		return nil, err
	}
	switch c.Op {
	case graph.OpInsert:
		return q.elements.Prune(b, &e, nil, false)
	case graph.OpUpdate:
		return q.elements.Prune(b, &e, old, false)
	case graph.OpMerge:
		return q.elements.Prune(b, &e, old, true)
	}
	return nil, failure.BadRecord.Errorf("applying a change of %q: unknown operation %s", e.ID, c.Op)
}

// wellFormed says what is wrong with an element that comes in the place of old.
func wellFormed(e *graph.Element, old *store.Element) error {
	cause := ""
	switch relationship := e.IsRelationship(); {
	case relationship && (e.Start == "" || e.End == ""):
		cause = "a relationship needs a node at both ends"
	case relationship && len(e.Labels) != 1:
		cause = fmt.Sprintf("a relationship has one type, not %d", len(e.Labels))
	case old != nil && old.IsRelationship() && !relationship:
		cause = "it was a relationship and cannot become a node"
	case old != nil && !old.IsRelationship() && relationship:
		cause = "it was a node and cannot become a relationship"
	case e.Shape == nil && len(e.Values) > 0 || e.Shape != nil && len(e.Values) > len(e.Shape.Names()):
		cause = "it has more values than properties"
	default:
		return nil
	}
	return failure.BadRecord.Errorf("applying a change of %q: %s", e.ID, cause).WithDetail("element", string(e.ID))
}

// truncate takes out all elements of the source that have one of the labels.
func (q *Query) truncate(b index.Batch, prefix string, labels []string) error {
	hit := func(e *store.Element) bool {
		return strings.HasPrefix(string(e.ID), prefix) && q.owns(prefix, e.ID) &&
			slices.ContainsFunc(labels, e.HasLabel)
	}
	var ids []graph.ElementID
	err := q.elements.Scan(b, graph.ElementID(prefix), func(e *store.Element) (bool, error) {
		if !strings.HasPrefix(string(e.ID), prefix) {
			return false, nil
		}
		if hit(e) {
			ids = append(ids, e.ID)
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := q.touch(b, id); err != nil {
			return err
		}
	}
	for i := range q.touched.All {
		if t := &q.touched.All[i].Value; t.now != nil && hit(t.now) {
			t.now = nil
		}
	}
	return nil
}

// affected sets in q.masks the positions of each Match at which it makes a difference that old became now.
func (q *Query) affected(old, now *store.Element) {
	switch {
	case old == nil:
		copy(q.masks, now.Relevance().Positions)
		return
	case now == nil:
		copy(q.masks, old.Relevance().Positions)
		return
	case old.Start != now.Start || old.End != now.End || !slices.Equal(old.Labels, now.Labels):
		for i := range q.masks {
			q.masks[i] = old.Relevance().Positions[i] | now.Relevance().Positions[i]
		}
		return
	}
	copy(q.masks, old.Relevance().Positions)
	if positions := q.masks[0]; len(q.masks) == 1 && positions&(positions-1) == 0 && !old.Relevance().All {
		return // what is stored is what the one position reads
	}
	q.differing = changedProperties(q.differing[:0], old, now)
	for i := range q.masks {
		for rest := q.masks[i]; rest != 0; rest &= rest - 1 {
			at := bits.TrailingZeros64(rest)
			if !reads(&q.plan.plan.Matches[i].Positions[at], now.IsRelationship(), q.differing) {
				q.masks[i] &^= 1 << at
			}
		}
	}
}

// reads reports whether anything behind a position reads one of these properties of an element.
func reads(p *plan.Position, relationship bool, properties []string) bool {
	if p.Variable && !relationship {
		return p.AllInner
	}
	return p.All || slices.ContainsFunc(properties, func(name string) bool { return slices.Contains(p.Properties, name) })
}

// changedProperties appends the names of the properties that differ.
func changedProperties(names []string, old, now *store.Element) []string {
	for i, name := range now.Shape.Names() {
		var was graph.Value
		if old.Shape == now.Shape {
			was = old.Values[i]
		} else {
			was = old.Get(name)
		}
		if !graph.Identical(was, now.Values[i]) {
			names = append(names, name)
		}
	}
	if old.Shape != now.Shape {
		for i, name := range old.Shape.Names() {
			if now.Shape.Slot(name) < 0 && !old.Values[i].IsNull() {
				names = append(names, name)
			}
		}
	}
	return names
}

func sameElement(a, b *store.Element) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return a.Start == b.Start && a.End == b.End && slices.Equal(a.Labels, b.Labels) && a.Shape == b.Shape &&
		slices.EqualFunc(a.Values, b.Values, graph.Identical)
}
