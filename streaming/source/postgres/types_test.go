package postgres_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source/sourcetest"
)

// typeCases: a type, a literal of it and how the value looks.
var typeCases = []struct{ kind, literal, want string }{
	{"boolean", "true", "true"},
	{"smallint", "-32768", "-32768"},
	{"integer", "2147483647", "2147483647"},
	{"bigint", "-9223372036854775808", "-9223372036854775808"},
	{"oid", "4294967295", "4294967295"},
	{"real", "0.1", "float 0.1"},
	{"real", "-3", "float -3"},
	{"real", "'Infinity'", "float +Inf"},
	{"double precision", "0.30000000000000004", "float 0.30000000000000004"},
	{"double precision", "'NaN'", "float NaN"},
	{"numeric", "0", "decimal 0"},
	{"numeric(10, 2)", "-1.5", "decimal -1.50"},
	{"numeric", "10000", "decimal 10000"},
	{"numeric", "0.0001000", "decimal 0.0001000"},
	{"numeric", "100000000000000000000000000000000.000000000000000000000000001", "decimal 100000000000000000000000000000000.000000000000000000000000001"},
	{"numeric", "1234567890123456789", "decimal 1234567890123456789"},
	{"numeric", "99999999999999.9999", "decimal 99999999999999.9999"},
	{"numeric", "1e100", "decimal 1" + strings.Repeat("0", 100)},
	{"numeric", "'NaN'", "decimal NaN"},
	{"numeric", "'-Infinity'", "decimal -Infinity"},
	{"text", "'grüße\n\"'", `"grüße\n\""`},
	{"text", "''", `""`},
	{"varchar(5)", "'ab '", `"ab "`},
	{"char(5)", "'ab'", `"ab"`},
	{"name", "'n'", `"n"`},
	{`"char"`, "'c'", `"c"`},
	{"bytea", `'\xdeadbeef'`, `"3q2+7w=="`},
	{"uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", `"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"`},
	{"date", "'2024-02-29'", "DATE 2024-02-29"},
	{"date", "'infinity'", `"infinity"`},
	{"date", "'1969-12-31'", "DATE 1969-12-31"},
	{"time", "'23:59:59.999999'", "LOCAL TIME 23:59:59.999999"},
	{"time", "'24:00'", `"24:00:00"`},
	{"timetz", "'01:02:03+02'", "ZONED TIME 01:02:03+7200s"},
	{"timetz", "'24:00:00-03:30'", `"24:00:00-03:30"`},
	{"timestamp", "'1999-12-31 23:59:59.5'", "LOCAL DATETIME 1999-12-31T23:59:59.5"},
	{"timestamp", "'-infinity'", `"-infinity"`},
	{"timestamptz", "'2024-06-01 12:00:00.000001+02'", "ZONED DATETIME 2024-06-01T10:00:00.000001Z"},
	{"interval", "'1 year 2 mons -3 days 04:05:06.7'", "DURATION P14M-3DT14706S700000000N"},
	{"interval", "'-0.5 seconds'", "DURATION P0M0DT0S-500000000N"},
	{"json", `'{"b": [1, 2.50, 1e3, null, true], "a": {"\u00e9\ud83d\ude00": "x\ty"}, "b": 9007199254740993}'`, `{a: {é😀: "x\ty"}, b: 9007199254740993}`},
	{"jsonb", `'{"z": 123456789012345678901234567890, "y": [], "x": {}, "w": 1.10}'`, `{w: decimal 1.10, x: {}, y: [], z: decimal 123456789012345678901234567890}`},
	{"jsonb", `'"text"'`, `"text"`},
	{"json", "'[1e100, 1e-3, 1e999999999]'", `[decimal 1` + strings.Repeat("0", 100) + `, decimal 0.001, "1e999999999"]`},
	{"inet", "'10.1.2.3/8'", `"10.1.2.3/8"`},
	{"inet", "'::1'", `"::1"`},
	{"cidr", "'10.0.0.0/8'", `"10.0.0.0/8"`},
	{"macaddr", "'08:00:2b:01:02:03'", `"08:00:2b:01:02:03"`},
	{"bit(3)", "B'101'", `"101"`},
	{"varbit", "B'0000000011'", `"0000000011"`},
	{"pg_lsn", "'16/B374D848'", `"16/B374D848"`},
	{"xml", "'<a>ü</a>'", `"\u003ca\u003eü\u003c/a\u003e"`},
	{"int[]", "'{1,NULL,3}'", "[1, null, 3]"},
	{"int[]", "'{}'", "[]"},
	{"int[]", "'[0:1]={7,8}'", "[7, 8]"},
	{"text[]", `'{{a,"b c"},{" pad ","NULL"}}'`, `[["a", "b c"], [" pad ", "NULL"]]`},
	{"numeric[]", "'{1.50,NaN}'", "[decimal 1.50, decimal NaN]"},
	{"timestamptz[]", "'{2024-06-01 12:00+00}'", "[ZONED DATETIME 2024-06-01T12:00:00Z]"},
	{"jsonb[]", `ARRAY['{"a":1}'::jsonb]`, "[{a: 1}]"},
	{"mood", "'happy'", `"happy"`},
	{"mood[]", "'{happy,sad}'", `["happy", "sad"]`},
	{"positive", "7", "7"},
	{"positives", "8", "8"},
	{"pair", "ROW(1, 'a b')", `"(1,\"a b\")"`},
	{"pair[]", "ARRAY[ROW(1, 'x')::pair]", `["(1,x)"]`},
	{"point", "'(1,2.5)'", `"(1,2.5)"`},
	{"int4range", "'[1,5)'", `"[1,5)"`},
	{"tstzrange", "'[2024-01-01 00:00+00,)'", ""},
	{"int4multirange", "'{[1,3),[5,7)}'", ""},
	{"money", "12.5", `"$12.50"`},
	{"tsvector", "'a fat cat'", ""},
	{"tsquery", "'a & b'", ""},
	{"jsonpath", "'$.a'", ""},
	{"box", "'(1,2),(3,4)'", ""},
	{"regclass", "'pg_class'", ""},
	{"pg_snapshot", "'10:20:10,14'", ""},
	{"tid", "'(1,2)'", ""},
	{"xid8", "'7'", "7"},
	{"hstore", `'a=>1, b=>NULL'`, `"\"a\"=\u003e\"1\", \"b\"=\u003eNULL"`},
	{"citext", "'Mixed'", `"Mixed"`},
}

// TestTypes shows that a value is the same in the snapshot and in the stream, and what it should be. Where no value is
// given, only the sameness counts.
func TestTypes(t *testing.T) {
	d := newDB(t)
	d.exec(`CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
		CREATE DOMAIN positives AS positive; CREATE TYPE pair AS (n int, s text)`)
	var extensions []string
	for _, name := range []string{"hstore", "citext"} {
		if d.text("SELECT count(*) FROM pg_available_extensions WHERE name = '%s'", name) == "1" {
			d.exec("CREATE EXTENSION %s", name)
		} else {
			extensions = append(extensions, name)
		}
	}
	var columns, values []string
	want := make(map[string]string)
	for i, c := range typeCases {
		if len(extensions) > 0 && (c.kind == extensions[0] || c.kind == extensions[len(extensions)-1]) {
			continue
		}
		name := fmt.Sprintf("c%02d", i)
		columns = append(columns, name+" "+c.kind)
		values = append(values, c.literal)
		want[name] = c.want
	}
	// What the server's own settings would change must not matter.
	d.exec(`ALTER DATABASE %s SET datestyle = 'German'; ALTER DATABASE %[1]s SET bytea_output = 'escape'; ALTER DATABASE %[1]s SET timezone = 'Asia/Tokyo'`,
		d.text("SELECT current_database()"))
	d.exec(`CREATE TABLE "All Types" (id int PRIMARY KEY, %s)`, strings.Join(columns, ", "))
	s := d.source(`"tables": [{"name": "All Types", "label": "T"}]`)
	sink := sourcetest.NewSink("")
	running(t, s, "", sink)
	d.exec(`INSERT INTO "All Types" VALUES (1, %s); INSERT INTO "All Types" (id) VALUES (2)`, strings.Join(values, ", "))
	sourcetest.Eventually(t, "both rows", func() bool { return len(sink.Graph()) == 2 })

	snapshot, _ := hold(t, s)
	read := sourcetest.NewSink("", readAll(t, s, snapshot)...)
	streamed := sink.Graph()
	require.Equal(t, streamed.Texts(), read.Graph().Texts())
	require.Equal(t, "T id=2", streamed.Texts()["T:2"])
	row := streamed["T:1"]
	for name, text := range want {
		got := sourcetest.ValueText(row.Get(name))
		if text == "" {
			require.Equal(t, graph.KindString, row.Get(name).Kind(), "%s is %s", name, got)
		} else {
			require.Equal(t, text, got, name)
		}
	}
}
