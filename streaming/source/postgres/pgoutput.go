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

// assembler turns the messages of the plugin pgoutput into transactions; see inProgress for those of version 2.
type assembler struct {
	decoder
	catalog   *catalog
	relations map[uint32]*relation // nil: not in the spec
	// resolve learns the types of a relation's columns that are not known yet.
	resolve func(ctx context.Context, oids []uint32) error
	// fetch reads what rows lack as it is now; nil of a row that is gone.
	fetch func(ctx context.Context, lacks []lack) ([][][]byte, error)
	// reject lets the stream go on without a row that cannot be decoded, or returns why not.
	reject func(ctx context.Context, cause error, record []byte) error
	// remaining says which of some rows, given by all their columns, the table has now.
	remaining func(ctx context.Context, r *relation, rows [][][]byte) (map[int]bool, error)
	// attributes reads all columns that a table ever had, as the catalog knows them now, and where its rows are.
	attributes func(ctx context.Context, oid uint32) ([]attribute, uint32, error)
	// files looks where the rows of tables are.
	files func(ctx context.Context, oids []uint32) (map[uint32]file, error)
	// described is called when a table is described: it may have changed in ways that do not show there.
	described func()

	open       bool   // between begin and commit
	end        uint64 // where the commit record of the open transaction is
	xid        uint32 // of the open transaction
	commitTime time.Time
	changes    []graph.Change
	dropped    map[int]bool // those of changes, by their indices, that are not to be
	gone       []goneRow    // of tables without a key
	lacks      []lack
	reads      int // how many of them are read at a time; 0: one
	deferred   deferred
	floor      uint64 // what was committed before was taken already
	taken      bool   // the transaction at hand was
	chooses    bool   // columns that the publication lacks are left out by us
	bytes      int    // of messages since the last part was taken out
	parts      int    // of the transaction at hand that were taken out

	prefix  string               // of logical messages that are for us
	known   []layout             // what tables look like here
	schema  []graph.SchemaChange // of the transaction at hand
	news    bool                 // known has changed since it was last passed on
	renewed bool                 // and by more than the description of a table: the catalog must be read anew
}

// partBytes is how much of a transaction is held before it is handed over in parts.
const partBytes = 1 << 20

// part returns what the transaction at hand has so far, if its messages had that many bytes; else nil. It is valid until
// reuse, which must come before the next message.
func (a *assembler) part(ctx context.Context, least int) (part *graph.Transaction, number int, err error) {
	if a.bytes < least {
		return nil, 0, nil
	}
	if err := a.settle(ctx); err != nil {
		return nil, 0, err
	}
	part = &graph.Transaction{CommitTime: a.commitTime, Changes: a.changes}
	number, a.bytes = a.parts, 0
	a.parts++
	return part, number, nil
}

// reuse lets go of changes that were taken, with all that they refer to.
func (a *assembler) reuse() {
	a.recycle()
	clear(a.changes)
	a.changes = a.changes[:0]
}

// settle asks the tables what the stream does not say.
func (a *assembler) settle(ctx context.Context) error {
	if err := a.completeAll(ctx); err != nil {
		return err
	}
	if err := a.keepCopies(ctx); err != nil {
		return err
	}
	a.takeOut()
	return a.settleKeys(ctx)
}

// drop has a change, by its index, taken out when the transaction, or a part of it, is handed over.
func (a *assembler) drop(index int) {
	if a.dropped == nil {
		a.dropped = make(map[int]bool)
	}
	a.dropped[index] = true
}

func (a *assembler) takeOut() {
	if a.dropped == nil {
		return
	}
	kept := a.changes[:0]
	for i, c := range a.changes {
		if !a.dropped[i] {
			kept = append(kept, c)
		}
	}
	clear(a.changes[len(kept):])
	a.changes, a.dropped = kept, nil
}

// usualChanges is how many changes a transaction may have for its memory to be kept for the next one.
const usualChanges = 4096

var postgresEpoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()

// message takes one message and returns a transaction when it was the last one of it, which is valid until the next
// message. A transaction without changes for us still moves the position.
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
	case 'M':
		return nil, a.announced(src)
	case 'Y', 'O': // names of types and origins say nothing that matters here
		return nil, nil
	}
	return nil, failure.Unsupported.Errorf("the server sent a message of unknown kind %q", kind)
}

func (a *assembler) begin(src []byte) error {
	if len(src) != 20 {
		return failure.BadRecord.Errorf("the server sent a begin of %d bytes", len(src))
	}
	if a.reuse(); cap(a.changes) > usualChanges { // the transaction before was taken by now
		a.changes = nil
	}
	a.open, a.end, a.xid = true, binary.BigEndian.Uint64(src), binary.BigEndian.Uint32(src[16:])
	a.parts, a.bytes, a.schema, a.taken = 0, 0, nil, a.end < a.floor
	a.commitTime = time.UnixMicro(postgresEpoch + int64(binary.BigEndian.Uint64(src[8:]))).UTC()
	return nil
}

func (a *assembler) commit(ctx context.Context, src []byte) (*graph.Transaction, error) {
	if len(src) != 25 || !a.open {
		return nil, failure.BadRecord.Errorf("the server sent a commit that fits no transaction")
	}
	if err := a.settle(ctx); err != nil {
		return nil, err
	}
	a.deferred = deferred{}
	// The position is the end of the commit record: resuming there does not repeat the transaction.
	tx := &graph.Transaction{Position: position(binary.BigEndian.Uint64(src[9:])), CommitTime: a.commitTime, Schema: a.schema}
	tx.Changes = a.changes
	a.open = false
	return tx, nil
}

func (a *assembler) truncate(src []byte) error {
	if len(src) < 5 || len(src) != 5+4*int(binary.BigEndian.Uint32(src)) {
		return failure.BadRecord.Errorf("the server sent a truncate of %d bytes", len(src))
	}
	for src = src[5:]; len(src) > 0 && !a.taken; src = src[4:] {
		if r := a.relations[binary.BigEndian.Uint32(src)]; r != nil {
			a.changes = r.truncated(a.changes)
			a.truncatedHere(r)
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
	schema, rest, ok1 := cutText(src[4:])
	name, rest, ok2 := cutText(rest)
	if !ok1 || !ok2 || len(rest) < 3 {
		return bad
	}
	if schema == "" {
		schema = "pg_catalog"
	}
	t := a.catalog.root(oid)
	if t == nil {
		a.relations[oid] = nil
		return nil
	}
	a.described()
	if here := (tableName{schema, name}); t.name != here { // it was renamed
		renamed := *t
		renamed.name, t = here, &renamed
	}
	replicaIdentity, count := rest[0], int(binary.BigEndian.Uint16(rest[1:]))
	rest = rest[3:]
	var err error
	columns, identifying := make([]column, count), make([]bool, count)
	var unknown []uint32
	for i := range columns {
		if len(rest) < 1 {
			return bad
		}
		name, after, ok := cutText(rest[1:])
		if !ok || len(after) < 8 {
			return bad
		}
		columns[i] = column{name: name, oid: binary.BigEndian.Uint32(after), mod: int32(binary.BigEndian.Uint32(after[4:]))}
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
	if !t.byPrimary || replicaIdentity != 'd' { // else it is the primary key that identifies
		t, err = a.learn(ctx, t, columns, nil)
	} else {
		t, err = a.learn(ctx, t, columns, identifying)
	}
	if err != nil || t == nil {
		a.relations[oid] = nil
		return err
	}
	r, err := compile(t, columns, a.types)
	if err != nil {
		return err
	}
	for _, slot := range r.key {
		r.blind = r.blind || !identifying[r.wire[slot].at]
	}
	r.needsOld = replicaIdentity == 'f' && !containsAll(t.primary, t.key)
	r.deferrable = !t.wholeRow && (r.needsOld || replicaIdentity == 'f' && t.deferrable)
	if t.wholeRow {
		r.blind, r.needsOld = slices.Contains(identifying, false), true
	}
	a.relations[oid] = r
	return nil
}

// cutText takes a string that ends with a zero byte.
func cutText(src []byte) (text string, rest []byte, ok bool) {
	before, rest, ok := bytes.Cut(src, []byte{0})
	return string(before), rest, ok
}
