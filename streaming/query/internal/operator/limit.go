package operator

import (
	"bytes"
	"math"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// limit keeps all rows in order and passes on those of a window, for each scope. What a transaction does to a window is
// the difference of the window before and after it.
type limit struct {
	base
	plan    *plan.Limit
	end     int // of a window: skipped rows and those that are passed on
	known   map[result.RowKey]*window
	rows    int                   // of known windows
	touched []touchedWindow       // in this transaction
	out, in []windowRow           // scratch: rows that are no longer in a window, and that were not
	at      map[result.RowKey]int // scratch: into in
	gone    withheld
	row     plainRow
	key     []byte
	buf     []byte
}

// window is the first rows of a scope as they are now.
type window struct {
	rows []windowRow
	// last is the place up to which rows are known; nil: there are no others. What happens behind it does not touch the
	// window.
	last    []byte
	touched bool
}

// windowRow is a row with its place: its order and then its key.
type windowRow struct {
	place []byte
	row   *viewRow
}

func (r *windowRow) key() result.RowKey {
	return result.RowKey(r.place[len(r.place)-len(result.RowKey{}):])
}

type touchedWindow struct {
	*window
	scope  result.RowKey
	before []windowRow // those that were passed on
}

const (
	// spare is how many rows behind a window are known, too, so that rows that leave it need not be looked for one by one.
	spare = 16
	// maxKnown bounds how many rows of windows are known between transactions, the windows counting as well.
	maxKnown = 16384
)

func newLimit(b base, p *plan.Limit) *limit {
	l := &limit{base: b, plan: p, end: math.MaxInt, known: make(map[result.RowKey]*window), at: make(map[result.RowKey]int)}
	if p.Limit >= 0 && p.Skip <= math.MaxInt-spare-p.Limit {
		l.end = int(p.Skip + p.Limit)
	}
	return l
}

// shown returns the rows of a window that are passed on.
func (l *limit) shown(w *window) []windowRow {
	return w.rows[min(l.plan.Skip, int64(len(w.rows))):min(l.end, len(w.rows))]
}

// Row takes a row in or out.
func (l *limit) Row(row Identified, weight int) error {
	if l.plan.Limit == 0 {
		return nil
	}
	c := l.ctx
	scope, key := c.scopeOf(l.plan.Scope), row.Key()
	l.key = store.WindowPrefix(l.key[:0], l.id, scope)
	prefix := len(l.key)
	if l.plan.Order >= 0 {
		l.key = append(l.key, c.Env.Slots[l.plan.Order].AsString()...)
	}
	l.key = append(l.key, key[:]...)
	place := l.key[prefix:]
	w := l.known[scope]
	if w == nil {
		w = &window{last: []byte{}}
		if err := l.extend(w, scope); err != nil {
			return err
		}
		l.known[scope] = w
		l.rows++
	}
	inside := w.last == nil || bytes.Compare(place, w.last) <= 0
	at, found := 0, false
	if inside {
		l.touch(w, scope)
		at, found = slices.BinarySearchFunc(w.rows, place, func(r windowRow, place []byte) int {
			return bytes.Compare(r.place, place)
		})
	}
	if weight < 0 {
		var kept *viewRow
		if inside {
			if !found {
				return errState
			}
			kept = w.rows[at].row
			w.rows = slices.Delete(w.rows, at, at+1)
			l.rows--
		}
		return l.gone.take(c.Batch, l.key, kept)
	}
	kept := l.gone.back(l.key)
	if kept == nil || !c.isAt(kept, l.plan.Live) {
		kept = nil
		l.buf = c.appendSlots(l.buf[:0], l.plan.Live)
		if err := c.Batch.Set(l.key, l.buf); err != nil {
			return err
		}
	}
	if inside {
		if kept == nil {
			kept = c.recordOf(l.plan.Live)
		}
		w.rows = slices.Insert(w.rows, at, windowRow{bytes.Clone(place), kept})
		l.rows++
		l.trim(w)
	}
	return nil
}

// touch notes a window as it is before the transaction.
func (l *limit) touch(w *window, scope result.RowKey) {
	if w.touched {
		return
	}
	w.touched = true
	n := len(l.touched)
	if n == cap(l.touched) {
		l.touched = append(l.touched, touchedWindow{})
	}
	l.touched = l.touched[:n+1]
	t := &l.touched[n]
	t.window, t.scope, t.before = w, scope, append(t.before[:0], l.shown(w)...)
}

// trim gives up rows that are too far behind the window.
func (l *limit) trim(w *window) {
	if l.end > math.MaxInt-2*spare || len(w.rows) <= l.end+2*spare {
		return
	}
	rest := w.rows[l.end+spare:]
	l.rows -= len(rest)
	clear(rest)
	w.rows = w.rows[:l.end+spare]
	w.last = w.rows[len(w.rows)-1].place
}

// extend reads the rows behind those that are known.
func (l *limit) extend(w *window, scope result.RowKey) error {
	if err := l.gone.settle(l.ctx.Batch); err != nil {
		return err
	}
	prefix := store.WindowPrefix(nil, l.id, scope)
	end := store.After(prefix)
	from := append(prefix[:len(prefix):len(prefix)], w.last...)
	if len(w.last) > 0 {
		from = append(from, 0)
	}
	full := false
	err := l.ctx.Batch.Scan(from, end, func(key, record []byte) (bool, error) {
		row, _, err := l.ctx.decode(len(l.plan.Live), bytes.Clone(record))
		if err != nil {
			return false, err
		}
		if len(key) < len(prefix)+len(result.RowKey{}) {
			return false, errState
		}
		w.rows = append(w.rows, windowRow{bytes.Clone(key[len(prefix):]), row})
		l.rows++
		full = l.end <= math.MaxInt-spare && len(w.rows) >= l.end+spare
		return !full, nil
	})
	if w.last = nil; full {
		w.last = w.rows[len(w.rows)-1].place
	}
	return err
}

// Flush passes on how the windows have changed: first the rows that are no longer there.
func (l *limit) Flush() error {
	for i := range l.touched {
		t := &l.touched[i]
		if t.last != nil && len(t.rows) < l.end {
			if err := l.extend(t.window, t.scope); err != nil {
				return err
			}
		}
		l.compare(t.before, l.shown(t.window))
		if err := l.pass(l.out, -1); err != nil {
			return err
		}
		if err := l.pass(l.in, 1); err != nil {
			return err
		}
	}
	if l.rows > maxKnown {
		clear(l.known)
		l.rows = 0
	}
	l.forget()
	return l.gone.settle(l.ctx.Batch)
}

// compare finds the rows in which two windows differ. A row that has another place only is in both.
func (l *limit) compare(before, now []windowRow) {
	l.out, l.in = l.out[:0], l.in[:0]
	for len(before) > 0 && len(now) > 0 {
		switch order := bytes.Compare(before[0].place, now[0].place); {
		case order < 0:
			l.out, before = append(l.out, before[0]), before[1:]
		case order > 0:
			l.in, now = append(l.in, now[0]), now[1:]
		default:
			if before[0].row != now[0].row {
				l.out, l.in = append(l.out, before[0]), append(l.in, now[0])
			}
			before, now = before[1:], now[1:]
		}
	}
	l.out, l.in = append(l.out, before...), append(l.in, now...)
	if len(l.out) == 0 || len(l.in) == 0 {
		return
	}
	clear(l.at)
	for i := range l.in {
		l.at[l.in[i].key()] = i
	}
	stays := func(r windowRow) bool {
		i, ok := l.at[r.key()]
		ok = ok && slices.EqualFunc(l.in[i].row.values, r.row.values, graph.Identical)
		if ok {
			l.in[i].row = nil
		}
		return ok
	}
	l.out = slices.DeleteFunc(l.out, stays)
	l.in = slices.DeleteFunc(l.in, func(r windowRow) bool { return r.row == nil })
}

func (l *limit) pass(rows []windowRow, weight int) error {
	for i := range rows {
		l.ctx.putBack(l.plan.Live, rows[i].row.values)
		l.row.key = rows[i].key()
		if err := l.next.Row(&l.row, weight); err != nil {
			return err
		}
	}
	return nil
}

// Reset forgets everything that is not stored.
func (l *limit) Reset() {
	l.forget()
	l.gone.forget()
	clear(l.known)
	l.rows = 0
}

// forget forgets the transaction.
func (l *limit) forget() {
	for i := range l.touched {
		l.touched[i].touched = false
		l.touched[i].window = nil
	}
	l.touched = l.touched[:0]
}
