package postgres

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5"
	"go.uber.org/zap"
)

// partitions says aloud that a table has other partitions than when the stream began. The server writes no changes for
// rows that come or go with a partition, and nobody but the operator knows whether there were any. The server describes
// a table anew, and we look, before the first change after its partitions changed.
func (st *stream) partitions(ctx context.Context, t *table) error {
	return st.aside(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		now := &catalog{tables: []*table{{name: t.name, oid: t.oid}}}
		if err := loadLeaves(ctx, conn, now); err != nil {
			return err
		}
		gone, added := others(t.leaves, now.tables[0].leaves), others(now.tables[0].leaves, t.leaves)
		t.leaves = now.tables[0].leaves
		if len(gone) > 0 {
			st.source.log.Warn("partitions were detached or dropped: their rows are not deleted; signal rebootstrap to read the tables anew",
				zap.Stringer("table", t.name), zap.Strings("partitions", gone))
		}
		if len(added) > 0 {
			st.source.log.Warn("partitions were created or attached: rows that they had before are missing; signal rebootstrap if there were any",
				zap.Stringer("table", t.name), zap.Strings("partitions", added))
		}
		return nil
	})
}

// others returns the names of those of a that are not in b.
func others(a, b []*table) (names []string) {
	for _, t := range a {
		if !slices.ContainsFunc(b, func(other *table) bool { return other.oid == t.oid }) {
			names = append(names, t.name.String())
		}
	}
	return names
}
