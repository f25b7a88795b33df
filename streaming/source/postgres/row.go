package postgres

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// row takes a row that was inserted (I), updated (U) or deleted (D). Its old tuple is complete (O), the key (K) or left
// out where the key did not change.
func (a *assembler) row(ctx context.Context, kind byte, src []byte) error {
	if len(src) < 5 {
		return failure.BadRecord.Errorf("the server sent a row of %d bytes", len(src))
	}
	r, known := a.relations[binary.BigEndian.Uint32(src)]
	if !known {
		return failure.BadRecord.Errorf("the server sent a row of a table that it did not announce")
	}
	if r == nil || a.taken {
		return nil
	}
	a.bytes += len(src)
	part, src := src[4], src[5:]
	if kind != 'I' && (r.blind || r.needsOld && part != 'O') {
		return failure.ReplicaIdentityMissing.Errorf("a row of %s changed while the replica identity, perhaps of a partition, lacked columns of the key", r.name).
			WithDetail("table", r.name.String()).
			WithFix("Run ALTER TABLE %s REPLICA IDENTITY FULL; and so for its partitions, then signal rebootstrap to read the tables anew.", r.name.sql())
	}
	var before row
	var old []byte // the tuple of before
	var err error
	if part == 'K' || part == 'O' {
		old = src
		if before.values, src, err = r.tuple(&a.decoder, src); err != nil {
			return err
		}
		if before, err = r.row(&a.oldKeySpace, before.values); err != nil {
			return err
		}
		if kind == 'D' {
			a.deleted(r, before, old)
			return nil
		}
		if len(src) > 0 {
			part, src = src[0], src[1:]
		}
	}
	if part != 'N' || kind == 'D' {
		return failure.BadRecord.Errorf("the server sent a row of %s in parts of kind %q", r.name, part)
	}
	a.unchanged = false
	after := row{}
	if after.values, _, err = r.tuple(&a.decoder, src); err != nil {
		return err
	}
	if a.unchanged && old != nil {
		fill(after.values, before.values)
	}
	if after, err = r.row(&a.keySpace, after.values); err != nil {
		return err
	}
	switch {
	case kind == 'I' && (a.unchanged || r.table.wholeRow):
		return a.appeared(ctx, r, after, src)
	case kind == 'I':
		a.keyCame(r, after.key)
		a.changes = r.inserted(&a.decoder, a.changes, after)
	case before.values != nil && (r.table.wholeRow || !bytes.Equal(before.key, after.key)):
		return a.moved(ctx, r, before, after, old, src)
	default:
		update := func() { a.changes = r.updated(&a.decoder, a.changes, after) }
		if a.unchanged && r.partial(after.values) {
			return a.complete(ctx, r, after.values, src, old, update)
		}
		update()
	}
	return nil
}

// fields divides a tuple that was decoded into the columns' binary forms; nil is null or unchanged.
func fields(src []byte) [][]byte {
	fields := make([][]byte, binary.BigEndian.Uint16(src))
	src = src[2:]
	for i := range fields {
		kind := src[0]
		src = src[1:]
		if kind == 't' || kind == 'b' {
			end := 4 + binary.BigEndian.Uint32(src)
			fields[i], src = src[4:end:end], src[end:]
		}
	}
	return fields
}

// appeared handles an insert that is not ordinary. A row that an update brought into a publication's row filter is one
// to us; the server sends it without the large values that did not change.
func (a *assembler) appeared(ctx context.Context, r *relation, after row, tuple []byte) error {
	if r.table.wholeRow {
		after.key = wholeKey(fields(tuple))
	}
	return a.complete(ctx, r, after.values, tuple, nil, func() {
		a.changes = r.inserted(&a.decoder, a.changes, after)
	})
}

// deleted handles a row that is gone.
func (a *assembler) deleted(r *relation, before row, tuple []byte) {
	if r.table.wholeRow {
		values := fields(bytes.Clone(tuple)) // they are needed until the commit
		before.key = wholeKey(values)
		a.gone = append(a.gone, goneRow{r, values, len(a.changes)})
	}
	a.keyWent(r, before.key, tuple)
	a.changes = r.deleted(&a.decoder, a.changes, before)
}

// fill takes values that were not sent from the old row, where it has them: all of a complete one, else those of the
// key, which may be large too.
func fill(after, before []graph.Value) {
	for i, v := range after {
		if v.Kind() == graph.KindUnchanged && !before[i].IsNull() { // had it been null, null would have been sent
			after[i] = before[i]
		}
	}
}

// moved handles a changed key: the element is another one now. Values that the server did not send, because they did
// not change, cannot be kept from an element that is gone: those that the old row does not have are read from the table
// as it is now; should they change once more, that change is still to come.
func (a *assembler) moved(ctx context.Context, r *relation, before, after row, old, tuple []byte) error {
	return a.complete(ctx, r, after.values, tuple, old, func() {
		a.deleted(r, before, old)
		if r.table.wholeRow {
			after.key = wholeKey(filled(tuple, old))
		}
		a.keyCame(r, after.key)
		a.changes = r.inserted(&a.decoder, a.changes, after)
	})
}
