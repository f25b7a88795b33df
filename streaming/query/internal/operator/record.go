package operator

import (
	"bytes"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

// recordOf returns the values of slots.
func (c *Context) recordOf(slots []int) *viewRow {
	r := newViewRow(len(slots))
	for i, slot := range slots {
		r.values[i] = c.Env.Slots[slot]
	}
	return r
}

// isAt reports whether the slots hold what a record has.
func (c *Context) isAt(r *viewRow, slots []int) bool {
	for i, slot := range slots {
		if !graph.Identical(r.values[i], c.Env.Slots[slot]) {
			return false
		}
	}
	return true
}

// putBack puts values back into slots.
func (c *Context) putBack(slots []int, values []graph.Value) {
	for i, slot := range slots {
		c.Env.Slots[slot] = values[i]
	}
}

// decode reads n values. They share the bytes, which must not change afterwards.
func (c *Context) decode(n int, record []byte) (r *viewRow, rest []byte, err error) {
	r = newViewRow(n)
	for i := range r.values {
		if r.values[i], record, err = c.values.Value(record); err != nil {
			return nil, nil, failure.StateCorrupt.Errorf("reading a row of the query's state: %w", err)
		}
	}
	return r, record, nil
}

// withheld are rows that a transaction took out and that are deleted at its end, unless they are back: an update takes
// out a row and puts it in again, often as it was. Then nothing is written at all.
type withheld struct{ rows []withheldRow }

type withheldRow struct {
	key []byte
	row *viewRow // nil: it is not known
}

// take takes a row out.
func (w *withheld) take(b index.Batch, key []byte, row *viewRow) error {
	const few = 8 // they are looked through one by one
	if len(w.rows) == few {
		if err := w.settle(b); err != nil {
			return err
		}
	}
	n := len(w.rows)
	if n == cap(w.rows) {
		w.rows = append(w.rows, withheldRow{})
	}
	w.rows = w.rows[:n+1]
	w.rows[n].key, w.rows[n].row = append(w.rows[n].key[:0], key...), row
	return nil
}

// back puts a row in again. It returns the row that was taken out under the key, or nil.
func (w *withheld) back(key []byte) (row *viewRow) {
	for i := range w.rows {
		if bytes.Equal(w.rows[i].key, key) {
			row, last := w.rows[i].row, len(w.rows)-1
			w.rows[i], w.rows[last] = w.rows[last], w.rows[i] // for its memory
			w.rows = w.rows[:last]
			return row
		}
	}
	return nil
}

// settle deletes what is not back, before the batch is read in another way or at the end.
func (w *withheld) settle(b index.Batch) error {
	for i := range w.rows {
		if err := b.Delete(w.rows[i].key); err != nil {
			return err
		}
	}
	w.forget()
	return nil
}

func (w *withheld) forget() { w.rows = w.rows[:0] }
