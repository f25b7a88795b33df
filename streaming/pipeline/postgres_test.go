package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// people is a database with a join table from people to people, whose ends may be null, be missing and move.
type people struct {
	conn      *pgx.Conn
	random    *rand.Rand
	truncates bool
}

const peopleSchema = `
	CREATE TABLE person (id int PRIMARY KEY, name text NOT NULL);
	CREATE TABLE knows (id int PRIMARY KEY, a int, b int REFERENCES person ON DELETE SET NULL ON UPDATE CASCADE,
		weight int NOT NULL, note text);
	ALTER TABLE knows ALTER note SET STORAGE EXTERNAL;
	INSERT INTO person SELECT i, 'person ' || i FROM generate_series(1, 40) i;
	INSERT INTO knows SELECT i, 1 + i % 40, NULLIF(1 + i % 7, 3), i % 10, repeat('n', i % 2 * 3000) FROM generate_series(1, 300) i`

const (
	peopleQuery = `MATCH (a:Person)-[r:KNOWS]->(b:Person) WHERE r.weight > 3 RETURN r.id AS id, a.name AS a, b.name AS b, r.weight AS weight, right(r.note, 5) AS note, size(keys(r)) AS keys`
	peopleSQL   = `SELECT r.id, a.name AS a, b.name AS b, r.weight, right(r.note, 5) AS note, 2 + (r.note IS NOT NULL)::int AS keys
		FROM knows r JOIN person a ON a.id = r.a JOIN person b ON b.id = r.b WHERE r.weight > 3`
)

// large is a text that is stored apart, so that an update that does not change it does not bring it.
const large = `(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100))`

// write commits random transactions, one at a time.
func (p *people) write(transactions int) error {
	for range transactions {
		statements := "BEGIN; "
		if p.truncates && p.random.IntN(100) == 0 { // not in a savepoint, which would have the query read the table again
			statements += "TRUNCATE knows; INSERT INTO knows SELECT i, p.id, NULLIF(p.id, i), 5, repeat(p.name, 500) FROM person p, generate_series(p.id, p.id + 200, 40) i ON CONFLICT DO NOTHING; "
		}
		for range 1 + p.random.IntN(4) {
			row, other := 1+p.random.IntN(300), 1+p.random.IntN(300)
			one, another := 1+p.random.IntN(45), 1+p.random.IntN(45)
			statements += []string{
				fmt.Sprintf("INSERT INTO knows SELECT %d, a.id, b.id, %d, %s FROM person a, person b WHERE a.id = %d AND b.id = %d ON CONFLICT DO NOTHING; ", row, row%10, large, one, another),
				fmt.Sprintf("UPDATE knows SET note = %s WHERE id IN (%d, %d); ", large, row, other),
				fmt.Sprintf("UPDATE knows SET weight = (weight + 1) %% 10 WHERE id IN (%d, %d); ", row, other),
				fmt.Sprintf("UPDATE knows SET b = NULLIF((SELECT id FROM person WHERE id = %d), 3) WHERE id IN (%d, %d); ", one, row, other),
				fmt.Sprintf("UPDATE knows SET a = b, b = (SELECT id FROM person WHERE id = a) WHERE id %% 50 = %d; ", row%50),
				fmt.Sprintf("UPDATE knows SET id = %d, note = NULLIF(note, '') WHERE id = %d AND NOT EXISTS (SELECT FROM knows WHERE id = %[1]d); ", row, other),
				fmt.Sprintf("DELETE FROM knows WHERE id = %d; ", row),
				fmt.Sprintf("DELETE FROM person WHERE id = %d; ", one),
				fmt.Sprintf("INSERT INTO person VALUES (%d, 'again %[1]d') ON CONFLICT DO NOTHING; ", one),
				fmt.Sprintf("UPDATE person SET name = name || '+' WHERE id = %d; ", one),
				fmt.Sprintf("UPDATE person SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM person WHERE id = %[1]d); ", one, another),
				fmt.Sprintf("SAVEPOINT s; DELETE FROM knows WHERE id %% 10 = %d; ROLLBACK TO s; ", row%10),
			}[p.random.IntN(12)]
		}
		if _, err := p.conn.Exec(context.Background(), statements+"COMMIT"); err != nil {
			return fmt.Errorf("%s: %w", statements, err)
		}
	}
	return nil
}

// TestJoinTableEqualsSQL compares a query over relationships that are rows with SQL, while the tables change at random.
func TestJoinTableEqualsSQL(t *testing.T) {
	database := clustertest.Database(t)
	clustertest.Exec(t, database, peopleSchema)
	u, err := url.Parse(database)
	require.NoError(t, err)
	conn, err := pgx.Connect(t.Context(), database)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close(context.Background())) })
	p := &people{conn: conn, random: rand.New(rand.NewPCG(3, 9))}

	r := newRig(t)
	r.sources = []source.Factory{postgres.Factory{}}
	r.source = component.SourceSpec{Name: "shop", Kind: postgres.Kind, Config: json.RawMessage(fmt.Sprintf(`{"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable", "chunkRows": 100,
		"tables": [{"name": "person", "label": "Person"}, {"name": "knows", "type": "KNOWS", "start": {"columns": ["a"], "references": "person"}}]}`, u.Hostname(), u.Port(), u.Path[1:], u.User.Username()))}
	r.query = component.QuerySpec{Name: "late", Sources: []string{"shop"}, Query: peopleQuery}
	require.NoError(t, r.host().ProvisionSource(t.Context(), r.source))
	src := r.readySource()

	done, written := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				written <- nil
				return
			default:
			}
			if err := p.write(1); err != nil {
				written <- err
				return
			}
		}
	}()
	r.bootstrap("first")
	close(done)
	require.NoError(t, <-written)
	p.truncates = true // which would cost the snapshot before
	query := r.startQuery(r.query)
	filled := 0
	for range 5 {
		require.NoError(t, p.write(100))
		end := graph.Position(clustertest.Text(t, database, "SELECT pg_current_wal_lsn()"))
		wanted := make(map[string]string)
		require.NoError(t, json.Unmarshal([]byte(clustertest.Text(t, database, "SELECT coalesce(json_object_agg(id, row_to_json(q)::text), '{}') FROM ("+peopleSQL+") q")), &wanted))
		r.settledAt("late", end, wanted)
		filled += len(wanted)
	}
	require.Greater(t, filled, 100)
	query.drained()
	src.drained()
	require.NoError(t, r.host().TeardownSource(t.Context(), r.source))
}
