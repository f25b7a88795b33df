package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"strconv"
	"time"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// position returns an LSN as Postgres writes it: 16/B374D848.
func position(lsn uint64) graph.Position {
	const digits = "0123456789ABCDEF"
	var b [17]byte
	at := len(b)
	write := func(n uint32) {
		for {
			at--
			b[at] = digits[n&15]
			if n >>= 4; n == 0 {
				return
			}
		}
	}
	write(uint32(lsn))
	at--
	b[at] = '/'
	write(uint32(lsn >> 32))
	return graph.Position(b[at:])
}

// parsePosition is the inverse of position; the empty position is 0.
func parsePosition(p graph.Position) (uint64, error) {
	if p == "" {
		return 0, nil
	}
	high, low, ok := bytes.Cut([]byte(p), []byte("/"))
	h, err := strconv.ParseUint(string(high), 16, 32)
	l, err2 := strconv.ParseUint(string(low), 16, 32)
	if !ok || err != nil || err2 != nil {
		return 0, failure.StateCorrupt.Errorf("%q is not a position in a Postgres server", p)
	}
	return h<<32 | l, nil
}

// assembler turns the messages of the plugin pgoutput, protocol version 1, into transactions.
type assembler struct {
	decoder
	catalog   *catalog
	relations map[uint32]*relation // nil: not in the spec
	// resolve learns the types of a relation's columns that are not known yet.
	resolve func(ctx context.Context, oids []uint32) error
	// fetch reads the columns of a row that are unchanged in values as they are now.
	fetch func(ctx context.Context, r *relation, values []graph.Value, fields [][]byte) error
	// remaining says which of some rows, given by all their columns, the table has now.
	remaining func(ctx context.Context, r *relation, rows [][][]byte) (map[int]bool, error)

	open       bool   // between begin and commit
	end        uint64 // where the commit record of the open transaction is
	xid        uint32 // of the open transaction
	commitTime time.Time
	changes    []graph.Change
	gone       []goneRow // of tables without a key
}

// shrinkAt is how many changes a transaction may have so that its slice is copied and the scratch space is kept.
const shrinkAt = 256

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// message takes one message and returns a transaction when it was the last one of it. A transaction without changes
// for us still moves the position.
func (a *assembler) message(ctx context.Context, src []byte) (*graph.Transaction, error) {
	if len(src) == 0 {
		return nil, failure.BadRecord.Errorf("the server sent an empty message")
	}
	kind, src := src[0], src[1:]
	switch kind {
	case 'B':
		return nil, a.begin(src)
	case 'C':
		return a.commit(ctx, src)
	case 'I', 'U', 'D':
		return nil, a.row(ctx, kind, src)
	case 'R':
		return nil, a.relation(ctx, src)
	case 'T':
		return nil, a.truncate(src)
	case 'Y', 'O', 'M': // names of types, origins and logical messages say nothing that matters here
		return nil, nil
	}
	return nil, failure.Unsupported.Errorf("the server sent a message of unknown kind %q", kind)
}

func (a *assembler) begin(src []byte) error {
	if len(src) != 20 {
		return failure.BadRecord.Errorf("the server sent a begin of %d bytes", len(src))
	}
	a.open, a.end, a.xid = true, binary.BigEndian.Uint64(src), binary.BigEndian.Uint32(src[16:])
	a.commitTime = time.UnixMicro(postgresEpoch + int64(binary.BigEndian.Uint64(src[8:]))).UTC()
	return nil
}

func (a *assembler) commit(ctx context.Context, src []byte) (*graph.Transaction, error) {
	if len(src) != 25 || !a.open {
		return nil, failure.BadRecord.Errorf("the server sent a commit that fits no transaction")
	}
	if len(a.gone) > 0 {
		if err := a.keepCopies(ctx); err != nil {
			return nil, err
		}
	}
	// The position is the end of the commit record: resuming there does not repeat the transaction.
	tx := &graph.Transaction{Position: position(binary.BigEndian.Uint64(src[9:])), CommitTime: a.commitTime}
	if len(a.changes) <= shrinkAt {
		tx.Changes = slices.Clone(a.changes)
		clear(a.changes)
		a.changes = a.changes[:0]
	} else {
		tx.Changes, a.changes = a.changes, nil
	}
	a.open = false
	return tx, nil
}

func (a *assembler) row(ctx context.Context, kind byte, src []byte) error {
	if len(src) < 5 {
		return failure.BadRecord.Errorf("the server sent a row of %d bytes", len(src))
	}
	r, known := a.relations[binary.BigEndian.Uint32(src)]
	if !known {
		return failure.BadRecord.Errorf("the server sent a row of a table that it did not announce")
	}
	if r == nil {
		return nil
	}
	if r.blind && kind != 'I' {
		return failure.ReplicaIdentityMissing.Errorf("a row of %s changed while the replica identity lacked columns of the key", r.name).
			WithDetail("table", r.name.String()).
			WithFix("Run ALTER TABLE %s REPLICA IDENTITY FULL; then signal rebootstrap to read the tables anew.", r.name.sql())
	}
	part, src := src[4], src[5:]
	var before row
	var old []byte // the tuple of before
	var err error
	if part == 'K' || part == 'O' {
		old = src
		if before.values, src, err = r.tuple(&a.decoder, src); err != nil {
			return err
		}
		if kind == 'D' {
			return a.deleted(r, before, old)
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
	if err := r.checkKey(after.values); err != nil {
		return err
	}
	switch {
	case kind == 'I' && (a.unchanged || r.table.wholeRow):
		return a.appeared(ctx, r, after, src)
	case kind == 'I':
		a.changes = r.inserted(&a.decoder, a.changes, after)
	case before.values != nil && (r.table.wholeRow || a.id(r.prefix, before.values, r.key) != a.id(r.prefix, after.values, r.key)):
		return a.moved(ctx, r, before, after, old, src)
	default:
		a.changes = r.updated(&a.decoder, a.changes, after)
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
	values := fields(tuple)
	if r.table.wholeRow {
		after.whole = wholeKey(values)
	}
	if a.unchanged {
		if err := a.fetch(ctx, r, after.values, values); err != nil {
			return err
		}
	}
	a.changes = r.inserted(&a.decoder, a.changes, after)
	return nil
}

// deleted handles a row that is gone.
func (a *assembler) deleted(r *relation, before row, tuple []byte) error {
	if r.table.wholeRow {
		values := fields(bytes.Clone(tuple)) // they are needed until the commit
		before.whole = wholeKey(values)
		a.gone = append(a.gone, goneRow{r, values, len(a.changes)})
	} else if err := r.checkKey(before.values); err != nil {
		return err
	}
	a.changes = r.deleted(&a.decoder, a.changes, before)
	return nil
}

// moved handles a changed key: the element is another one now. Values that the server did not send, because they did
// not change, cannot be kept from an element that is gone: they come from the old row, if that is complete, or are
// read from the table as it is now; should they change once more, that change is still to come.
func (a *assembler) moved(ctx context.Context, r *relation, before, after row, old, new []byte) error {
	incomplete := false
	for i, v := range after.values {
		switch {
		case v.Kind() != graph.KindUnchanged:
		case before.values[i].IsNull(): // not part of the replica identity: a null would have been sent
			incomplete = true
		default:
			after.values[i] = before.values[i]
			incomplete = incomplete || before.values[i].Kind() == graph.KindUnchanged
		}
	}
	if incomplete {
		if err := a.fetch(ctx, r, after.values, fields(new)); err != nil {
			return err
		}
	}
	if err := a.deleted(r, before, old); err != nil {
		return err
	}
	if r.table.wholeRow {
		after.whole = wholeKey(filled(new, old))
	}
	a.changes = r.inserted(&a.decoder, a.changes, after)
	return nil
}

func (a *assembler) truncate(src []byte) error {
	if len(src) < 5 || len(src) != 5+4*int(binary.BigEndian.Uint32(src)) {
		return failure.BadRecord.Errorf("the server sent a truncate of %d bytes", len(src))
	}
	for src = src[5:]; len(src) > 0; src = src[4:] {
		if r := a.relations[binary.BigEndian.Uint32(src)]; r != nil {
			a.changes = r.truncated(a.changes)
		}
	}
	return nil
}

// relation learns how the rows of a table look from here on.
func (a *assembler) relation(ctx context.Context, src []byte) error {
	bad := failure.BadRecord.Errorf("the server sent a description of a table that cannot be read")
	if len(src) < 4 {
		return bad
	}
	oid := binary.BigEndian.Uint32(src)
	schema, rest, ok1 := bytes.Cut(src[4:], []byte{0})
	name, rest, ok2 := bytes.Cut(rest, []byte{0})
	if !ok1 || !ok2 || len(rest) < 3 {
		return bad
	}
	if len(schema) == 0 {
		schema = []byte("pg_catalog")
	}
	var t *table
	for _, candidate := range a.catalog.tables {
		if candidate.name == (tableName{string(schema), string(name)}) {
			t = candidate
		}
	}
	if t == nil {
		a.relations[oid] = nil
		return nil
	}
	count := int(binary.BigEndian.Uint16(rest[1:]))
	rest = rest[3:]
	columns, identifying := make([]column, count), make([]bool, count)
	var unknown []uint32
	for i := range columns {
		if len(rest) < 1 {
			return bad
		}
		name, after, ok := bytes.Cut(rest[1:], []byte{0})
		if !ok || len(after) < 8 {
			return bad
		}
		columns[i] = column{string(name), binary.BigEndian.Uint32(after)}
		identifying[i] = rest[0]&1 != 0
		rest = after[8:]
		if !a.types.knows(columns[i].oid) {
			unknown = append(unknown, columns[i].oid)
		}
	}
	if len(unknown) > 0 {
		if err := a.resolve(ctx, unknown); err != nil {
			return err
		}
	}
	r, err := compile(t, columns, a.types)
	if err != nil {
		return err
	}
	for _, slot := range r.key {
		r.blind = r.blind || !identifying[r.wire[slot].at]
	}
	if t.wholeRow {
		r.blind = slices.Contains(identifying, false)
		if !slices.Equal(columns, t.columns) {
			return failure.SchemaMismatch.Errorf("the columns of %s are others now, and with them what identifies its rows", r.name).
				WithDetail("table", r.name.String()).WithFix("Signal rebootstrap to read the table anew.")
		}
	}
	a.relations[oid] = r
	return nil
}
