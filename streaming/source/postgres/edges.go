package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

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
		FROM pg_constraint WHERE contype = 'f' AND conrelid = ANY ($1::oid[])`, oids(c.tables))
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
			return fmt.Errorf("checking relationships[%d]: %w", i, owner.columnMissing(r.Columns[name]))
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
	return c.byName(name)
}

func sameSet(a, b []string) bool {
	a, b = slices.Clone(a), slices.Clone(b)
	slices.Sort(a)
	slices.Sort(b)
	return slices.Equal(a, b)
}
