package postgres_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// TestJoinTable: rows that are relationships. The spec says no more than table and type.
func TestJoinTable(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE student (id int PRIMARY KEY); CREATE TABLE course (code text PRIMARY KEY); INSERT INTO student VALUES (1), (2), (3);  INSERT INTO course VALUES ('a'), ('b');
		CREATE TABLE enrolment (grade numeric, student_id int REFERENCES student ON DELETE CASCADE ON UPDATE CASCADE, course text REFERENCES course ON UPDATE CASCADE, note text, PRIMARY KEY (course, student_id))`)
	s := d.source(`"tables": [{"name": "student"}, {"name": "enrolment", "type": "IN"}, {"name": "course", "label": "Course"}]`)
	sink := sourcetest.NewSink("", d.snapshot(s)...)
	running(t, s, "", sink)
	for _, step := range []struct {
		statement string
		want      map[graph.ElementID]string
	}{
		{"INSERT INTO enrolment VALUES (1.5, 1, 'a', 'x'), (NULL, 2, 'a', NULL)", map[graph.ElementID]string{
			"IN:a,1": `IN (student:1)->(Course:a) grade=decimal 1.5 note="x"`, "IN:a,2": "IN (student:2)->(Course:a)"}},
		{"UPDATE enrolment SET grade = 2, note = " + incompressible + " WHERE student_id = 1; UPDATE enrolment SET note = 'y' WHERE student_id = 2; UPDATE enrolment SET note = 'z' WHERE student_id = 1", map[graph.ElementID]string{
			"IN:a,1": `IN (student:1)->(Course:a) grade=decimal 2 note="z"`, "IN:a,2": `IN (student:2)->(Course:a) note="y"`}},
		{"UPDATE enrolment SET course = 'b' WHERE student_id = 2; UPDATE student SET id = 7 WHERE id = 1", map[graph.ElementID]string{
			"IN:a,7": `IN (student:7)->(Course:a) grade=decimal 2 note="z"`, "IN:b,2": `IN (student:2)->(Course:b) note="y"`}},
		{"DELETE FROM student WHERE id = 7", map[graph.ElementID]string{"IN:b,2": `IN (student:2)->(Course:b) note="y"`}},
		{"BEGIN; DELETE FROM enrolment; INSERT INTO enrolment VALUES (1, 3, 'b', NULL); COMMIT", map[graph.ElementID]string{"IN:b,3": `IN (student:3)->(Course:b) grade=decimal 1`}},
		{"TRUNCATE enrolment", map[graph.ElementID]string{}},
	} {
		d.exec("%s", step.statement)
		all := agree(t, s, sink)
		for id := range all {
			if e := sink.Graph()[id]; !e.IsRelationship() {
				delete(all, id)
			}
		}
		require.Equal(t, step.want, all, step.statement)
	}
	require.Len(t, sink.Graph(), 4, "the nodes stay")
}

// snapshot returns what a snapshot has.
func (d db) snapshot(s source.Snapshotter) []graph.Element {
	d.Helper()
	snapshot, release := hold(d, s)
	defer release()
	return readAll(d, s, snapshot)
}

// TestJoinTableWithItsOwnKey: ends that are not in the key move, come and go, with large values that an update does not
// bring.
func TestJoinTableWithItsOwnKey(t *testing.T) {
	for _, identity := range []string{"DEFAULT", "FULL"} {
		t.Run(identity, func(t *testing.T) { testOwnKey(t, identity) })
	}
}

func testOwnKey(t *testing.T, identity string) {
	d := newDB(t)
	d.exec(`CREATE TABLE node (a int, b text, PRIMARY KEY (b, a)); INSERT INTO node VALUES (1, 'x'), (2, 'x'), (3, 'x');
		CREATE TABLE follows (id int PRIMARY KEY, to_b text, to_a int, from_a int, from_b text, weight float, body text, FOREIGN KEY (from_a, from_b) REFERENCES node (a, b), FOREIGN KEY (to_a, to_b) REFERENCES node (a, b) ON DELETE SET NULL);
		ALTER TABLE follows ALTER from_b SET STORAGE EXTERNAL; ALTER TABLE node ALTER b SET STORAGE EXTERNAL;
		ALTER TABLE follows REPLICA IDENTITY %[1]s; INSERT INTO node SELECT 4, left(%[2]s, 2500); INSERT INTO follows VALUES (9, NULL, NULL, 1, 'x', 1, %[2]s)`, identity, incompressible)
	s := d.source(`"tables": [{"name": "node"}, {"name": "follows", "type": "FOLLOWS", "start": {"columns": ["from_b", "from_a"]}}]`)
	sink := sourcetest.NewSink("", d.snapshot(s)...)
	running(t, s, "", sink)
	body := d.text("SELECT " + incompressible)
	short := strings.NewReplacer(body, "BODY", body[:2500], "LARGE")
	for _, step := range []struct{ statement, want string }{
		{"UPDATE follows SET to_a = 2, to_b = 'x'", ""}, // an end was missing when the stream began
		{"DELETE FROM follows", ""},
		{"INSERT INTO follows VALUES (1, 'x', 2, 1, 'x', 1, BODY)", `FOLLOWS (node:x,1)->(node:x,2) body="BODY" id=1 weight=float 1`},
		{"UPDATE follows SET weight = 2", `FOLLOWS (node:x,1)->(node:x,2) body="BODY" id=1 weight=float 2`},
		{"UPDATE follows SET to_a = 3", `FOLLOWS (node:x,1)->(node:x,3) body="BODY" id=1 weight=float 2`},
		{"DELETE FROM node WHERE a = 3", ``},
		{"UPDATE follows SET weight = 3", ``},
		{"UPDATE follows SET to_a = 2, to_b = 'x'", `FOLLOWS (node:x,1)->(node:x,2) body="BODY" id=1 weight=float 3`},
		{"UPDATE follows SET from_a = NULL", ``},
		{"UPDATE follows SET from_a = 4, from_b = b FROM node WHERE a = 4", `FOLLOWS (node:LARGE,4)->(node:x,2) body="BODY" id=1 weight=float 3`},
		{"UPDATE follows SET from_a = NULL", ``},
		{"UPDATE follows SET from_a = 4", `FOLLOWS (node:LARGE,4)->(node:x,2) body="BODY" id=1 weight=float 3`},
		{"UPDATE follows SET id = 2, weight = 4; UPDATE follows SET id = 1", `FOLLOWS (node:LARGE,4)->(node:x,2) body="BODY" id=1 weight=float 4`},
		{"UPDATE follows SET to_a = from_a, to_b = from_b", `FOLLOWS (node:LARGE,4)->(node:LARGE,4) body="BODY" id=1 weight=float 4`},
		{"DELETE FROM follows", ``},
	} {
		d.exec("%s", strings.ReplaceAll(step.statement, "BODY", incompressible))
		require.Equal(t, step.want, short.Replace(agree(t, s, sink)["FOLLOWS:1"]), step.statement)
	}
}

// TestEndsThatAreNotNull: nothing needs to be read then, but for ends that are large themselves; and nothing is lost where
// they may be null by now.
func TestEndsThatAreNotNull(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE big (name text PRIMARY KEY); ALTER TABLE big ALTER name SET STORAGE EXTERNAL; INSERT INTO big SELECT left(%s, 2500);
		CREATE TABLE far (id int PRIMARY KEY, a text NOT NULL REFERENCES big, b text NOT NULL REFERENCES big, v int); ALTER TABLE far ALTER a SET STORAGE EXTERNAL;
		CREATE TABLE node (id int PRIMARY KEY); INSERT INTO node VALUES (1); CREATE TABLE j (id int PRIMARY KEY, a int NOT NULL REFERENCES node, b int NOT NULL REFERENCES node, v int, body text)`, incompressible)
	s := d.source(`"tables": [{"name": "node"}, {"name": "j", "type": "J"}, {"name": "big"}, {"name": "far", "type": "FAR"}]`)
	sink := sourcetest.NewSink("", d.snapshot(s)...)
	running(t, s, "", sink)
	d.exec("INSERT INTO j VALUES (1, 1, 1, 1, %s)", incompressible)
	d.exec("UPDATE j SET v = 2")
	agree(t, s, sink)
	update := sink.Transactions()[1].Changes[0].Element
	require.Equal(t, graph.KindUnchanged, update.Get("body").Kind(), "nothing needs to be read")
	d.exec("ALTER TABLE j ALTER a DROP NOT NULL")
	d.exec("UPDATE j SET a = NULL")
	d.exec("UPDATE j SET a = 1")
	require.Contains(t, agree(t, s, sink), graph.ElementID("J:1"))
	d.exec("INSERT INTO far SELECT 1, name, name, 1 FROM big; UPDATE far SET v = 2")
	require.Contains(t, agree(t, s, sink)["FAR:1"], " id=1 v=2")
}

// TestJoinTableForms: partitioned ones, ones without a key, foreign keys to partitioned tables, and foreign keys that the
// database does not know.
func TestJoinTableForms(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE node (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE node1 PARTITION OF node FOR VALUES FROM (0) TO (10); CREATE TABLE node2 PARTITION OF node FOR VALUES FROM (10) TO (20); INSERT INTO node VALUES (1), (2), (11);
		CREATE TABLE parted (a int REFERENCES node, b int REFERENCES node, v int, PRIMARY KEY (a, b)) PARTITION BY LIST (a); CREATE TABLE parted1 PARTITION OF parted FOR VALUES IN (1); CREATE TABLE parted2 PARTITION OF parted DEFAULT;
		CREATE TABLE keyless (a int REFERENCES node, b int REFERENCES node, v text); ALTER TABLE keyless REPLICA IDENTITY FULL;
		CREATE TABLE loose (id int PRIMARY KEY, "From" int, "To" int, owner int REFERENCES node, v text, w text)`)
	s := d.source(`"tables": [{"name": "node"}, {"name": "parted", "type": "P"}, {"name": "keyless", "type": "K", "wholeRow": true},
		{"name": "loose", "type": "L", "start": {"columns": ["From"], "references": "node"}, "end": {"columns": ["To"], "references": "public.node"}, "columns": ["v"]}]`)
	sink := sourcetest.NewSink("", d.snapshot(s)...)
	running(t, s, "", sink)
	relationships := func(want int, step string) map[graph.ElementID]string {
		t.Helper()
		all := agree(t, s, sink)
		require.Len(t, all, 3+want, step)
		return all
	}
	d.exec("INSERT INTO parted VALUES (1, 2, 0), (2, 11, 0), (11, 1, 0); UPDATE parted SET v = 5 WHERE a = 2; UPDATE parted SET a = 1 WHERE a = 11; DELETE FROM parted WHERE a = 2")
	require.Equal(t, "P (node:1)->(node:1) v=0", relationships(2, "moved between partitions")["P:1,1"])
	d.exec("TRUNCATE parted; INSERT INTO keyless VALUES (1, 2, 'x'), (1, 2, 'x'), (1, 2, 'y'), (NULL, 1, NULL)")
	relationships(2, "identical rows are one relationship")
	const first = "ctid = (SELECT min(ctid) FROM keyless WHERE v = 'x')"
	d.exec("UPDATE keyless SET b = 11 WHERE %s", first)
	relationships(3, "a copy is left")
	d.exec("UPDATE keyless SET a = 1 WHERE a IS NULL; DELETE FROM keyless WHERE v = 'x' AND b = 2; UPDATE keyless SET b = NULL WHERE v = 'y'")
	relationships(2, "an end came, an end went")
	d.exec(`TRUNCATE keyless; INSERT INTO loose VALUES (1, 1, 2, 11, 'v', 'w'), (2, 5, 6, NULL, NULL, NULL)`)
	require.Equal(t, map[graph.ElementID]string{"node:1": "node id=1", "node:2": "node id=2", "node:11": "node id=11",
		"L:1": `L (node:1)->(node:2) id=1 v="v"`, "L:2": `L (node:5)->(node:6) id=2`}, relationships(2, "no constraint, no such nodes"))
	snapshot, release := hold(t, s)
	defer release()
	plan, err := s.PlanSnapshot(t.Context(), snapshot, source.Wanted{"L": reads()})
	require.NoError(t, err)
	require.Len(t, plan.Scopes, 1)
	require.Equal(t, `"public"."loose"`, plan.Scopes[0].Name, "a type selects its table")

	d.since("15") // column lists
	require.Equal(t, "{id,From,To,v}", d.text("SELECT attnames FROM pg_publication_tables WHERE tablename = 'loose'"))
	d.exec(`CREATE PUBLICATION theirs FOR TABLE node, loose (id, "From")`)
	err = d.unprovisioned(`"publication": "theirs", "tables": [{"name": "node"}, {"name": "loose", "type": "L", "start": {"columns": ["From"], "references": "node"}, "end": {"columns": ["To"], "references": "node"}}]`).Provision(t.Context())
	require.Equal(t, failure.PublicationConflict, failure.CodeOf(err), "%v", err)
	require.Contains(t, err.Error(), "leaves out columns of public.loose that are needed: To")
}

// TestUnclearEnds: where the catalog does not say which foreign keys are meant, the error lists them.
func TestUnclearEnds(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE a (id int PRIMARY KEY, code int UNIQUE NOT NULL); CREATE TABLE other (id int PRIMARY KEY) PARTITION BY HASH (id); CREATE TABLE other0 PARTITION OF other FOR VALUES WITH (MODULUS 1, REMAINDER 0);
		CREATE TABLE none (id int PRIMARY KEY, x int, y int REFERENCES other); CREATE TABLE one (id int PRIMARY KEY, x int REFERENCES a);
		CREATE TABLE three (id int PRIMARY KEY, x int REFERENCES a, y int REFERENCES a, z int REFERENCES a); CREATE TABLE coded (id int PRIMARY KEY, x int REFERENCES a, y int REFERENCES a (code))`)
	refused := func(tables string, code *failure.Code, texts ...string) {
		t.Helper()
		e := d.refused(code, `"tables": [{"name": "a"}, `+tables+`]`)
		for _, text := range texts {
			require.Contains(t, e.Error(), text)
		}
	}
	refused(`{"name": "none", "type": "N"}, {"name": "one", "type": "O"}, {"name": "three", "type": "T"}`, failure.ConfigInvalid,
		"tables[1]: which foreign keys of public.none are start and end is not clear: 2 wanted; those to nodes are: none; those to tables that are not nodes in the spec: (y) to public.other; give columns under start and end",
		"tables[2]: which foreign keys of public.one are start and end is not clear: 2 wanted; those to nodes are: (x) to public.a; ",
		"tables[3]: which foreign keys of public.three are start and end is not clear: 2 wanted; those to nodes are: (x) to public.a, (y) to public.a, (z) to public.a; ")
	refused(`{"name": "three", "type": "T", "end": {"columns": ["x"]}}`, failure.ConfigInvalid, "1 wanted; those to nodes are: (y) to public.a, (z) to public.a; ")
	refused(`{"name": "none", "type": "N", "start": {"columns": ["x"]}, "end": {"columns": ["y"]}}`, failure.ConfigInvalid, "the database knows 0 foreign keys (x) of public.none: say under references which table is meant")
	refused(`{"name": "none", "type": "N", "start": {"columns": ["y"]}, "end": {"columns": ["x"], "references": "a"}}`, failure.ConfigInvalid, "(y) of public.none references public.other, which is not one of tables whose rows are nodes")
	refused(`{"name": "three", "type": "T", "start": {"columns": ["nope"]}, "end": {"columns": ["y"]}}`, failure.ColumnMissing, "public.three.nope")
	refused(`{"name": "coded", "type": "C"}`, failure.ConfigInvalid, "(y) of public.coded does not reference the key (id) of public.a, from which the ids of its nodes are made: make what it references the key of that table in the spec")

	d.exec("CREATE UNIQUE INDEX code ON a (code); ALTER TABLE a REPLICA IDENTITY USING INDEX code")
	e := d.refused(failure.ConfigInvalid, `"tables": [{"name": "a", "key": ["code"]}, {"name": "coded", "type": "C"}]`)
	require.Contains(t, e.Error(), "(x) of public.coded does not reference the key (code)", "both must name the same key")
	s := d.source(`"tables": [{"name": "a", "key": ["code"]}, {"name": "coded", "type": "C", "start": {"columns": ["y"]}, "end": {"columns": ["y"], "references": "a"}}]`)
	d.exec("INSERT INTO a VALUES (1, 100); INSERT INTO coded VALUES (1, 1, 100)")
	require.Equal(t, "C (a:100)->(a:100) id=1 x=1", sourcetest.NewSink("", d.snapshot(s)...).Graph().Texts()["C:1"])
}

// TestForeignKeys: what happens to the relationships beside nodes when foreign keys, keys and what they name change.
func TestForeignKeys(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TABLE target (a text, b int, PRIMARY KEY (a, b)); ALTER TABLE target ALTER a SET STORAGE EXTERNAL; INSERT INTO target VALUES ('x', 1), ('x', 2), (left(%s, 2500), 1);
		CREATE TABLE owner (id int PRIMARY KEY, b int, a text, boss int REFERENCES owner ON DELETE CASCADE, FOREIGN KEY (a, b) REFERENCES target ON DELETE SET NULL ON UPDATE CASCADE); ALTER TABLE owner ALTER a SET STORAGE EXTERNAL`, incompressible)
	s := d.source(`"tables": [{"name": "target"}, {"name": "owner"}], "relationships": [{"type": "OF", "table": "owner", "columns": ["b", "a"]}, {"type": "BOSS", "table": "owner", "columns": ["boss"]}]`)
	sink := sourcetest.NewSink("", d.snapshot(s)...)
	running(t, s, "", sink)
	short := strings.NewReplacer(d.text("SELECT a FROM target WHERE a <> 'x'"), "LARGE")
	for _, step := range []struct{ statement, of, boss string }{
		{"INSERT INTO owner VALUES (1, 1, 'x', NULL), (2, 1, NULL, 1)", "OF (owner:1)->(target:x,1)", ""},
		{"UPDATE owner SET b = NULL WHERE id = 1", "", ""},
		{"UPDATE owner SET b = 2, boss = 1 WHERE id = 1", "OF (owner:1)->(target:x,2)", "BOSS (owner:1)->(owner:1)"},
		{"UPDATE target SET b = 3 WHERE b = 2", "OF (owner:1)->(target:x,3)", "BOSS (owner:1)->(owner:1)"},
		{"DELETE FROM target WHERE b = 3", "", "BOSS (owner:1)->(owner:1)"},
		{"UPDATE owner SET a = target.a, b = target.b FROM target WHERE target.a <> 'x' AND id = 1", "OF (owner:1)->(target:LARGE,1)", "BOSS (owner:1)->(owner:1)"},
		{"UPDATE owner SET boss = NULL WHERE id = 1", "OF (owner:1)->(target:LARGE,1)", ""},
		{"UPDATE owner SET b = NULL WHERE id = 1", "", ""},
		{"UPDATE owner SET b = 1 WHERE id = 1", "OF (owner:1)->(target:LARGE,1)", ""}, // the large part did not change
		{"UPDATE owner SET boss = NULL; UPDATE owner SET id = 3 WHERE id = 1; UPDATE owner SET id = 1, boss = 1 WHERE id = 3; UPDATE owner SET boss = 1 WHERE id = 2", "OF (owner:1)->(target:LARGE,1)", "BOSS (owner:1)->(owner:1)"},
		{"DELETE FROM owner WHERE id = 1", "", ""}, // cascades
	} {
		d.exec("%s", step.statement)
		all := agree(t, s, sink)
		require.Equal(t, []string{step.of, step.boss}, []string{short.Replace(all["OF:1"]), all["BOSS:1"]}, step.statement)
	}
	require.Empty(t, d.text("SELECT string_agg(id::text, ' ') FROM owner"))
}

// TestBadJoinRow: a row that cannot be decoded leaves its relationship as it was.
func TestBadJoinRow(t *testing.T) {
	d := newDBIn(t, "SQL_ASCII")
	d.exec("CREATE TABLE node (id int PRIMARY KEY); INSERT INTO node VALUES (1); CREATE TABLE j (id int PRIMARY KEY, a int REFERENCES node, b int REFERENCES node, v text)")
	settings := d.settings()
	letters := make(chan source.DeadLetter, 1)
	settings.Reject = func(_ context.Context, letter source.DeadLetter) error { letters <- letter; return nil }
	s := d.sourceWith(`"tables": [{"name": "node"}, {"name": "j", "type": "J"}]`, settings)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO j VALUES (1, 1, 1, 'v')")
	d.exec(`UPDATE j SET b = NULL, v = E'\xfc'; INSERT INTO j VALUES (2, 1, 1, 'w')`)
	wantTexts(t, sink, map[graph.ElementID]string{"J:1": `J (node:1)->(node:1) id=1 v="v"`, "J:2": `J (node:1)->(node:1) id=2 v="w"`})
	require.Equal(t, "public.j", (<-letters).Scope)
}
