package postgres

import (
	"bytes"
	"context"
	"slices"

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
	for gone := range slices.Chunk(a.deferred.doubted, maxLacks) {
		lacks := make([]lack, len(gone))
		for i, g := range gone {
			values := make([]graph.Value, len(g.relation.shape.Names()))
			for slot := range values {
				values[slot] = graph.Unchanged
			}
			lacks[i] = newLack(g.relation, values, g.fields)
		}
		rejected, err := a.supply(ctx, lacks)
		if err != nil {
			return err
		}
		for i, l := range lacks {
			if rejected[i] || l.values[l.relation.key[0]].IsNull() { // there is no such row
				continue
			}
			there, err := l.relation.row(&a.keySpace, l.values)
			if err != nil {
				return err
			}
			a.changes = l.relation.inserted(&a.decoder, a.changes, there)
		}
	}
	a.deferred.doubted = nil
	return nil
}
