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
	now      *relation     // with the names and types that the table has when it is read
	values   []graph.Value // is to have them
	slots    []int         // where they are missing
	key      [][]byte      // the columns by which the row is found,
	given    []wireColumn  // and how they are given: as they came, or as text
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
	l := lack{relation: r, now: r, values: values}
	for slot, v := range values {
		if v.Kind() == graph.KindUnchanged {
			values[slot] = graph.Null
			l.slots = append(l.slots, slot)
		}
	}
	for _, slot := range r.key {
		l.key, l.given = append(l.key, bytes.Clone(fields[r.wire[slot].at])), append(l.given, r.wire[slot])
	}
	return l
}

// current returns the relation with the names and types that it has now, for queries: DDL of the transaction at hand, or a
// later one, may have changed them. It is nil when the table is gone or has lost one of its columns: its rows are gone then.
func (st *stream) current(ctx context.Context, conn *pgx.Conn, r *relation) (*relation, error) {
	tables, err := st.source.find(ctx, conn, []uint32{r.table.oid})
	if err != nil {
		return nil, err
	}
	now, there := tables[r.table.oid]
	if !there {
		return nil, nil
	}
	t, other := *r.table, *r
	t.name = now.name
	names := slices.Clone(r.shape.Names())
	other.columns, other.decode, other.wire = slices.Clone(r.columns), slices.Clone(r.decode), slices.Clone(r.wire)
	var unknown []uint32
	for slot := range other.wire {
		c := &other.wire[slot]
		num := r.columns[c.at].num
		if names[slot] = now.columns[num]; names[slot] == "" {
			return nil, nil
		}
		c.oid = now.types[num]
		other.columns[c.at].name, other.columns[c.at].oid = names[slot], c.oid
		if !r.types.knows(c.oid) {
			unknown = append(unknown, c.oid)
		}
	}
	if err := r.types.load(ctx, conn, unknown); err != nil {
		return nil, err
	}
	for slot := range other.wire {
		c := &other.wire[slot]
		c.format, other.decode[c.at] = r.types.format(c.oid), r.types.decoder(c.oid)
	}
	other.table, other.shape = &t, graph.NewShape(names...)
	return &other, nil
}

var errRetyped = errors.New("columns have other types by now")

// altered reports whether a query failed because a table is not what it was at this place of the stream: the server does
// not know it or a column by its name, or does not compare a column with values of the type that it had.
func altered(err error) bool {
	var server *pgconn.PgError
	return errors.Is(err, errRetyped) || errors.As(err, &server) && slices.Contains([]string{"42P01", "42703", "42883"}, server.Code)
}

// query asks for the missing values.
func (l *lack) query() *query {
	var q query
	var columns, conditions []string
	names := l.now.shape.Names()
	for _, slot := range l.slots {
		columns = append(columns, quote(names[slot]))
	}
	for i, slot := range l.now.key {
		conditions = append(conditions, quote(names[slot])+" "+l.now.types.equals(l.now.wire[slot].oid)+" "+q.argument(l.given[i], l.key[i]))
	}
	q.text = fmt.Sprintf("SELECT %s FROM %s WHERE %s", strings.Join(columns, ", "), l.now.table.from(), strings.Join(conditions, " AND "))
	return &q
}

// formats are those of the missing values: as in the stream.
func (l *lack) formats() []int16 {
	formats := make([]int16, len(l.slots))
	for i, slot := range l.slots {
		formats[i] = l.now.wire[slot].format
	}
	return formats
}

// fetch reads what rows lack, in one round trip. What it returns of a row that is gone is nil.
func (st *stream) fetch(ctx context.Context, lacks []lack) (rows [][][]byte, err error) {
	if rows, err = st.fetchAs(ctx, lacks); !altered(err) {
		return rows, err
	}
	rows = make([][][]byte, len(lacks))
	for i := range lacks {
		rows[i], err = st.fetchAltered(ctx, &lacks[i])
		for again := 0; altered(err) && again < alteredAgain; again++ { // since its names were looked up
			rows[i], err = st.fetchAltered(ctx, &lacks[i])
		}
		if err != nil {
			return nil, err
		}
	}
	return rows, nil
}

// alteredAgain is how often a table may be altered between the look at its names and the use of them.
const alteredAgain = 10

// fetchAltered is fetch for one row of a table that DDL has altered. What the row has by now counts, as values of the types
// by now: where these are not the same, the DDL is told of as well.
func (st *stream) fetchAltered(ctx context.Context, l *lack) (row [][]byte, err error) {
	err = st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		l.now, err = st.current(ctx, conn, l.relation)
		return err
	})
	if err != nil || l.now == nil {
		return nil, err
	}
	for i, slot := range l.now.key {
		was, is := l.given[i], l.now.wire[slot].oid
		if was.oid == is {
			continue
		}
		text, err := st.shown(ctx, was, l.relation.decode[was.at], l.key[i])
		if err != nil {
			return nil, err
		}
		l.key[i], l.given[i] = []byte(text), wireColumn{oid: l.now.types.base(is), format: pgx.TextFormatCode}
	}
	found, err := st.fetchAs(ctx, []lack{*l})
	var server *pgconn.PgError
	if errors.As(err, &server) && strings.HasPrefix(server.Code, "22") { // no value of the type by now is written so
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

// shown returns a value as the server shows it, but without the padding of char(n), which a cast removes.
func (st *stream) shown(ctx context.Context, c wireColumn, decode decodeFunc, src []byte) (string, error) {
	if c.format == pgx.TextFormatCode {
		return string(src), nil
	}
	if st.assembler.types.isText(c.oid) {
		v, err := decode(&st.assembler.decoder, src)
		return v.AsString(), err
	}
	return st.side.text(ctx, c.oid, src)
}

// fetchAs is fetch with the names and types that tables and columns had, or have now, as each row says.
func (st *stream) fetchAs(ctx context.Context, lacks []lack) (rows [][][]byte, err error) {
	var batch pgconn.Batch
	for i := range lacks {
		q := lacks[i].query()
		batch.ExecParams(q.text, q.values, q.oids, q.formats, lacks[i].formats())
	}
	err = st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		results, err := conn.PgConn().ExecBatch(ctx, &batch).ReadAll()
		for i, result := range results {
			for n, field := range result.FieldDescriptions {
				if now := lacks[i].now; err == nil && field.DataTypeOID != now.types.base(now.wire[lacks[i].slots[n]].oid) {
					err = errRetyped
				}
			}
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
		c := l.now.wire[l.slots[i]]
		decode := l.now.decode[c.at]
		if c.format == pgx.TextFormatCode {
			decode = decodeText
		}
		if l.values[l.slots[i]], err = decode(&a.decoder, src); err != nil {
			return l.now.columnError(c.at, err)
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
