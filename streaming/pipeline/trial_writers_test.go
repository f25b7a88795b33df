package pipeline

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// trialTables have what is awkward: large values stored apart, a key of several columns, complete old rows, partitions
// between which rows move, no key at all; some have many blocks, since nobody reads what fills them. The amounts of entry
// add up to nothing at the end of every transaction.
const trialTables = `
	CREATE TABLE doc (id int PRIMARY KEY, n int NOT NULL, note text, body text, filler char(200) DEFAULT '');
	ALTER TABLE doc ALTER body SET STORAGE EXTERNAL;
	CREATE TABLE line (doc int, no int, note text, body text, PRIMARY KEY (doc, no));
	ALTER TABLE line REPLICA IDENTITY FULL;
	CREATE TABLE entry (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, pair int NOT NULL, amount bigint NOT NULL);
	CREATE INDEX ON entry (pair);
	CREATE TABLE part (id int, region int, n int, filler char(200) DEFAULT '', PRIMARY KEY (id, region)) PARTITION BY LIST (region);
	CREATE TABLE part_0 PARTITION OF part FOR VALUES IN (0);
	CREATE TABLE part_1 PARTITION OF part FOR VALUES IN (1);
	CREATE TABLE part_2 PARTITION OF part DEFAULT;
	CREATE TABLE tag (a int, b text);
	ALTER TABLE tag REPLICA IDENTITY FULL;
	INSERT INTO doc SELECT i, 0, NULL, repeat(md5(i::text), i % 200) FROM generate_series(1, 300) i;
	INSERT INTO line SELECT i, no, 'first', NULL FROM generate_series(1, 300) i, generate_series(1, 2) no;
	INSERT INTO entry (pair, amount) SELECT i, sign * i FROM generate_series(1, 100) i, (VALUES (1), (-1)) s (sign);
	INSERT INTO part SELECT i, i % 4, 0 FROM generate_series(1, 300) i;
	INSERT INTO tag SELECT i % 7, NULLIF(i % 3, 0) FROM generate_series(1, 50) i;`

const trialConfig = `"tables": [{"name": "doc"}, {"name": "line"}, {"name": "entry"}, {"name": "part"}, {"name": "tag", "wholeRow": true}],
	"relationships": [{"type": "OF", "table": "line", "columns": ["doc"], "references": "doc"}],
	"chunkRows": 300, "slotTimeout": "20s", "receiveTimeout": "5s"`

// trialQuery and trialSQL are the same question.
const trialQuery = `
	MATCH (d:doc) RETURN 'doc' AS t, d.id AS a, d.n AS b, d.note AS c, d.body AS d
	UNION ALL MATCH (l:line) RETURN 'line' AS t, l.doc AS a, l.no AS b, l.note AS c, l.body AS d
	UNION ALL MATCH (l:line)-[:OF]->(d:doc) RETURN 'of' AS t, l.doc * 1000 + l.no AS a, d.n AS b, d.note AS c, null AS d
	UNION ALL MATCH (p:part) RETURN 'part' AS t, p.id * 10 + p.region AS a, p.n AS b, null AS c, null AS d
	UNION ALL MATCH (g:tag) RETURN 'tag' AS t, g.a AS a, null AS b, g.b AS c, null AS d
	UNION ALL MATCH (e:entry) RETURN 'entry' AS t, e.id AS a, e.amount AS b, null AS c, null AS d
	UNION ALL MATCH (e:entry) RETURN 'sum' AS t, sum(e.amount) AS a, null AS b, null AS c, null AS d`

const trialSQL = `
	SELECT 'doc', id::bigint, n::bigint, note, body FROM doc
	UNION ALL SELECT 'line', doc, no, note, body FROM line
	UNION ALL SELECT 'of', l.doc * 1000 + l.no, d.n, d.note, NULL FROM line l JOIN doc d ON d.id = l.doc
	UNION ALL SELECT 'part', id * 10 + region, n, NULL, NULL FROM part
	UNION ALL (SELECT DISTINCT 'tag', a::bigint, NULL::bigint, b, NULL FROM tag)
	UNION ALL SELECT 'entry', id, amount, NULL, NULL FROM entry
	UNION ALL SELECT 'sum', sum(amount)::bigint, NULL, NULL, NULL FROM entry HAVING count(*) > 0`

// trialWriter writes transactions at random until it is stopped, through any number of connections.
type trialWriter struct {
	*rand.Rand
	number  int
	url     func() string
	commits *atomic.Int64
	running *atomic.Bool // the query, so that the snapshot is behind it

	conn *pgx.Conn
}

func (w *trialWriter) run(ctx context.Context) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close(context.WithoutCancel(ctx))
		}
	}()
	for ctx.Err() == nil {
		if w.conn == nil {
			w.connect(ctx)
			continue
		}
		w.transaction(ctx)
		if w.conn.IsClosed() {
			w.conn = nil
		}
		_ = pause(ctx, time.Duration(w.IntN(120))*time.Millisecond) // what is tried is the order of things, not their number
	}
}

// connect leaves nothing behind of a transaction that was prepared when the connection before broke.
func (w *trialWriter) connect(ctx context.Context) {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	conn, err := pgx.Connect(bounded, w.url())
	if err != nil {
		_ = pause(ctx, 20*time.Millisecond) // the server is restarting
		return
	}
	w.conn = conn
	if _, err := conn.Exec(bounded, "SET lock_timeout = '3s'; SET statement_timeout = '10s'"); err != nil {
		return
	}
	_ = w.exec(ctx, fmt.Sprintf("ROLLBACK PREPARED 'w%d'", w.number)) // usually there is none
}

// exec finishes what it began, also when ctx ends.
func (w *trialWriter) exec(ctx context.Context, statement string) error {
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 20*time.Second)
	defer cancel()
	_, err := w.conn.Exec(bounded, statement)
	return err
}

// transaction writes one. Statements fail now and then, of deadlocks and duplicate keys; all is rolled back then.
func (w *trialWriter) transaction(ctx context.Context) {
	statements := w.statements()
	for _, statement := range statements {
		if err := w.exec(ctx, statement); err != nil {
			if !w.conn.IsClosed() && w.conn.PgConn().TxStatus() != 'I' {
				_ = w.exec(ctx, "ROLLBACK")
			}
			return
		}
	}
	w.commits.Add(1)
}

func (w *trialWriter) statements() []string {
	if w.IntN(3) == 0 {
		return []string{w.statement()}
	}
	all := []string{"BEGIN"}
	if w.IntN(4) == 0 {
		all = append(all, "SET LOCAL synchronous_commit = off") // a crash may undo it after its end
	}
	for range 1 + w.IntN(5) {
		switch w.IntN(8) {
		case 0:
			all = append(all, "SAVEPOINT a", w.statement(), "SAVEPOINT b", w.statement(), "ROLLBACK TO b", w.statement(), "RELEASE a")
		case 1:
			all = append(all, "SAVEPOINT a", w.statement(), "SAVEPOINT b", w.statement(), "RELEASE b", "ROLLBACK TO a")
		default:
			all = append(all, w.statement())
		}
	}
	if w.IntN(15) == 0 {
		all = append(all, w.large()...)
	}
	switch prepared := fmt.Sprintf("PREPARED 'w%d'", w.number); w.IntN(12) {
	case 0, 1:
		return append(all, "ROLLBACK")
	case 2:
		return append(all, fmt.Sprintf("PREPARE TRANSACTION 'w%d'", w.number), "COMMIT "+prepared)
	case 3:
		return append(all, fmt.Sprintf("PREPARE TRANSACTION 'w%d'", w.number), "ROLLBACK "+prepared)
	}
	return append(all, "COMMIT")
}

// large returns what outgrows the memory that the server has for a transaction, so that it is sent while in progress.
func (w *trialWriter) large() []string {
	from := 1000 + w.IntN(300)
	insert := func() string {
		return fmt.Sprintf("INSERT INTO doc SELECT i, %d, NULL, repeat(md5(i::text), %d) FROM generate_series(%d, %d) i ON CONFLICT (id) DO UPDATE SET n = doc.n + 1, body = excluded.body",
			w.IntN(100), 1+w.IntN(150), from, from+50+w.IntN(250))
	}
	remove := "DELETE FROM doc WHERE id >= 1000"
	switch w.IntN(4) {
	case 0:
		return []string{insert(), "SAVEPOINT large", insert(), "ROLLBACK TO large", fmt.Sprintf("UPDATE doc SET n = n + 1 WHERE id > %d", from)}
	case 1:
		return []string{insert(), "SAVEPOINT large", remove, insert(), "RELEASE large"}
	case 2:
		return []string{insert(), fmt.Sprintf("UPDATE doc SET id = id + 5000 WHERE id BETWEEN %d AND %d", from, from+5), remove}
	}
	return []string{remove, insert()}
}

func (w *trialWriter) statement() string {
	id := 1 + w.IntN(300)
	text := fmt.Sprintf("'%s'", strings.Repeat(fmt.Sprintf("%08x", w.Uint32()), 1+w.IntN(3)*w.IntN(200)))
	if w.IntN(9) == 0 {
		text = "NULL"
	}
	switch w.IntN(24) {
	case 0, 1:
		return fmt.Sprintf("INSERT INTO doc VALUES (%d, 0, 'new', %s) ON CONFLICT DO NOTHING", id, text)
	case 2, 3, 4, 7:
		return fmt.Sprintf("UPDATE doc SET n = n + 1 WHERE id BETWEEN %d AND %d", id, id+w.IntN(4))
	case 5:
		return fmt.Sprintf("UPDATE doc SET body = %s WHERE id = %d", text, id)
	case 6: // the large value comes along
		return fmt.Sprintf("UPDATE doc SET id = %d, n = n + 1 WHERE id = %d AND NOT EXISTS (SELECT FROM doc WHERE id = %[1]d)", 1+w.IntN(300), id)
	case 8:
		return fmt.Sprintf("DELETE FROM doc WHERE id = %d", id)
	case 9, 10:
		return fmt.Sprintf("INSERT INTO line VALUES (%d, %d, 'new', %s) ON CONFLICT (doc, no) DO UPDATE SET note = 'again'", id, w.IntN(4), text)
	case 11:
		return fmt.Sprintf("UPDATE line SET note = %s WHERE doc = %d", text, id)
	case 12:
		return fmt.Sprintf("UPDATE line SET doc = %d, no = no + 10 WHERE doc = %d AND no < 10", 1+w.IntN(300), id)
	case 13:
		return fmt.Sprintf("DELETE FROM line WHERE doc BETWEEN %d AND %d", id, id+2)
	case 14, 15:
		return fmt.Sprintf("INSERT INTO entry (pair, amount) VALUES (%d, %d), (%[1]d, %[3]d)", id, id, -id)
	case 16:
		return fmt.Sprintf("UPDATE entry SET amount = amount + sign(amount)::int WHERE pair = %d", id)
	case 17:
		return fmt.Sprintf("DELETE FROM entry WHERE pair = %d", id)
	case 18:
		return fmt.Sprintf("INSERT INTO part VALUES (%d, %d, 0) ON CONFLICT DO NOTHING", id, w.IntN(4))
	case 19:
		return fmt.Sprintf("UPDATE part SET region = (region + 1) %% 4, n = n + 1 WHERE id = %d", id)
	case 20:
		return fmt.Sprintf("UPDATE part SET n = n + 1 WHERE id BETWEEN %d AND %d", id, id+5)
	case 21:
		return fmt.Sprintf("INSERT INTO tag VALUES (%d, %s)", w.IntN(7), [...]string{"'x'", "'y'", "NULL"}[w.IntN(3)])
	case 22:
		if w.IntN(2) == 0 {
			return fmt.Sprintf("DELETE FROM tag WHERE ctid = (SELECT min(ctid) FROM tag WHERE a = %d)", w.IntN(7))
		}
		return fmt.Sprintf("UPDATE tag SET b = %s WHERE ctid = (SELECT min(ctid) FROM tag WHERE a = %d)", [...]string{"'x'", "'z'", "NULL"}[w.IntN(3)], w.IntN(7))
	}
	rarely := 10
	if !w.running.Load() {
		rarely = 1000 // each one of a table that is not copied yet takes another snapshot
	}
	if w.IntN(rarely) == 0 {
		return "TRUNCATE " + [...]string{"doc", "line", "entry", "part", "tag", "doc, line", "part, tag, entry"}[w.IntN(7)]
	}
	return fmt.Sprintf("UPDATE part SET id = %d WHERE id = %d AND NOT EXISTS (SELECT FROM part WHERE id = %[1]d)", 1+w.IntN(300), id)
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
