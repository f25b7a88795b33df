package postgres

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A table without a key can have its rows identified by all their columns. Identical rows are one node then, and when
// one of them goes the others keep the node: whether there are any is not in the stream, so the table is asked. It
// answers as it is by then; should that change once more, the change is still to come.

// goneRow is a deleted row of such a table.
type goneRow struct {
	relation *relation
	fields   [][]byte
	change   int // index of the first change that its end makes
}

// wholeKey is what identifies a row by the binary forms of all its columns.
func wholeKey(fields [][]byte) []byte {
	hash := sha256.New()
	for _, field := range fields {
		length := int32(len(field))
		if field == nil {
			length = -1
		}
		hash.Write(binary.BigEndian.AppendUint32(nil, uint32(length)))
		hash.Write(field)
	}
	return hex.AppendEncode(nil, hash.Sum(nil)[:16])
}

// filled returns a tuple's fields with those that did not change taken from the old one, where there is one that has them.
func filled(tuple, old []byte) [][]byte {
	values := fields(tuple)
	if old == nil {
		return values
	}
	before := fields(old)
	at := 2
	for i := range values {
		switch tuple[at] {
		case 'u':
			values[i] = before[i]
		case 't', 'b':
			at += 4 + len(values[i])
		}
		at++
	}
	return values
}

// maxAsked is how many rows are asked for in one statement, which reads the table once.
const maxAsked = 1000

// keepCopies drops the ends of rows of which the table has a copy.
func (a *assembler) keepCopies(ctx context.Context) error {
	for gone := a.gone; len(gone) > 0; {
		r := gone[0].relation
		end := slices.IndexFunc(gone, func(g goneRow) bool { return g.relation != r })
		if end < 0 {
			end = len(gone)
		}
		end = min(end, maxAsked, max(1, 60_000/max(1, len(r.wire)))) // a statement has 65535 parameters
		rows := make([][][]byte, end)
		for i, g := range gone[:end] {
			rows[i] = g.fields
		}
		remaining, err := a.remaining(ctx, r, rows)
		if err != nil {
			return err
		}
		for i := range remaining {
			for n := range 1 + len(r.edges) {
				a.drop(gone[i].change + n)
			}
		}
		gone = gone[end:]
	}
	a.gone = nil
	return nil
}

// remaining says which of some rows the table has now. Rows are compared as text, which tells apart all that differs
// and serves also types that know no equality.
func (st *stream) remaining(ctx context.Context, r *relation, rows [][][]byte) (map[int]bool, error) {
	remaining, err := st.remainingNamed(ctx, r, r, rows)
	if !altered(err) {
		return remaining, err
	}
	now := r
	err = st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		now, err = st.current(ctx, conn, r)
		return err
	})
	if err != nil || now == nil {
		return nil, err
	}
	return st.remainingNamed(ctx, r, now, rows)
}

// remainingNamed is remaining with the names that the table and its columns have in the stream, or by now.
func (st *stream) remainingNamed(ctx context.Context, r, now *relation, rows [][][]byte) (map[int]bool, error) {
	var q query
	var wanted, columns []string
	for i, fields := range rows {
		var places []string
		for slot, field := range fields {
			places = append(places, q.argument(r.wire[slot], field))
		}
		wanted = append(wanted, fmt.Sprintf("(%d, ROW(%s)::text)", i, strings.Join(places, ", ")))
	}
	for _, name := range now.shape.Names() {
		columns = append(columns, "t."+quote(name))
	}
	q.text = fmt.Sprintf("WITH gone (i, image) AS (VALUES %s) SELECT DISTINCT gone.i FROM gone JOIN %s t ON ROW(%s)::text = gone.image",
		strings.Join(wanted, ", "), now.table.from(), strings.Join(columns, ", "))
	found, err := st.ask(ctx, &q)
	if err != nil {
		return nil, wrap(err, "looking for copies of deleted rows of %s", r.name)
	}
	remaining := make(map[int]bool, len(found))
	for _, i := range found {
		remaining[int(binary.BigEndian.Uint32(i[0]))] = true
	}
	return remaining, nil
}
