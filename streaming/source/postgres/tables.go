package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/source"
)

// table is one of the spec's tables as the catalog describes it.
type table struct {
	spec        string // its name there
	asked       string // see layout
	name        tableName
	label       string // or type, where the rows are relationships
	relates     bool   // the rows are relationships
	oid         uint32
	file        uint32 // where its rows are: another one when it was rewritten; 0: in partitions
	unpublished bool   // see published
	partitioned bool
	readable    bool // the role may SELECT
	hidesRows   bool // row security applies to the role
	identity    byte // replica identity: d(efault), f(ull), i(ndex), n(othing)
	all         []column
	generated   []column    // which the stream has from Postgres 18 on, where the publication says so
	columns     []column    // those of all that the stream has and that are kept
	unsent      []column    // those that are kept and that the stream does not have, because nobody reads them
	rows        source.Only // those that the stream has of our own publication
	nullable    []string
	bytewise    []string // columns whose values are equal if their bytes are
	kept        []string // names of columns that are kept; nil means all
	primary     []string // columns of the primary key, in its order
	deferrable  bool     // the primary key
	identifying []string // columns that the stream has of a deleted row; nil means all
	key         []string // columns of the element id
	byPrimary   bool     // which are those of the primary key
	required    []int16  // numbers of the columns of ids and relationships
	wholeRow    bool     // all columns are the key
	edges       []edge   // beside the nodes
	ends        []edge   // of the rows that are relationships: start and end
	optional    bool     // an end may be missing, since a column of its foreign key may be null
	filter      string   // rows that a publication has that somebody else made
	leaves      []*table // partitions that have rows
}

type column struct {
	name   string
	oid    uint32 // type
	num    int16  // attribute number, which stays when the name changes; 0 when it is not known
	mod    int32  // modifier of the type, -1 when there is none
	filled bool   // rows that existed when it was added may have got a value
}

// edge is a foreign key that leads to nodes.
type edge struct {
	kind    string   // type of the relationships; "" for an end of rows that are relationships
	target  string   // label
	columns []string // in the order of the target's key
}

func (t *table) hasColumn(name string) bool { return hasColumn(t.all, name) }

func hasColumn(columns []column, name string) bool {
	return slices.ContainsFunc(columns, func(c column) bool { return c.name == name })
}

// foreign returns the columns that say where relationships lead.
func (t *table) foreign() (columns []string) {
	for _, e := range slices.Concat(t.edges, t.ends) {
		columns = append(columns, e.columns...)
	}
	return columns
}

// keeps reports whether a column becomes a property. Those that ids are made of do also under another name.
func (t *table) keeps(c column) bool {
	return t.kept == nil || slices.Contains(t.kept, c.name) || slices.Contains(t.required, c.num)
}

// numbers returns the numbers of columns.
func (t *table) numbers(names []string) []int16 {
	numbers := make([]int16, len(names))
	for i, name := range names {
		if at := slices.IndexFunc(t.all, func(c column) bool { return c.name == name }); at >= 0 {
			numbers[i] = t.all[at].num
		}
	}
	return numbers
}

// parts are where the rows are whose replica identity counts.
func (t *table) parts() []*table {
	if t.partitioned {
		return append([]*table{t}, t.leaves...)
	}
	return []*table{t}
}

// identifies reports whether the stream has a column of a deleted row.
func (t *table) identifies(name string) bool {
	return t.identity == 'f' || slices.Contains(t.identifying, name)
}

// files are the relations that the rows of a table stand in.
func (t *table) files() []uint32 {
	if t.partitioned {
		return oids(t.leaves)
	}
	return []uint32{t.oid}
}

// from returns what a query of exactly this table's rows reads: without the children of old-style inheritance, which
// replicate under their own names.
func (t *table) from() string {
	if t.partitioned {
		return t.name.sql()
	}
	return "ONLY " + t.name.sql()
}

// catalog is what the database says about the tables of the spec.
type catalog struct {
	tables      []*table // in the order of the spec
	types       *typeMap
	version     int          // of the server
	rawText     bool         // the database's encoding is SQL_ASCII
	publication *publication // nil: there is none yet
}

// withLeaves returns the tables and their partitions.
func (c *catalog) withLeaves() (all []*table) {
	for _, t := range c.tables {
		all = append(append(all, t), t.leaves...)
	}
	return all
}

func (c *catalog) byOID(oid uint32) *table {
	for _, t := range c.withLeaves() {
		if t.oid == oid {
			return t
		}
	}
	return nil
}

// root returns the table of the spec with an OID.
func (c *catalog) root(oid uint32) *table {
	for _, t := range c.tables {
		if t.oid == oid {
			return t
		}
	}
	return nil
}

func (c *catalog) byName(name tableName) *table {
	for _, t := range c.tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

// loadCatalog reads and checks the tables of the spec, all of them before it reports what is wrong.
func (s *Source) loadCatalog(ctx context.Context, conn *pgx.Conn) (*catalog, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	c := &catalog{types: newTypeMap()}
	if err := s.loadTables(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := loadLeaves(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := loadColumns(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := loadKeys(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := s.chooseKeys(c); err != nil {
		return nil, err
	}
	if err := s.loadForeignKeys(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := s.chooseColumns(c); err != nil {
		return nil, err
	}
	var err error
	if c.publication, err = s.publicationState(ctx, conn, s.publication); err != nil {
		return nil, err
	}
	if err := s.applyPublication(ctx, conn, c); err != nil {
		return nil, err
	}
	return c, s.loadTypes(ctx, conn, c)
}

func (s *Source) loadTables(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	var schemas, names []string
	for _, t := range s.config.Tables {
		name, err := parseTableName(t.Name)
		if err != nil {
			return failure.ConfigInvalid.Errorf("tables: %w", err)
		}
		schemas, names = append(schemas, name.schema), append(names, name.table)
		c.tables = append(c.tables, &table{spec: t.Name, name: name, label: t.label(name), relates: t.Type != "", wholeRow: t.WholeRow})
	}
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, r.relname::text, r.oid, r.relkind::text, r.relpersistence = 'u', r.relreplident::text,
			has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(r.oid, 'SELECT'), row_security_active(r.oid),
			r.relkind IN ('r', 'p') AND pg_relation_is_publishable(r.oid), ARRAY(SELECT relid::oid FROM pg_partition_ancestors(r.oid)),
			current_setting('server_version_num')::int, current_setting('server_encoding') = 'SQL_ASCII', r.relfilenode
		FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE (n.nspname, r.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, schemas, names)
	if err != nil {
		return wrap(err, "reading tables")
	}
	var (
		name                                     tableName
		oid, file                                uint32
		kind, identity                           string
		unlogged, readable, hidesRows, published bool
		ancestors                                []uint32
		unfit                                    unfitTables
	)
	partitions := make(map[*table][]uint32)
	into := []any{&name.schema, &name.table, &oid, &kind, &unlogged, &identity, &readable, &hidesRows, &published, &ancestors, &c.version, &c.rawText, &file}
	if _, err = pgx.ForEachRow(rows, into, func() error {
		t := c.byName(name)
		t.oid, t.partitioned, t.identity, t.readable, t.hidesRows = oid, kind == "p", identity[0], readable, hidesRows
		t.file, partitions[t] = file, ancestors
		switch {
		case unlogged:
			unfit.unlogged = append(unfit.unlogged, name)
		case !published:
			unfit.others = append(unfit.others, name.String())
		}
		return nil
	}); err != nil {
		return wrap(err, "reading tables")
	}
	if err := s.missingTables(ctx, conn, c); err != nil {
		return err
	}
	for _, t := range c.tables {
		for _, root := range c.tables {
			if t != root && slices.Contains(partitions[t], root.oid) {
				return failure.Unsupported.Errorf("checking tables: %s is a partition of %s, and its rows are published as that table's", t.name, root.name).
					WithFix("Name only one of them in the spec, then send it again with the signal reconfigure.")
			}
		}
	}
	return unfit.err()
}

// unfitTables are tables whose changes the server does not publish.
type unfitTables struct {
	unlogged []tableName
	others   []string
}

func (u unfitTables) err() error {
	switch {
	case len(u.others) > 0:
		return failure.Unsupported.Errorf("checking tables: only ordinary and partitioned tables that last have changes to read, not %s", strings.Join(u.others, ", ")).
			WithFix("Name the tables behind views instead, then send the spec again with the signal reconfigure.")
	case len(u.unlogged) > 0:
		var names, statements []string
		for _, name := range u.unlogged {
			names, statements = append(names, name.String()), append(statements, fmt.Sprintf("ALTER TABLE %s SET LOGGED;", name.sql()))
		}
		return failure.Unsupported.Errorf("checking tables: the changes of unlogged tables are nowhere to be read: %s", strings.Join(names, ", ")).
			WithFix("Run %s then signal resume.", strings.Join(statements, " "))
	}
	return nil
}

// missingTables reports tables that do not exist, with a hint where only upper and lower case differ.
func (s *Source) missingTables(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	var missing []string
	for _, t := range c.tables {
		if t.oid != 0 {
			continue
		}
		text := t.name.String()
		var similar string
		err := conn.QueryRow(ctx, `SELECT n.nspname || '.' || r.relname FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
			WHERE r.relkind IN ('r', 'p') AND lower(n.nspname) = lower($1) AND lower(r.relname) = lower($2) LIMIT 1`, t.name.schema, t.name.table).Scan(&similar)
		if err == nil {
			text += " (there is " + similar + ")"
		}
		missing = append(missing, text)
	}
	if len(missing) == 0 {
		return nil
	}
	return failure.TableMissing.Errorf("checking tables: missing: %s", strings.Join(missing, ", ")).WithDetail("table", strings.Join(missing, ", "))
}

func oids(tables []*table) []uint32 {
	oids := make([]uint32, len(tables))
	for i, t := range tables {
		oids[i] = t.oid
	}
	return oids
}
