package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/failure"
)

func containsAll(names, wanted []string) bool {
	return !slices.ContainsFunc(wanted, func(name string) bool { return !slices.Contains(names, name) })
}

// loadLeaves reads the partitions that have rows: what the stream has of a deleted row is up to each of them.
func loadLeaves(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	// Not pg_partition_tree: it locks partitions before their root until the transaction ends, others the other way round.
	rows, err := conn.Query(ctx, `WITH RECURSIVE below (root, oid) AS (
			SELECT oid, oid FROM pg_class WHERE oid = ANY ($1::oid[]) AND relkind = 'p'
			UNION ALL SELECT root, inhrelid FROM below JOIN pg_inherits ON inhparent = oid WHERE NOT inhdetachpending)
		SELECT root, r.oid, n.nspname::text, r.relname::text, r.relreplident::text, r.relkind = 'f'
		FROM below JOIN pg_class r USING (oid) JOIN pg_namespace n ON n.oid = r.relnamespace
		WHERE r.relkind <> 'p' ORDER BY n.nspname, r.relname`, oids(c.tables))
	if err != nil {
		return wrap(err, "reading partitions")
	}
	var (
		root, oid uint32
		name      tableName
		identity  string
		foreign   bool
		elsewhere []string
	)
	if _, err = pgx.ForEachRow(rows, []any{&root, &oid, &name.schema, &name.table, &identity, &foreign}, func() error {
		t := c.byOID(root)
		t.leaves = append(t.leaves, &table{name: name, oid: oid, identity: identity[0]})
		if foreign {
			elsewhere = append(elsewhere, name.String())
		}
		return nil
	}); err != nil {
		return wrap(err, "reading partitions")
	}
	if len(elsewhere) > 0 {
		return failure.Unsupported.Errorf("checking tables: the changes of partitions that are foreign tables are not published: %s", strings.Join(elsewhere, ", ")).
			WithFix("Name the other partitions in the spec instead of the partitioned table, then send it again with the signal reconfigure.")
	}
	return nil
}

func loadKeys(ctx context.Context, conn *pgx.Conn, c *catalog) error {
	rows, err := conn.Query(ctx, `SELECT i.indrelid, i.indisprimary, i.indisreplident, i.indimmediate, a.attname::text
		FROM pg_index i, unnest(i.indkey) WITH ORDINALITY k (num, ord), pg_attribute a
		WHERE i.indrelid = ANY ($1::oid[]) AND (i.indisprimary OR i.indisreplident) AND i.indisvalid
			AND k.ord <= i.indnkeyatts AND a.attrelid = i.indrelid AND a.attnum = k.num
		ORDER BY i.indexrelid, k.ord`, oids(c.withLeaves()))
	if err != nil {
		return wrap(err, "reading keys")
	}
	var (
		relation                       uint32
		primary, identifies, immediate bool
		name                           string
	)
	_, err = pgx.ForEachRow(rows, []any{&relation, &primary, &identifies, &immediate, &name}, func() error {
		t := c.byOID(relation)
		if primary {
			t.primary, t.deferrable = append(t.primary, name), !immediate
		}
		if t.identity == 'i' && identifies || t.identity == 'd' && primary && immediate {
			t.identifying = append(t.identifying, name)
		}
		return nil
	})
	return wrap(err, "reading keys")
}

// chooseKeys decides which columns identify a row, and refuses tables whose deleted rows could not be told apart.
func (s *Source) chooseKeys(c *catalog) error {
	var keyless, unidentified, statements []string
	for i, t := range c.tables {
		t.key = s.config.Tables[i].Key
		if len(t.key) == 0 && !t.wholeRow {
			t.key, t.byPrimary = t.primary, true
		}
		if len(t.key) == 0 && !t.wholeRow {
			keyless = append(keyless, t.name.String())
			statements = append(statements, fmt.Sprintf("ALTER TABLE %s ADD PRIMARY KEY (...);", t.name.sql()))
			continue
		}
		var missing []string
		for _, name := range t.key {
			if !t.hasColumn(name) {
				missing = append(missing, name)
			}
		}
		if len(missing) > 0 {
			return t.columnMissing(missing...)
		}
		for _, name := range t.key {
			if slices.Contains(t.nullable, name) {
				return failure.KeyNullable.Errorf("checking keys: column %s of %s may be null", name, t.name).
					WithDetail("table", t.name.String()).WithDetail("column", name).
					WithFix("Run ALTER TABLE %s ALTER %s SET NOT NULL; then signal resume.", t.name.sql(), quote(name))
			}
		}
		for _, part := range t.parts() {
			if statement := part.mendIdentity(t); statement != "" {
				unidentified, statements = append(unidentified, part.name.String()), append(statements, statement)
			}
		}
	}
	switch {
	case len(keyless) > 0:
		return failure.KeyMissing.Errorf("checking keys: no primary key and no key in the spec: %s", strings.Join(keyless, ", ")).
			WithDetail("table", strings.Join(keyless, ", ")).
			WithFix("Run %s or name unique columns under key in the spec, or set wholeRow there, then signal resume.", strings.Join(statements, " "))
	case len(unidentified) > 0 && !s.lenient:
		return failure.ReplicaIdentityMissing.Errorf("checking keys: the replica identity lacks columns of the key: %s", strings.Join(unidentified, ", ")).
			WithDetail("table", strings.Join(unidentified, ", ")).
			WithFix("Run %s then signal resume.", strings.Join(statements, " "))
	}
	return nil
}

// mendIdentity returns the statement after which deleted rows of a table, or of a partition of it, can be told apart;
// empty when they can.
func (part *table) mendIdentity(t *table) string {
	lacking := slices.ContainsFunc(t.key, func(name string) bool { return !part.identifies(name) })
	if !lacking && (!t.wholeRow || part.identity == 'f') {
		return ""
	}
	identity := "FULL"
	if !t.wholeRow && !part.deferrable && containsAll(part.primary, t.key) {
		identity = "DEFAULT" // costs less WAL
	}
	return fmt.Sprintf("ALTER TABLE %s REPLICA IDENTITY %s;", part.name.sql(), identity)
}
