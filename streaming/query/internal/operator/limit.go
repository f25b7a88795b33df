package operator

import (
	"bytes"

	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// limit keeps all rows in order and passes on those of a window, for each scope. What a transaction does to a window is
// the difference of the window before and after it.
type limit struct {
	base
	plan    *plan.Limit
	touched []window // in this transaction, as they were before it
	at      map[result.RowKey]int
	// known are windows as they are between transactions.
	known     map[result.RowKey]known
	knownRows int
	others    map[result.RowKey][]byte // scratch
	row       plainRow
	key       []byte
	buf       []byte
}

// known is a window that need not be read.
type known struct {
	rows []windowRow
	// end is the key of the last row when the window is full: what happens behind it does not touch the window.
	end []byte
}

// maxKnown bounds how many rows of known windows there are, the windows counting as well.
const maxKnown = 16384

type window struct {
	scope result.RowKey
	rows  []windowRow
}

type windowRow struct {
	key    result.RowKey
	record []byte
}

func newLimit(b base, p *plan.Limit) *limit {
	return &limit{base: b, plan: p, at: make(map[result.RowKey]int), known: make(map[result.RowKey]known), others: make(map[result.RowKey][]byte)}
}

// Row takes a row in or out.
func (l *limit) Row(row Identified, weight int) error {
	c := l.ctx
	scope := c.scopeOf(l.plan.Scope)
	key := row.Key()
	l.key = store.WindowPrefix(l.key[:0], l.id, scope)
	if l.plan.Order >= 0 {
		l.key = append(l.key, c.Env.Slots[l.plan.Order].AsString()...)
	}
	l.key = append(l.key, key[:]...)
	if end := l.known[scope].end; end == nil || bytes.Compare(l.key, end) <= 0 {
		if err := l.touch(scope); err != nil {
			return err
		}
	}
	if weight < 0 {
		return c.Batch.Delete(l.key)
	}
	l.buf = c.appendSlots(l.buf[:0], l.plan.Live)
	return c.Batch.Set(l.key, l.buf)
}

// touch notes the window of a scope as it is before the transaction.
func (l *limit) touch(scope result.RowKey) error {
	if _, ok := l.at[scope]; ok {
		return nil
	}
	k, ok := l.known[scope]
	if !ok {
		rows, err := l.window(scope)
		if err != nil {
			return err
		}
		k.rows = rows
	}
	l.at[scope] = len(l.touched)
	l.touched = append(l.touched, window{scope, k.rows})
	return nil
}

// window reads the rows of a scope that are passed on.
func (l *limit) window(scope result.RowKey) (rows []windowRow, err error) {
	if l.plan.Limit == 0 {
		return nil, nil
	}
	prefix := store.WindowPrefix(nil, l.id, scope)
	skip := l.plan.Skip
	var end []byte
	err = l.ctx.Batch.Scan(prefix, store.After(prefix), func(key, record []byte) (bool, error) {
		if skip > 0 {
			skip--
			return true, nil
		}
		row, ok := store.RowKeyOf(key)
		if !ok {
			return false, errState
		}
		rows = append(rows, windowRow{row, bytes.Clone(record)})
		if l.plan.Limit < 0 || int64(len(rows)) < l.plan.Limit {
			return true, nil
		}
		end = bytes.Clone(key)
		return false, nil
	})
	if err == nil {
		l.remember(scope, known{rows, end})
	}
	return rows, err
}

func (l *limit) remember(scope result.RowKey, k known) {
	if old, ok := l.known[scope]; ok {
		l.knownRows -= 1 + len(old.rows)
		delete(l.known, scope)
	}
	n := 1 + len(k.rows)
	if n > maxKnown {
		return
	}
	if l.knownRows += n; l.knownRows > maxKnown {
		clear(l.known)
		l.knownRows = n
	}
	l.known[scope] = k
}

// Flush passes on how the windows have changed: first the rows that are no longer there.
func (l *limit) Flush() error {
	for i := range l.touched {
		w := &l.touched[i]
		now, err := l.window(w.scope)
		if err != nil {
			return err
		}
		if err := l.pass(w.rows, now, -1); err != nil {
			return err
		}
		if err := l.pass(now, w.rows, 1); err != nil {
			return err
		}
	}
	l.forget()
	return nil
}

// pass passes on the rows of a window that another one does not have.
func (l *limit) pass(rows, others []windowRow, weight int) error {
	clear(l.others)
	for _, row := range others {
		l.others[row.key] = row.record
	}
	for _, row := range rows {
		if other, ok := l.others[row.key]; ok && bytes.Equal(other, row.record) {
			continue
		}
		if _, err := l.ctx.loadSlots(l.plan.Live, row.record); err != nil {
			return err
		}
		l.row.key = row.key
		if err := l.next.Row(&l.row, weight); err != nil {
			return err
		}
	}
	return nil
}

// Reset forgets everything that is not stored.
func (l *limit) Reset() {
	l.forget()
	clear(l.known)
	l.knownRows = 0
}

// forget forgets the transaction.
func (l *limit) forget() {
	clear(l.touched)
	l.touched = l.touched[:0]
	clear(l.at)
}
