package postgres

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// foreignKeys are those that the database knows of the tables of the spec, in the order of their columns in the tables.
type foreignKeys struct {
	catalog *catalog
	keys    []foreignKey
}

type foreignKey struct {
	owner          uint32
	target         tableName
	columns, named []string
}

// String returns the foreign key as messages show it.
func (k foreignKey) String() string {
	return fmt.Sprintf("(%s) to %s", strings.Join(k.columns, ", "), k.target)
}

// loadForeignKeys finds the foreign keys of the spec.
func (s *Source) loadForeignKeys(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	relates := func(t *table) bool { return t.relates }
	if len(s.config.Relationships) == 0 && !slices.ContainsFunc(c.tables, relates) {
		return nil
	}
	f := &foreignKeys{catalog: c}
	if err := f.load(ctx, conn); err != nil {
		return err
	}
	var problems []string
	check := func(at string, i int, err error) error {
		switch {
		case failure.Of(err) != nil:
			return fmt.Errorf("checking %s[%d]: %w", at, i, err)
		case err != nil:
			problems = append(problems, fmt.Sprintf("%s[%d]: %s", at, i, err))
		}
		return nil
	}
	for i, r := range s.config.Relationships {
		owner := c.named(r.Table)
		e, err := f.edge(owner, r.Columns, r.References)
		if err := check("relationships", i, err); err != nil {
			return err
		}
		e.kind = r.Type
		owner.edges = append(owner.edges, e)
	}
	for i, t := range c.tables {
		if !t.relates {
			continue
		}
		var err error
		t.ends, err = f.ends(t, s.config.Tables[i])
		if err := check("tables", i, err); err != nil {
			return err
		}
		t.optional = slices.ContainsFunc(t.foreign(), func(name string) bool { return slices.Contains(t.nullable, name) })
	}
	if len(problems) > 0 {
		return failure.ConfigInvalid.Errorf("%s", strings.Join(problems, "; "))
	}
	return nil
}

// load reads the foreign keys. One to a partitioned table has a copy for each of its partitions, which does not count.
func (f *foreignKeys) load(ctx context.Context, conn *pgx.Conn) error {
	rows, err := conn.Query(ctx, `SELECT k.conrelid, n.nspname::text, r.relname::text, array_agg(a.attname::text ORDER BY a.attnum), array_agg(b.attname::text ORDER BY a.attnum)
		FROM pg_constraint k CROSS JOIN unnest(k.conkey, k.confkey) u (own, other)
			JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.own
			JOIN pg_attribute b ON b.attrelid = k.confrelid AND b.attnum = u.other
			JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE k.contype = 'f' AND k.conrelid = ANY ($1::oid[])
			AND NOT EXISTS (SELECT FROM pg_constraint p WHERE p.oid = k.conparentid AND p.conrelid = k.conrelid)
		GROUP BY k.oid, k.conrelid, n.nspname, r.relname
		ORDER BY array_agg(a.attnum ORDER BY a.attnum), n.nspname, r.relname`, oids(f.catalog.tables))
	if err != nil {
		return wrap(err, "reading foreign keys")
	}
	var k foreignKey
	_, err = pgx.ForEachRow(rows, []any{&k.owner, &k.target.schema, &k.target.table, &k.columns, &k.named}, func() error {
		if !slices.ContainsFunc(f.keys, func(other foreignKey) bool { return other.owner == k.owner && other.String() == k.String() }) {
			f.keys = append(f.keys, k)
		}
		k.columns, k.named = nil, nil // the next ones get memory of their own
		return nil
	})
	return wrap(err, "reading foreign keys")
}

// nodes returns a table whose rows are nodes, or nil.
func (f *foreignKeys) nodes(name tableName) *table {
	if t := f.catalog.byName(name); t != nil && !t.relates {
		return t
	}
	return nil
}

// edge returns the foreign key of these columns as one that leads to nodes. If the database knows it, it decides which
// column names which, and to which table it leads unless references says so; else it names the target's key in its order.
func (f *foreignKeys) edge(owner *table, columns []string, references string) (edge, error) {
	if name := slices.IndexFunc(columns, func(name string) bool { return !owner.hasColumn(name) }); name >= 0 {
		return edge{}, owner.columnMissing(columns[name])
	}
	var known []foreignKey
	for _, k := range f.keys {
		if k.owner == owner.oid && sameSet(k.columns, columns) {
			known = append(known, k)
		}
	}
	text := fmt.Sprintf("(%s) of %s", strings.Join(columns, ", "), owner.name)
	var target *table
	switch {
	case references != "":
		target = f.catalog.named(references)
	case len(known) != 1:
		return edge{}, fmt.Errorf("the database knows %d foreign keys %s: say under references which table is meant", len(known), text)
	default:
		if target = f.nodes(known[0].target); target == nil {
			return edge{}, fmt.Errorf("%s references %s, which is not one of tables whose rows are nodes", text, known[0].target)
		}
	}
	named := target.key
	for _, k := range known {
		if k.target == target.name {
			named = make([]string, len(columns))
			for i, name := range columns {
				named[i] = k.named[slices.Index(k.columns, name)]
			}
		}
	}
	if len(columns) != len(target.key) || !sameSet(named, target.key) {
		return edge{}, fmt.Errorf("%s does not reference the key (%s) of %s, from which the ids of its nodes are made: make what it references the key of that table in the spec, or leave it out and compare the columns in queries",
			text, strings.Join(target.key, ", "), target.name)
	}
	e := edge{target: target.label}
	for _, name := range target.key {
		e.columns = append(e.columns, columns[slices.Index(named, name)])
	}
	return e, nil
}

// ends returns the foreign keys that name start and end of the relationships that a table's rows are: those that the spec
// names, and beside them those that the database knows, if it is clear which are meant.
func (f *foreignKeys) ends(t *table, spec Table) (ends []edge, err error) {
	var given []End
	for _, end := range []*End{spec.Start, spec.End} {
		if end != nil {
			given = append(given, *end)
		}
	}
	var candidates []foreignKey
	var fit, unfit []string
	for _, k := range f.keys {
		switch {
		case k.owner != t.oid || slices.ContainsFunc(given, func(e End) bool { return sameSet(e.Columns, k.columns) }):
		case f.nodes(k.target) == nil:
			unfit = append(unfit, k.String())
		default:
			candidates, fit = append(candidates, k), append(fit, k.String())
		}
	}
	if wanted := 2 - len(given); wanted > 0 && len(candidates) != wanted {
		list := func(keys []string) string { return cmp.Or(strings.Join(keys, ", "), "none") }
		return nil, fmt.Errorf("which foreign keys of %s are start and end is not clear: %d wanted; those to nodes are: %s; those to tables that are not nodes in the spec: %s; give columns under start and end, and references where the database knows no foreign key",
			t.name, wanted, list(fit), list(unfit))
	}
	for _, end := range []*End{spec.Start, spec.End} {
		if end == nil {
			end = &End{candidates[0].columns, candidates[0].target.sql()}
			candidates = candidates[1:]
		}
		e, err := f.edge(t, end.Columns, end.References)
		if err != nil {
			return nil, err
		}
		ends = append(ends, e)
	}
	return ends, nil
}

// named returns the table that a valid spec names.
func (c *catalog) named(text string) *table {
	name, err := parseTableName(text)
	if err != nil {
		return nil
	}
	return c.byName(name)
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
