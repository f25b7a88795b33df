package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/graph"
)

// query is a statement with arguments in the forms in which they came.
type query struct {
	text    string
	values  [][]byte
	oids    []uint32
	formats []int16
}

// argument adds one and returns its place in the text.
func (q *query) argument(c wireColumn, value []byte) string {
	q.values, q.oids, q.formats = append(q.values, value), append(q.oids, c.oid), append(q.formats, c.format)
	return fmt.Sprintf("$%d", len(q.values))
}

// ask runs a query on the side connection and returns the rows in binary.
func (st *stream) ask(ctx context.Context, q *query) (rows [][][]byte, err error) {
	return rows, st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		result := conn.PgConn().ExecParams(ctx, q.text, q.values, q.oids, q.formats, []int16{pgx.BinaryFormatCode}).Read()
		rows = result.Rows
		return result.Err
	})
}

// aside does something on the side connection, which sees what the open transaction did.
func (st *stream) aside(ctx context.Context, do func(ctx context.Context, conn *pgx.Conn) error) error {
	return ticking(st.sink, func() error {
		ctx, cancel := st.source.bounded(ctx)
		defer cancel()
		conn, err := st.side.open(ctx)
		if err != nil {
			return err
		}
		for st.visible != st.assembler.xid {
			seen, err := sees(ctx, conn, st.assembler.xid)
			if err != nil {
				return wrap(err, "waiting for a transaction to be visible")
			}
			if seen {
				st.visible = st.assembler.xid
			} else if err := pause(ctx, visiblePause); err != nil {
				return wrap(err, "waiting for a transaction to be visible")
			}
		}
		return do(ctx, conn)
	})
}

const visiblePause = time.Millisecond

// sees reports whether what a transaction did is visible. It comes to us when its commit record is written, and becomes
// visible to others a moment later, or much later where the server waits for a synchronous standby.
func sees(ctx context.Context, conn *pgx.Conn, xid uint32) (bool, error) {
	var end int64 // transactions from there on are running, or have not begun
	var running []int64
	err := conn.QueryRow(ctx, "SELECT pg_snapshot_xmax(s)::text::bigint, ARRAY(SELECT x::text::bigint FROM pg_snapshot_xip(s) x) FROM pg_current_snapshot() s").Scan(&end, &running)
	full := end + int64(int32(xid-uint32(end))) // the stream has the lower half only
	return full < end && !slices.Contains(running, full), err
}

// fetch reads the columns of a row that are still unchanged in values; those of a row that is gone become null. fields
// is the row as it came.
func (st *stream) fetch(ctx context.Context, r *relation, values []graph.Value, fields [][]byte) error {
	var q query
	var columns, conditions []string
	var slots []int
	for slot, v := range values {
		if v.Kind() == graph.KindUnchanged {
			columns, slots = append(columns, quote(r.shape.Names()[slot])), append(slots, slot)
			values[slot] = graph.Null
		}
	}
	if len(columns) == 0 { // those that are not kept do not count
		return nil
	}
	for _, slot := range r.key {
		c := r.wire[slot]
		conditions = append(conditions, quote(r.shape.Names()[slot])+" = "+q.argument(c, fields[c.at]))
	}
	q.text = fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), r.table.from(), strings.Join(conditions, " AND "))
	found, err := st.ask(ctx, &q)
	if err != nil {
		return wrap(err, "reading values of a row of %s that were not sent", r.name)
	}
	if len(found) == 0 {
		return nil
	}
	for i, src := range found[0] {
		if src == nil {
			continue
		}
		at := r.wire[slots[i]].at
		if values[slots[i]], err = r.decode[at](&st.assembler.decoder, src); err != nil {
			return r.columnError(at, err)
		}
	}
	return nil
}
