package postgres

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/perdure/perdure/streaming/source"
)

// What was read of a table under a snapshot that is lost is still of use under a later one, as a row stays where it is until
// it is changed, unless the table gets another file: VACUUM FULL, CLUSTER and their like move rows, and TRUNCATE, which the
// stream has as one change, would remove rows that the later snapshot has. So the layout is made of the files as both
// snapshots see them, in whichever order transactions show to others; of what the rows look like; and of the server and its
// timeline, since another one may not have the changes in between. VACUUM may cut off the end of a file: no row is there.
//
// A changed row is told by the stream, but without the large values that stayed the same and are stored apart. Where it has
// moved to places that were read, from others, nobody would ever read these. So changed rows of places that were read are
// read again, by the transactions that wrote them, if the table has values that are stored apart at all.

// storedFiles says where a snapshot sees the rows of tables.
func (s *Source) storedFiles(ctx context.Context, conn *pgx.Conn, snapshot source.Snapshot, c *catalog) (map[uint32]file, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if err := importSnapshot(ctx, conn, snapshot.Name); err != nil {
		return nil, err
	}
	found, err := files(ctx, conn, oids(c.withLeaves()))
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "COMMIT")
	return found, wrap(err, "leaving the snapshot")
}

// layoutIn returns what source.Scope has under Layout and Mark. The mark is the first transaction that the snapshot may not
// have.
func (t *table) layoutIn(snapshot source.Snapshot, stored map[uint32]file) (layout, mark string) {
	state := snapshot.Schema[t.label]
	if state == "" {
		return "", ""
	}
	parts := []string{snapshot.System, state}
	for _, oid := range slices.Sorted(slices.Values(t.files())) {
		f, there := stored[oid]
		if !there { // a partition that came after the snapshot
			return "", ""
		}
		parts = append(parts, fmt.Sprintf("%d:%d", oid, f.File))
		mark = strconv.FormatInt(f.Since, 10)
	}
	return strings.Join(parts, " "), mark
}

// needed reports whether rows of a chunk have to be read. If the table has no values that are stored apart, in the snapshot
// at hand, the stream tells completely of all rows that changed since an earlier one. Should the table be truncated right now,
// checkUnmoved finds it.
func (r *snapshotReader) needed(ctx context.Context, t *table, chunk source.Chunk) (needed bool, err error) {
	if chunk.Since == "" {
		return true, nil
	}
	bounded, cancel := r.source.bounded(ctx)
	defer cancel()
	err = r.conn.QueryRow(bounded, "SELECT coalesce(sum(pg_relation_size(reltoastrelid)), 0) > 0 FROM pg_class WHERE oid = ANY ($1::oid[]) AND reltoastrelid <> 0", t.files()).
		Scan(&needed)
	return needed, wrap(err, "looking whether %s has large values", t.name)
}

// comparableXIDs is how many transactions may lie between two whose numbers, of which rows have 32 bits, are compared.
const comparableXIDs = 1 << 30

// changedSince returns the condition of rows that the snapshot with a mark may not have, and perhaps of others.
func changedSince(mark string) string {
	since, err := strconv.ParseInt(mark, 10, 64)
	if err != nil { // whoever wrote it knows more than we do
		return "true"
	}
	return fmt.Sprintf("(age(xmin) <= age('%d'::xid) OR (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint > %d))", uint32(since), since+comparableXIDs)
}
