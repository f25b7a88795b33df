package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

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

// lack is a row that came without some of its values, which the table has.
type lack struct {
	relation *relation
	values   []graph.Value // is to have them
	slots    []int         // where they are missing
	key      [][]byte      // the columns by which the row is found, as they came
	record   []byte
	from, to int // which changes the row is
}

// maxLacks is how many rows are read from tables at a time at most. Their values are all in memory then, so that it is only
// one at first, and fewer again while these are large.
const maxLacks = 100

// atATime returns how many rows are read at a time.
func (a *assembler) atATime() int { return max(1, a.reads) }

// adapt takes into account how many bytes rows had that were read together.
func (a *assembler) adapt(rows, bytes int) {
	switch {
	case bytes >= partBytes:
		a.reads = a.atATime() / 2
	case rows >= a.atATime():
		a.reads = min(2*a.atATime(), maxLacks)
	}
}

// newLack marks what is missing in values: it is null until it is read, and stays so if the row is gone. fields are the
// row as it came.
func newLack(r *relation, values []graph.Value, fields [][]byte) lack {
	l := lack{relation: r, values: values}
	for slot, v := range values {
		if v.Kind() == graph.KindUnchanged {
			values[slot] = graph.Null
			l.slots = append(l.slots, slot)
		}
	}
	for _, slot := range r.key {
		l.key = append(l.key, bytes.Clone(fields[r.wire[slot].at]))
	}
	return l
}

// renamed returns the relation with the names that it has now, for queries: DDL of the transaction at hand, or a later one,
// may have changed them. It is nil when the table is gone or has lost one of its columns: its rows are gone then.
func (st *stream) renamed(ctx context.Context, conn *pgx.Conn, r *relation) (*relation, error) {
	tables, err := st.source.find(ctx, conn, []uint32{r.table.oid})
	if err != nil {
		return nil, err
	}
	now, there := tables[r.table.oid]
	names := slices.Clone(r.shape.Names())
	for slot := range names {
		if names[slot] = now.columns[r.columns[r.wire[slot].at].num]; names[slot] == "" {
			there = false
		}
	}
	if !there {
		return nil, nil
	}
	t, other := *r.table, *r
	t.name = now.name
	other.table, other.shape = &t, graph.NewShape(names...)
	return &other, nil
}

// unknownName reports whether the server does not know a table or a column by its name.
func unknownName(err error) bool {
	var server *pgconn.PgError
	return errors.As(err, &server) && (server.Code == "42P01" || server.Code == "42703")
}

// query asks for the missing values.
func (l *lack) query() *query {
	var q query
	var columns, conditions []string
	names := l.relation.shape.Names()
	for _, slot := range l.slots {
		columns = append(columns, quote(names[slot]))
	}
	for i, slot := range l.relation.key {
		c := l.relation.wire[slot]
		conditions = append(conditions, quote(names[slot])+" "+l.relation.types.equals(c.oid)+" "+q.argument(c, l.key[i]))
	}
	q.text = fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), l.relation.table.from(), strings.Join(conditions, " AND "))
	return &q
}

// formats are those of the missing values: as in the stream.
func (l *lack) formats() []int16 {
	formats := make([]int16, len(l.slots))
	for i, slot := range l.slots {
		formats[i] = l.relation.wire[slot].format
	}
	return formats
}

// fetch reads what rows lack, in one round trip. What it returns of a row that is gone is nil.
func (st *stream) fetch(ctx context.Context, lacks []lack) (rows [][][]byte, err error) {
	if rows, err = st.fetchNamed(ctx, lacks); !unknownName(err) {
		return rows, err
	}
	rows = make([][][]byte, len(lacks))
	for i, l := range lacks {
		err := st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			l.relation, err = st.renamed(ctx, conn, l.relation)
			return err
		})
		if err != nil {
			return nil, err
		}
		if l.relation == nil {
			continue
		}
		found, err := st.fetchNamed(ctx, []lack{l})
		if err != nil {
			return nil, err
		}
		rows[i] = found[0]
	}
	return rows, nil
}

// fetchNamed is fetch with the names that tables and columns have in the stream.
func (st *stream) fetchNamed(ctx context.Context, lacks []lack) (rows [][][]byte, err error) {
	var batch pgconn.Batch
	for i := range lacks {
		q := lacks[i].query()
		batch.ExecParams(q.text, q.values, q.oids, q.formats, lacks[i].formats())
	}
	err = st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		results, err := conn.PgConn().ExecBatch(ctx, &batch).ReadAll()
		for _, result := range results {
			if len(result.Rows) == 0 {
				result.Rows = [][][]byte{nil}
			}
			rows = append(rows, result.Rows[0])
		}
		return wrap(err, "reading values that were not sent")
	})
	return rows, err
}

// supply gives rows what they lack, and returns which of them cannot be decoded and were rejected.
func (a *assembler) supply(ctx context.Context, lacks []lack) (rejected map[int]bool, err error) {
	var found [][][]byte
	from := 0 // of found
	for i := range lacks {
		if i-from == len(found) {
			from = i
			if found, err = a.fetch(ctx, lacks[i:min(i+a.atATime(), len(lacks))]); err != nil {
				return nil, err
			}
			a.adapt(len(found), size(found))
		}
		err := a.decodeInto(&lacks[i], found[i-from])
		if err == nil {
			continue
		}
		if err := a.reject(ctx, err, lacks[i].record); err != nil {
			return nil, err
		}
		if rejected == nil {
			rejected = make(map[int]bool)
		}
		rejected[i] = true
	}
	return rejected, nil
}

// size returns how many bytes rows have.
func size(rows [][][]byte) (bytes int) {
	for _, row := range rows {
		for _, value := range row {
			bytes += len(value)
		}
	}
	return bytes
}

func (a *assembler) decodeInto(l *lack, found [][]byte) (err error) {
	for i, src := range found {
		if src == nil {
			continue
		}
		a.bytes += len(src)
		c := l.relation.wire[l.slots[i]]
		decode := l.relation.decode[c.at]
		if c.format == pgx.TextFormatCode {
			decode = decodeText
		}
		if l.values[l.slots[i]], err = decode(&a.decoder, src); err != nil {
			return l.relation.columnError(c.at, err)
		}
	}
	return nil
}

// complete sees to it that a row gets the values that it lacks: before its changes are made, where these depend on them,
// otherwise later together with others. change makes the changes; nothing of a row that cannot be decoded is done.
func (a *assembler) complete(ctx context.Context, r *relation, values []graph.Value, tuple, old []byte, change func()) error {
	if !slices.ContainsFunc(values, isUnchanged) { // those that are not kept do not count
		change()
		return nil
	}
	atOnce := r.leadsByUnchanged(values)
	l := newLack(r, values, filled(tuple, old))
	l.record, l.from = bytes.Clone(tuple), len(a.changes)
	if atOnce {
		if rejected, err := a.supply(ctx, []lack{l}); err != nil || rejected != nil {
			return err
		}
		change()
		return nil
	}
	change()
	l.to = len(a.changes)
	if a.lacks = append(a.lacks, l); len(a.lacks) < a.atATime() {
		return nil
	}
	return a.completeAll(ctx)
}

// completeAll gives all rows what they lack.
func (a *assembler) completeAll(ctx context.Context) error {
	if len(a.lacks) == 0 {
		return nil
	}
	rejected, err := a.supply(ctx, a.lacks)
	if err != nil {
		return err
	}
	for i := range rejected {
		for n := a.lacks[i].from; n < a.lacks[i].to; n++ {
			a.drop(n)
		}
	}
	clear(a.lacks)
	a.lacks = a.lacks[:0]
	return nil
}
