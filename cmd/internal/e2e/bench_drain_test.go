package e2e

import (
	"fmt"
	osexec "os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/graph"
)

// workload is WAL that all contestants drain.
type workload struct {
	name  string
	table string
	write []string // statements; rows are changed by those after the first skip
	skip  int      // statements whose changes are there before the slots
	rows  int
	query bool // also through a query
}

// loop is a transaction for each t of a range.
func loop(from, to int, statement string) string {
	return fmt.Sprintf(`DO $$ BEGIN FOR t IN %d..%d LOOP %s; COMMIT; END LOOP; END $$`, from, to, statement)
}

var workloads = []workload{
	{
		name: "orders", table: benchTable, rows: 500_000, query: true, // inserts and updates, half of each
		write: []string{
			loop(0, 4999, `INSERT INTO bench SELECT t * 50 + i, i % 1000, 'open', (t + i) * 0.25, 'note of ' || i, now() FROM generate_series(1, 50) i`),
			loop(0, 4999, `UPDATE bench SET status = 'paid', total = total + 1 WHERE id > t * 50 AND id <= (t + 1) * 50`),
		},
	},
	{
		name: "narrow", table: `CREATE TABLE bench (id bigint PRIMARY KEY, n int NOT NULL)`, rows: 1_000_000,
		write: []string{loop(0, 9999, `INSERT INTO bench SELECT t * 100 + i, i FROM generate_series(1, 100) i`)},
	},
	{
		name: "20-columns", rows: 300_000,
		table: `CREATE TABLE bench (id bigint PRIMARY KEY, ` + columnsOf("int", 6) + `, ` + columnsOf("text", 6) + `, ` + columnsOf("numeric", 4) + `, ` + columnsOf("timestamptz", 3) + `)`,
		write: []string{loop(0, 5999, `INSERT INTO bench SELECT t * 50 + i, i, i, i, i, i, i, 'text of ' || i, 'b', 'c', 'd', 'e', 'text', i * 0.5, i, 1.25, 9.75, now(), now(), now() FROM generate_series(1, 50) i`)},
	},
	{
		name: "json", table: `CREATE TABLE bench (id bigint PRIMARY KEY, doc jsonb NOT NULL)`, rows: 200_000,
		write: []string{loop(0, 3999, `INSERT INTO bench SELECT t * 50 + i, jsonb_build_object('id', i, 'name', 'customer ' || i, 'tags', jsonb_build_array('a', 'b', i),
			'address', jsonb_build_object('street', 'street ' || i, 'zip', i * 7, 'geo', jsonb_build_array(i * 0.5, i * 0.25)), 'open', true, 'note', repeat('x', 200)) FROM generate_series(1, 50) i`)},
	},
	{
		name: "toast-updates", table: `CREATE TABLE bench (id bigint PRIMARY KEY, n int NOT NULL, doc text NOT NULL); ALTER TABLE bench ALTER doc SET STORAGE EXTERNAL`,
		rows: 300_000, skip: 1, // the documents do not change and are not sent
		write: []string{
			`INSERT INTO bench SELECT i, 0, repeat('x', 4000) FROM generate_series(1, 30000) i`,
			loop(0, 5999, `UPDATE bench SET n = n + 1 WHERE id > (t % 600) * 50 AND id <= (t % 600 + 1) * 50`),
		},
	},
	{
		// Sent while it is in progress, and written to the log as it comes, while pg_recvlogical writes nothing. Nearly half of
		// our CPU time is the stream server's for these writes, a seventh reading from the server, a sixteenth decoding and
		// encoding.
		name: "one-gigabyte", table: `CREATE TABLE bench (id bigint PRIMARY KEY, doc text NOT NULL)`, rows: 1_000_000,
		write: []string{`INSERT INTO bench SELECT i, repeat(md5(i::text), 32) FROM generate_series(1, 1000000) i`},
	},
	{
		name: "single-rows", table: benchTable, rows: 200_000,
		write: []string{loop(1, 200_000, `INSERT INTO bench VALUES (t, t % 1000, 'open', t * 0.25, 'note of ' || t, now())`)},
	},
}

func columnsOf(kind string, n int) string {
	columns := make([]string, n)
	for i := range columns {
		columns[i] = fmt.Sprintf("%s_%d %s NOT NULL", kind, i, kind)
	}
	return strings.Join(columns, ", ")
}

// BenchmarkDrain holds our source, and source with query, against pg_recvlogical on the same WAL. In each round every
// contestant has a slot of its own at the same place; each round begins with another one, so that none is always the
// first to touch the WAL or the one that finds the machine warm.
func BenchmarkDrain(b *testing.B) {
	for _, load := range workloads {
		b.Run(load.name, func(b *testing.B) { drain(b, load) })
	}
}

func drain(b *testing.B, load workload) {
	w := newBench(b, load.table)
	host, _ := w.host()
	for _, statement := range load.write[:load.skip] {
		w.exec(statement)
	}
	kinds := []string{"source"}
	if load.query {
		kinds = append(kinds, "query")
	}
	for round := range benchRounds {
		for _, kind := range kinds {
			require.NoError(b, host.ProvisionSource(w.limit, w.source(kind, round)))
		}
		w.exec(fmt.Sprintf(`SELECT pg_create_logical_replication_slot('bench_recv_%d', 'pgoutput')`, round))
	}
	w.exec(`CREATE PUBLICATION bench_recv FOR TABLE bench`)
	for _, statement := range load.write[load.skip:] {
		w.exec(statement)
	}
	end := w.lsn()
	w.exec(`DELETE FROM bench WHERE id = 1`) // whoever is past end has drained all before it

	contestants := []contestant{
		{"pg_recvlogical", func(round int) sample {
			m := w.measure()
			cmd := osexec.CommandContext(w.limit, "pg_recvlogical", "-d", w.pg.URL(), "--slot", fmt.Sprintf("bench_recv_%d", round), "--start", "--no-loop", "--endpos", end,
				"-o", "proto_version=2", "-o", "streaming=on", "-o", "publication_names=bench_recv", "-o", "binary=true", "-f", "/dev/null")
			out, err := cmd.CombinedOutput()
			s := m.end()
			require.NoError(b, err, "%s", out)
			return s.of(cmd)
		}},
		{"source-into-stream", func(round int) sample {
			spec, drain := w.source("source", round), make(chan struct{})
			m := w.measure()
			var group sync.WaitGroup
			group.Go(func() { w.check(host.RunSource(w.limit, attempt(component.Source, spec.Name, drain), spec)) })
			w.awaitPast(end, func() graph.Position { return w.confirmed("bench_" + spec.Name) })
			s := m.end()
			close(drain)
			group.Wait()
			require.NoError(b, host.TeardownSource(w.limit, spec)) // the next rounds have no use for what it keeps
			return s
		}},
	}
	if load.query {
		contestants = append(contestants, contestant{"source-query-result", func(round int) sample {
			spec, drain := w.source("query", round), make(chan struct{})
			query := benchQuery
			query.Name, query.Sources = fmt.Sprintf("bench%d", round), []string{spec.Name}
			a := attempt(component.Query, query.Name, drain)
			m := w.measure()
			var group sync.WaitGroup
			group.Go(func() { w.check(host.RunSource(w.limit, attempt(component.Source, spec.Name, drain), spec)) })
			eventually(b, 30*time.Second, "change stream", func() error { return host.SourceReady(w.limit, component.DefaultInstance, spec.Name) })
			group.Go(func() { _, err := host.RunQuery(w.limit, a, query); w.check(err) })
			w.awaitPast(end, func() graph.Position { return a.Progress.Snapshot().Position })
			s := m.end()
			close(drain)
			group.Wait()
			require.NoError(b, host.TeardownQuery(w.limit, query))
			require.NoError(b, host.TeardownSource(w.limit, spec))
			return s
		}})
	}
	w.compare("of-recvlogical", load.rows, contestants...)
}
