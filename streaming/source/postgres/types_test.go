package postgres_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

const (
	asShown  = ""  // the value is the text that the server shows
	anything = "?" // only that snapshot and stream agree counts
)

// typeCases: a type, an expression for a value of it and how that looks.
var typeCases = []struct{ kind, value, want string }{
	{"boolean", "true", "true"},
	{"smallint", "-32768", "-32768"},
	{"integer", "2147483647", "2147483647"},
	{"bigint", "-9223372036854775808", "-9223372036854775808"},
	{"oid", "4294967295", "4294967295"},
	{"xid", "'4294967295'", "4294967295"},
	{"cid", "'7'", "7"},
	{"xid8", "'7'", "7"},
	{"xid8", "'18446744073709551615'", "decimal 18446744073709551615"},
	{"real", "0.1", "float 0.1"},
	{"real", "-3", "float -3"},
	{"real", "'Infinity'", "float +Inf"},
	{"double precision", "0.30000000000000004", "float 0.30000000000000004"},
	{"double precision", "'NaN'", "float NaN"},
	{"double precision", "'-0'", "float -0"},
	{"double precision", "5e-324", "float 5e-324"},
	{"numeric", "0", "decimal 0"},
	{"numeric(10, 2)", "-1.5", "decimal -1.50"},
	{"numeric", "10000", "decimal 10000"},
	{"numeric", "0.0001000", "decimal 0.0001000"},
	{"numeric", "100000000000000000000000000000000.000000000000000000000000001", "decimal 100000000000000000000000000000000.000000000000000000000000001"},
	{"numeric", "1234567890123456789", "decimal 1234567890123456789"},
	{"numeric", "99999999999999.9999", "decimal 99999999999999.9999"},
	{"numeric", "1e100", "decimal 1" + strings.Repeat("0", 100)},
	{"numeric", "repeat('9', 131072)::numeric", "decimal " + strings.Repeat("9", 131072)},
	{"numeric", "'NaN'", "decimal NaN"},
	{"numeric", "'Infinity'", "decimal Infinity"},
	{"numeric", "'-Infinity'", "decimal -Infinity"},
	{"money", "12.5", "decimal 12.50"},
	{"money", "'-92233720368547758.08'", "decimal -92233720368547758.08"},
	{"text", "'grüße\n\"'", `"grüße\n\""`},
	{"text", "''", `""`},
	{"varchar(5)", "'ab '", `"ab "`},
	{"char(5)", "'ab'", `"ab"`},
	{"name", "'n'", `"n"`},
	{`"char"`, "'c'", `"c"`},
	{`"char"`, "''", `""`},
	{"bytea", `'\xdeadbeef'`, `"3q2+7w=="`},
	{"uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
	{"date", "'2024-02-29'", "DATE 2024-02-29"},
	{"date", "'infinity'", `"infinity"`},
	{"date", "'-infinity'", `"-infinity"`},
	{"date", "'1969-12-31'", "DATE 1969-12-31"},
	{"date", "'0044-03-15 BC'", "DATE -0043-03-15"},
	{"date", "'4713-01-01 BC'", "DATE -4712-01-01"},
	{"date", "'5874897-12-31'", "DATE 5874897-12-31"},
	{"time", "'23:59:59.999999'", "LOCAL TIME 23:59:59.999999"},
	{"time", "'24:00'", `"24:00:00"`},
	{"timetz", "'01:02:03+02'", "ZONED TIME 01:02:03+7200s"},
	{"timetz", "'24:00:00-03:30'", `"24:00:00-03:30"`},
	{"timetz", "'01:02:03-15:59:59'", "ZONED TIME 01:02:03-57599s"},
	{"timestamp", "'1999-12-31 23:59:59.5'", "LOCAL DATETIME 1999-12-31T23:59:59.5"},
	{"timestamp", "'infinity'", `"infinity"`},
	{"timestamp", "'-infinity'", `"-infinity"`},
	{"timestamp", "'4713-01-01 00:00:00.000001 BC'", "LOCAL DATETIME -4712-01-01T00:00:00.000001"},
	{"timestamp", "'294276-12-31 23:59:59.999999'", "LOCAL DATETIME 294276-12-31T23:59:59.999999"},
	{"timestamptz", "'2024-06-01 12:00:00.000001+02'", "ZONED DATETIME 2024-06-01T10:00:00.000001Z"},
	{"timestamptz", "'infinity'", `"infinity"`},
	{"timestamptz", "'0001-01-01 00:00:00+00 BC'", "ZONED DATETIME 0000-01-01T00:00:00Z"},
	{"timestamptz", "'10000-01-01 00:00:00+00'", "ZONED DATETIME 10000-01-01T00:00:00Z"},
	{"interval", "'1 year 2 mons -3 days 04:05:06.7'", "DURATION P14M-3DT14706S700000000N"},
	{"interval", "'-0.5 seconds'", "DURATION P0M0DT0S-500000000N"},
	{"json", `'{"b": [1, 2.50, 1e3, null, true], "a": {"\u00e9\ud83d\ude00": "x\ty"}, "b": 9007199254740993}'`, `{a: {é😀: "x\ty"}, b: 9007199254740993}`},
	{"json", "'[1e100, 1e-3, 1e999999999]'", `[decimal 1` + strings.Repeat("0", 100) + `, decimal 0.001, "1e999999999"]`},
	{"jsonb", `'{"z": 123456789012345678901234567890, "y": [], "x": {}, "w": 1.10}'`, `{w: decimal 1.10, x: {}, y: [], z: decimal 123456789012345678901234567890}`},
	{"jsonb", `'"text"'`, `"text"`},
	{"jsonb", `'null'`, `null`},
	{"jsonpath", "'$.a[*] ? (@ > 1)'", asShown},
	{"xml", "'<a>ü</a>'", asShown},
	{"inet", "'10.1.2.3/8'", `"10.1.2.3/8"`},
	{"inet", "'10.1.2.3'", `"10.1.2.3"`},
	{"inet", "'::1'", `"::1"`},
	{"inet", "'::ffff:1.2.3.4'", `"::ffff:1.2.3.4"`},
	{"inet", "'::1.2.3.4/100'", `"::1.2.3.4/100"`},
	{"inet", "'::3:4'", asShown},
	{"inet", "'1:0:0:2:0:0:0:3'", asShown},
	{"inet", "'1:0:2:3:4:5:6:7'", asShown},
	{"cidr", "'10.0.0.0/8'", `"10.0.0.0/8"`},
	{"cidr", "'2001:db8::/32'", `"2001:db8::/32"`},
	{"macaddr", "'08:00:2b:01:02:03'", `"08:00:2b:01:02:03"`},
	{"macaddr8", "'08:00:2b:01:02:03:04:05'", `"08:00:2b:01:02:03:04:05"`},
	{"bit(3)", "B'101'", `"101"`},
	{"varbit", "B'0000000011'", `"0000000011"`},
	{"varbit", "B''", `""`},
	{"pg_lsn", "'16/B374D848'", `"16/B374D848"`},
	{"tid", "'(4294967295,2)'", `"(4294967295,2)"`},
	{"refcursor", "'c'", `"c"`},
	{"point", "'(1,2.5)'", `"(1,2.5)"`},
	{"point", "'(1e15,-123456789012345)'", asShown},
	{"point", "'(0.0001,0.00001)'", asShown},
	{"point", "'(NaN,-Infinity)'", asShown},
	{"point", "'(-0,1.7976931348623157e308)'", asShown},
	{"line", "'{1,2.5,-3}'", asShown},
	{"lseg", "'[(1,2),(3,4)]'", asShown},
	{"box", "'(1,2),(3,4)'", asShown},
	{"path", "'((1,2),(3,4),(5,6))'", asShown},
	{"path", "'[(1,2),(3,4)]'", asShown},
	{"polygon", "'((1,2),(3,4),(5,0.1))'", asShown},
	{"circle", "'<(1,2),3>'", asShown},
	{"tsvector", `'a fat ''cat'' b\\c:1A,2B,3C,4 d''''e:16383'`, asShown},
	{"tsvector", "''", asShown},
	{"tsquery", "'(a & !b:*A) <2> c | ''x y'''", asShown},
	{"regclass", "'pg_class'", asShown},
	{"regcollation", `'"C"'`, asShown},
	{"regconfig", "'english'", asShown},
	{"regdictionary", "'simple'", asShown},
	{"regnamespace", "'public'", asShown},
	{"regoper", "'||/'", asShown},
	{"regoperator", "'+(int4,int4)'", asShown},
	{"regproc", "'int4in'", asShown},
	{"regprocedure", "'abs(int4)'", asShown},
	{"regrole", "'postgres'", asShown},
	{"regtype", "'int4'", asShown},
	{"pg_snapshot", "'10:20:10,14'", asShown},
	{"txid_snapshot", "'10:20:10,14'", asShown},
	{"aclitem", "'postgres=r/postgres'", asShown},
	{"gtsvector", "NULL", anything}, // there is no way to make one
	{"pg_node_tree", "(SELECT adbin FROM pg_attrdef LIMIT 1)", asShown},
	{"pg_ndistinct", "(SELECT stxdndistinct FROM pg_statistic_ext_data)", anything},
	{"pg_dependencies", "(SELECT stxddependencies FROM pg_statistic_ext_data)", anything},
	{"pg_mcv_list", "(SELECT stxdmcv FROM pg_statistic_ext_data)", anything},
	{"pg_brin_bloom_summary", "NULL", anything}, // occur in indexes only
	{"pg_brin_minmax_multi_summary", "NULL", anything},
	{"int2vector", "'1 -2'", "[1, -2]"},
	{"oidvector", "'1 2'", "[1, 2]"},
	{"int[]", "'{1,NULL,3}'", "[1, null, 3]"},
	{"int[]", "'{}'", "[]"},
	{"int[]", "'[0:1]={7,8}'", "[7, 8]"},
	{"int[]", "'{{{1,2}},{{3,4}}}'", "[[[1, 2]], [[3, 4]]]"},
	{"text[]", `'{{a,"b c"},{" pad ","NULL"}}'`, `[["a", "b c"], [" pad ", "NULL"]]`},
	{"jsonb[]", `ARRAY['{"a":1}'::jsonb]`, "[{a: 1}]"},
	{"mood", "'happy'", `"happy"`},
	{"positive", "7", "7"},
	{"positives", "8", "8"},
	{"moods", "'{happy,sad}'", `["happy", "sad"]`},
	{"information_schema.cardinal_number", "1", "1"},
	{"information_schema.character_data", "'x'", `"x"`},
	{"information_schema.sql_identifier", "'x'", `"x"`},
	{"information_schema.time_stamp", "'2024-06-01 12:00:00+00'", "ZONED DATETIME 2024-06-01T12:00:00Z"},
	{"information_schema.yes_or_no", "'YES'", `"YES"`},
	{"pair", "ROW(1, 'a b', NULL)", `{Z: null, n: 1, s: "a b"}`},
	{"nested", "ROW(ROW(1, 'x', 2.50)::pair, ARRAY[ROW(2, NULL, NULL)::pair])", `{p: {Z: decimal 2.50, n: 1, s: "x"}, q: [{Z: null, n: 2, s: null}]}`},
	{"pairs", "ROW(1, 'x', NULL)", `{Z: null, n: 1, s: "x"}`},
	{"int4range", "'[1,5)'", "{empty: false, lower: 1, lowerInc: true, upper: 5, upperInc: false}"},
	{"int4range", "'empty'", "{empty: true, lower: null, lowerInc: false, upper: null, upperInc: false}"},
	{"int8range", "'(,5]'", "{empty: false, lower: null, lowerInc: false, upper: 6, upperInc: false}"},
	{"numrange", "'(1.50,2.0]'", "{empty: false, lower: decimal 1.50, lowerInc: false, upper: decimal 2.0, upperInc: true}"},
	{"daterange", "'[2024-01-01,infinity]'", `{empty: false, lower: DATE 2024-01-01, lowerInc: true, upper: "infinity", upperInc: true}`},
	{"tsrange", "'(,)'", "{empty: false, lower: null, lowerInc: false, upper: null, upperInc: false}"},
	{"tstzrange", "'[2024-01-01 00:00+00,)'", "{empty: false, lower: ZONED DATETIME 2024-01-01T00:00:00Z, lowerInc: true, upper: null, upperInc: false}"},
	{"textrange", "'[a,b]'", `{empty: false, lower: "a", lowerInc: true, upper: "b", upperInc: true}`},
	{"int4multirange", "'{[1,3),[5,7)}'", "[{empty: false, lower: 1, lowerInc: true, upper: 3, upperInc: false}, {empty: false, lower: 5, lowerInc: true, upper: 7, upperInc: false}]"},
	{"int8multirange", "'{}'", "[]"},
	{"nummultirange", "'{(,1)}'", "[{empty: false, lower: null, lowerInc: false, upper: decimal 1, upperInc: false}]"},
	{"datemultirange", "'{[2024-01-01,2024-01-02)}'", "[{empty: false, lower: DATE 2024-01-01, lowerInc: true, upper: DATE 2024-01-02, upperInc: false}]"},
	{"tsmultirange", "'{(,)}'", "[{empty: false, lower: null, lowerInc: false, upper: null, upperInc: false}]"},
	{"tstzmultirange", "'{}'", "[]"},
	{"textmultirange", "'{[a,b]}'", `[{empty: false, lower: "a", lowerInc: true, upper: "b", upperInc: true}]`},
	{"citext", "'Mixed'", `"Mixed"`},
	{"hstore", `'a=>1, b=>NULL'`, asShown},
	{"ltree", "'a.b'", asShown},
	{"isbn", "'978-0-393-04002-9'", asShown},
	{"cube", "'(1,2.5),(3,4)'", asShown},
}

// unsendable are types that no array or row type with one of them can be sent for.
var unsendable = []string{"aclitem", "gtsvector", "isbn"}

func (d db) createTypes() {
	d.exec(`CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
		CREATE DOMAIN positives AS positive; CREATE DOMAIN moods AS mood[]; CREATE TYPE pair AS (n int, s text, gone int, "Z" numeric);
		ALTER TYPE pair DROP ATTRIBUTE gone; CREATE TYPE nested AS (p pair, q pair[]);
		CREATE DOMAIN pairs AS pair; CREATE TYPE textrange AS RANGE (subtype = text)`)
	d.exec(`CREATE TABLE measured AS SELECT i %% 3 AS a, i %% 3 AS b, 7 AS c FROM generate_series(1, 100) i; ALTER TABLE measured ALTER c SET DEFAULT 1;
		CREATE STATISTICS measures (ndistinct, dependencies, mcv) ON a, b FROM measured; ANALYZE measured`)
}

// TestTypes shows for all types of a server that a value is the same in the snapshot and in the stream, and what it
// should be; so also for arrays of them and for nulls.
func TestTypes(t *testing.T) {
	d := newDB(t)
	d.createTypes()
	cases := typeCases
	for _, name := range []string{"hstore", "citext", "ltree", "isn", "cube"} {
		if d.text("SELECT count(*) FROM pg_available_extensions WHERE name = '%s'", name) == "1" {
			d.exec("CREATE EXTENSION %s", name)
		} else {
			cases = slices.DeleteFunc(slices.Clone(cases), func(c struct{ kind, value, want string }) bool {
				return c.kind == name || c.kind == "isbn" && name == "isn"
			})
		}
	}
	// What the server's own settings would change must not matter.
	d.exec(`ALTER DATABASE %s SET datestyle = 'German'; ALTER DATABASE %[1]s SET bytea_output = 'escape'; ALTER DATABASE %[1]s SET timezone = 'Asia/Tokyo';
		ALTER DATABASE %[1]s SET intervalstyle = 'iso_8601'; ALTER DATABASE %[1]s SET extra_float_digits = -3`, d.text("SELECT current_database()"))
	var columns, values, arrays, lists []string
	for i, c := range cases {
		columns = append(columns, fmt.Sprintf("c%d %s", i, c.kind))
		values = append(values, c.value)
		arrayOf := d.text("SELECT CASE WHEN typarray = 0 THEN 0 ELSE 1 END FROM pg_type WHERE oid = '%s'::regtype", strings.ReplaceAll(c.kind, "'", "''"))
		if arrayOf == "1" && !strings.HasSuffix(c.kind, "[]") && !slices.Contains(unsendable, c.kind) {
			arrays = append(arrays, fmt.Sprintf("c%d %s[]", i, c.kind))
			lists = append(lists, fmt.Sprintf("(SELECT one(c%d, '%s') FROM scalars)", i, c.kind))
		}
	}
	// one makes an array of a value and null, through text since an array of arrays would be another thing.
	d.exec(`CREATE FUNCTION one(v anyelement, kind regtype) RETURNS text LANGUAGE sql AS $$
		SELECT '{' || CASE WHEN num_nulls(v) = 0 THEN '"' || replace(replace(format('%%s', v), '\', '\\'), '"', '\"') || '"' ELSE 'NULL' END
			|| (SELECT typdelim::text FROM pg_type WHERE oid = kind) || 'NULL}' $$`)
	d.exec(`CREATE TABLE scalars (id int PRIMARY KEY, %s); CREATE TABLE arrays (id int PRIMARY KEY, %s)`, strings.Join(columns, ", "), strings.Join(arrays, ", "))
	s := d.source(`"tables": [{"name": "scalars"}, {"name": "arrays"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO scalars VALUES (1, %s)`, strings.Join(values, ", "))
	for i := range lists {
		lists[i] += "::" + strings.SplitN(arrays[i], " ", 2)[1]
	}
	d.exec(`SET extra_float_digits = 3; SET intervalstyle = postgres; SET datestyle = 'ISO'; SET bytea_output = hex; SET lc_monetary = 'C';
		INSERT INTO arrays VALUES (1, %s); INSERT INTO scalars VALUES (2%s); INSERT INTO arrays VALUES (2%s)`, strings.Join(lists, ", "),
		strings.Repeat(", NULL", len(values)), strings.Repeat(", NULL", len(lists)))
	sourcetest.Eventually(t, "all rows", func() bool { return len(sink.Graph()) == 4 })

	snapshot, _ := hold(t, s)
	streamed, read := sink.Graph(), sourcetest.NewSink("", readAll(t, s, snapshot)...).Graph()
	require.Equal(t, streamed.Texts(), read.Texts())
	require.Equal(t, "scalars id=2", streamed.Texts()["scalars:2"])
	require.Equal(t, "arrays id=2", streamed.Texts()["arrays:2"])
	row, list := streamed["scalars:1"], streamed["arrays:1"]
	for i, c := range cases {
		name := fmt.Sprintf("c%d", i)
		got, want := row.Get(name), c.want
		switch want {
		case anything:
			want = sourcetest.ValueText(got)
		case asShown:
			shown := d.text("SET extra_float_digits = 3; SELECT format('%%s', %s) FROM scalars WHERE id = 1", name)
			want = sourcetest.ValueText(graph.String(shown))
		}
		require.Equal(t, want, sourcetest.ValueText(got), c.kind)
		if v := list.Get(name); !v.IsNull() {
			require.Equal(t, "["+want+", null]", sourcetest.ValueText(v), "%s[]", c.kind)
		} else {
			require.False(t, slices.ContainsFunc(arrays, func(column string) bool { return strings.HasPrefix(column, name+" ") }), c.kind)
		}
	}
	require.Empty(t, d.text(`SELECT string_agg(format_type(oid, NULL), ', ') FROM pg_type WHERE typtype NOT IN ('p', 'c') AND typsubscript <> 'array_subscript_handler'::regproc
		AND typnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
		AND oid NOT IN (SELECT atttypid FROM pg_attribute WHERE attrelid = 'scalars'::regclass)`), "types without a row in the table above")
}

// TestRowTypes: every table and view of the catalog is a type too. Those that the server cannot send are refused.
func TestRowTypes(t *testing.T) {
	d := newDB(t)
	d.createTypes()
	d.exec(`CREATE FUNCTION possible(kind regtype) RETURNS bool LANGUAGE plpgsql AS $$ BEGIN
		EXECUTE format('CREATE TABLE try (c %%s); DROP TABLE try', kind);
		EXECUTE format('SELECT r FROM %%s r LIMIT 1', kind); RETURN true; EXCEPTION WHEN invalid_table_definition OR internal_error THEN RETURN false; END $$`)
	const holdsUnsendable = `EXISTS (SELECT FROM pg_attribute a JOIN pg_type p ON p.oid = atttypid LEFT JOIN pg_type e ON e.oid = p.typelem
		WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped AND (p.typsend = 0 OR e.typsend = 0))`
	types := strings.Fields(d.text(`SELECT string_agg(t.oid::regtype::text, ' ' ORDER BY oid) FROM pg_type t
		WHERE typtype = 'c' AND typnamespace IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace) AND possible(oid) AND NOT ` + holdsUnsendable))
	require.Greater(t, len(types), 150)
	refused := strings.Fields(d.text(`SELECT string_agg(t.oid::regtype::text, ' ') FROM pg_type t
		WHERE typtype = 'c' AND typnamespace = 'pg_catalog'::regnamespace AND possible(oid) AND ` + holdsUnsendable))
	require.NotEmpty(t, refused)
	for i, kind := range append(refused, "aclitem[]", "gtsvector[]") {
		d.exec("CREATE TABLE refused%d (id int PRIMARY KEY, c %s)", i, kind)
		e := d.refused(failure.TypeUnsupported, fmt.Sprintf(`"tables": [{"name": "refused%d"}]`, i))
		require.Contains(t, e.Error(), kind)
	}
	var columns, values []string
	for i, kind := range types {
		columns = append(columns, fmt.Sprintf("c%d %s, a%[1]d %[2]s[]", i, kind))
		values = append(values, fmt.Sprintf("(SELECT r FROM %s r LIMIT 1), ARRAY[(SELECT r FROM %[1]s r LIMIT 1), NULL]", kind))
	}
	d.exec("CREATE TABLE rows (id int PRIMARY KEY, %s)", strings.Join(columns, ", "))
	s := d.source(`"tables": [{"name": "rows"}, {"name": "refused0", "columns": ["id"]}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO rows VALUES (1, %s); INSERT INTO refused0 VALUES (1, NULL)", strings.Join(values, ", "))
	sourcetest.Eventually(t, "the rows", func() bool { return len(sink.Graph()) == 2 })
	snapshot, _ := hold(t, s)
	require.Equal(t, sink.Graph().Texts(), sourcetest.NewSink("", readAll(t, s, snapshot)...).Graph().Texts())
	row := sink.Graph()["rows:1"]
	for i, kind := range types {
		if v := row.Get(fmt.Sprintf("c%d", i)); !v.IsNull() {
			require.Equal(t, d.text("SELECT string_agg(attname, ' ' ORDER BY attname COLLATE \"C\") FROM pg_attribute WHERE attrelid = '%s'::regclass AND attnum > 0 AND NOT attisdropped", kind),
				strings.Join(v.AsMap().Keys, " "))
		}
	}
}

// TestUnsendableLater: a column that the server cannot send, added while changes stream, stops the source with the way out.
func TestUnsendableLater(t *testing.T) {
	d := newDB(t)
	d.exec("CREATE TABLE x (id int PRIMARY KEY)")
	s := d.source(`"tables": [{"name": "x"}]`)
	d.exec("INSERT INTO x VALUES (1); ALTER TABLE x ADD acl aclitem[]; INSERT INTO x VALUES (2, '{}')")
	err := fails(t, s, "")
	require.Equal(t, failure.TypeUnsupported, failure.CodeOf(err), "%v", err)
}

// TestChangedTypes: attributes and labels that are added while changes stream.
func TestChangedTypes(t *testing.T) {
	d := newDB(t)
	d.createTypes()
	d.exec("CREATE TABLE x (id int PRIMARY KEY, p pair, m mood)")
	s := d.source(`"tables": [{"name": "x"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec("INSERT INTO x VALUES (1, ROW(1, 'a', 2), 'sad')")
	sourcetest.Eventually(t, "the first row", func() bool { return len(sink.Graph()) == 1 })
	d.exec("ALTER TYPE pair ADD ATTRIBUTE extra uuid[]; ALTER TYPE mood ADD VALUE 'new'; ALTER TABLE x ADD r textrange")
	d.exec("INSERT INTO x VALUES (2, ROW(1, 'a', 2, '{}'), 'new', '[a,b)')")
	wantTexts(t, sink, map[graph.ElementID]string{
		"x:1": `x id=1 m="sad" p={Z: decimal 2, n: 1, s: "a"}`,
		"x:2": `x id=2 m="new" p={Z: decimal 2, extra: [], n: 1, s: "a"} r={empty: false, lower: "a", lowerInc: true, upper: "b", upperInc: false}`,
	})
}
