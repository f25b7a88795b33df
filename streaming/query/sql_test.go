package query_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/memory"
	"github.com/perdure/perdure/streaming/query/querytest"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
)

// TestSQL asks Postgres the same questions about the same data, kept as rows: nodes labelled A and B are rows of the
// tables a and b, relationships of the types T (from A to B) and U (from A to A) are rows of t and u.
func TestSQL(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	server := clustertest.Own(t, map[string]string{"fsync": "off", "jit": "off"})
	conn, err := pgx.Connect(ctx, server.URL())
	require.NoError(t, err)
	defer func() { require.NoError(t, conn.Close(context.Background())) }()
	_, err = conn.Exec(ctx, `
		CREATE TABLE a (id text COLLATE "C" PRIMARY KEY, x bigint, y text COLLATE "C");
		CREATE TABLE b (LIKE a INCLUDING ALL);
		CREATE TABLE t (id text COLLATE "C" PRIMARY KEY, x bigint, y text COLLATE "C", src text COLLATE "C", dst text COLLATE "C");
		CREATE TABLE u (LIKE t INCLUDING ALL)`)
	require.NoError(t, err)
	compared, filled := 0, 0
	setFlag(t, "rapid.seed", "7")
	setFlag(t, "rapid.checks", "150")
	rapid.Check(t, func(t *rapid.T) {
		d := &database{t: t, ctx: ctx, conn: conn, rows: make(map[string]graph.Element)}
		d.exec("TRUNCATE a, b, t, u")
		var asked []question
		for range 4 {
			w := &sqlWriter{T: t}
			cypher, sql := w.query()
			q := question{cypher: cypher, sql: sql, ordered: w.ordered}
			q.session = querytest.NewSession(t, memory.New(), cypher, nil)
			q.session.Begin()
			asked = append(asked, q)
		}
		for i := range 8 {
			changes := d.transaction(max(8, 40-40*i))
			for _, q := range asked {
				q.session.Apply(changes)
				want := d.ask(q.sql)
				got := q.answer()
				require.Equal(t, want, got, "%s\n\n%s", q.cypher, q.sql)
				if compared++; len(want) > 0 {
					filled++
				}
			}
		}
		for _, q := range asked {
			q.session.Close()
		}
	})
	t.Logf("%d answers compared, %d of them with rows", compared, filled)
	require.Greater(t, filled, compared/2)
}

// question is a query in both languages.
type question struct {
	cypher, sql string
	ordered     bool
	session     *querytest.Session
}

func (q *question) answer() (rows []string) {
	for _, row := range q.session.Rows() {
		var texts []string
		for _, v := range row.Values {
			texts = append(texts, v.String())
		}
		rows = append(rows, strings.Join(texts, " | "))
	}
	if !q.ordered {
		slices.Sort(rows)
	}
	return rows
}

// database holds the data as rows.
type database struct {
	t    *rapid.T
	ctx  context.Context
	conn *pgx.Conn
	rows map[string]graph.Element
}

func (d *database) exec(sql string, args ...any) {
	_, err := d.conn.Exec(d.ctx, sql, args...)
	require.NoError(d.t, err, sql)
}

// ask returns the rows of a query; those of one without ORDER BY are sorted.
func (d *database) ask(sql string) (list []string) {
	rows, err := d.conn.Query(d.ctx, sql)
	require.NoError(d.t, err, sql)
	defer rows.Close()
	for rows.Next() {
		values, err := rows.Values()
		require.NoError(d.t, err)
		var texts []string
		for _, v := range values {
			texts = append(texts, valueOf(d.t, v).String())
		}
		list = append(list, strings.Join(texts, " | "))
	}
	require.NoError(d.t, rows.Err(), sql)
	if !strings.Contains(sql, endOrder) {
		slices.Sort(list)
	}
	return list
}

func valueOf(t *rapid.T, v any) graph.Value {
	switch v := v.(type) {
	case nil:
		return graph.Null
	case int64:
		return graph.Int(v)
	case float64:
		return graph.Float(v)
	case string:
		return graph.String(v)
	case bool:
		return graph.Bool(v)
	}
	require.Failf(t, "unexpected type", "%T", v)
	return graph.Null
}

var rowShape = graph.NewShape("x", "y")

// transaction draws so many changes at most and makes them in the tables.
func (d *database) transaction(most int) (changes []graph.Change) {
	for range rapid.IntRange(most/2, most).Draw(d.t, "changes") {
		table := rapid.SampledFrom([]string{"a", "b", "t", "u", "a", "t", "u"}).Draw(d.t, "table")
		number := func(table string) string {
			return fmt.Sprintf("%s%d", table, rapid.IntRange(0, 3).Draw(d.t, "number"))
		}
		e := graph.Element{ID: graph.ElementID(number(table)), Labels: []string{strings.ToUpper(table)}, Shape: rowShape}
		x := rapid.SampledFrom([]any{int64(1), int64(2), int64(3), nil}).Draw(d.t, "x")
		y := rapid.SampledFrom([]any{"a", "b", nil}).Draw(d.t, "y")
		e.Values = []graph.Value{valueOf(d.t, x), valueOf(d.t, y)}
		if rapid.IntRange(0, 7).Draw(d.t, "delete") == 7 {
			d.exec("DELETE FROM "+table+" WHERE id = $1", e.ID)
			changes = append(changes, graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: e.ID, Labels: e.Labels}})
			continue
		}
		if table == "a" || table == "b" {
			d.exec("INSERT INTO "+table+" VALUES ($1, $2, $3) ON CONFLICT (id) DO UPDATE SET x = $2, y = $3", e.ID, x, y)
		} else {
			e.Start, e.End = graph.ElementID(number("a")), graph.ElementID(number(map[string]string{"t": "b", "u": "a"}[table]))
			d.exec("INSERT INTO "+table+" VALUES ($1, $2, $3, $4, $5) ON CONFLICT (id) DO UPDATE SET x = $2, y = $3, src = $4, dst = $5",
				e.ID, x, y, e.Start, e.End)
		}
		changes = append(changes, graph.Change{Op: graph.OpInsert, Element: e})
	}
	return changes
}
