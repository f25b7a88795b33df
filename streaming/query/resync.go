package query

import (
	"bytes"
	"math"
	"slices"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Resync ends loading as Seal does, for a state that takes the place of another one, which is live, has come to an end
// and is only read. Its plan is the same or another one with the same columns. Instead of all rows come the differences
// between the old result set and the new one, as one transaction. The numbers of the events go on where the old state's
// ended, whose outbox is taken over. When it fails or the process ends, calling it again with the same arguments goes on.
//
// The memory needed is that of sealRows differences; where the query orders its rows, that of all of them.
func (q *Query) Resync(old *Query, state result.State) error {
	if err := q.want(Loading); err != nil {
		return err
	}
	if err := old.want(Live); err != nil {
		return err
	}
	if !slices.Equal(old.plan.Columns(), q.plan.Columns()) {
		return failure.StateCorrupt.Errorf("a result with the columns %q cannot take the place of one with %q", q.plan.Columns(), old.plan.Columns())
	}
	start := func(b index.Batch) error {
		if err := q.inherit(b, old); err != nil {
			return err
		}
		return q.sealStart(b)
	}
	ordered := q.plan.plan.Ordered || old.plan.plan.Ordered
	return q.seal(start, func(b index.Batch) error { return q.sealDifferences(b, old.store, ordered, state) })
}

// follows checks that the query may take over elements of another one.
func (q *Query) follows(old *Query) error {
	if err := old.want(Live); err != nil {
		return err
	}
	if old.meta.Fingerprint != q.meta.Fingerprint {
		return failure.StateCorrupt.Errorf("taking the place of a state: %w", ErrFingerprint)
	}
	return nil
}

// inherit takes over how far the events of another state have come, and those that are not published yet.
func (q *Query) inherit(b index.Batch, old *Query) error {
	q.meta.Sequence, q.trim = old.meta.Sequence, old.trim
	return old.store.Scan(store.OutboxKey(nil, 0), store.OutboxEnd(), func(key, record []byte) (bool, error) {
		sequence, ok := store.OutboxSequence(key)
		if !ok {
			return false, errOutbox
		}
		q.outbox.records = append(q.outbox.records, sequence)
		return true, b.Set(slices.Clone(key), slices.Clone(record))
	})
}

// sealDifferences turns the next differences between the old view and the new one, one of which may have an order, into an
// event; behind the last one the query is live.
func (q *Query) sealDifferences(b index.Batch, old index.Reader, ordered bool, state result.State) error {
	if err := q.network.Output.Save(); err != nil { // the view is read below
		return err
	}
	d, err := q.differences(old, b, ordered)
	if err != nil {
		return err
	}
	return q.publishDifferences(b, d, state)
}

// differences is a part of what differs between two views.
type differences struct {
	diffs  []result.Diff
	cursor []byte // where the next part begins
	last   bool
}

// differences returns the next part.
func (q *Query) differences(old, now index.Reader, ordered bool) (d differences, err error) {
	from, to := store.ViewBounds()
	if len(q.meta.SealCursor) > 0 {
		from = append(q.meta.SealCursor, 0)
	}
	limit := sealRows
	if ordered {
		limit = math.MaxInt // a row whose place changed is met twice, far apart
	}
	met := make(map[result.RowKey]int) // places in diffs
	columns := len(q.plan.plan.Columns)
	err = compare(old, now, from, to, columns, func(key []byte, was, is *result.Row) bool {
		if len(d.diffs) == limit {
			return false
		}
		d.cursor = append(d.cursor[:0], key...)
		one := difference(was, is)
		if at, twice := met[one.Key]; twice {
			if is == nil {
				d.diffs[at].Before = was.Values
			} else {
				d.diffs[at].After = is.Values
			}
			d.diffs[at].Op = result.Updated
			return true
		}
		met[one.Key] = len(d.diffs)
		d.diffs = append(d.diffs, one)
		return true
	})
	d.last = len(d.diffs) < limit
	d.diffs = slices.DeleteFunc(d.diffs, func(d result.Diff) bool { // it has another place only
		return d.Op == result.Updated && slices.EqualFunc(d.Before, d.After, graph.Identical)
	})
	return d, err
}

// publishDifferences makes them an event. Behind the last one the query is live.
func (q *Query) publishDifferences(b index.Batch, d differences, state result.State) error {
	if len(d.diffs) > 0 || len(q.meta.SealCursor) > 0 {
		e := result.Event{Diffs: d.diffs, More: !d.last, CommitTime: q.meta.Clock}
		e.Source, e.Position = sole(state)
		if _, err := q.emit(b, nil, e); err != nil {
			return err
		}
	}
	q.meta.SealCursor = d.cursor
	if d.last {
		q.live(state)
	}
	return nil
}

// sole returns the only source of a state and its position; with several there is none to name.
func sole(state result.State) (name string, position graph.Position) {
	if len(state.Positions) != 1 {
		return "", ""
	}
	for name, position = range state.Positions {
	}
	return name, position
}

func difference(was, is *result.Row) result.Diff {
	switch {
	case was == nil:
		return result.Diff{Op: result.Added, Key: is.Key, After: is.Values}
	case is == nil:
		return result.Diff{Op: result.Deleted, Key: was.Key, Before: was.Values}
	default:
		return result.Diff{Op: result.Updated, Key: is.Key, Before: was.Values, After: is.Values}
	}
}

// compare visits, in the order of their keys in the view, the rows in which two views differ, until visit returns false.
func compare(old, now index.Reader, from, to []byte, columns int, visit func(key []byte, was, is *result.Row) bool) error {
	a := rows{reader: old, from: from, to: to, columns: columns}
	b := rows{reader: now, from: from, to: to, columns: columns}
	for {
		if err := a.fill(); err != nil {
			return err
		}
		if err := b.fill(); err != nil {
			return err
		}
		if len(a.page) == 0 && len(b.page) == 0 {
			return nil
		}
		order := 0
		switch {
		case len(a.page) == 0:
			order = 1
		case len(b.page) == 0:
			order = -1
		default:
			order = bytes.Compare(a.page[0].key, b.page[0].key)
		}
		more := true
		switch {
		case order < 0:
			more = visit(a.page[0].key, &a.page[0].row, nil)
		case order > 0:
			more = visit(b.page[0].key, nil, &b.page[0].row)
		case !slices.EqualFunc(a.page[0].row.Values, b.page[0].row.Values, graph.Identical):
			more = visit(a.page[0].key, &a.page[0].row, &b.page[0].row)
		}
		if !more {
			return nil
		}
		if order <= 0 {
			a.page = a.page[1:]
		}
		if order >= 0 {
			b.page = b.page[1:]
		}
	}
}

// rows reads a view page by page.
type rows struct {
	reader   index.Reader
	from, to []byte
	columns  int
	page     []placed // what is read and not consumed
	ended    bool
}

type placed struct {
	key []byte
	row result.Row
}

// fill makes the next row the first of the page; the page is empty at the end only.
func (r *rows) fill() error {
	if len(r.page) > 0 || r.ended {
		return nil
	}
	const page = 1024
	err := scanRows(r.reader, r.from, r.to, r.columns, func(key []byte, row result.Row) (bool, error) {
		r.page = append(r.page, placed{slices.Clone(key), row})
		return len(r.page) < page, nil
	})
	if err != nil {
		return err
	}
	if r.ended = len(r.page) < page; len(r.page) > 0 {
		r.from = append(slices.Clone(r.page[len(r.page)-1].key), 0)
	}
	return nil
}
