package pipeline

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// papers are tables of many blocks, with room in the first ones to which updated rows move, with and without large values.
const papersSchema = `
	CREATE TABLE customer (id int PRIMARY KEY, name text NOT NULL);
	CREATE TABLE doc (id int PRIMARY KEY, customer int REFERENCES customer ON DELETE SET NULL ON UPDATE CASCADE, n int NOT NULL, body text);
	ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
	CREATE TABLE slip (LIKE doc INCLUDING ALL);
	INSERT INTO customer SELECT i, 'customer ' || i FROM generate_series(1, 400) i;
	INSERT INTO doc SELECT i, 1 + i % 400, 0, repeat(to_char(i, 'FM00000000'), CASE WHEN i % 3 = 0 THEN 300 ELSE 30 END) FROM generate_series(1, 4000) i;
	INSERT INTO slip SELECT id, customer, n, right(body, 200) FROM doc;
	DELETE FROM doc WHERE id < 2000 AND id % 3 = 1; DELETE FROM slip WHERE id < 2000 AND id % 3 = 1;
	VACUUM doc; VACUUM slip`

const papersQuery = `
	MATCH (d:Doc) RETURN d.id * 4 + 0 AS id, d.n AS n, right(d.body, 8) AS body
	UNION ALL MATCH (d:Doc)-[:OF]->(c:Customer) RETURN d.id * 4 + 1 AS id, c.id AS n, c.name AS body
	UNION ALL MATCH (d:Slip) RETURN d.id * 4 + 2 AS id, d.n AS n, right(d.body, 8) AS body
	UNION ALL MATCH (d:Slip)-[:FOR]->(c:Customer) RETURN d.id * 4 + 3 AS id, c.id AS n, c.name AS body`

const papersSQL = `
	SELECT id * 4 + 0 AS id, n, right(body, 8) AS body FROM doc
	UNION ALL SELECT d.id * 4 + 1, c.id, c.name FROM doc d JOIN customer c ON c.id = d.customer
	UNION ALL SELECT id * 4 + 2, n, right(body, 8) FROM slip
	UNION ALL SELECT d.id * 4 + 3, c.id, c.name FROM slip d JOIN customer c ON c.id = d.customer`

// papers is a rig with that database, and one snapshot of it after the other.
type papers struct {
	*rig
	database string
	src      *run
	ref      BootstrapRef
	plan     Plan
	held     *holder
	turn     sync.Mutex // writers take turns: they lock rows in any order, and would end in deadlocks
}

func newPapers(t *testing.T) *papers {
	p := &papers{rig: newRig(t), database: clustertest.Database(t)}
	for _, statement := range strings.Split(papersSchema, ";") { // VACUUM stands alone
		clustertest.Exec(t, p.database, statement)
	}
	u, err := url.Parse(p.database)
	require.NoError(t, err)
	p.sources = []source.Factory{postgres.Factory{}}
	p.source = component.SourceSpec{Name: "shop", Kind: postgres.Kind, Config: json.RawMessage(fmt.Sprintf(`{"host": %q, "port": %s, "database": %q, "user": %q, "sslMode": "disable",
		"chunkRows": 100, "tables": [{"name": "customer", "label": "Customer"}, {"name": "doc", "label": "Doc"}, {"name": "slip", "label": "Slip"}],
		"relationships": [{"type": "OF", "table": "doc", "columns": ["customer"], "references": "customer"}, {"type": "FOR", "table": "slip", "columns": ["customer"], "references": "customer"}]}`,
		u.Hostname(), u.Port(), u.Path[1:], u.User.Username()))}
	p.query = component.QuerySpec{Name: "late", Sources: []string{"shop"}, Query: papersQuery}
	require.NoError(t, p.host().ProvisionSource(t.Context(), p.source))
	p.src = p.readySource()
	p.ref = BootstrapRef{ID: "first", Instance: "default", Query: "late", Source: "shop"}
	_, err = p.host().Subscribe(t.Context(), p.ref, p.query)
	require.NoError(t, err)
	return p
}

func (p *papers) exec(statement string) {
	p.turn.Lock()
	defer p.turn.Unlock()
	clustertest.Exec(p.t, p.database, statement)
}

func (p *papers) number(query string) (n int64) {
	_, err := fmt.Sscan(clustertest.Text(p.t, p.database, query), &n)
	require.NoError(p.t, err)
	return n
}

// snapshot takes the next snapshot and plans its chunks.
func (p *papers) snapshot() {
	p.t.Helper()
	p.ref.SnapshotGeneration++
	p.held = p.hold(p.ref)
	var err error
	p.plan, err = p.host().PlanChunks(p.t.Context(), p.ref, p.source, p.query)
	require.NoError(p.t, err)
	again, err := p.host().PlanChunks(p.t.Context(), p.ref, p.source, p.query)
	require.NoError(p.t, err)
	require.Equal(p.t, p.plan, again)
}

// copyUntil copies chunk after chunk until enough are copied, and then has the server end the holder of the snapshot, which
// is lost. It returns how many rows were copied.
func (p *papers) copyUntil(enough func() bool) int64 {
	p.t.Helper()
	// The source looks at the tables in transactions of its own, which are younger.
	holder := clustertest.Text(p.t, p.database, "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'perdure/%' AND state = 'idle in transaction' ORDER BY xact_start LIMIT 1")
	chunks := 0
	done, err := p.host().CopyChunks(p.t.Context(), p.ref, p.source, "worker", func(c CopyProgress) {
		if c.Chunks > chunks && enough() { // between two chunks
			p.exec("SELECT pg_terminate_backend(" + holder + ")")
			eventually(p.t, func() bool { return p.number("SELECT count(*) FROM pg_stat_activity WHERE pid = "+holder) == 0 }, "the holder ends")
		}
		chunks = c.Chunks
	})
	require.Equal(p.t, failure.SnapshotLost, failure.CodeOf(err), "%v", err)
	p.held.cancel()
	<-p.held.done
	return done.Rows
}

// finish copies what is left and seals.
func (p *papers) finish() {
	p.t.Helper()
	h := p.host()
	p.copyAll(p.ref, 3)
	progress, err := h.CopiedSoFar(p.t.Context(), p.ref)
	require.NoError(p.t, err)
	require.Len(p.t, progress, 3)
	for _, table := range progress {
		require.Equal(p.t, Copied, table.State)
	}
	require.NoError(p.t, h.VerifyBootstrap(p.t.Context(), p.ref, p.source, func() {}))
	_, _, err = h.SealBootstrap(p.t.Context(), p.ref)
	require.NoError(p.t, err)
	p.held.release(p.t)
}

func (p *papers) scopes() []*storedScope {
	b, err := p.host().bucket(p.t.Context(), bootstrapBucket)
	require.NoError(p.t, err)
	scopes, err := p.host().scopes(p.t.Context(), b, p.ref.key())
	require.NoError(p.t, err)
	return scopes
}

// compare runs the query and compares with SQL.
func (p *papers) compare() {
	p.t.Helper()
	query := p.startQuery(p.query)
	end := graph.Position(clustertest.Text(p.t, p.database, "SELECT pg_current_wal_lsn()"))
	wanted := make(map[string]string)
	require.NoError(p.t, json.Unmarshal([]byte(clustertest.Text(p.t, p.database, "SELECT json_object_agg(id, row_to_json(q)::text) FROM ("+papersSQL+") q")), &wanted))
	p.settledAt("late", end, wanted)
	query.drained()
	p.src.drained()
	require.NoError(p.t, p.host().TeardownSource(p.t.Context(), p.source))
}

// write commits random transactions.
func (p *papers) write(conn *pgx.Conn, random *rand.Rand, transactions int) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	for range transactions {
		statements := "BEGIN; "
		for range 1 + random.IntN(4) {
			table, id, other, customer := []string{"doc", "slip"}[random.IntN(2)], 1+random.IntN(4000), 1+random.IntN(4000), 1+random.IntN(420)
			statements += []string{
				fmt.Sprintf("UPDATE %s SET n = n + 1 WHERE id BETWEEN %d AND %d; ", table, id, id+random.IntN(5)),
				fmt.Sprintf("UPDATE %s SET customer = NULLIF((SELECT id FROM customer WHERE id = %d), 3) WHERE id IN (%d, %d); ", table, customer, id, other),
				fmt.Sprintf("UPDATE %s SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM %[1]s WHERE id = %[2]d); ", table, id, other),
				fmt.Sprintf("DELETE FROM %s WHERE id = %d; ", table, id),
				fmt.Sprintf("DELETE FROM %s WHERE id = %d; INSERT INTO %[1]s VALUES (%[2]d, NULL, -1, 'again'); ", table, id),
				fmt.Sprintf("INSERT INTO %s SELECT %d, (SELECT id FROM customer WHERE id = %d), 0, repeat('inserted', 10) ON CONFLICT DO NOTHING; ", table, id, customer),
				fmt.Sprintf("UPDATE doc SET body = repeat(to_char(%d, 'FM00000000'), %d) WHERE id = %d; ", other, 10+random.IntN(2)*400, id),
				fmt.Sprintf("DELETE FROM customer WHERE id = %d; ", customer),
				fmt.Sprintf("INSERT INTO customer VALUES (%d, 'again') ON CONFLICT DO NOTHING; ", customer),
				fmt.Sprintf("UPDATE customer SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM customer WHERE id = %[1]d); ", customer, 1+random.IntN(420)),
			}[random.IntN(10)]
		}
		if _, err := conn.Exec(context.Background(), statements+"COMMIT"); err != nil {
			return fmt.Errorf("%s: %w", statements, err)
		}
	}
	return nil
}

// writing writes until the returned function is called, and returns another one, which waits until more is written. What it
// writes by itself is bounded, so that a slow machine does not find everything changed.
func (p *papers) writing(seed uint64) (more, stop func()) {
	conn, err := pgx.Connect(p.t.Context(), p.database)
	require.NoError(p.t, err)
	random := rand.New(rand.NewPCG(seed, 1))
	stopped, rounds, done := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		for alone := 10; ; {
			if err := p.write(conn, random, 20); err != nil {
				done <- err
				return
			}
			var goOn <-chan time.Time
			if alone > 0 {
				goOn = time.After(200 * time.Millisecond)
			}
			select {
			case rounds <- struct{}{}:
			case <-stopped:
				done <- nil
				return
			case <-goOn:
				alone--
			}
		}
	}()
	more = func() {
		for range 2 {
			select {
			case <-rounds:
			case err := <-done:
				require.NoError(p.t, err, "the writer ended")
			}
		}
	}
	return more, func() {
		close(stopped)
		require.NoError(p.t, <-done)
		require.NoError(p.t, conn.Close(context.Background()))
	}
}

// scope returns what the present snapshot has of a table.
func (p *papers) scope(table string) *storedScope {
	scopes := p.scopes()
	at := slices.IndexFunc(scopes, func(s *storedScope) bool {
		return s.generation == p.ref.SnapshotGeneration && s.Name == fmt.Sprintf(`"public".%q`, table)
	})
	require.GreaterOrEqual(p.t, at, 0)
	return scopes[at]
}

// most reports that more than half of a table is copied, but not all.
func (p *papers) most(table string) func() bool {
	return func() bool {
		s := p.scope(table)
		end := s.from(len(s.Chunks))
		return end*2 > s.Places && end < s.Places
	}
}

// TestFinishedChunksOutliveTheirSnapshot ends the holder of a snapshot when most of a table is copied, while rows move
// between places that are copied and others. What is copied is not copied again, and nothing of the tables is lost.
func TestFinishedChunksOutliveTheirSnapshot(t *testing.T) {
	for _, table := range []string{"doc", "slip"} {
		t.Run(table, func(t *testing.T) {
			p := newPapers(t)
			all := p.number("SELECT count(*) FROM " + table)
			more, stop := p.writing(1)
			p.snapshot()
			require.Zero(t, p.plan.Kept)
			more()
			p.copyUntil(p.most(table))
			more()
			p.exec("UPDATE " + table + " SET n = n + 100 WHERE id > 3700")
			p.snapshot()
			s := p.scope(table)
			require.NotEmpty(t, s.Chunks)
			require.NotEmpty(t, s.Chunks[len(s.Chunks)-1].Since)
			require.Greater(t, p.number(fmt.Sprintf("SELECT count(*) FROM %s WHERE id > 3700 AND ctid < '(%d,0)'", table, s.from(len(s.Chunks)))), int64(20), "rows moved to places that were copied")
			require.Greater(t, p.plan.Kept, all/3)
			require.Equal(t, 3, p.plan.Tables)
			more()
			p.finish()
			again := int64(0)
			for _, c := range p.scope(table).Chunks {
				if c.Since != "" {
					again += c.Rows
				}
			}
			if table == "slip" {
				require.Zero(t, again, "it has no large values")
			} else {
				require.Positive(t, again)
				require.Less(t, again, all/3, "only what has changed")
			}
			more()
			stop()
			p.compare()
		})
	}
}

// TestWhatIsCopiedOfAChangedTable: what was copied of a table counts as long as rows are where they were and look as they did.
func TestWhatIsCopiedOfAChangedTable(t *testing.T) {
	for _, c := range []struct {
		change string
		kept   bool
	}{
		{"TRUNCATE doc; INSERT INTO doc SELECT i, 1 + i % 40, 5, 'again' FROM generate_series(1, 3000) i", false},
		{"VACUUM FULL doc", false},
		{"ALTER TABLE doc ADD COLUMN more int DEFAULT 5", false},
		{"ALTER TABLE doc ALTER n TYPE bigint", false},
		{"ALTER TABLE doc ADD COLUMN more int; ALTER TABLE doc DROP COLUMN more", true},
		{"DELETE FROM doc WHERE id > 1000; VACUUM doc", true}, // which is shorter then
		{"UPDATE doc SET n = n + 1; ANALYZE doc", true},
		{"CREATE INDEX ON doc (n); CLUSTER slip USING slip_pkey", true},
	} {
		t.Run(c.change, func(t *testing.T) {
			p := newPapers(t)
			p.snapshot()
			p.copyUntil(p.most("doc"))
			for _, statement := range strings.Split(c.change, ";") {
				p.exec(statement)
			}
			p.snapshot()
			if c.kept {
				require.NotEmpty(t, p.scope("doc").Chunks)
				require.Greater(t, p.plan.Kept, int64(1000))
			} else {
				require.Empty(t, p.scope("doc").Chunks)
				require.Equal(t, int64(400), p.plan.Kept, "customers")
			}
			p.exec("UPDATE doc SET n = n + 1 WHERE id % 7 = 0")
			p.finish()
			p.compare()
		})
	}
}

// TestChunksOfManySnapshots loses one snapshot after the other, also while what was kept is looked at.
func TestChunksOfManySnapshots(t *testing.T) {
	p := newPapers(t)
	all := p.number("SELECT (SELECT count(*) FROM doc) + (SELECT count(*) FROM slip)")
	more, stop := p.writing(3)
	p.snapshot()
	p.copyUntil(func() bool { return len(p.scope("doc").Chunks) >= 3 })
	more()
	p.snapshot()
	require.Positive(t, p.plan.Kept)
	p.copyUntil(p.most("doc"))
	more()
	p.snapshot()
	looked := func(s *storedScope) (n int) {
		for _, c := range s.Chunks {
			if c.Since != "" && c.Copied {
				n++
			}
		}
		return n
	}
	p.copyUntil(func() bool {
		return looked(p.scope("doc")) > 1 && looked(p.scope("doc")) < len(p.scope("doc").Chunks)/2
	})
	more()
	p.snapshot()
	marks := make(map[string]bool)
	for _, c := range p.scope("doc").Chunks {
		marks[c.Since] = true
	}
	require.Len(t, marks, 3, "the chunks were read of three snapshots last")
	p.copyUntil(p.most("slip"))
	more()
	p.snapshot()
	require.False(t, slices.ContainsFunc(p.scopes(), func(s *storedScope) bool {
		return s.generation == p.ref.SnapshotGeneration && s.Labels[0] == "Doc"
	}), "it is complete")
	require.Greater(t, p.plan.Kept, all*2/3)
	more()
	p.finish()
	more()
	stop()
	p.compare()
}

// TestEachPlaceIsCopiedWholeOnce loses snapshots of a table that grows and shrinks at random, some while they are planned,
// and looks at what there is in the end.
func TestEachPlaceIsCopiedWholeOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pace := source.Pace{Parallelism: 2, ChunkTime: time.Second}
		var scopes []*storedScope
		places := int64(0) // as many as there ever were
		for generation := 1; ; generation++ {
			size := rapid.Int64Range(0, 60).Draw(t, "places")
			places = max(places, size)
			present := &storedScope{
				scopeRecord: scopeRecord{Scope: source.Scope{
					Name: "T", Labels: []string{"T"}, Places: size, Least: 4, Mark: fmt.Sprint(generation),
					Layout: rapid.SampledFrom([]string{"same", "same", "same", "other", ""}).Draw(t, "layout"),
				}, Position: graph.Position(fmt.Sprint(generation))},
				key: fmt.Sprint(generation), generation: generation,
			}
			kept, rest := divide(scopes, generation, true)
			if len(kept) > 0 {
				require.Empty(t, rest)
				break
			}
			continued, dropped := goOn([]*storedScope{present}, rest)
			require.Len(t, continued, len(rest)-len(dropped))
			for _, s := range continued {
				s.end()
			}
			scopes = continued
			if rapid.IntRange(0, 4).Draw(t, "interrupted") == 0 {
				continue
			}
			scopes = append(scopes, present)
			require.Len(t, keptLabels(scopes, generation), min(1, len(continued)))
			for range rapid.IntRange(0, 12).Draw(t, "steps") {
				at := present.lease("w", make(leases).of("", time.Now()), pace)
				if at < 0 {
					break
				}
				c := &present.Chunks[at]
				c.Renewals = 0
				if c.Copied = rapid.IntRange(0, 3).Draw(t, "copied") > 0; c.Copied {
					c.Rows = present.chunk(at).To - present.chunk(at).From
				}
			}
		}
		newest := scopes[len(scopes)-1]
		require.True(t, newest.copied())
		for place := range newest.Places {
			whole, mark := 0, ""
			for _, s := range scopes {
				i := slices.IndexFunc(s.Chunks, func(c chunkRecord) bool { return place < c.To })
				if i < 0 || s.Chunks[i].Attempt == 0 {
					continue
				}
				require.True(t, s.Chunks[i].Copied)
				if s.Chunks[i].Since == "" {
					whole++
				} else {
					require.Equal(t, mark, s.Chunks[i].Since, "what is new since it was copied before")
				}
				mark = s.Mark
			}
			require.Equal(t, 1, whole, "place %d", place)
			require.Equal(t, newest.Mark, mark)
		}
	})
}

// TestAPartAloneIsNotComplete: of a scope that others went on with nothing is of use without them, except to go on with.
func TestAPartAloneIsNotComplete(t *testing.T) {
	s := &storedScope{scopeRecord: scopeRecord{
		Scope:  source.Scope{Name: "T", Labels: []string{"T"}, Places: 9, Layout: "l", Mark: "1"},
		Chunks: []chunkRecord{{To: 3, Attempt: 1, Copied: true, Rows: 5}, {To: 6, Attempt: 2, Worker: "w", Renewals: 1}},
	}, generation: 1}
	s.end()
	require.True(t, s.copied(), "an earlier version takes it for complete, beside the one that goes on with it")
	require.Equal(t, int64(5), s.rows())
	kept, rest := divide([]*storedScope{s}, 2, true)
	require.Empty(t, kept)
	next := &storedScope{scopeRecord: scopeRecord{Scope: source.Scope{Name: "T", Labels: []string{"T"}, Places: 12, Layout: "l", Mark: "2"}}, generation: 2}
	continued, dropped := goOn([]*storedScope{next}, rest)
	require.Empty(t, dropped)
	require.Equal(t, []*storedScope{s}, continued)
	require.Equal(t, []chunkRecord{{To: 3, Since: "1"}}, next.Chunks)
	next.Only = source.Only{"a": {"b"}}
	require.False(t, next.goesOnWith(&s.scopeRecord))
}
