package query

import (
	"bytes"
	"errors"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Recalled is the result set that others know of a query whose state is of an earlier time.
type Recalled struct{ view index.Snapshot }

// Close releases it. The query is still open.
func (r *Recalled) Close() { _ = r.view.Close() } // nothing can be lost by reading

// Recall tells a live state, which is an earlier copy of one that is lost, which events that one made since: events visits
// them in order. The changes that led to them may come in another order now, and then make other events. So from here
// on Apply makes none, until Rejoin makes one of all that differs from what is recalled.
//
// It takes some 100 bytes of memory for each row that the events changed. After an error the result set is as it was.
// When the process ends before Rejoin has, the state is of no more use.
func (q *Query) Recall(events func(visit func(*result.Event) error) error) (*Recalled, error) {
	if err := q.want(Live); err != nil {
		return nil, err
	}
	before, err := q.store.NewSnapshot()
	if err != nil {
		return nil, err
	}
	defer func() { _ = before.Close() }() // nothing can be lost by reading
	o := overlay{q: q, before: before, written: make(map[string]struct{})}
	sequence := q.meta.Sequence
	err = events(func(e *result.Event) error {
		sequence = e.Sequence
		return o.add(e.Diffs)
	})
	if err == nil {
		err = o.end()
	}
	if err != nil {
		return nil, errors.Join(err, o.undo())
	}
	view, err := q.store.NewSnapshot()
	if err != nil {
		return nil, errors.Join(err, o.undo())
	}
	err = o.undo()
	if err == nil {
		err = q.write(func(index.Batch) error { q.meta.Sequence = sequence; return nil })
	}
	if err != nil {
		return nil, errors.Join(err, view.Close())
	}
	q.silent = true
	return &Recalled{view}, nil
}

// Rejoin makes what differs between a result set that was recalled and the present one an event, or several of one
// transaction.
func (q *Query) Rejoin(r *Recalled) error {
	if err := q.want(Live); err != nil {
		return err
	}
	q.silent = false
	state := q.State()
	if err := q.write(q.showAgain); err != nil {
		return err
	}
	for q.Phase() != Live {
		d, err := q.differences(r.view, q.store, q.plan.plan.Ordered) // while no batch is open
		if err != nil {
			return err
		}
		if err := q.write(func(b index.Batch) error { return q.publishDifferences(b, d, state) }); err != nil {
			return err
		}
	}
	return nil
}

// showAgain leaves of sealing what makes events of the view.
func (q *Query) showAgain(index.Batch) error {
	q.meta.Phase, q.meta.SealStage, q.meta.SealCursor = byte(Loading), sealSnapshot, nil
	return nil
}

// overlay brings events into the view for as long as it takes to have a snapshot of it.
type overlay struct {
	q       *Query
	before  index.Reader
	written map[string]struct{} // keys of the view
	waiting []result.Diff
}

func (o *overlay) add(diffs []result.Diff) error {
	if o.waiting = append(o.waiting, diffs...); len(o.waiting) < sealElements {
		return nil
	}
	return o.flush()
}

func (o *overlay) flush() error {
	err := o.q.write(func(b index.Batch) error {
		for i := range o.waiting {
			d := &o.waiting[i]
			key := store.ViewKey(nil, "", d.Key)
			o.written[string(key)] = struct{}{}
			var err error
			if d.Op == result.Deleted {
				err = b.Delete(key)
			} else {
				var row []byte
				for _, v := range d.After {
					row = graph.AppendValue(row, v)
				}
				err = b.Set(key, row)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
	o.waiting = o.waiting[:0]
	return err
}

// end brings in what waits. Events do not tell the places of rows: in a result with an order those that were written have
// none, and leave the ones that they had.
func (o *overlay) end() error {
	if err := o.flush(); err != nil || !o.q.plan.plan.Ordered {
		return err
	}
	var left [][]byte
	from, to := store.ViewBounds()
	err := o.before.Scan(from, to, func(key, _ []byte) (bool, error) {
		row, _ := store.RowKeyOf(key)
		written := store.ViewKey(nil, "", row)
		if _, ok := o.written[string(written)]; ok && !bytes.Equal(key, written) {
			left = append(left, slices.Clone(key))
		}
		return true, nil
	})
	if err != nil {
		return err
	}
	for _, key := range left {
		o.written[string(key)] = struct{}{}
	}
	return o.q.write(func(b index.Batch) error {
		for _, key := range left {
			if err := b.Delete(key); err != nil {
				return err
			}
		}
		return nil
	})
}

// undo makes the view what it was.
func (o *overlay) undo() error {
	keys := make([]string, 0, len(o.written))
	for key := range o.written {
		keys = append(keys, key)
	}
	for page := range slices.Chunk(keys, sealElements) {
		rows := make(map[string][]byte, len(page)) // read while no batch is open
		for _, key := range page {
			row, found, err := o.before.Get([]byte(key))
			if err != nil {
				return err
			}
			if found {
				rows[key] = slices.Clone(row)
			}
		}
		err := o.q.write(func(b index.Batch) (err error) {
			for _, key := range page {
				if row, found := rows[key]; found {
					err = b.Set([]byte(key), row)
				} else {
					err = b.Delete([]byte(key))
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}
