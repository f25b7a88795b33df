package graph_test

import (
	"bytes"
	"cmp"
	"math"
	"testing"
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/graph"
)

func number(t *testing.T, text string) graph.Value {
	d, _, err := apd.NewFromString(text)
	require.NoError(t, err)
	return graph.Decimal(d)
}

// ascending lists values in the order of openCypher; those in one row are equivalent.
func ascending(t *testing.T) [][]graph.Value {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	node := func(id string) *graph.Element { return &graph.Element{ID: graph.ElementID(id)} }
	rel := &graph.Element{ID: "r", Start: "a", End: "b"}
	list := func(items ...graph.Value) graph.Value { return graph.List(items) }
	return [][]graph.Value{
		{graph.MapOf(&graph.Map{})},
		{graph.MapOf(&graph.Map{Keys: []string{"a"}, Values: []graph.Value{graph.Int(1)}})},
		{graph.MapOf(&graph.Map{Keys: []string{"a"}, Values: []graph.Value{graph.Int(2)}})},
		{graph.MapOf(&graph.Map{Keys: []string{"b"}, Values: []graph.Value{graph.Int(1)}})},
		{graph.NodeOf(node("a"))}, {graph.NodeOf(node("a\x00"))}, {graph.NodeOf(node("b"))},
		{graph.RelationshipOf(rel)},
		{list()}, {list(graph.String("a"))}, {list(graph.String("a"), graph.Int(1)), list(graph.String("a"), graph.Float(1))},
		{list(graph.Int(1))}, {list(graph.Int(1), graph.Int(1))}, {list(graph.Int(2))}, {list(graph.Null)},
		{graph.PathOf(&graph.Path{Nodes: []*graph.Element{node("a")}})},
		{graph.DateTime(-1, 999, nil)}, {graph.DateTime(0, 0, berlin)}, {graph.DateTime(0, 0, nil)}, {graph.DateTime(0, 1, nil)},
		{graph.LocalDateTime(-5, 1)}, {graph.LocalDateTime(5, 1)},
		{graph.Date(-1)}, {graph.Date(1)},
		{graph.Time(3600e9, 3600)}, {graph.Time(1, 0)},
		{graph.LocalTime(0)}, {graph.LocalTime(1)},
		{graph.DurationOf(graph.Duration{Seconds: -1})}, {graph.DurationOf(graph.Duration{})},
		{graph.DurationOf(graph.Duration{Days: 30})}, {graph.DurationOf(graph.Duration{Months: 1})}, {graph.DurationOf(graph.Duration{Days: 31})},
		{graph.String("")}, {graph.String("A")}, {graph.String("a")}, {graph.String("a\x00")}, {graph.String("aa")}, {graph.String("ä")},
		{graph.Bool(false)}, {graph.Bool(true)},
		{graph.Float(math.Inf(-1))}, {number(t, "-1e400")}, {graph.Float(-math.MaxFloat64)},
		{graph.Int(math.MinInt64), graph.Float(-1 << 63), number(t, "-9223372036854775808")}, {graph.Int(math.MinInt64 + 1)},
		{number(t, "-0.1")}, {graph.Float(-0.1 + 1e-17)}, {number(t, "-1e-400")},
		{graph.Int(0), graph.Float(0), graph.Float(math.Copysign(0, -1)), number(t, "0.00")},
		{number(t, "1e-400")}, {number(t, "4.9e-324")}, {number(t, "5e-324"), graph.Float(math.SmallestNonzeroFloat64)},
		{number(t, "0.09999999999999999999")}, {number(t, "0.1"), number(t, "0.1000000000000000000"), graph.Float(0.1)},
		{number(t, "0.10000000000000000556")},
		{number(t, "0.30000000000000000000001")}, {number(t, "0.30000000000000004"), graph.Float(0.30000000000000004)},
		{graph.Int(1), graph.Float(1), number(t, "1.000")}, {number(t, "1.0000000000000000001")}, {number(t, "1.00000000000000000011")},
		{graph.Int(1<<53 - 1)}, {graph.Int(1 << 53), graph.Float(1 << 53)}, {graph.Int(1<<53 + 1)}, {number(t, "9007199254740993.5")},
		{graph.Int(1<<53 + 2), graph.Float(1<<53 + 2)},
		{graph.Int(1 << 62), graph.Float(1 << 62), number(t, "4611686018427387904")}, {number(t, "4611686018427388000")},
		{graph.Int(math.MaxInt64), number(t, "9223372036854775807")}, {graph.Float(1 << 63)},
		{graph.Float(math.MaxFloat64)}, {number(t, "1e400")}, {number(t, "2e400")}, {graph.Float(math.Inf(1)), graph.Decimal(&apd.Decimal{Form: apd.Infinite})},
		{graph.Float(math.NaN()), graph.Decimal(&apd.Decimal{Form: apd.NaN})},
		{graph.Null},
	}
}

func TestOrder(t *testing.T) {
	rows := ascending(t)
	for i, as := range rows {
		for j, bs := range rows {
			for _, a := range as {
				for _, b := range bs {
					want := cmp.Compare(i, j)
					require.Equal(t, want, graph.Compare(a, b), "%s, %s", a, b)
					require.Equal(t, want, bytes.Compare(graph.AppendKey(nil, a), graph.AppendKey(nil, b)), "%s, %s", a, b)
				}
			}
		}
	}
}

func TestEqual(t *testing.T) {
	one, null, nan := graph.Int(1), graph.Null, graph.Float(math.NaN())
	list := func(items ...graph.Value) graph.Value { return graph.List(items) }
	for _, c := range []struct {
		a, b graph.Value
		want string
	}{
		{one, graph.Float(1), "true"}, {one, null, "null"}, {null, null, "null"}, {nan, nan, "false"}, {nan, one, "false"},
		{one, graph.String("1"), "false"}, {list(one, null), list(one, null), "null"}, {list(one, null), list(graph.Int(2), null), "false"},
		{list(one), list(one, null), "false"}, {list(one), list(graph.Float(1)), "true"}, {list(nan), list(nan), "false"},
	} {
		require.Equal(t, c.want, graph.Equal(c.a, c.b).String(), "%s = %s", c.a, c.b)
		require.Equal(t, c.want, graph.Equal(c.b, c.a).String(), "%s = %s", c.b, c.a)
	}
}

func drawValue(t *rapid.T, depth int) graph.Value {
	kinds := 8
	if depth == 0 {
		kinds = 6
	}
	switch rapid.IntRange(0, kinds).Draw(t, "kind") {
	case 0:
		return graph.Null
	case 1:
		return graph.Bool(rapid.Bool().Draw(t, "bool"))
	case 2:
		return graph.Int(rapid.Int64().Draw(t, "int"))
	case 3:
		return graph.Float(rapid.Float64().Draw(t, "float"))
	case 4:
		return graph.Decimal(apd.New(rapid.Int64().Draw(t, "coefficient"), rapid.Int32Range(-40, 40).Draw(t, "exponent")))
	case 5:
		return graph.Float(float64(rapid.Int64Range(-3, 3).Draw(t, "whole")))
	case 6:
		return graph.String(rapid.StringMatching(`[\x00a\xff]{0,3}`).Draw(t, "string"))
	case 7:
		m := &graph.Map{}
		for _, k := range []string{"a", "b"} {
			if rapid.Bool().Draw(t, "key") {
				m.Keys, m.Values = append(m.Keys, k), append(m.Values, drawValue(t, depth-1))
			}
		}
		return graph.MapOf(m)
	}
	items := []graph.Value{}
	for range rapid.IntRange(0, 3).Draw(t, "length") {
		items = append(items, drawValue(t, depth-1))
	}
	return graph.List(items)
}

// TestKeyOrder holds the bytes of keys against the order of values, and equality against both.
func TestKeyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := drawValue(t, 2), drawValue(t, 2)
		c := graph.Compare(a, b)
		require.Equal(t, c, bytes.Compare(graph.AppendKey(nil, a), graph.AppendKey(nil, b)), "%s, %s", a, b)
		require.Equal(t, -c, graph.Compare(b, a), "%s, %s", a, b)
		require.Zero(t, graph.Compare(a, a))
		require.True(t, graph.Identical(a, graph.Clone(a)))
		if e := graph.Equal(a, b); !e.IsNull() && e.AsBool() {
			require.Zero(t, c, "%s = %s", a, b)
		}
		if graph.Identical(a, b) {
			require.Zero(t, c, "%s, %s", a, b)
		}
		if sign, compares, nan := graph.Order(a, b); compares && !nan && a.IsNumber() {
			require.Equal(t, c, sign, "%s, %s", a, b)
		}
	})
}

func TestKeyString(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.StringMatching(`[\x00\x01a\xff]{0,6}`).Draw(t, "string")
		key := graph.AppendKeyString(nil, s)
		got, rest, ok := graph.DecodeKeyString(nil, append(key, "rest"...))
		require.True(t, ok)
		require.Equal(t, s, string(got))
		require.Equal(t, "rest", string(rest))
	})
}

func TestJSON(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	n := &graph.Element{ID: "n:1", Labels: []string{"A", "B"}, Shape: graph.NewShape("x", "y"), Values: []graph.Value{graph.Int(1), graph.Null}}
	r := &graph.Element{ID: "r", Labels: []string{"T"}, Start: "n:1", End: "m"}
	for _, c := range []struct {
		v    graph.Value
		json string
		text string
	}{
		{graph.Null, `null`, "null"},
		{graph.Int(math.MaxInt64), `9223372036854775807`, "9223372036854775807"},
		{graph.Float(1), `1.0`, "1.0"}, {graph.Float(1e300), `1e+300`, "1e+300"}, {graph.Float(0.1), `0.1`, "0.1"},
		{graph.Float(math.NaN()), `"NaN"`, "NaN"}, {graph.Float(math.Inf(-1)), `"-Infinity"`, "-Infinity"},
		{number(t, "12.50"), `12.50`, "12.50"}, {number(t, "1E+20"), `1E+20`, "1E+20"},
		{graph.Decimal(&apd.Decimal{Form: apd.NaN}), `"NaN"`, "NaN"},
		{graph.String("a\"<\n'ü"), `"a\"\u003c\n'ü"`, `'a"<\n\'ü'`},
		{graph.List([]graph.Value{graph.Int(1), graph.Bool(true)}), `[1,true]`, "[1, true]"},
		{graph.MapOf(&graph.Map{Keys: []string{"k"}, Values: []graph.Value{graph.Null}}), `{"k":null}`, "{k: null}"},
		{graph.NodeOf(n), `{"id":"n:1","labels":["A","B"],"properties":{"x":1}}`, "(:A:B {x: 1})"},
		{graph.RelationshipOf(r), `{"id":"r","type":"T","start":"n:1","end":"m","properties":{}}`, "[:T]"},
		{graph.PathOf(&graph.Path{Nodes: []*graph.Element{n, {ID: "m"}}, Relationships: []*graph.Element{r}}),
			`{"nodes":[{"id":"n:1","labels":["A","B"],"properties":{"x":1}},{"id":"m","labels":[],"properties":{}}],"relationships":[{"id":"r","type":"T","start":"n:1","end":"m","properties":{}}]}`,
			"<(:A:B {x: 1})-[:T]->()>"},
		{graph.Date(-719529), `"-0001-12-31"`, "-0001-12-31"}, {graph.Date(19000), `"2022-01-08"`, "2022-01-08"},
		{graph.LocalTime(3600e9 + 1e6), `"01:00:00.001"`, "01:00:00.001"}, {graph.LocalTime(60e9), `"00:01"`, "00:01"},
		{graph.Time(0, -5400), `"00:00-01:30"`, "00:00-01:30"},
		{graph.LocalDateTime(-1, 500), `"1969-12-31T23:59:59.0000005"`, "1969-12-31T23:59:59.0000005"},
		{graph.DateTime(0, 0, nil), `"1970-01-01T00:00Z"`, "1970-01-01T00:00Z"},
		{graph.DateTime(0, 0, berlin), `"1970-01-01T01:00+01:00[Europe/Berlin]"`, "1970-01-01T01:00+01:00[Europe/Berlin]"},
		{graph.DurationOf(graph.Duration{}), `"PT0S"`, "PT0S"},
		{graph.DurationOf(graph.Duration{Months: 14, Days: -3, Seconds: 3661, Nanoseconds: 5e8}), `"P1Y2M-3DT1H1M1.5S"`, "P1Y2M-3DT1H1M1.5S"},
		{graph.DurationOf(graph.Duration{Nanoseconds: -5e8}), `"PT-0.5S"`, "PT-0.5S"},
	} {
		got, err := c.v.MarshalJSON()
		require.NoError(t, err)
		require.Equal(t, c.json, string(got))
		require.Equal(t, c.text, c.v.String())
	}
}
