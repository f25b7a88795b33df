package postgres_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/datadriven"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestDecoding runs the scripts of testdata/decoding, each in a database of its own:
//
//	watch      streams the tables of a config, from here on
//	changes    runs SQL and shows the transactions that come of it, with all else that came since the last time
//	run        runs SQL and shows nothing
//
// SQL is one statement a line, $database is the database's name. A line "a: ..." is for the connection a, which lives as long
// as the script, "a& ..." does not wait for its end when a lock must be waited for; what ends in "-- fails" has to fail. When
// no transaction is open, the elements must be what the tables hold, read by a snapshot and read as JSON.
//
// A transaction is shown as its changes, + inserted, ~ updated and - deleted, and a line "commit"; large values are cut off,
// and of many changes of a kind in a row only the number is given.
func TestDecoding(t *testing.T) {
	datadriven.Walk(t, filepath.Join("testdata", "decoding"), func(t *testing.T, path string) {
		s := &decodingScript{db: newDB(t), sessions: make(map[string]*session)}
		t.Cleanup(func() { s.close(t) })
		s.exec("CREATE TABLE mark (id int PRIMARY KEY, n int); INSERT INTO mark VALUES (1, 0)")
		datadriven.RunTest(t, path, func(t *testing.T, data *datadriven.TestData) string {
			s.db.TB = t
			switch data.Cmd {
			case "watch":
				s.watch(data.Input)
			case "run":
				s.run(data.Input)
				s.arrived()
			case "changes":
				s.run(data.Input)
				return s.arrived()
			default:
				data.Fatalf(t, "unknown command %s", data.Cmd)
			}
			return ""
		})
	})
}

type decodingScript struct {
	db
	sessions map[string]*session
	source   fullSource
	sink     *sourcetest.Sink
	tables   []watchedTable
	stop     func()
	marks    int64
	shown    int // transactions
}

// watchedTable is what a check has to know of a spec's table.
type watchedTable struct {
	Name     string
	Label    string
	WholeRow bool
}

// session is a connection that lives as long as a script.
type session struct {
	conn *pgx.Conn
	busy chan error // of a statement whose end was not waited for
}

func (s *decodingScript) watch(members string) {
	var config map[string]any
	require.NoError(s, json.Unmarshal([]byte("{"+members+"}"), &config))
	var spec struct{ Tables []watchedTable }
	require.NoError(s, json.Unmarshal([]byte("{"+members+"}"), &spec))
	s.tables = spec.Tables
	config["tables"] = append(config["tables"].([]any), map[string]any{"name": "mark"})
	all, err := json.Marshal(config)
	require.NoError(s, err)
	s.source = s.unprovisioned(string(all[1 : len(all)-1]))
	require.NoError(s, s.source.Provision(s.Context()))
	s.sink = sourcetest.NewSink("", graph.Element{ID: "mark:1", Labels: []string{"mark"}})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.source.Run(ctx, "", s.sink) }()
	s.stop = func() { cancel(); require.NoError(s, <-done) }
}

func (s *decodingScript) close(t *testing.T) {
	s.db.TB = t
	for _, session := range s.sessions {
		require.NoError(t, session.conn.Close(context.Background()))
	}
	for gid := s.prepared(); gid != ""; gid = s.prepared() {
		s.exec("ROLLBACK PREPARED %s", quoted(gid))
	}
	if s.stop == nil {
		return
	}
	s.stop()
	require.NoError(t, s.source.Teardown(context.Background()))
}

// prepared returns the name of a transaction that is prepared, if there is one.
func (d db) prepared() string {
	d.Helper()
	return d.text("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
}

var sessionLine = regexp.MustCompile(`^([a-z])([:&]) (.*)$`)

func (s *decodingScript) run(input string) {
	s.Helper()
	input = strings.ReplaceAll(input, "$database", s.text("SELECT current_database()"))
	for line := range strings.Lines(input) {
		line = strings.TrimSpace(line)
		name, wait := "", true
		if m := sessionLine.FindStringSubmatch(line); m != nil {
			name, wait, line = m[1], m[2] == ":", m[3]
		}
		line, fails := strings.CutSuffix(line, "-- fails")
		s.session(name).run(s, line, wait, fails)
	}
	for _, session := range s.sessions {
		session.await(s, false)
	}
}

func (s *decodingScript) session(name string) *session {
	if s.sessions[name] == nil {
		conn, err := pgx.Connect(s.Context(), s.url)
		require.NoError(s, err)
		s.sessions[name] = &session{conn: conn}
	}
	return s.sessions[name]
}

func (c *session) run(s *decodingScript, statement string, wait, fails bool) {
	s.Helper()
	c.await(s, false)
	c.busy = make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), sourcetest.Patience)
	go func() {
		defer cancel()
		_, err := c.conn.Exec(ctx, statement)
		if err != nil {
			err = fmt.Errorf("%s: %w", statement, err)
		}
		c.busy <- err
	}()
	if wait {
		c.await(s, fails)
		return
	}
	sourcetest.Eventually(s, "it waits for a lock", func() bool {
		return len(c.busy) > 0 || s.text("SELECT count(*) FROM pg_stat_activity WHERE pid = %d AND wait_event_type = 'Lock'", c.conn.PgConn().PID()) == "1"
	})
}

// await waits for the end of the statement at hand.
func (c *session) await(s *decodingScript, fails bool) {
	s.Helper()
	if c.busy == nil {
		return
	}
	err := <-c.busy
	c.busy = nil
	if fails {
		require.Error(s, err)
	} else {
		require.NoError(s, err)
	}
}

// arrived waits until all that was committed has come, checks it where it can, and returns what is new.
func (s *decodingScript) arrived() string {
	s.Helper()
	if s.source == nil {
		return ""
	}
	s.marks++
	s.exec("UPDATE mark SET n = %d", s.marks)
	sourcetest.Eventually(s, "what was committed", func() bool {
		mark := s.sink.Graph()["mark:1"]
		return mark.Get("n").Kind() == graph.KindInt && mark.Get("n").AsInt() == s.marks
	})
	open := s.prepared() != ""
	for _, session := range s.sessions {
		open = open || session.conn.PgConn().TxStatus() != 'I'
	}
	if !open {
		agree(s, s.source, s.sink)
		for _, table := range s.tables {
			require.Equal(s, s.rows(table), elements(s.db, table, s.sink.Graph()), table.Name)
		}
	}
	var out strings.Builder
	all := s.sink.Transactions()
	for _, tx := range all[s.shown:] {
		if len(tx.Changes) > 0 && !tx.Changes[0].Element.HasLabel("mark") { // without any it tells of DDL, if it was looked at before a row came
			out.WriteString(showChanges(tx.Changes) + "commit\n")
		}
	}
	s.shown = len(all)
	return out.String()
}

const (
	longest  = 40 // bytes of a value that are shown
	mostKind = 6  // changes of a kind in a row that are shown
)

var longText = regexp.MustCompile(fmt.Sprintf(`"([^"\\]{%d})[^"\\]*"`, longest))

func showChanges(changes []graph.Change) string {
	var out strings.Builder
	kind := func(c graph.Change) string {
		return map[graph.Op]string{graph.OpInsert: "+", graph.OpUpdate: "~", graph.OpDelete: "-"}[c.Op] + " " + strings.Join(c.Element.Labels, ":")
	}
	for len(changes) > 0 {
		n := 1
		for n < len(changes) && kind(changes[n]) == kind(changes[0]) {
			n++
		}
		for _, c := range changes[:n] {
			switch {
			case n > mostKind:
				fmt.Fprintf(&out, "%s, %d times\n", kind(c), n)
			case c.Op == graph.OpTruncate:
				fmt.Fprintf(&out, "truncate %s\n", c.Element.Labels[0])
			case c.Op == graph.OpDelete:
				fmt.Fprintf(&out, "- %s\n", c.Element.ID)
			default:
				text := sourcetest.Text(&c.Element)
				text = longText.ReplaceAllStringFunc(text, func(long string) string { return fmt.Sprintf(`%s..." (%d)`, long[:longest], len(long)-2) })
				fmt.Fprintf(&out, "%c %s %s\n", kind(c)[0], c.Element.ID, text)
			}
			if n > mostKind {
				break
			}
		}
		changes = changes[n:]
	}
	return out.String()
}

// plainTypes are those that JSON shows as we do.
const plainTypes = "'bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'text'::regtype, 'varchar'::regtype"

// rows returns the rows of a table as SQL shows them: the columns of plain types, as JSON.
func (d db) rows(table watchedTable) (rows []string) {
	d.Helper()
	distinct := ""
	if table.WholeRow {
		distinct = "DISTINCT ON (\"~row\"::text)"
	}
	only := ""
	if d.text("SELECT relkind FROM pg_class WHERE oid = %s::regclass", quoted(table.Name)) != "p" {
		only = "ONLY"
	}
	all := d.text(`SELECT coalesce(json_agg(j), '[]') FROM (SELECT %s (SELECT coalesce(jsonb_object_agg(key, value), '{}') FROM jsonb_each(to_jsonb("~row"))
			JOIN pg_attribute ON attrelid = %s::regclass AND attname = key AND attgenerated = '' AND atttypid IN (%s) WHERE value <> 'null') j FROM %s %s "~row") s`,
		distinct, quoted(table.Name), plainTypes, only, table.Name)
	var parsed []map[string]any
	decoder := json.NewDecoder(strings.NewReader(all))
	decoder.UseNumber()
	require.NoError(d, decoder.Decode(&parsed))
	for _, row := range parsed {
		rows = append(rows, encode(d, row))
	}
	slices.Sort(rows)
	return rows
}

// elements returns the nodes of a table in the form of rows.
func elements(d db, table watchedTable, g sourcetest.Graph) (rows []string) {
	d.Helper()
	label := table.Label
	if label == "" {
		label = table.Name[strings.LastIndexByte(table.Name, '.')+1:]
	}
	plain := strings.Split(d.text("SELECT string_agg(attname, ',') FROM pg_attribute WHERE attrelid = %s::regclass AND attgenerated = '' AND atttypid IN (%s)", quoted(table.Name), plainTypes), ",")
	for _, e := range g {
		if !e.HasLabel(label) || e.IsRelationship() {
			continue
		}
		row := map[string]any{}
		for _, name := range plain {
			switch v := e.Get(name); v.Kind() {
			case graph.KindNull:
			case graph.KindInt:
				row[name] = v.AsInt()
			case graph.KindBool:
				row[name] = v.AsBool()
			case graph.KindString:
				row[name] = v.AsString()
			default:
				row[name] = sourcetest.ValueText(v)
			}
		}
		rows = append(rows, encode(d, row))
	}
	slices.Sort(rows)
	return rows
}

func quoted(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

func encode(t testing.TB, v any) string {
	var b bytes.Buffer
	require.NoError(t, json.NewEncoder(&b).Encode(v))
	return b.String()
}
