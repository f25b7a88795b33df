package postgres_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

func TestConformance(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE team (id int PRIMARY KEY, name text); INSERT INTO team SELECT i, 'team' FROM generate_series(0, 9) i;
		CREATE TABLE player (id int PRIMARY KEY, team int REFERENCES team, score int)`)
	conn, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	side, err := pgx.Connect(t.Context(), d.url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = side.Close(context.Background()) })
	slot := d.unprovisioned(`"tables": [{"name": "team"}]`).Describe()["slot"]
	const tables = `"tables": [{"name": "team"}, {"name": "player"}], "relationships": [{"type": "IN", "table": "player", "columns": ["team"], "references": "team"}]`

	sourcetest.Run(t, postgres.Factory{}, sourcetest.Fixture{
		Config:   d.config(tables),
		Settings: d.settings(),
		Write: func(n int) error {
			ctx := context.Background()
			_, err := conn.Exec(ctx, fmt.Sprintf(`BEGIN; INSERT INTO player VALUES (%[1]d, %[1]d %% 10, 0);
				UPDATE player SET team = NULLIF((team + 1) %% 10, 5) WHERE id = %[1]d - 3; UPDATE player SET id = -id WHERE id = %[1]d - 7;
				DELETE FROM player WHERE id = %[1]d - 11 OR id = -(%[1]d - 13); COMMIT`, n))
			return err
		},
		Content: func() ([]graph.ElementID, error) {
			rows, err := side.Query(context.Background(), `SELECT 'team:' || id FROM team UNION ALL SELECT 'player:' || id FROM player
				UNION ALL SELECT 'IN:' || id FROM player WHERE team IS NOT NULL`)
			if err != nil {
				return nil, err
			}
			return pgx.CollectRows(rows, pgx.RowTo[graph.ElementID])
		},
		Confirmed: func() (position graph.Position, err error) {
			return position, side.QueryRow(context.Background(), "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&position)
		},
		Clean: func(provisioned bool) (clean bool, err error) {
			return clean, side.QueryRow(context.Background(), `SELECT NOT EXISTS (SELECT FROM pg_replication_slots WHERE database = current_database() AND (active OR NOT $1))
				AND ($1 OR NOT EXISTS (SELECT FROM pg_publication))`, provisioned).Scan(&clean)
		},
		Interrupt: func() error {
			_, err := side.Exec(context.Background(), "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1", slot)
			return err
		},
		Refused: map[string]sourcetest.Refusal{
			"missing table":    {Config: d.config(`"tables": [{"name": "nope"}]`), Code: failure.TableMissing},
			"missing database": {Config: []byte(`{"url": "` + d.url[:len(d.url)-len("?sslmode=disable")] + `x", "tables": [{"name": "team"}]}`), Code: failure.DatabaseMissing},
		},
	})
}
