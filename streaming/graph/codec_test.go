package graph_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// show writes everything there is to a value, so that two values are the same when it is.
func show(v graph.Value) string {
	var s strings.Builder
	s.WriteString(v.Kind().String() + " ")
	switch v.Kind() {
	case graph.KindBool:
		fmt.Fprint(&s, v.AsBool())
	case graph.KindInt:
		fmt.Fprint(&s, v.AsInt())
	case graph.KindFloat:
		fmt.Fprintf(&s, "%x", math.Float64bits(v.AsFloat()))
	case graph.KindDecimal:
		d := v.AsDecimal()
		fmt.Fprintf(&s, "%v %t %s e%d", d.Form, d.Negative, d.Coeff.String(), d.Exponent)
	case graph.KindString:
		fmt.Fprintf(&s, "%q", v.AsString())
	case graph.KindList:
		for _, item := range v.AsList() {
			s.WriteString(show(item) + ", ")
		}
	case graph.KindMap:
		for i, k := range v.AsMap().Keys {
			fmt.Fprintf(&s, "%q: %s, ", k, show(v.AsMap().Values[i]))
		}
	case graph.KindNode, graph.KindRelationship:
		s.WriteString(showElement(v.AsElement()))
	case graph.KindPath:
		for _, e := range append(v.AsPath().Nodes, v.AsPath().Relationships...) {
			s.WriteString(showElement(e) + ", ")
		}
	case graph.KindDate:
		fmt.Fprint(&s, v.AsDate())
	case graph.KindLocalTime:
		fmt.Fprint(&s, v.AsLocalTime())
	case graph.KindTime:
		fmt.Fprint(&s, fmt.Sprint(v.AsTime()))
	case graph.KindLocalDateTime:
		fmt.Fprint(&s, fmt.Sprint(v.AsLocalDateTime()))
	case graph.KindDateTime:
		sec, ns, zone := v.AsDateTime()
		name, offset := time.Unix(sec, 0).In(zone).Zone()
		fmt.Fprintf(&s, "%d %d %s %s %d", sec, ns, zone, name, offset)
	case graph.KindDuration:
		fmt.Fprintf(&s, "%+v", v.AsDuration())
	}
	return s.String()
}

func showElement(e *graph.Element) string {
	var names []string
	if e.Shape != nil {
		names = e.Shape.Names()
	}
	return fmt.Sprintf("(%q %q %q>%q %t %q %s)", e.ID, e.Labels, e.Start, e.End, e.Shape != nil, names, show(graph.List(e.Values)))
}

func showChanges(changes []graph.Change) string {
	var s strings.Builder
	for i := range changes {
		fmt.Fprintf(&s, "%s %s\n", changes[i].Op, showElement(&changes[i].Element))
	}
	return s.String()
}

func zones(t require.TestingT) []*time.Location {
	berlin, err := time.LoadLocation("Europe/Berlin")
	require.NoError(t, err)
	return []*time.Location{
		nil, berlin, time.FixedZone("", 3600), time.FixedZone("", -12600), time.FixedZone("+05:45", 20700),
		time.FixedZone("Europe/Berlin", 60), // the name of a zone with another offset
	}
}

func anyDecimal(t *rapid.T) *apd.Decimal {
	d := &apd.Decimal{
		Form:     apd.Form(rapid.IntRange(0, 3).Draw(t, "form")),
		Negative: rapid.Bool().Draw(t, "negative"),
	}
	if d.Form == apd.Finite {
		d.Exponent = rapid.Int32().Draw(t, "exponent")
		d.Coeff.SetMathBigInt(new(big.Int).SetBytes(rapid.SliceOfN(rapid.Byte(), 0, 30).Draw(t, "coefficient")))
	}
	return d
}

func anyElement(t *rapid.T, depth int) *graph.Element {
	e := &graph.Element{
		ID:     graph.ElementID(rapid.String().Draw(t, "id")),
		Labels: rapid.SliceOfN(rapid.SampledFrom([]string{"A", "B", "Größe", ""}), 0, 3).Draw(t, "labels"),
	}
	if rapid.Bool().Draw(t, "relationship") {
		e.Start, e.End = graph.ElementID(rapid.StringN(1, 5, 9).Draw(t, "start")), graph.ElementID(rapid.String().Draw(t, "end"))
	}
	if n := rapid.IntRange(-1, 4).Draw(t, "properties"); n >= 0 {
		e.Shape = graph.NewShape([]string{"id", "name", "", "total"}[:n]...)
		for range rapid.IntRange(0, n).Draw(t, "values") {
			e.Values = append(e.Values, anyValue(t, depth))
		}
	}
	return e
}

func anyValue(t *rapid.T, depth int) graph.Value {
	kinds := []graph.Kind{
		graph.KindNull, graph.KindUnchanged, graph.KindBool, graph.KindInt, graph.KindFloat, graph.KindDecimal, graph.KindString,
		graph.KindDate, graph.KindLocalTime, graph.KindTime, graph.KindLocalDateTime, graph.KindDateTime, graph.KindDuration,
	}
	if depth > 0 {
		kinds = append(kinds, graph.KindList, graph.KindMap, graph.KindNode, graph.KindPath)
	}
	ns := rapid.Int32Range(0, 999_999_999)
	switch kind := rapid.SampledFrom(kinds).Draw(t, "kind"); kind {
	case graph.KindUnchanged:
		return graph.Unchanged
	case graph.KindBool:
		return graph.Bool(rapid.Bool().Draw(t, "bool"))
	case graph.KindInt:
		return graph.Int(rapid.Int64().Draw(t, "int"))
	case graph.KindFloat:
		return graph.Float(rapid.OneOf(rapid.Float64(), rapid.Just(math.NaN()), rapid.Just(math.Inf(-1)), rapid.Just(math.Copysign(0, -1))).Draw(t, "float"))
	case graph.KindDecimal:
		return graph.Decimal(anyDecimal(t))
	case graph.KindString:
		return graph.String(rapid.String().Draw(t, "string"))
	case graph.KindDate:
		return graph.Date(rapid.Int64().Draw(t, "days"))
	case graph.KindLocalTime:
		return graph.LocalTime(rapid.Int64Range(0, 86399999999999).Draw(t, "time"))
	case graph.KindTime:
		return graph.Time(rapid.Int64Range(0, 86399999999999).Draw(t, "time"), rapid.Int32Range(-64800, 64800).Draw(t, "offset"))
	case graph.KindLocalDateTime:
		return graph.LocalDateTime(rapid.Int64().Draw(t, "sec"), ns.Draw(t, "ns"))
	case graph.KindDateTime:
		return graph.DateTime(rapid.Int64Range(-1<<35, 1<<35).Draw(t, "sec"), ns.Draw(t, "ns"), rapid.SampledFrom(zones(t)).Draw(t, "zone"))
	case graph.KindDuration:
		part := rapid.Int64()
		return graph.DurationOf(graph.Duration{
			Months: part.Draw(t, "months"), Days: part.Draw(t, "days"), Seconds: part.Draw(t, "seconds"),
			Nanoseconds: rapid.Int32Range(-999_999_999, 999_999_999).Draw(t, "ns"),
		})
	case graph.KindList:
		items := make([]graph.Value, rapid.IntRange(0, 3).Draw(t, "items"))
		for i := range items {
			items[i] = anyValue(t, depth-1)
		}
		return graph.List(items)
	case graph.KindMap:
		m := &graph.Map{Keys: []string{"", "a", "bc"}[:rapid.IntRange(0, 3).Draw(t, "keys")]}
		for range m.Keys {
			m.Values = append(m.Values, anyValue(t, depth-1))
		}
		return graph.MapOf(m)
	case graph.KindNode:
		return graph.ElementOf(anyElement(t, depth-1))
	case graph.KindPath:
		p := &graph.Path{Nodes: []*graph.Element{anyElement(t, depth-1)}}
		for range rapid.IntRange(0, 2).Draw(t, "hops") {
			p.Relationships = append(p.Relationships, anyElement(t, depth-1))
			p.Nodes = append(p.Nodes, anyElement(t, depth-1))
		}
		return graph.PathOf(p)
	}
	return graph.Null
}

func anyTransaction(t *rapid.T) graph.Transaction {
	tx := graph.Transaction{
		Position: graph.Position(rapid.StringMatching(`[0-9A-F]{1,3}/[0-9A-F]{0,8}`).Draw(t, "position")),
	}
	if rapid.Bool().Draw(t, "committed") {
		tx.CommitTime = time.Unix(rapid.Int64Range(-1<<35, 1<<35).Draw(t, "sec"), rapid.Int64Range(0, 999_999_999).Draw(t, "ns")).UTC()
	}
	for range rapid.IntRange(0, 5).Draw(t, "changes") {
		op := graph.Op(rapid.IntRange(int(graph.OpInsert), int(graph.OpTruncate)).Draw(t, "op"))
		tx.Changes = append(tx.Changes, graph.Change{Op: op, Element: *anyElement(t, 2)})
	}
	return tx
}

func TestValuesAndElementsRoundTrip(t *testing.T) {
	var d graph.Decoder
	rapid.Check(t, func(t *rapid.T) {
		v := anyValue(t, 3)
		encoded := graph.AppendValue([]byte("x"), v)
		got, rest, err := graph.DecodeValue(append(encoded[1:], "rest"...))
		require.NoError(t, err)
		require.Equal(t, "rest", string(rest))
		require.Equal(t, show(v), show(got))
		got, rest, err = d.Value(encoded[1:])
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, show(v), show(got))

		e := anyElement(t, 3)
		encoded = graph.AppendElement(nil, e)
		own, rest, err := graph.DecodeElement(append(encoded, "rest"...))
		require.NoError(t, err)
		require.Equal(t, "rest", string(rest))
		shared, _, err := d.Element(encoded)
		require.NoError(t, err)
		require.Equal(t, showElement(e), showElement(shared))
		clear(encoded) // the one that owns its memory does not change
		require.Equal(t, showElement(e), showElement(own))
	})
}

func TestMessagesRoundTrip(t *testing.T) {
	var e graph.Encoder
	var d graph.Decoder
	rapid.Check(t, func(t *rapid.T) {
		var want []graph.FragmentedTransaction
		e.Begin()
		for range rapid.IntRange(0, 4).Draw(t, "transactions") {
			tx := graph.FragmentedTransaction{Transaction: anyTransaction(t), Last: true}
			switch rapid.SampledFrom([]string{"whole", "fragment", "staged", "one by one"}).Draw(t, "way") {
			case "whole":
				e.Add(&tx.Transaction)
			case "fragment":
				tx.Fragment, tx.Last = rapid.IntRange(0, 1000).Draw(t, "fragment"), rapid.Bool().Draw(t, "last")
				e.AddFragment(&tx.Transaction, tx.Changes, tx.Fragment, tx.Last)
			case "staged":
				number := rapid.Uint64()
				tx.Changes, tx.Last = nil, false
				tx.Staged = &graph.Staged{
					Key: rapid.String().Draw(t, "key"), From: number.Draw(t, "from"), To: number.Draw(t, "to"),
					Messages: number.Draw(t, "messages"), Bytes: number.Draw(t, "bytes"),
				}
				e.AddStaged(&tx.Transaction, tx.Staged)
			default:
				e.Open(&graph.Transaction{Position: tx.Position, CommitTime: tx.CommitTime})
				for i := range tx.Changes {
					e.Append(&tx.Changes[i])
				}
			}
			want = append(want, tx)
		}
		size := e.Size()
		data := e.Finish("1/2")
		require.InDelta(t, size, len(data), 10)
		got, err := d.Decode(data)
		require.NoError(t, err)
		require.Equal(t, graph.Position("1/2"), got.Position)
		require.Len(t, got.Transactions, len(want))
		for i, tx := range got.Transactions {
			require.Equal(t, want[i].Position, tx.Position)
			require.Equal(t, want[i].CommitTime, tx.CommitTime)
			require.Equal(t, want[i].Fragment, tx.Fragment)
			require.Equal(t, want[i].Last, tx.Last)
			require.Equal(t, want[i].Staged, tx.Staged)
			require.Equal(t, showChanges(want[i].Changes), showChanges(tx.Changes))
		}

		// No part of a message is a message, and nothing may follow one.
		cut := rapid.IntRange(0, len(data)-1).Draw(t, "cut")
		_, err = d.Decode(data[:cut])
		require.Equal(t, failure.BadRecord, failure.CodeOf(err))
		_, err = d.Decode(append(data[:len(data):len(data)], 0))
		require.Equal(t, failure.BadRecord, failure.CodeOf(err))
	})
}

func orders(n int) graph.Transaction {
	shape, labels := graph.NewShape("id", "customer", "status", "total", "placed"), []string{"Order"}
	tx := graph.Transaction{Position: "16/B374D848", CommitTime: time.Unix(1700000000, 123456789).UTC()}
	for i := range n {
		tx.Changes = append(tx.Changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{
			ID: graph.ElementID(fmt.Sprintf("Order:%d", i)), Labels: labels, Shape: shape,
			Values: []graph.Value{
				graph.Int(int64(i)), graph.String("customer name"), graph.String("shipped"), graph.Decimal(apd.New(123456, -2)),
				graph.DateTime(1700000000, 5000, nil),
			},
		}})
	}
	return tx
}

func TestNamesAreWrittenOncePerMessage(t *testing.T) {
	var e graph.Encoder
	e.Begin()
	first, second := orders(10), orders(10) // two shapes of the same names
	e.Add(&first)
	e.Add(&second)
	data := string(e.Finish("1"))
	require.Equal(t, 1, strings.Count(data, "customer\x06"))
	require.Equal(t, 1, strings.Count(data, "\x01\x05Order"))
}

func TestDecoderKeepsShapesAcrossMessages(t *testing.T) {
	var e graph.Encoder
	var d graph.Decoder
	var shapes []*graph.Shape
	for range 2 {
		tx := orders(2)
		e.Begin()
		e.Add(&tx)
		m, err := d.Decode(e.Finish("1"))
		require.NoError(t, err)
		for _, c := range m.Transactions[0].Changes {
			shapes = append(shapes, c.Element.Shape)
		}
	}
	for _, s := range shapes {
		require.Same(t, shapes[0], s)
	}
}

func TestDecoderForgetsRatherThanGrow(t *testing.T) {
	var e graph.Encoder
	var d graph.Decoder
	for i := range 3 {
		tx := graph.Transaction{Position: "1"}
		for j := range 3000 {
			name := fmt.Sprintf("p%d_%d", i, j)
			tx.Changes = append(tx.Changes, graph.Change{Op: graph.OpMerge, Element: graph.Element{
				ID: "x", Labels: []string{name}, Shape: graph.NewShape(name), Values: []graph.Value{graph.Int(1)},
			}})
		}
		e.Begin()
		e.Add(&tx)
		m, err := d.Decode(e.Finish("1"))
		require.NoError(t, err)
		require.Equal(t, showChanges(tx.Changes), showChanges(m.Transactions[0].Changes))
	}
}

func TestLyingLengthsAreRefusedCheaply(t *testing.T) {
	lists := []byte{}
	for range 5000 { // each claims to hold as many items as there are bytes
		lists = binary.AppendUvarint(append(lists, byte(graph.KindList)), 10_000)
	}
	message := append([]byte{1}, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	for name, decode := range map[string]func() error{
		"nested lists": func() error { _, _, err := graph.DecodeValue(lists); return err },
		"string": func() error {
			_, _, err := graph.DecodeValue([]byte{byte(graph.KindString), 0xff, 0xff, 0xff, 0xff, 0x7f})
			return err
		},
		"element": func() error {
			_, _, err := graph.DecodeElement([]byte{64, 1, 'x', 0, 0xff, 0xff, 0xff, 0x7f})
			return err
		},
		"message": func() error { _, err := new(graph.Decoder).Decode(message); return err },
	} {
		t.Run(name, func(t *testing.T) {
			require.Equal(t, failure.BadRecord, failure.CodeOf(decode()))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_ = decode()
			runtime.ReadMemStats(&after)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
		})
	}
}

func TestDeepNestingIsRefused(t *testing.T) {
	var deep []byte
	for range 100_000 {
		deep = append(deep, byte(graph.KindList), 1)
	}
	_, _, err := graph.DecodeValue(append(deep, 0))
	require.Equal(t, failure.BadRecord, failure.CodeOf(err))
}

func TestWeightIsAboutEncodedSize(t *testing.T) {
	tx := orders(100)
	var e graph.Encoder
	e.Grow(1 << 16)
	e.Begin()
	before, weight := e.Size(), 0
	e.Add(&tx)
	for i := range tx.Changes {
		weight += tx.Changes[i].Weight()
	}
	size := e.Size() - before
	require.GreaterOrEqual(t, weight, size*9/10)
	require.LessOrEqual(t, weight, size*2)

	nested := graph.Change{Element: graph.Element{Values: []graph.Value{graph.List([]graph.Value{
		graph.String("0123456789"), graph.MapOf(&graph.Map{Keys: []string{"key"}, Values: []graph.Value{graph.Int(1)}}),
	})}}}
	require.Equal(t, 8+4+(4+10)+(4+3+9), nested.Weight())
}
