package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// ownership marks a publication as ours, so that we alter and drop no other, and says which slot was made for it:
// should that slot be missing later, changes are lost, which a new slot would hide.
func (s *Source) ownership() string {
	return fmt.Sprintf("Made by Perdure for source.%s.%s", s.settings.Instance, s.settings.Name)
}

// The mark of a slot ends the comment: its name, which earlier builds left out, and the position at which it was made.
const (
	slotMark = "; slot "
	madeMark = "made at "
)

func (s *Source) marked(at string) string {
	return s.ownership() + slotMark + s.slot + " " + madeMark + at
}

type publication struct {
	foreign   bool // somebody else made it
	comment   string
	allTables bool
	complete  bool // publishes all kinds of changes
	viaRoot   bool
	tables    []published
}

// published is a table of a publication.
type published struct {
	name    tableName
	columns []string    // empty: the server is too old to say
	filter  string      // condition of the rows
	rows    source.Only // what that lets in, where the publication is ours
}

func (p *publication) table(name tableName) *published {
	for i := range p.tables {
		if p.tables[i].name == name {
			return &p.tables[i]
		}
	}
	return nil
}

// ours reports whether this source made the publication.
func (s *Source) ours(p *publication) bool {
	owner, _, _ := strings.Cut(p.comment, ";")
	return owner == s.ownership()
}

func (s *Source) publicationState(ctx context.Context, conn *pgx.Conn, name string) (*publication, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	p := &publication{}
	err := conn.QueryRow(ctx, `SELECT coalesce(obj_description(oid, 'pg_publication'), ''), puballtables,
			pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
		FROM pg_publication WHERE pubname = $1`, name).Scan(&p.comment, &p.allTables, &p.complete, &p.viaRoot)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	p.foreign = !s.ours(p)
	return p, wrap(err, "reading the publication")
}

// loadPublished reads what a publication has of tables.
func (s *Source) loadPublished(ctx context.Context, conn *pgx.Conn, p *publication) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	// Row filters and column lists came with version 15; a table without columns has a null for its list.
	rows, err := conn.Query(ctx, `SELECT schemaname::text, tablename::text,
			ARRAY(SELECT jsonb_array_elements_text(NULLIF(to_jsonb(t) -> 'attnames', 'null'))), coalesce(to_jsonb(t) ->> 'rowfilter', '')
		FROM pg_publication_tables t WHERE pubname = $1`, s.publication)
	if err != nil {
		return wrap(err, "reading the publication")
	}
	p.tables, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (t published, err error) {
		return t, row.Scan(&t.name.schema, &t.name.table, &t.columns, &t.filter)
	})
	return wrap(err, "reading the publication")
}

// applyPublication narrows the tables to what a publication that somebody else made has of them, so that a snapshot
// has it too and no more.
func (s *Source) applyPublication(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	if c.publication == nil || s.ours(c.publication) {
		return nil
	}
	if err := s.loadPublished(ctx, conn, c.publication); err != nil {
		return err
	}
	for i, t := range c.tables {
		p := c.publication.table(t.name)
		if p == nil {
			continue
		}
		t.filter = p.filter
		if len(p.columns) == 0 {
			continue
		}
		available := t.all
		if c.version >= 180000 {
			available = slices.Concat(t.all, t.generated)
		}
		t.columns = slices.DeleteFunc(slices.Clone(available), func(col column) bool {
			return !t.keeps(col) || !slices.Contains(p.columns, col.name)
		})
		var missing []string
		for _, name := range t.needed(s.config.Tables[i].Columns) {
			if !slices.Contains(p.columns, name) && !slices.Contains(missing, name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return failure.PublicationConflict.Errorf("checking the publication: %s leaves out columns of %s that are needed: %s", s.publication, t.name, strings.Join(missing, ", ")).
				WithDetail("table", t.name.String()).
				WithFix("Run %s then signal resume.", t.publishAnew(s.publication, p, missing))
		}
	}
	return nil
}

// published finds out which tables and columns the stream has: somebody may have altered the publication since it was
// checked.
func (s *Source) published(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	if c.publication == nil {
		return failure.PublicationConflict.Errorf("checking the publication: %s does not exist", s.publication)
	}
	if err := s.loadPublished(ctx, conn, c.publication); err != nil {
		return err
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	for _, t := range c.tables {
		p := c.publication.table(t.name)
		if p != nil && s.ours(c.publication) {
			p.rows = t.rowsOf(p.filter)
			t.rows = p.rows
		}
		if t.unpublished = p == nil; t.unpublished {
			var there *bool // the view sees what was dropped since the transaction began
			if err := conn.QueryRow(ctx, "SELECT pg_relation_is_publishable($1)", t.oid).Scan(&there); err != nil {
				return wrap(err, "reading the publication")
			}
			if there == nil {
				return failure.Unclassified.Errorf("reading the publication: %s was dropped meanwhile", t.name)
			}
		} else if len(p.columns) > 0 {
			t.leaveOut(func(col column) bool { return !slices.Contains(p.columns, col.name) }, s.ours(c.publication))
		}
		slices.SortFunc(t.columns, byNumber) // as in the stream
	}
	return nil
}

func byNumber(a, b column) int { return int(a.num) - int(b.num) }

// leaveOut takes columns out of those that the stream has. Where that is our own doing it is remembered.
func (t *table) leaveOut(out func(column) bool, ours bool) {
	if ours {
		for _, col := range t.columns {
			if out(col) {
				t.unsent = append(t.unsent, col)
			}
		}
		slices.SortFunc(t.unsent, byNumber)
	}
	t.columns = slices.DeleteFunc(slices.Clone(t.columns), out)
}

// needed returns the columns without which a table cannot be watched as the spec says.
func (t *table) needed(wanted []string) []string {
	needed := slices.Concat(wanted, t.key, t.foreign())
	for _, col := range t.all { // the server itself refuses updates of rows whose identity is not published
		if slices.ContainsFunc(t.parts(), func(part *table) bool { return part.identifies(col.name) }) {
			needed = append(needed, col.name)
		}
	}
	return needed
}

// publishAnew returns the statements that add columns to a table's list.
func (t *table) publishAnew(publication string, p *published, more []string) string {
	where := ""
	if p.filter != "" {
		where = " WHERE (" + p.filter + ")"
	}
	return fmt.Sprintf("ALTER PUBLICATION %[1]s DROP TABLE %[2]s; ALTER PUBLICATION %[1]s ADD TABLE %[2]s %[3]s%[4]s;",
		quote(publication), t.from(), columnList(slices.Concat(p.columns, more)), where)
}

func columnList(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = quote(name)
	}
	return "(" + strings.Join(quoted, ", ") + ")"
}

// listed returns the columns that our own publication has of a table at most; nil: all, because they are wanted, the
// server knows no lists, or the replica identity is all of them.
func (t *table) listed(c *catalog) []string {
	if t.kept == nil {
		return nil
	}
	return t.listOf(c, t.kept)
}

// listOf returns the list that has some columns, and those without which the table cannot be watched.
func (t *table) listOf(c *catalog, wanted []string) []string {
	if c.version < oldestWithLists || slices.ContainsFunc(t.parts(), func(part *table) bool { return part.identity == 'f' }) {
		return nil
	}
	needed := t.needed(wanted)
	var names []string
	for _, col := range t.all {
		if slices.Contains(needed, col.name) {
			names = append(names, col.name)
		}
	}
	return names
}

// ensurePublication creates the publication, adapts one that is ours or checks a foreign one.
func (s *Source) ensurePublication(ctx context.Context, conn *pgx.Conn, m *made, c *catalog, haveSlot bool) error {
	p := c.publication
	wanted := make([]string, len(c.tables))
	for i, t := range c.tables {
		if wanted[i] = t.from(); t.listed(c) != nil {
			wanted[i] += " " + columnList(t.listed(c))
		}
	}
	list := strings.Join(wanted, ", ")
	switch {
	case p == nil:
		if err := m.intend(ctx, m.publication(s.publication)); err != nil {
			return err
		}
		return s.createPublication(ctx, conn, list)
	case !s.ours(p):
		return s.checkPublication(p, c)
	case !haveSlot && strings.Contains(p.comment, slotMark):
		return failure.SlotMissing.Errorf("checking the slot: %s does not exist, though one was created for the publication %s", s.slot, s.publication).
			WithDetail("slot", s.slot)
	}
	if err := s.loadPublished(ctx, conn, p); err != nil || p.has(c, s.config.Publish == publishNeeded) {
		return err
	}
	_, err := s.exec(ctx, conn, fmt.Sprintf("ALTER PUBLICATION %s SET TABLE %s", quote(s.publication), list))
	return wrap(err, "altering the publication")
}

// has reports whether our own publication is as the spec wants it. It may have fewer columns and rows where Run chooses them.
func (p *publication) has(c *catalog, chosen bool) bool {
	for _, t := range c.tables {
		have, want := p.table(t.name), t.listed(c)
		if have == nil || have.filter != "" && (!chosen || t.rowsOf(have.filter)[others] != nil) {
			return false
		}
		least := t.listOf(c, nil)
		for _, col := range t.all {
			wanted := want == nil || slices.Contains(want, col.name)
			switch {
			case len(have.columns) == 0 || slices.Contains(have.columns, col.name) == wanted:
			case !wanted || !chosen || least == nil || slices.Contains(least, col.name):
				return false
			}
		}
	}
	return len(p.tables) == len(c.tables)
}

func (s *Source) createPublication(ctx context.Context, conn *pgx.Conn, list string) error {
	statement := fmt.Sprintf("CREATE PUBLICATION %s FOR TABLE %s WITH (publish_via_partition_root = true)", quote(s.publication), list)
	_, err := s.exec(ctx, conn, fmt.Sprintf("BEGIN; %s; COMMENT ON PUBLICATION %s IS %s; COMMIT", statement, quote(s.publication), literal(s.ownership())))
	if err = wrap(err, "creating the publication"); failure.CodeOf(err) == failure.PermissionDenied {
		return failure.Of(err).WithFix("As the owner of the tables run %s; then signal resume.", statement)
	}
	return err
}

// checkPublication checks one that somebody else made. It may hold more than is needed.
func (s *Source) checkPublication(p *publication, c *catalog) error {
	name := quote(s.publication)
	var missing []string
	partitioned := false
	for _, t := range c.tables {
		partitioned = partitioned || t.partitioned
		if p.table(t.name) == nil {
			missing = append(missing, t.from())
		}
	}
	switch {
	case !p.complete:
		return failure.PublicationConflict.Errorf("checking the publication: %s does not publish all kinds of changes", s.publication).
			WithFix("Run ALTER PUBLICATION %s SET (publish = 'insert, update, delete, truncate'); then signal resume.", name)
	case partitioned && !p.viaRoot:
		return failure.PublicationConflict.Errorf("checking the publication: %s publishes partitions instead of the partitioned table", s.publication).
			WithFix("Run ALTER PUBLICATION %s SET (publish_via_partition_root = true); then signal resume.", name)
	case len(missing) > 0:
		return failure.PublicationConflict.Errorf("checking the publication: %s lacks %s", s.publication, strings.Join(missing, ", ")).
			WithFix("Run ALTER PUBLICATION %s ADD TABLE %s; or choose another publication name in the spec, then signal resume.", name, strings.Join(missing, ", "))
	}
	return nil
}
