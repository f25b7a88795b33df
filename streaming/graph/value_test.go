package graph_test

import (
	"reflect"
	"testing"
	"time"
	"unsafe"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/graph"
)

func TestValueIsThreeWords(t *testing.T) {
	require.LessOrEqual(t, unsafe.Sizeof(graph.Value{}), uintptr(24))
}

func TestValueFitsRegisters(t *testing.T) {
	var fits func(s reflect.Type) bool
	fits = func(s reflect.Type) bool {
		for i := range s.NumField() {
			if f := s.Field(i).Type; f.Kind() == reflect.Struct && !fits(f) {
				return false
			}
		}
		return s.NumField() <= 4 // ssa.MaxStruct of the Go compiler
	}
	require.True(t, fits(reflect.TypeFor[graph.Value]()))
}

func TestValuesGiveBackWhatTheyWereMadeOf(t *testing.T) {
	require.True(t, graph.Bool(true).AsBool())
	require.Equal(t, int64(-7), graph.Int(-7).AsInt())
	require.InDelta(t, 1.5, graph.Float(1.5).AsFloat(), 0)
	require.Equal(t, "12.50", graph.Decimal(apd.New(1250, -2)).AsDecimal().String())
	require.Equal(t, "", graph.String("").AsString())
	require.Equal(t, "grün", graph.String("grün").AsString())
	require.Empty(t, graph.List(nil).AsList())
	require.Equal(t, int64(2), graph.List([]graph.Value{graph.Int(1), graph.Int(2)}).AsList()[1].AsInt())

	m := graph.MapOf(&graph.Map{Keys: []string{"a", "c"}, Values: []graph.Value{graph.Int(1), graph.Int(3)}}).AsMap()
	require.Equal(t, int64(3), m.Get("c").AsInt())
	require.True(t, m.Get("b").IsNull())

	ns, offset := graph.Time(1, -3600).AsTime()
	require.Equal(t, int64(1), ns)
	require.Equal(t, int32(-3600), offset)

	zone := time.FixedZone("", 3600)
	sec, nanos, loc := graph.DateTime(-1, 999, zone).AsDateTime()
	require.Equal(t, int64(-1), sec)
	require.Equal(t, int32(999), nanos)
	require.Same(t, zone, loc)
	_, _, loc = graph.DateTime(0, 0, nil).AsDateTime()
	require.Same(t, time.UTC, loc)

	d := graph.Duration{Months: 1, Days: -2, Seconds: 3, Nanoseconds: 4}
	require.Equal(t, d, graph.DurationOf(d).AsDuration())
	require.True(t, graph.Value{}.IsNull())
	require.Equal(t, graph.KindUnchanged, graph.Unchanged.Kind())
}

func TestAskingForAnotherKindPanics(t *testing.T) {
	require.PanicsWithValue(t, "graph: INTEGER asked of a STRING value", func() { graph.String("1").AsInt() })
	require.Panics(t, func() { graph.Int(1).AsElement() })
}

func TestElementProperties(t *testing.T) {
	shape := graph.NewShape("id", "total")
	e := &graph.Element{ID: "Order:1", Labels: []string{"Order"}, Shape: shape, Values: []graph.Value{graph.Int(1), graph.Int(9)}}
	require.Equal(t, int64(9), e.Get("total").AsInt())
	require.True(t, e.Get("absent").IsNull())
	require.True(t, (&graph.Element{ID: "x"}).Get("id").IsNull())
	require.Equal(t, graph.KindNode, graph.ElementOf(e).Kind())
	require.Equal(t, graph.KindRelationship, graph.ElementOf(&graph.Element{ID: "r", Start: "a", End: "b"}).Kind())
}

func TestPositionsCompareAsNumbers(t *testing.T) {
	ascending := []graph.Position{"", "0/9", "0/10", "0/FFFFFFFF", "1/0", "16/B374D848", "100/0"}
	for i, p := range ascending {
		for j, q := range ascending {
			want := 0
			if i < j {
				want = -1
			} else if i > j {
				want = 1
			}
			require.Equal(t, want, p.Compare(q), "%q against %q", p, q)
		}
	}
	require.Equal(t, -1, graph.Position("1692632086370-0").Compare("1692632086370-10"))
	require.Equal(t, -1, graph.Position("17").Compare("17-1"))
}
