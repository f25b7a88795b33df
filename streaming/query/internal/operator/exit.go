package operator

import (
	"bytes"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Exit consolidates what a transaction did to each row of the result set, keeps the view and yields the diffs.
type Exit struct {
	ctx     *Context
	Rows    int64 // in the view
	changes []change
	at      map[result.RowKey]int
	key     []byte
	buf     []byte
}

// change is what became of one row: what it was before the transaction and what it is now, nil being not there.
type change struct {
	key         result.RowKey
	before, now []graph.Value
}

// NewExit returns the operator.
func NewExit(ctx *Context) *Exit { return &Exit{ctx: ctx, at: make(map[result.RowKey]int)} }

// none stands for a row without columns; nil is no row.
var none = []graph.Value{}

// Row takes a row in or out. Between transactions each identity has at most one row, and each change of an element
// takes its old rows out before the new ones come in.
func (x *Exit) Row(key result.RowKey, values []graph.Value, weight int) error {
	if values == nil {
		values = none
	}
	i, ok := x.at[key]
	if !ok {
		i = len(x.changes)
		x.at[key] = i
		x.changes = append(x.changes, change{key: key})
		if weight < 0 {
			x.changes[i].before = values
		}
	}
	if weight > 0 {
		x.changes[i].now = values
	} else {
		x.changes[i].now = nil
	}
	return nil
}

// Flush does nothing: Diffs ends the transaction.
func (x *Exit) Flush() error { return nil }

// Diffs writes the changes of the transaction to the view and returns them in the order of their keys.
func (x *Exit) Diffs() ([]result.Diff, error) {
	if len(x.changes) == 0 {
		return nil, nil
	}
	diffs := make([]result.Diff, 0, len(x.changes))
	for _, c := range x.changes {
		d := result.Diff{Key: c.key, Before: c.before, After: c.now}
		switch {
		case c.before == nil && c.now == nil:
			continue
		case c.before == nil:
			d.Op = result.Added
			x.Rows++
		case c.now == nil:
			d.Op = result.Deleted
			x.Rows--
		case slices.EqualFunc(c.before, c.now, graph.Identical):
			continue
		default:
			d.Op = result.Updated
		}
		diffs = append(diffs, d)
	}
	clear(x.changes)
	x.changes = x.changes[:0]
	clear(x.at)
	slices.SortFunc(diffs, func(a, b result.Diff) int { return bytes.Compare(a.Key[:], b.Key[:]) })
	for i := range diffs {
		if err := x.show(&diffs[i]); err != nil {
			return nil, err
		}
	}
	return diffs, nil
}

func (x *Exit) show(d *result.Diff) error {
	x.key = store.ViewKey(x.key[:0], d.Key)
	if d.Op == result.Deleted {
		return x.ctx.Batch.Delete(x.key)
	}
	x.buf = x.buf[:0]
	for _, v := range d.After {
		x.buf = graph.AppendValue(x.buf, v)
	}
	return x.ctx.Batch.Set(x.key, x.buf)
}

// Reset forgets an unfinished transaction.
func (x *Exit) Reset() {
	clear(x.changes)
	x.changes = x.changes[:0]
	clear(x.at)
}
