package postgres_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestReadingWhatIsNewSinceAnEarlierSnapshot: of places that were read, rows that came there since are read again if the table
// has large values, as the stream does not have all of them, otherwise none.
func TestReadingWhatIsNewSinceAnEarlierSnapshot(t *testing.T) {
	for name, table := range map[string]string{
		"plain":       "CREATE TABLE item (id int PRIMARY KEY, v int, note text)",
		"partitioned": "CREATE TABLE item (id int PRIMARY KEY, v int, note text) PARTITION BY RANGE (id); CREATE TABLE item1 PARTITION OF item FOR VALUES FROM (0) TO (500); CREATE TABLE item2 PARTITION OF item DEFAULT",
	} {
		t.Run(name, func(t *testing.T) {
			d := newDB(t)
			d.exec("%s", table+"; INSERT INTO item SELECT i, i, 'small' FROM generate_series(1, 1000) i")
			s := d.source(`"tables": [{"name": "item"}]`)
			plan := func() (snapshot source.Snapshot, scope source.Scope, release func()) {
				snapshot, release = hold(t, s)
				plan, err := s.PlanSnapshot(t.Context(), snapshot, nil)
				require.NoError(t, err)
				require.NotEmpty(t, plan.Scopes[0].Mark)
				return snapshot, plan.Scopes[0], release
			}
			read := func(snapshot source.Snapshot, chunk source.Chunk) (ids []string) {
				require.NoError(t, sourcetest.ReadChunk(t.Context(), s, snapshot, chunk, func(changes []graph.Change) error {
					for _, c := range changes {
						ids = append(ids, string(c.Element.ID))
					}
					return nil
				}))
				slices.Sort(ids)
				return ids
			}
			_, first, release := plan()
			release()
			d.exec("UPDATE item SET v = -1 WHERE id IN (3, 700); DELETE FROM item WHERE id = 4; INSERT INTO item VALUES (2000, 1, 'new')")
			snapshot, second, release := plan()
			require.Equal(t, first.Layout, second.Layout)
			require.Empty(t, read(snapshot, source.Chunk{Scope: second, To: second.Places, Since: first.Mark}))
			require.Len(t, read(snapshot, source.Chunk{Scope: second, To: second.Places}), 1000)
			release()

			d.exec("ALTER TABLE item ALTER note SET STORAGE EXTERNAL; BEGIN; INSERT INTO item VALUES (2001, 1, repeat('n', 3000)); SAVEPOINT s; INSERT INTO item VALUES (2002, 1, ''); COMMIT")
			d.exec("BEGIN; DELETE FROM item WHERE id = 5; UPDATE item SET v = -2 WHERE id = 6; ROLLBACK")
			d.exec("VACUUM FREEZE item")
			snapshot, third, release := plan()
			require.Equal(t, first.Layout, third.Layout)
			since := func(mark string) []string {
				return read(snapshot, source.Chunk{Scope: third, To: third.Places, Since: mark})
			}
			require.Equal(t, []string{"item:2000", "item:2001", "item:2002", "item:3", "item:700"}, since(first.Mark))
			require.Equal(t, []string{"item:2001", "item:2002"}, since(second.Mark))
			require.Len(t, since("3"), 1002, "all are later than that")
			require.Empty(t, read(snapshot, source.Chunk{Scope: third, From: third.Places, To: third.Places + 10, Since: first.Mark}))
			release()

			layout := third.Layout
			for _, change := range []string{
				"VACUUM FULL item", "ALTER TABLE item ADD COLUMN more int DEFAULT 7", "ALTER TABLE item ALTER v TYPE bigint", "ALTER TABLE item RENAME note TO notes",
				"TRUNCATE item", "BEGIN; TRUNCATE item; INSERT INTO item VALUES (1, 1, 'again'); COMMIT",
			} {
				d.exec("%s", change)
				_, scope, release := plan()
				require.NotEqual(t, layout, scope.Layout, change)
				layout = scope.Layout
				release()
			}
		})
	}
}

// TestLayoutIsThatOfTheSnapshot: a table that is written anew after a snapshot was taken is not where that sees it.
func TestLayoutIsThatOfTheSnapshot(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE item (id int PRIMARY KEY); INSERT INTO item VALUES (1)")
	s := d.source(`"tables": [{"name": "item"}]`)
	snapshot, release := hold(t, s)
	layouts := make(map[string]bool)
	for i := range 2 {
		plan, err := s.PlanSnapshot(t.Context(), snapshot, nil)
		require.NoError(t, err)
		layouts[plan.Scopes[0].Layout] = true
		d.exec("%s", fmt.Sprintf("TRUNCATE item; INSERT INTO item VALUES (%d)", i))
	}
	require.Len(t, layouts, 1)
	release()
	snapshot, _ = hold(t, s)
	plan, err := s.PlanSnapshot(t.Context(), snapshot, nil)
	require.NoError(t, err)
	require.False(t, layouts[plan.Scopes[0].Layout])
}
