package operator

import (
	"bytes"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/query/internal/touched"
	"github.com/perdure/perdure/streaming/result"
)

// Output consolidates what a transaction did to each row of the result set, keeps the view and yields the diffs.
type Output struct {
	base
	Rows    int64 // in the view
	plan    *plan.Output
	changes touched.List[result.RowKey, change]
	chunk   []graph.Value
	diffs   []result.Diff

	writes   []viewWrite // of the batch
	keys     []byte      // of writes, back to back
	expected [][]byte    // scratch: keys
}

// change is what became of one row: what it was before the transaction and what it is now.
type change struct{ before, now version }

// version is a row with its place; values are nil where there is none.
type version struct {
	values []graph.Value
	order  string
	row    *viewRow // of what is there now
}

func newOutput(b base, p *plan.Output) *Output {
	return &Output{base: b, plan: p}
}

// none stands for a row without columns; nil is no row.
var none = []graph.Value{}

// Row takes a row in or out. Between transactions each identity has at most one row, and within one a row is taken out
// before another of the same identity comes in.
func (x *Output) Row(row Identified, weight int) error {
	key := row.Key()
	c := x.changes.Find(key)
	if c == nil {
		c = x.changes.Add(key, change{})
		if weight < 0 {
			c.before = x.version(false)
		}
	}
	if weight > 0 {
		c.now = x.version(true)
	} else {
		c.now = version{}
	}
	return nil
}

// chunkValues is how many values are allocated at once for rows, which live about as long as each other.
const chunkValues = 512

// version returns the row at hand. Those that were live as long as the transaction, those that are as long as the view
// has them.
func (x *Output) version(now bool) version {
	v := version{values: none}
	n := len(x.plan.Columns)
	switch {
	case now:
		v.row = newViewRow(n)
		v.values = v.row.values
	case n > 0:
		if len(x.chunk) < n {
			x.chunk = make([]graph.Value, max(chunkValues, n))
		}
		v.values, x.chunk = x.chunk[:n:n], x.chunk[n:]
	}
	slots := x.ctx.Env.Slots
	for i, slot := range x.plan.Columns {
		v.values[i] = slots[slot]
	}
	if x.plan.Order >= 0 {
		v.order = slots[x.plan.Order].AsString()
	}
	return v
}

// Diffs returns what the transaction changed, in the order of the keys, and brings it into the view.
func (x *Output) Diffs() ([]result.Diff, error) {
	changes := x.changes.All
	if len(changes) == 0 {
		return nil, nil
	}
	diffs := x.room(len(changes))
	slices.SortFunc(changes, func(a, b touched.Entry[result.RowKey, change]) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	for i := range changes {
		key, c := changes[i].Key, &changes[i].Value
		before, now := c.before.values, c.now.values
		d := result.Diff{Key: key, Before: before, After: now}
		same := false
		switch {
		case before == nil && now == nil:
			continue
		case before == nil:
			d.Op = result.Added
			x.Rows++
		case now == nil:
			d.Op = result.Deleted
			x.Rows--
		default:
			d.Op = result.Updated
			same = slices.EqualFunc(before, now, graph.Identical)
		}
		if same && c.before.order == c.now.order {
			continue
		}
		x.show(key, c)
		if len(x.writes) >= usualWrites {
			if err := x.Save(); err != nil {
				return nil, err
			}
		}
		if !same { // else it has another place only
			diffs = append(diffs, d)
		}
	}
	x.changes.Reset()
	return diffs, nil
}

// chunkDiffs is how many diffs are allocated at once for transactions of few.
const chunkDiffs = 64

// room returns an empty slice for up to n diffs.
func (x *Output) room(n int) []result.Diff {
	if n > chunkDiffs/4 {
		return make([]result.Diff, 0, n)
	}
	if len(x.diffs) < n {
		x.diffs = make([]result.Diff, chunkDiffs)
	}
	room := x.diffs[:0:n]
	x.diffs = x.diffs[n:]
	return room
}

func (x *Output) show(key result.RowKey, c *change) {
	if c.before.values != nil && (c.now.values == nil || c.before.order != c.now.order) {
		x.write(c.before.order, key, nil)
	}
	if c.now.values != nil {
		x.write(c.now.order, key, c.now.row)
	}
}

// viewWrite is what a batch does to a row of the view.
type viewWrite struct {
	end int      // of its key among the keys, which starts where the one before ends
	row *viewRow // nil: it is deleted
}

// usualWrites is how many rows of the view wait to be written at most, and for how many memory is kept.
const usualWrites = 4096

// write notes what is to be written when the batch ends, or when many wait: nobody reads the view before, and the index finds many rows
// faster than one after the other.
func (x *Output) write(order string, key result.RowKey, row *viewRow) {
	x.keys = store.ViewKey(x.keys, order, key)
	x.writes = append(x.writes, viewWrite{len(x.keys), row})
}

// Save writes to the view what the batch did to it.
func (x *Output) Save() error {
	x.expected = x.expected[:0]
	start := 0
	for i := range x.writes {
		end := x.writes[i].end
		x.expected, start = append(x.expected, x.keys[start:end:end]), end
	}
	x.ctx.Batch.Expect(x.expected, false)
	for i := range x.writes {
		var err error
		if row := x.writes[i].row; row != nil {
			err = x.ctx.Batch.Put(x.expected[i], row)
		} else {
			err = x.ctx.Batch.Delete(x.expected[i])
		}
		if err != nil {
			return err
		}
	}
	x.forget()
	return nil
}

// forget drops what waits to be written, and memory that a large batch needed.
func (x *Output) forget() {
	if clear(x.writes); cap(x.writes) > 2*usualWrites {
		x.writes, x.keys, x.expected = nil, nil, nil
	}
	x.writes, x.keys = x.writes[:0], x.keys[:0]
}

// viewRow is a row as the view keeps it.
type viewRow struct{ values []graph.Value }

// newViewRow returns a row with room for n values, which for most lie behind it, as one piece of memory costs less than
// two.
func newViewRow(n int) *viewRow {
	switch {
	case n == 0:
		return &viewRow{none}
	case n <= 2:
		piece := new(struct {
			viewRow
			room [2]graph.Value
		})
		piece.values = piece.room[:n:n]
		return &piece.viewRow
	case n <= 4:
		piece := new(struct {
			viewRow
			room [4]graph.Value
		})
		piece.values = piece.room[:n:n]
		return &piece.viewRow
	}
	return &viewRow{make([]graph.Value, n)}
}

// AppendTo appends the values.
func (r *viewRow) AppendTo(dst []byte) []byte {
	for _, v := range r.values {
		dst = graph.AppendValue(dst, v)
	}
	return dst
}

// Size returns about what the row takes in memory.
func (r *viewRow) Size() int {
	const fixed = 80 // structs and the key
	return fixed + graph.SizeOfAll(r.values)
}

// Forgotten does nothing.
func (*viewRow) Forgotten() {}

// Reset forgets an unfinished batch.
func (x *Output) Reset() {
	x.changes.Reset()
	x.forget()
}
