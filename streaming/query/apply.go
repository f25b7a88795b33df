package query

import (
	"math/bits"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Batch is a message of a source's change stream.
type Batch struct {
	Source       string
	Offset       uint64         // of the message in the stream; 0: the batch comes from no stream
	Position     graph.Position // how far the source is after the batch
	Transactions []graph.Transaction
}

// transaction gathers what one transaction does to each element, so that an element that changes several times counts
// once, with what it was before and what it is afterwards.
type transaction struct {
	touched []touch
	at      map[graph.ElementID]int
}

type touch struct {
	old, now *store.Element // nil: not stored
}

func (t *transaction) reset() {
	clear(t.touched)
	t.touched = t.touched[:0]
	clear(t.at)
}

// Apply applies a batch in one commit and returns an event for each transaction that changed the result set. A batch
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
		for i := range b.Transactions {
			tx := &b.Transactions[i]
			diffs, err := q.transact(batch, b.Source, tx.Changes)
			if err != nil {
				return err
			}
			if len(diffs) == 0 {
				continue
			}
			e := result.Event{Source: b.Source, Position: tx.Position, CommitTime: tx.CommitTime, Diffs: diffs}
			if err := q.emit(batch, &e); err != nil {
				return err
			}
			events = append(events, e)
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

// transact applies the changes of one transaction and returns what they did to the result set.
//
// Elements change one after the other: the matches with the element as it was are retracted while all others are as
// they are at this moment, then it is replaced, then the matches with the element as it is now are inserted. Each step
// leads from one graph to another and is exact by itself, so their sum is.
func (q *Query) transact(b index.Batch, source string, changes []graph.Change) ([]result.Diff, error) {
	if err := q.gather(b, source, changes); err != nil {
		return nil, err
	}
	for _, t := range q.tx.touched {
		positions := q.affected(t.old, t.now)
		if t.old != nil && positions != 0 {
			if err := q.chain.Match.Delta(t.old, positions, -1); err != nil {
				return nil, err
			}
		}
		if t.old == nil && t.now == nil || sameElement(t.old, t.now) {
			continue
		}
		now, err := q.elements.Put(b, t.old, t.now)
		if err != nil {
			return nil, err
		}
		if now != nil && positions != 0 {
			if err := q.chain.Match.Delta(now, positions, 1); err != nil {
				return nil, err
			}
		}
	}
	return q.chain.Diffs()
}

// gather folds the changes of a transaction into one touch per element.
func (q *Query) gather(b index.Batch, source string, changes []graph.Change) error {
	if q.tx.at == nil {
		q.tx.at = make(map[graph.ElementID]int)
	}
	q.tx.reset()
	prefix := q.prefix(source)
	for i := range changes {
		c := &changes[i]
		if c.Op == graph.OpTruncate {
			if err := q.truncate(b, prefix, c.Element.Labels); err != nil {
				return err
			}
			continue
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
	if i, ok := q.tx.at[id]; ok {
		return &q.tx.touched[i], nil
	}
	old, err := q.elements.Get(b, id)
	if err != nil {
		return nil, err
	}
	q.tx.at[id] = len(q.tx.touched)
	q.tx.touched = append(q.tx.touched, touch{old: old, now: old})
	return &q.tx.touched[len(q.tx.touched)-1], nil
}

// changed returns what is stored of an element after a change; old is what is stored before, or nil.
func (q *Query) changed(b index.Batch, prefix string, c *graph.Change, old *store.Element) (*store.Element, error) {
	e := c.Element
	e.ID, e.Start, e.End = qualify(prefix, e.ID), qualify(prefix, e.Start), qualify(prefix, e.End)
	switch c.Op {
	case graph.OpDelete:
		return nil, nil
	case graph.OpInsert:
		return q.elements.Prune(b, &e, nil, false)
	case graph.OpUpdate:
		return q.elements.Prune(b, &e, old, false)
	case graph.OpMerge:
		if old != nil {
			if len(e.Labels) == 0 {
				e.Labels = old.Labels
			}
			if e.Start == "" && e.End == "" {
				e.Start, e.End = old.Start, old.End
			}
		}
		return q.elements.Prune(b, &e, old, true)
	}
	return nil, failure.BadRecord.Errorf("applying a change of %q: unknown operation %s", e.ID, c.Op)
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
	for i := range q.tx.touched {
		if t := &q.tx.touched[i]; t.now != nil && hit(t.now) {
			t.now = nil
		}
	}
	return nil
}

// affected returns the positions of the pattern at which it makes a difference that old became now.
func (q *Query) affected(old, now *store.Element) uint64 {
	switch {
	case old == nil && now == nil:
		return 0
	case old == nil:
		return now.Positions
	case now == nil:
		return old.Positions
	case sameElement(old, now):
		return 0
	case old.Start != now.Start || old.End != now.End || !slices.Equal(old.Labels, now.Labels):
		return old.Positions | now.Positions
	}
	positions := old.Positions
	if positions&(positions-1) == 0 {
		return positions // what is stored is what the one position reads
	}
	for rest := positions; rest != 0; rest &= rest - 1 {
		at := bits.TrailingZeros64(rest)
		p := &q.plan.plan.Positions[at]
		if p.All {
			continue
		}
		same := func(name string) bool { return graph.Identical(old.Get(name), now.Get(name)) }
		if !slices.ContainsFunc(p.Properties, func(name string) bool { return !same(name) }) {
			positions &^= 1 << at
		}
	}
	return positions
}

func sameElement(a, b *store.Element) bool {
	if a == b || a == nil || b == nil {
		return a == b
	}
	return a.Start == b.Start && a.End == b.End && slices.Equal(a.Labels, b.Labels) && a.Shape == b.Shape &&
		slices.EqualFunc(a.Values, b.Values, graph.Identical)
}
