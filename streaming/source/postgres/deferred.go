package postgres

import (
	"bytes"
	"context"

	"github.com/perdure/perdure/streaming/graph"
)

// A key whose constraint is deferrable may belong to two rows for a moment: UPDATE t SET id = id + 1 gives a row the key of
// the next one before that moves on. When a row goes whose key came in the same transaction, the stream does not say
// whether there is another one with that key, so the table is asked. It answers as it is by then; should that change once
// more, the change is still to come.

// deferred follows the keys of one transaction that may be of two rows.
type deferred struct {
	came    map[graph.ElementID]bool // nodes that got a row
	all     bool                     // they are too many to be named
	doubted []goneRow                // one of the rows with their key went; each is complete
}

const maxCame = 100_000 // keys

func (a *assembler) keyCame(r *relation, key []byte) {
	switch d := &a.deferred; {
	case !r.deferrable || d.all:
	case len(d.came) >= maxCame:
		d.came, d.all = nil, true
	case d.came == nil:
		d.came = make(map[graph.ElementID]bool)
		fallthrough
	default:
		d.came[graph.ElementID(r.prefix+string(key))] = true
	}
}

func (a *assembler) keyWent(r *relation, key, tuple []byte) {
	if d := &a.deferred; r.deferrable && (d.all || d.came[graph.ElementID(r.prefix+string(key))]) {
		d.doubted = append(d.doubted, goneRow{relation: r, fields: fields(bytes.Clone(tuple))}) // they are needed until the commit
	}
}

// settleKeys puts back the nodes whose key another row has.
func (a *assembler) settleKeys(ctx context.Context) error {
	for _, gone := range a.deferred.doubted {
		r := gone.relation
		values := make([]graph.Value, len(r.shape.Names()))
		for i := range values {
			values[i] = graph.Unchanged
		}
		if err := a.fetch(ctx, r, values, gone.fields); err != nil {
			return err
		}
		if values[r.key[0]].IsNull() { // there is no such row
			continue
		}
		there, err := r.row(&a.keySpace, values)
		if err != nil {
			return err
		}
		a.changes = r.inserted(&a.decoder, a.changes, there)
	}
	a.deferred.doubted = nil
	return nil
}
