package postgres

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// catalogAge is how old what is known of the tables may be when a chunk is read. Asking takes longer than to read a
// small chunk.
const catalogAge = 5 * time.Second

// snapshotReader implements source.SnapshotReader.
type snapshotReader struct {
	source   *Source
	snapshot source.Snapshot
	conn     *pgx.Conn
	catalog  *catalog
	asked    time.Time // when the catalog was read
}

// OpenSnapshot implements source.Snapshotter.
func (s *Source) OpenSnapshot(ctx context.Context, snapshot source.Snapshot) (source.SnapshotReader, error) {
	conn, err := s.connect(ctx)
	if err != nil {
		return nil, err
	}
	bounded, cancel := s.bounded(ctx)
	defer cancel()
	if _, err := conn.Exec(bounded, "SET statement_timeout = 0"); err != nil { // progress is watched instead
		hangUp(ctx, conn)
		return nil, wrap(err, "preparing to copy")
	}
	return &snapshotReader{source: s, snapshot: snapshot, conn: conn}, nil
}

// Close implements source.SnapshotReader.
func (r *snapshotReader) Close() { hangUp(context.Background(), r.conn) }

// ReadChunk implements source.SnapshotReader. The rows come by COPY in binary, the cheapest way that the server has, and
// are decoded by the functions that decode the stream.
func (r *snapshotReader) ReadChunk(ctx context.Context, chunk source.Chunk, to source.ChunkSink) error {
	if err := r.begin(ctx); err != nil {
		return err
	}
	t := r.catalog.scoped(chunk.Name)
	if t == nil {
		return failure.SchemaMismatch.Errorf("reading %s: it is not one of tables any more", chunk.Name)
	}
	t = t.narrowed(chunk.Properties)
	needed, err := r.needed(ctx, t, chunk)
	if err != nil {
		return err
	}
	if needed {
		err = r.copy(ctx, t, chunk, to)
	} else {
		err = to.Pause()
	}
	if err != nil {
		return err
	}
	if err := r.checkUnmoved(ctx, t); err != nil {
		return err
	}
	bounded, cancel := r.source.bounded(ctx)
	defer cancel()
	_, err = r.conn.Exec(bounded, "COMMIT") // so that no lock outlives the chunk
	return wrap(err, "ending a copy")
}

// begin enters the snapshot.
func (r *snapshotReader) begin(ctx context.Context) error {
	bounded, cancel := r.source.bounded(ctx)
	defer cancel()
	if err := importSnapshot(bounded, r.conn, r.snapshot.Name); err != nil {
		return err
	}
	if time.Since(r.asked) < catalogAge {
		return nil
	}
	adapted, err := r.source.adapted(ctx, r.conn)
	if err != nil {
		return err
	}
	r.catalog, err = adapted.loadCatalog(ctx, r.conn)
	r.asked = time.Now()
	return err
}

func (r *snapshotReader) copy(ctx context.Context, t *table, chunk source.Chunk, to source.ChunkSink) error {
	types := r.catalog.types
	relation, err := compile(t, t.columns, types)
	if err != nil {
		return err
	}
	for i, c := range t.columns {
		if t.copiedAsText(types, c) {
			relation.decode[i] = decodeText
		}
	}
	copying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	helper := side{source: r.source}
	defer func() { helper.close(ctx) }()
	reader := &copyReader{
		relation: relation,
		decoder: decoder{types: types, borrows: true, rawText: r.catalog.rawText, serverText: func(oid uint32, src []byte) (string, error) {
			return helper.text(copying, oid, src)
		}},
		to: to,
		reject: func(cause error, record []byte) error {
			return r.source.reject(copying, r.snapshot.Position, cause, record)
		},
	}
	watching := reader.watch(r.source.config.StatementTimeout, stop)
	defer watching()
	if _, err := r.conn.PgConn().CopyTo(copying, reader, copyStatement(t, types, chunk)); err != nil {
		if cause := context.Cause(copying); cause != nil && ctx.Err() == nil {
			err = cause
		}
		if reader.refused {
			return err // the callee's own
		}
		err = wrap(err, "copying %s from block %d", t.name, chunk.From)
		if denied := failure.Of(err); denied.Code() == failure.PermissionDenied {
			return denied.WithDetail("table", t.name.String()).WithFix("Run %s then signal resume.", grant(t.name, r.conn.Config().User))
		}
		return err
	}
	return reader.finish()
}

// narrowed leaves out the columns that nobody reads and that identify nothing; nil: all are read.
func (t *table) narrowed(properties []string) *table {
	if properties == nil || t.wholeRow {
		return t
	}
	needed := slices.Concat(properties, t.key)
	needed = append(needed, t.foreign()...)
	narrowed := *t
	narrowed.columns = slices.DeleteFunc(slices.Clone(t.columns), func(c column) bool { return !slices.Contains(needed, c.name) })
	return &narrowed
}

// checkUnmoved makes sure that the table's rows are where they were when the snapshot was taken. Truncating a table and
// most ways to alter a column's type write it anew without what older snapshots should see; VACUUM FULL and CLUSTER move
// rows from one chunk to another. While our transaction, which the copy began to read with, is open, none of them can run.
func (r *snapshotReader) checkUnmoved(ctx context.Context, t *table) error {
	bounded, cancel := r.source.bounded(ctx)
	defer cancel()
	var moved bool // a query sees the catalog as it was then, the function as it is now
	err := r.conn.QueryRow(bounded, "SELECT count(*) > 0 FROM pg_class WHERE oid = ANY ($1::oid[]) AND relfilenode IS DISTINCT FROM pg_relation_filenode(oid)", t.files()).Scan(&moved)
	switch {
	case err != nil:
		return wrap(err, "checking that %s was not rewritten", t.name)
	case moved:
		return failure.SnapshotLost.Errorf("reading %s: it was rewritten or truncated after the snapshot was taken", t.name)
	}
	return nil
}

// scoped returns the table that a chunk is of.
func (c *catalog) scoped(scope string) *table {
	for _, t := range c.tables {
		if t.name.sql() == scope {
			return t
		}
	}
	return nil
}

// copiedAsText reports whether the server shows a column's values in a copy, because it would have to be asked for each
// of them. Where all columns identify a row, only what cannot come in binary does: ids are made of the binary forms.
func (t *table) copiedAsText(types *typeMap, c column) bool {
	if t.wholeRow {
		return types.format(c.oid) == pgx.TextFormatCode
	}
	return types.shownByServer(c.oid)
}

func copyStatement(t *table, types *typeMap, chunk source.Chunk) string {
	columns := make([]string, len(t.columns))
	for i, c := range t.columns {
		columns[i] = quote(c.name)
		if t.copiedAsText(types, c) { // by the output function; a cast may be another one
			columns[i] = fmt.Sprintf("CASE WHEN num_nulls(%[1]s) = 0 THEN format('%%s', %[1]s) END", columns[i])
		}
	}
	var conditions []string
	if t.filter != "" {
		conditions = append(conditions, "("+t.filter+")")
	}
	if chosen := t.condition(chunk.Only); chosen != "" {
		conditions = append(conditions, chosen)
	}
	if chunk.From > 0 {
		conditions = append(conditions, fmt.Sprintf("ctid >= '(%d,0)'::tid", chunk.From))
	}
	if chunk.To < chunk.Places {
		conditions = append(conditions, fmt.Sprintf("ctid < '(%d,0)'::tid", chunk.To))
	}
	if chunk.Since != "" {
		conditions = append(conditions, changedSince(chunk.Since))
	}
	where := ""
	if len(conditions) > 0 {
		where = " WHERE " + strings.Join(conditions, " AND ")
	}
	return fmt.Sprintf("COPY (SELECT %s FROM %s%s) TO STDOUT (FORMAT binary)", strings.Join(columns, ", "), t.from(), where)
}

// copyReader decodes what COPY sends. Each Write is one message of the protocol, which holds whole rows: one, in all
// versions, with the header before the first.
type copyReader struct {
	relation *relation
	decoder  decoder
	to       source.ChunkSink
	reject   func(cause error, record []byte) error // nil: go on without the row
	heard    atomic.Bool                            // the server sent something since the watchdog last looked
	paused   atomic.Bool                            // we wait for the sink, not for the server

	started, ended, refused bool
	bytes                   int            // since the last pause
	changes                 []graph.Change // of a row
}

// watch stops a copy that hears nothing of the server for a whole interval. The function it returns ends the watch.
func (c *copyReader) watch(limit time.Duration, stop context.CancelCauseFunc) (end func()) {
	done := make(chan struct{})
	ended := failure.Go(func() error {
		ticker := time.NewTicker(limit)
		defer ticker.Stop()
		c.heard.Store(true) // the first interval may begin before the first row
		for {
			select {
			case <-done:
				return nil
			case <-ticker.C:
				if !c.heard.Swap(false) && !c.paused.Load() {
					stop(failure.Timeout.Errorf("the server sent nothing for %s", limit))
					return nil
				}
			}
		}
	})
	return func() { close(done); <-ended }
}

var copySignature = []byte("PGCOPY\n\xff\r\n\x00")

// Write implements io.Writer.
func (c *copyReader) Write(src []byte) (int, error) {
	n := len(src)
	c.bytes += n
	if !c.heard.Load() {
		c.heard.Store(true)
	}
	if !c.started {
		if len(src) < 19 || !bytes.Equal(src[:11], copySignature) {
			return 0, failure.BadRecord.Errorf("the copy of %s does not begin with its signature", c.relation.name)
		}
		extension := int(binary.BigEndian.Uint32(src[15:]))
		if extension < 0 || len(src) < 19+extension {
			return 0, failure.BadRecord.Errorf("the copy of %s has a header that is cut off", c.relation.name)
		}
		c.started, src = true, src[19+extension:]
	}
	for len(src) > 0 {
		rest, err := c.row(src)
		if err != nil {
			if err = c.reject(err, src); err != nil {
				return 0, err
			}
			return n, nil // a message is one row
		}
		src = rest
	}
	return n, nil
}

func (c *copyReader) row(src []byte) ([]byte, error) {
	r := c.relation
	if len(src) < 2 {
		return nil, failure.BadRecord.Errorf("row of %s ends early", r.name)
	}
	count := int16(binary.BigEndian.Uint16(src))
	src = src[2:]
	if count == -1 {
		c.ended = true
		return nil, nil
	}
	if int(count) != len(r.decode) {
		return nil, failure.BadRecord.Errorf("row of %s does not have the %d columns asked for", r.name, len(r.decode))
	}
	c.decoder.recycle() // the sink is done with the row before
	values := c.decoder.values.take(len(r.decode), valueChunk)
	var fields [][]byte
	for i, decode := range r.decode {
		if len(src) < 4 {
			return nil, r.columnError(i, sizeError(src, 4))
		}
		n := int(int32(binary.BigEndian.Uint32(src)))
		src = src[4:]
		if n == -1 {
			values[i] = graph.Null
			if r.table.wholeRow {
				fields = append(fields, nil)
			}
			continue
		}
		if uint(n) > uint(len(src)) {
			return nil, r.columnError(i, sizeError(src, n))
		}
		v, err := decode(&c.decoder, src[:n])
		if err != nil {
			return nil, r.columnError(i, err)
		}
		if r.table.wholeRow {
			fields = append(fields, src[:n:n])
		}
		values[i], src = v, src[n:]
	}
	row, err := r.row(&c.decoder.keySpace, values)
	if err != nil {
		return nil, err
	}
	if r.table.wholeRow {
		row.key = wholeKey(fields)
	}
	c.changes = r.inserted(&c.decoder, c.changes[:0], row)
	for i := range c.changes {
		c.to.Take(&c.changes[i])
	}
	if c.bytes >= source.BatchBytes {
		return src, c.pause()
	}
	return src, nil
}

// pause lets the sink take its time.
func (c *copyReader) pause() error {
	c.bytes = 0
	c.paused.Store(true)
	defer func() { c.heard.Store(true); c.paused.Store(false) }()
	if err := c.to.Pause(); err != nil {
		c.refused = true
		return err
	}
	return nil
}

func (c *copyReader) finish() error {
	if !c.ended {
		return failure.ConnectionLost.Errorf("the copy of %s ended early", c.relation.name)
	}
	return c.pause()
}
