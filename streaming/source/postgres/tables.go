package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// table is one of the spec's tables as the catalog describes it.
type table struct {
	name        tableName
	label       string
	oid         uint32
	partitioned bool
	readable    bool // the role may SELECT
	identity    byte // replica identity: d(efault), f(ull), i(ndex), n(othing)
	columns     []column
	primary     []string // columns of the primary key, in its order
	identifying []string // columns that the stream has of a deleted row; nil means all
	key         []string // columns of the element id
	edges       []edge
}

type column struct {
	name string
	oid  uint32 // type
}

// edge is a foreign key that becomes relationships.
type edge struct {
	kind    string
	target  string   // label
	columns []string // in the order of the target's key
}

func (t *table) hasColumn(name string) bool {
	return slices.ContainsFunc(t.columns, func(c column) bool { return c.name == name })
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
	tables []*table // in the order of the spec
	types  *typeMap
}

func (c *catalog) byOID(oid uint32) *table {
	for _, t := range c.tables {
		if t.oid == oid {
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
	if err := loadColumns(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := loadKeys(ctx, conn, c); err != nil {
		return nil, err
	}
	if err := s.chooseKeys(c); err != nil {
		return nil, err
	}
	if err := s.loadEdges(ctx, conn, c); err != nil {
		return nil, err
	}
	var types []uint32
	for _, t := range c.tables {
		for _, col := range t.columns {
			types = append(types, col.oid)
		}
	}
	return c, c.types.load(ctx, conn, types)
}

func (s *Source) loadTables(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	var schemas, names []string
	for _, t := range s.config.Tables {
		name, err := parseTableName(t.Name)
		if err != nil {
			return failure.ConfigInvalid.Errorf("tables: %w", err)
		}
		schemas, names = append(schemas, name.schema), append(names, name.table)
		c.tables = append(c.tables, &table{name: name, label: t.label(name)})
	}
	rows, err := conn.Query(ctx, `
		SELECT n.nspname::text, r.relname::text, r.oid, r.relkind::text, r.relreplident::text,
			has_schema_privilege(n.oid, 'USAGE') AND has_table_privilege(r.oid, 'SELECT')
		FROM pg_class r JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE (n.nspname, r.relname) IN (SELECT * FROM unnest($1::text[], $2::text[]))`, schemas, names)
	if err != nil {
		return wrap(err, "reading tables")
	}
	var (
		name           tableName
		oid            uint32
		kind, identity string
		readable       bool
		unfit          []string
	)
	if _, err = pgx.ForEachRow(rows, []any{&name.schema, &name.table, &oid, &kind, &identity, &readable}, func() error {
		for _, t := range c.tables {
			if t.name == name {
				t.oid, t.partitioned, t.identity, t.readable = oid, kind == "p", identity[0], readable
			}
		}
		if kind != "r" && kind != "p" {
			unfit = append(unfit, name.String())
		}
		return nil
	}); err != nil {
		return wrap(err, "reading tables")
	}
	if err := s.missingTables(ctx, conn, c); err != nil {
		return err
	}
	if len(unfit) > 0 {
		return failure.Unsupported.Errorf("checking tables: not ordinary or partitioned tables: %s", strings.Join(unfit, ", ")).
			WithFix("Name the tables behind views instead, then send the spec again with the signal reconfigure.")
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

func (c *catalog) oids() []uint32 {
	oids := make([]uint32, len(c.tables))
	for i, t := range c.tables {
		oids[i] = t.oid
	}
	return oids
}

// loadColumns reads the columns that the stream has: not the generated ones, which it leaves out.
func loadColumns(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	rows, err := conn.Query(ctx, `SELECT attrelid, attname::text, atttypid FROM pg_attribute
		WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped AND attgenerated = ''
		ORDER BY attrelid, attnum`, c.oids())
	if err != nil {
		return wrap(err, "reading columns")
	}
	var (
		relation uint32
		col      column
	)
	_, err = pgx.ForEachRow(rows, []any{&relation, &col.name, &col.oid}, func() error {
		t := c.byOID(relation)
		t.columns = append(t.columns, col)
		return nil
	})
	return wrap(err, "reading columns")
}

func loadKeys(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	rows, err := conn.Query(ctx, `SELECT i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate, a.attname::text
		FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k (num, ord), pg_attribute a
		WHERE i.indrelid = ANY ($1::oid[]) AND (i.indisprimary OR i.indisreplident) AND i.indisvalid
			AND k.ord <= i.indnkeyatts AND a.attrelid = i.indrelid AND a.attnum = k.num
		ORDER BY i.indexrelid, k.ord`, c.oids())
	if err != nil {
		return wrap(err, "reading keys")
	}
	var (
		relation                      uint32
		primary, identifies, checking bool
		name                          string
	)
	_, err = pgx.ForEachRow(rows, []any{&relation, &primary, &identifies, &checking, &name}, func() error {
		t := c.byOID(relation)
		if primary {
			t.primary = append(t.primary, name)
		}
		if t.identity == 'i' && identifies || t.identity == 'd' && primary && checking {
			t.identifying = append(t.identifying, name)
		}
		return nil
	})
	return wrap(err, "reading keys")
}

// chooseKeys decides which columns identify a row, and refuses tables whose deleted rows could not be told apart.
func (s *Source) chooseKeys(c *catalog) error {
	var keyless, columnless, unidentified, statements []string
	for i, t := range c.tables {
		t.key = s.config.Tables[i].Key
		if len(t.key) == 0 {
			t.key = t.primary
		}
		if len(t.key) == 0 {
			keyless = append(keyless, t.name.String())
			statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (...);", t.name.sql()))
			continue
		}
		for _, name := range t.key {
			if !t.hasColumn(name) {
				columnless = append(columnless, t.name.String()+"."+name)
			} else if t.identity != 'f' && !slices.Contains(t.identifying, name) && !slices.Contains(unidentified, t.name.String()) {
				unidentified = append(unidentified, t.name.String())
				statements = append(statements, fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY FULL;", t.name.sql()))
			}
		}
	}
	switch {
	case len(keyless) > 0:
		return failure.KeyMissing.Errorf("checking keys: no primary key and no key in the spec: %s", strings.Join(keyless, ", ")).
			WithDetail("table", strings.Join(keyless, ", ")).
			WithFix("Run %s or name unique columns under key in the spec, then signal resume.", strings.Join(statements, " "))
	case len(columnless) > 0:
		return failure.ColumnMissing.Errorf("checking keys: missing columns: %s", strings.Join(columnless, ", "))
	case len(unidentified) > 0:
		return failure.ReplicaIdentityMissing.Errorf("checking keys: the replica identity lacks columns of the key: %s", strings.Join(unidentified, ", ")).
			WithDetail("table", strings.Join(unidentified, ", ")).
			WithFix("Run %s then signal resume.", strings.Join(statements, " "))
	}
	return nil
}

// loadEdges checks the foreign keys of the spec. One that the database knows decides which column names which; one
// that it does not know names the target's key in the key's order.
func (s *Source) loadEdges(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	if len(s.config.Relationships) == 0 {
		return nil
	}
	type foreignKey struct {
		table, target  uint32
		columns, named []string
	}
	rows, err := conn.Query(ctx, `SELECT conrelid, confrelid,
			(SELECT array_agg(a.attname::text ORDER BY ord) FROM unnest(conkey) WITH ORDINALITY k (num, ord) JOIN pg_attribute a ON a.attrelid = conrelid AND a.attnum = num),
			(SELECT array_agg(a.attname::text ORDER BY ord) FROM unnest(confkey) WITH ORDINALITY k (num, ord) JOIN pg_attribute a ON a.attrelid = confrelid AND a.attnum = num)
		FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY ($1::oid[])`, c.oids())
	if err != nil {
		return wrap(err, "reading foreign keys")
	}
	keys, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (k foreignKey, err error) {
		return k, row.Scan(&k.table, &k.target, &k.columns, &k.named)
	})
	if err != nil {
		return wrap(err, "reading foreign keys")
	}
	var problems []string
	for i, r := range s.config.Relationships {
		owner, target := c.named(r.Table), c.named(r.References)
		if name := slices.IndexFunc(r.Columns, func(name string) bool { return !owner.hasColumn(name) }); name >= 0 {
			return failure.ColumnMissing.Errorf("checking relationships[%d]: missing column: %s.%s", i, owner.name, r.Columns[name])
		}
		named := target.key
		for _, k := range keys {
			if k.table == owner.oid && k.target == target.oid && sameSet(k.columns, r.Columns) {
				named = make([]string, len(r.Columns))
				for n, name := range r.Columns {
					named[n] = k.named[slices.Index(k.columns, name)]
				}
			}
		}
		if len(r.Columns) != len(target.key) || !sameSet(named, target.key) {
			problems = append(problems, fmt.Sprintf("relationships[%d]: (%s) of %s does not reference the key (%s) of %s", i,
				strings.Join(r.Columns, ", "), owner.name, strings.Join(target.key, ", "), target.name))
			continue
		}
		e := edge{kind: r.Type, target: target.label}
		for _, name := range target.key {
			e.columns = append(e.columns, r.Columns[slices.Index(named, name)])
		}
		owner.edges = append(owner.edges, e)
	}
	if len(problems) > 0 {
		return failure.ConfigInvalid.Errorf("%s", strings.Join(problems, "; "))
	}
	return nil
}

// named returns the table that a valid spec names.
func (c *catalog) named(text string) *table {
	name, err := parseTableName(text)
	if err != nil {
		return nil
	}
	for _, t := range c.tables {
		if t.name == name {
			return t
		}
	}
	return nil
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
