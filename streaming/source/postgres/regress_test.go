package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/postgres"
	"github.com/perdure/perdure/streaming/source/postgres/cluster/clustertest"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestRegress runs the regression tests of Postgres, which PERDURE_REGRESS names the directory of (src/test/regress), line by
// line of their schedule, twice: most tests make tables of their own, so the first time only makes them, with dropping refused.
// The second time the tables that a line made, and that can be watched, are, while it does again what it does to them. When it
// ends, a snapshot and the changes since must make what another snapshot has. What the tests answer is of no interest.
//
// A table is left out, with the cause, when it is refused or cannot be read, when the stream cannot go on with it, and when it was altered, since
// no changes are written for what an alteration does to rows.
func TestRegress(t *testing.T) {
	dir := os.Getenv("PERDURE_REGRESS")
	if dir == "" {
		t.Skip("PERDURE_REGRESS does not name the regression tests of Postgres; make regress does")
	}
	c := clustertest.Own(t, map[string]string{"fsync": "off", "max_prepared_transactions": "2", "logical_decoding_work_mem": "256kB"})
	clustertest.Exec(t, c.URL(), "CREATE DATABASE regression TEMPLATE template0")
	for _, setting := range []string{"lc_messages TO 'C'", "timezone TO 'PST8PDT'", "datestyle TO 'Postgres, MDY'", "intervalstyle TO 'postgres_verbose'"} {
		clustertest.Exec(t, c.URL(), "ALTER DATABASE regression SET "+setting)
	}
	r := &regress{db: db{t, c.URLFor("regression", "postgres")}, dir: dir, work: t.TempDir(), left: make(map[string]int)}
	core, logged := observer.New(zap.WarnLevel)
	r.log, r.logged = zap.New(core), logged
	require.NoError(t, os.Mkdir(filepath.Join(r.work, "results"), 0o777))
	schedule, err := os.ReadFile(filepath.Join(dir, "parallel_schedule"))
	require.NoError(t, err)
	r.exec(`CREATE FUNCTION refuse_to_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'tables are kept'; END $$;
		CREATE EVENT TRIGGER keep ON ddl_command_start WHEN TAG IN ('DROP TABLE', 'DROP SCHEMA', 'DROP OWNED') EXECUTE FUNCTION refuse_to_drop()`)
	r.exec(`CREATE UNLOGGED TABLE attached (relation oid);
		CREATE FUNCTION note_attached() RETURNS event_trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = public AS $$ BEGIN
			INSERT INTO attached SELECT relid FROM pg_event_trigger_ddl_commands(), pg_partition_tree(objid) WHERE current_query() ILIKE '%%TACH PARTITION%%';
		END $$; CREATE EVENT TRIGGER attached ON ddl_command_end WHEN TAG IN ('ALTER TABLE') EXECUTE FUNCTION note_attached()`)
	var lines [][]string
	var made []watched
	for line := range strings.Lines(string(schedule)) {
		if names, ok := strings.CutPrefix(line, "test:"); ok {
			lines = append(lines, strings.Fields(names))
			before := r.eligible()
			r.run(lines[len(lines)-1])
			after := r.eligible()
			maps.DeleteFunc(after, func(name, _ string) bool { return before[name] != "" })
			made = append(made, after)
		}
	}
	for i, names := range lines {
		r.line(names, made[i])
	}
	for _, cause := range slices.Sorted(maps.Keys(r.left)) {
		t.Logf("left out %4d times: %s", r.left[cause], cause)
	}
	t.Logf("compared %d times a table, %d rows; %d transactions with %d changes; at most %d MiB of heap", r.compared, r.rows, r.transactions, r.changes, r.heap>>20)
	require.Greater(t, r.changes, 10_000)
}

type regress struct {
	db
	dir, work string
	lines     int
	log       *zap.Logger
	logged    *observer.ObservedLogs

	left                                  map[string]int // causes why tables were left out
	compared, rows, transactions, changes int
	heap                                  uint64
}

// watched is a line's tables by name, each with what must not change of it: columns, files, partitions, also for a while.
type watched map[string]string

// eligible finds the tables that could be watched. Tables without a key get a replica identity.
func (r *regress) eligible() watched {
	const tables = `pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind IN ('r', 'p') AND relpersistence = 'p' AND NOT relispartition
		AND nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast') AND reloftype = 0`
	r.exec(`DO $$ DECLARE t regclass; BEGIN FOR t IN SELECT leaf FROM (SELECT c.oid FROM %s) c,
		LATERAL (SELECT c.oid::regclass UNION SELECT relid FROM pg_partition_tree(c.oid)) l (leaf) JOIN pg_class p ON p.oid = leaf
		WHERE relreplident <> 'f' AND relkind IN ('r', 'p') AND NOT EXISTS (SELECT FROM pg_index WHERE indrelid = c.oid AND indisprimary)
		LOOP EXECUTE format('ALTER TABLE %%s REPLICA IDENTITY FULL', t); END LOOP; END $$`, tables)
	all := make(watched)
	require.NoError(r, json.Unmarshal([]byte(r.text(`SELECT coalesce(json_object_agg(format('"%%s"."%%s"', replace(nspname, '"', '""'), replace(relname, '"', '""')),
		concat(c.oid, relreplident, (SELECT string_agg(concat(attname, atttypid, atttypmod, attisdropped, atthasmissing, attgenerated), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0),
			(SELECT string_agg(concat(relid, relfilenode), ',' ORDER BY relid) FROM pg_partition_tree(c.oid) JOIN pg_class p ON p.oid = relid),
			(SELECT count(*) FROM attached WHERE relation = c.oid),
			(SELECT conkey FROM pg_constraint WHERE conrelid = c.oid AND contype = 'p'))), '{}') FROM %s`, tables)), &all))
	return all
}

// source makes a source of the tables, without those that it refuses.
func (r *regress) source(tables watched) fullSource {
	for {
		var list []map[string]any
		for _, name := range slices.Sorted(maps.Keys(tables)) {
			keyless := r.text("SELECT NOT EXISTS (SELECT FROM pg_index WHERE indrelid = to_regclass(%s) AND indisprimary)", quoted(name)) == "t"
			list = append(list, map[string]any{"name": name, "label": name, "wholeRow": keyless})
		}
		members, err := json.Marshal(map[string]any{"tables": list})
		require.NoError(r, err)
		made, err := postgres.Factory{}.New(r.config(string(members[1:len(members)-1])), source.Settings{
			Instance: "default", Name: fmt.Sprint("line", r.lines), Generation: 1, Log: r.log})
		require.NoError(r, err)
		if err = made.Provision(r.Context()); err == nil {
			return made.(fullSource)
		}
		r.leave(tables, err)
	}
}

// leave takes out the tables that an error is about.
func (r *regress) leave(tables watched, err error) {
	found := failure.Describe(err)
	left := false
	for name := range tables {
		if slices.Contains(strings.Split(found.Details["table"], ", "), strings.NewReplacer(`"."`, ".", `"`, "").Replace(name)) {
			delete(tables, name)
			r.left[found.Code+" "+strings.SplitN(err.Error(), ":", 3)[0]]++
			left = true
		}
	}
	require.True(r, left, "no table is named: %v", err)
}

// read reads the tables of a snapshot. It takes out those that cannot be read.
func (r *regress) read(s fullSource, snapshot source.Snapshot, tables watched) (elements []graph.Element) {
	for _, chunk := range sourcetest.Chunks(r, s, snapshot, nil) {
		err := sourcetest.ReadChunk(r.Context(), s, snapshot, chunk, func(changes []graph.Change) error {
			for _, c := range changes {
				elements = append(elements, c.Element)
			}
			return nil
		})
		if err != nil {
			delete(tables, chunk.Scope.Name)
			r.left[err.Error()]++
		}
	}
	return elements
}

// line runs some tests at the same time, and watches those tables that they made.
func (r *regress) line(names []string, made watched) {
	r.lines++
	tables := r.eligible()
	maps.DeleteFunc(tables, func(name, _ string) bool { return made[name] == "" })
	if len(tables) == 0 {
		r.run(names)
		return
	}
	s := r.source(tables)
	before, release := hold(r, s)
	sink := sourcetest.NewSink(before.Position, r.read(s, before, tables)...)
	release()
	s = r.source(tables) // without those that could not be read
	done := make(chan struct{})
	go func() { defer close(done); r.run(names) }()
	s = r.stream(s, sink, tables, done)

	now := r.eligible()
	after, release := hold(r, s)
	defer release()
	s = r.stream(s, sink, tables, nil, after.Position)
	for name := range tables {
		if now[name] != tables[name] {
			delete(tables, name)
			r.left["altered or dropped"]++
		}
	}
	if len(tables) == 0 {
		release()
		require.NoError(r, s.Teardown(context.Background()))
		return
	}
	want, got := make(map[string][]string), make(map[string][]string)
	sort := func(into map[string][]string, g sourcetest.Graph) {
		for id, text := range g.Texts() {
			e := g[id]
			into[e.Labels[0]] = append(into[e.Labels[0]], string(id)+" "+text)
		}
	}
	sort(got, sink.Graph())
	fresh := r.source(tables)
	sort(want, sourcetest.NewSink("", r.read(fresh, after, tables)...).Graph())
	for name := range tables {
		slices.Sort(want[name])
		slices.Sort(got[name])
		if !slices.Equal(want[name], got[name]) {
			r.Errorf("%s is not the same after %v: %d rows, %d elements; %.300q", name, names, len(want[name]), len(got[name]), different(want[name], got[name]))
		}
		r.compared++
		r.rows += len(want[name])
	}
	for _, tx := range sink.Transactions() {
		r.transactions++
		r.changes += len(tx.Changes)
	}
	release()
	require.NoError(r, fresh.Teardown(context.Background()))
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	r.heap = max(r.heap, memory.HeapAlloc)
}

// last returns the last few entries of a log.
func last(entries []observer.LoggedEntry) (said []any) {
	for _, e := range entries[max(0, len(entries)-3):] {
		said = append(said, e.Message, e.ContextMap())
	}
	return said
}

// different returns what is in one of the lists only.
func different(a, b []string) (only []string) {
	for _, lists := range [][2][]string{{a, b}, {b, a}} {
		for _, s := range lists[0] {
			if _, found := slices.BinarySearch(lists[1], s); !found {
				only = append(only, s)
			}
		}
	}
	return only
}

// stream runs a source until done is closed, or until it stands at a position. It goes on without tables that stop it.
func (r *regress) stream(s fullSource, sink *sourcetest.Sink, tables watched, done <-chan struct{}, to ...graph.Position) fullSource {
	deadline := time.Now().Add(2 * time.Minute)
	for {
		ctx, cancel := context.WithCancel(r.Context())
		ended := make(chan error, 1)
		go func() { ended <- s.Run(ctx, sink.Durable(), sink) }()
		var err error
		for err == nil {
			if time.Now().After(deadline) {
				r.Fatalf("the stream does not arrive; the source said last: %v", last(r.logged.TakeAll()))
			}
			select {
			case err = <-ended:
				require.Error(r, err)
				continue
			case <-time.After(20 * time.Millisecond):
			}
			select {
			case <-done:
			default:
				if done != nil {
					continue
				}
			}
			if len(to) == 0 || sink.Position().Compare(to[0]) >= 0 {
				cancel()
				require.NoError(r, <-ended)
				return s
			}
		}
		cancel()
		r.leave(tables, err)
		s = r.source(tables)
	}
}

func (r *regress) run(names []string) {
	var tests sync.WaitGroup
	for _, name := range names {
		tests.Go(func() {
			ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
			defer cancel()
			cmd := exec.CommandContext(ctx, "psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on", "-f", filepath.Join(r.dir, "sql", name+".sql"), r.url)
			cmd.Dir = r.work
			cmd.Env = append(os.Environ(), "PG_ABS_SRCDIR="+r.dir, "PG_ABS_BUILDDIR="+r.work, "PG_LIBDIR="+r.dir, "PG_DLSUFFIX=.so", "PGAPPNAME=pg_regress/"+name)
			out, err := cmd.CombinedOutput()
			r.Logf("%s: %d lines, %d errors, %v", name, bytes.Count(out, []byte("\n")), bytes.Count(out, []byte("ERROR:")), err)
		})
	}
	tests.Wait()
}
