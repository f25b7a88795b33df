package postgres

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// Which columns and rows our own publication has follows from what queries read, if the spec says so. The server decodes the
// row of a transaction with the publication as it is at the row's place in the WAL, so a transaction that ran while a column
// came may have rows with and rows without it. So a column comes in two steps: the publication gets it, and when all
// transactions that ran then have ended, a message in the WAL says that it is there; every row of a transaction that
// commits behind the message has it. A column leaves in one step, the message and the publication in one transaction, after
// the queries' side has agreed. So it is with rows. See the messages in ddl.go for how they come to the reader.

const (
	publishNeeded   = "needed"
	oldestWithLists = 150000
	// settlePause is after how long it is asked whether old transactions have ended; each further pause is twice as long.
	settlePause = 500 * time.Millisecond
	// longestLock is how long a table may be waited for while others are locked.
	longestLock = time.Second
)

const noteColumns = "columnsWatch" // what the choice of columns and rows waits for, or why there is none

// chooser gives the publication the columns and rows that are read, for a watcher.
type chooser struct {
	source *Source
	sink   source.Sink

	settling  int64         // transactions before it may lack columns and rows that came; 0: none came
	announced []byte        // what was written when they had ended
	before    source.Wanted // at the last look that may have left something out
}

// choose brings the publication nearer to what is wanted and reports whether it waits for transactions to end. It leaves
// out only in a round that is the second in a row with the same wishes. conn is of no use for anything else afterwards.
func (c *chooser) choose(ctx context.Context, conn *pgx.Conn, known []layout, leaveOut bool) (waits bool, err error) {
	wanted := c.sink.Wanted()
	if c.source.config.Publish != publishNeeded {
		wanted = nil
	}
	mayLeaveOut := leaveOut && wanted != nil && c.before != nil && wanted.Covers(c.before) && c.before.Covers(wanted)
	if leaveOut {
		c.before = wanted
	}
	if wanted == nil && !leavesOut(known) {
		c.sink.Serve(nil)
		c.sink.Note(noteColumns, "") // the spec may have been another
		return false, nil
	}
	// Each attempt at the source knows what others did when it has the lock, or learns of it from the WAL.
	_, err = c.source.exec(ctx, conn, fmt.Sprintf("SELECT pg_advisory_lock(hashtextextended(%s, 0))", literal(c.source.messagePrefix())))
	if err != nil {
		return false, wrap(err, "waiting for another attempt to alter the publication")
	}
	catalog, now, err := c.source.look(ctx, conn, known, false)
	if err != nil {
		return false, err
	}
	if difference(known, now) != nil { // DDL is told of first: a column must be known to be left out before it comes
		return true, nil
	}
	obstacle, err := c.source.obstacle(ctx, conn, catalog)
	if err != nil {
		return false, err
	}
	if obstacle != "" {
		wanted, mayLeaveOut = nil, false
	}
	shares := catalog.shares(wanted)
	if catalog.lacks(shares) {
		return c.supply(ctx, conn, known, catalog, shares, obstacle)
	}
	c.settling, c.announced = 0, nil
	c.sink.Serve(wanted)
	c.sink.Note(noteColumns, obstacle)
	if mayLeaveOut {
		return false, c.withhold(ctx, conn, known, catalog, shares, wanted)
	}
	return false, nil
}

// obstacle says why the columns and rows of the publication cannot be chosen.
func (s *Source) obstacle(ctx context.Context, conn *pgx.Conn, c *catalog) (string, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	var standby bool
	if err := conn.QueryRow(ctx, "SELECT pg_is_in_recovery()").Scan(&standby); err != nil {
		return "", wrap(err, "asking whether the server is a standby")
	}
	switch {
	case !s.ours(c.publication):
		return fmt.Sprintf("the columns and rows of publication %s are sent, which somebody else made", s.publication), nil
	case s.config.Publish != publishNeeded:
		return "", nil
	case c.version < oldestWithLists:
		return "all columns and rows are sent: only Postgres 15 and newer know lists of columns", nil
	case standby:
		return "the columns and rows that the publication has on the primary are sent: a standby cannot alter it", nil
	}
	return "", nil
}

// share is what a publication has of a table.
type share struct {
	columns []string    // names; nil: all
	rows    source.Only // nil: all
}

// shares returns what the publication must have of each table for what is wanted.
func (c *catalog) shares(wanted source.Wanted) []share {
	shares, rows := make([]share, len(c.tables)), c.rows(wanted)
	for i, t := range c.tables {
		labels := []string{t.label}
		for _, e := range t.edges {
			labels = append(labels, e.kind)
		}
		names := []string{}
		if wanted.Any(labels...) {
			names = wanted.Properties(labels...)
		}
		shares[i] = share{t.listed(c), rows[i]}
		if names != nil {
			names = slices.DeleteFunc(names, func(name string) bool { return t.kept != nil && !slices.Contains(t.kept, name) })
			shares[i].columns = t.listOf(c, names)
		}
	}
	return shares
}

// has reports whether a list has a column.
func has(list []string, name string) bool { return list == nil || slices.Contains(list, name) }

// lacks reports whether the stream leaves out something of shares, as far as is known, or the publication does.
func (c *catalog) lacks(shares []share) bool {
	for i, t := range c.tables {
		unsent := slices.ContainsFunc(t.unsent, func(col column) bool { return has(shares[i].columns, col.name) })
		if unsent || !t.rows.Covers(shares[i].rows) || c.widened(i, shares[i]) != nil {
			return true
		}
	}
	return false
}

// widened returns what the publication has of a table with what it must have, nil when it has that. What somebody else's
// leaves out does not come.
func (c *catalog) widened(i int, must share) *share {
	t := c.tables[i]
	p := c.publication.table(t.name)
	if c.publication.foreign || p == nil {
		return nil
	}
	var more []string
	for _, col := range t.all {
		if len(p.columns) > 0 && t.keeps(col) && has(must.columns, col.name) && !slices.Contains(p.columns, col.name) {
			more = append(more, col.name)
		}
	}
	if len(more) == 0 && p.rows.Covers(must.rows) {
		return nil
	}
	if must.columns != nil {
		must.columns = slices.Concat(p.columns, more)
	}
	must.rows = must.rows.Or(p.rows)
	return &must
}

// supply makes columns and rows come.
func (c *chooser) supply(ctx context.Context, conn *pgx.Conn, known []layout, catalog *catalog, shares []share, obstacle string) (waits bool, err error) {
	if obstacle == "" {
		var statements []string
		for i, t := range catalog.tables {
			if more := catalog.widened(i, shares[i]); more != nil {
				statements = append(statements, c.source.publishShare(t, *more)...)
			}
		}
		if err := c.alter(ctx, conn, statements); err != nil {
			return false, err
		}
		if len(statements) > 0 {
			c.settling = 0
		}
	}
	bounded, cancel := c.source.bounded(ctx)
	defer cancel()
	var oldest, next int64
	err = conn.QueryRow(bounded, "SELECT pg_snapshot_xmin(s)::text::bigint, pg_snapshot_xmax(s)::text::bigint FROM pg_current_snapshot() s").Scan(&oldest, &next)
	if err != nil {
		return false, wrap(err, "asking which transactions run")
	}
	if c.settling == 0 {
		c.settling, c.announced = next, nil
	}
	if oldest < c.settling {
		c.sink.Note(noteColumns, "columns and rows come when the transactions have ended that ran when they were asked for: SELECT pid, xact_start, query FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
		return true, nil
	}
	_, now, err := c.source.look(ctx, conn, known, true)
	if err != nil {
		return false, err
	}
	data := difference(known, now)
	switch {
	case data == nil: // whoever may alter the publication has not done it
		c.sink.Note(noteColumns, obstacle)
		return false, nil
	case slices.Equal(data, c.announced):
		return true, nil // it is on its way to the reader
	}
	var again []string
	if obstacle == "" { // servers without the fix of 2025 may have kept, for such transactions, the list as it was before
		again = []string{fmt.Sprintf("ALTER PUBLICATION %s SET (publish_via_partition_root = true)", quote(c.source.publication))}
	}
	if err := c.alter(ctx, conn, append(again, c.source.emit(data))); err != nil {
		return false, err
	}
	c.announced = data
	return true, nil
}

// withhold makes columns and rows leave that nobody reads.
func (c *chooser) withhold(ctx context.Context, conn *pgx.Conn, known []layout, catalog *catalog, shares []share, wanted source.Wanted) error {
	var statements []string
	for i, t := range catalog.tables {
		p := catalog.publication.table(t.name)
		if p != nil && (shares[i].columns != nil && !containsAll(shares[i].columns, p.columns) || !shares[i].rows.Covers(p.rows)) {
			statements = append(statements, c.source.publishShare(t, shares[i])...)
		}
	}
	if len(statements) == 0 {
		return nil
	}
	if agreed, err := c.sink.Withhold(ctx, wanted); err != nil || !agreed {
		return err
	}
	for i, t := range catalog.tables { // as if it were done
		t.leaveOut(func(col column) bool { return !has(shares[i].columns, col.name) }, true)
		t.rows = shares[i].rows
	}
	now := catalog.layouts()
	for _, l := range known {
		if labelled(now, l.Label) == nil {
			now = append(now, l)
		}
	}
	if data := difference(known, now); data != nil {
		statements = append(statements, c.source.emit(data))
	}
	return c.alter(ctx, conn, statements)
}

// difference is the announcement of what became of columns and rows, nil when that is nothing. Where rows are stored is the watcher's
// to tell.
func difference(known, now []layout) []byte {
	now = slices.Clone(now)
	for i := range now {
		if l := labelled(known, now[i].Label); l != nil && now[i].Missing == "" {
			now[i].Stored = l.Stored
		}
	}
	a := compare(known, now)
	if len(a.Before)+len(a.Now) == 0 {
		return nil
	}
	data, _ := json.Marshal(a) // has nothing that cannot be encoded
	return data
}

// publishShare returns the statements that give a table of the publication another list and row filter.
func (s *Source) publishShare(t *table, has share) []string {
	which := ""
	if has.columns != nil {
		which = " " + columnList(has.columns)
	}
	if has.rows != nil {
		which += " WHERE (" + t.condition(has.rows) + ")"
	}
	return []string{
		fmt.Sprintf("ALTER PUBLICATION %s DROP TABLE %s", quote(s.publication), t.from()),
		fmt.Sprintf("ALTER PUBLICATION %s ADD TABLE %s%s", quote(s.publication), t.from(), which),
	}
}

// emit returns the statement that writes an announcement into the WAL.
func (s *Source) emit(data []byte) string {
	return fmt.Sprintf("SELECT pg_logical_emit_message(true, %s, %s)", literal(s.messagePrefix()), literal(string(data)))
}

// alter runs statements in one transaction, which holds up writers while it waits for a table, so that it does not wait long:
// the next round tries again. conn can be used when it failed.
func (c *chooser) alter(ctx context.Context, conn *pgx.Conn, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	wait := min(longestLock, c.source.config.LockTimeout)
	_, err := c.source.exec(ctx, conn, fmt.Sprintf("BEGIN; SET LOCAL lock_timeout = %d; %s; COMMIT", wait.Milliseconds(), strings.Join(statements, "; ")))
	if err != nil {
		_, _ = c.source.exec(ctx, conn, "ROLLBACK") // the first error counts
	}
	if err = wrap(err, "altering the publication"); failure.CodeOf(err) == failure.PermissionDenied {
		return failure.Of(err).WithFix("Make the role the owner of the tables and of publication %s again, or set publish to all.", c.source.publication)
	}
	return err
}
