package postgres

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

// filledColumn says of a row of pg_attribute whether rows that existed when the column was added got a value then. A constant
// is noted there; otherwise the table was rewritten, for which there was a reason that may still be seen.
const filledColumn = `(atthasmissing OR atthasdef OR attidentity <> '' OR attnotnull
	OR EXISTS (SELECT FROM pg_type t WHERE t.oid = atttypid AND t.typdefault IS NOT NULL))`

// loadColumns reads the columns of tables. Those that the stream leaves out, the generated ones, are kept apart.
func loadColumns(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	rows, err := conn.Query(ctx, `SELECT attrelid, attname::text, atttypid, attnum, atttypmod, `+filledColumn+`, attgenerated::text, attnotnull,
			attcollation = 0 OR EXISTS (SELECT FROM pg_collation c WHERE c.oid = attcollation AND collisdeterministic AND c.oid < 16384)
		FROM pg_attribute a
		WHERE attrelid = ANY ($1::oid[]) AND attnum > 0 AND NOT attisdropped
		ORDER BY attrelid, attnum`, oids(c.tables))
	if err != nil {
		return wrap(err, "reading columns")
	}
	var (
		relation          uint32
		col               column
		generated         string
		notNull, bytewise bool
	)
	_, err = pgx.ForEachRow(rows, []any{&relation, &col.name, &col.oid, &col.num, &col.mod, &col.filled, &generated, &notNull, &bytewise}, func() error {
		t := c.byOID(relation)
		if !notNull {
			t.nullable = append(t.nullable, col.name)
		}
		if bytewise {
			t.bytewise = append(t.bytewise, col.name)
		}
		if generated == "" {
			t.all = append(t.all, col)
		} else {
			t.generated = append(t.generated, col)
		}
		return nil
	})
	return wrap(err, "reading columns")
}

// chooseColumns decides which columns become properties.
func (s *Source) chooseColumns(c *catalog) error {
	for i, t := range c.tables {
		wanted := s.config.Tables[i].Columns
		for _, name := range wanted {
			if !t.hasColumn(name) {
				return t.columnMissing(name)
			}
		}
		if len(wanted) > 0 {
			t.kept = slices.Concat(wanted, t.key, t.foreign())
		}
		t.required = t.numbers(t.key)
		for _, e := range slices.Concat(t.edges, t.ends) {
			t.required = append(t.required, t.numbers(e.columns)...)
		}
		t.columns = slices.DeleteFunc(slices.Clone(t.all), func(col column) bool { return !t.keeps(col) })
	}
	return nil
}

func (t *table) columnMissing(names ...string) error {
	text := make([]string, len(names))
	fix := ""
	for i, name := range names {
		text[i] = t.name.String() + "." + name
		if hasColumn(t.generated, name) {
			text[i] += " (it is generated, which the stream leaves out)"
			fix = "Name columns in the spec that are not generated, then send it again with the signal reconfigure."
		}
	}
	e := failure.ColumnMissing.Errorf("checking columns: missing: %s", strings.Join(text, ", ")).WithDetail("table", t.name.String())
	if fix != "" {
		e = e.WithFix("%s", fix)
	}
	return e
}

// loadTypes also refuses what the server cannot send: it would break the stream of all tables.
func (s *Source) loadTypes(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	var oids []uint32
	for _, t := range c.tables {
		for _, col := range t.columns {
			oids = append(oids, col.oid)
		}
	}
	if err := c.types.load(ctx, conn, oids); err != nil {
		return err
	}
	for _, t := range c.tables {
		for _, col := range t.columns {
			name := c.types.unsendable(col.oid)
			if name == "" {
				continue
			}
			e := failure.TypeUnsupported.Errorf("checking columns: %s.%s has the type %s, and the server cannot send the type %s in it", t.name, col.name, c.types.name(col.oid), name).
				WithDetail("table", t.name.String()).WithDetail("column", col.name)
			if c.version < 150000 || t.identity == 'f' { // no column list can keep it back
				e = e.WithFix("Run ALTER TABLE %s ALTER %s TYPE text; then signal resume.", t.name.sql(), quote(col.name))
			}
			return e
		}
	}
	return nil
}
