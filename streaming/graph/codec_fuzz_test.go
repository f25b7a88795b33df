package graph_test

import (
	"testing"
	"time"

	"github.com/cockroachdb/apd/v3"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// someOfEach returns a value of each kind.
func someOfEach(t require.TestingT) []graph.Value {
	node := &graph.Element{ID: "N:1", Labels: []string{"N", "M"}, Shape: graph.NewShape("a"), Values: []graph.Value{graph.Int(1)}}
	edge := &graph.Element{ID: "R:1", Labels: []string{"R"}, Start: "N:1", End: "N:1"}
	big, _, err := apd.NewFromString("-123456789012345678901234567890.5")
	require.NoError(t, err)
	values := []graph.Value{
		graph.Null, graph.Unchanged, graph.Bool(true), graph.Int(-300), graph.Float(1.5), graph.String("text"),
		graph.Decimal(big), graph.Decimal(&apd.Decimal{Form: apd.NaN}), graph.Decimal(&apd.Decimal{Form: apd.Infinite, Negative: true}),
		graph.Date(-1), graph.LocalTime(1), graph.Time(1, -3600), graph.LocalDateTime(-1, 2),
		graph.DurationOf(graph.Duration{Months: 1, Days: -2, Seconds: 3, Nanoseconds: 4}),
		graph.NodeOf(node), graph.RelationshipOf(edge),
		graph.PathOf(&graph.Path{Nodes: []*graph.Element{node, node}, Relationships: []*graph.Element{edge}}),
	}
	for _, zone := range zones(t) {
		values = append(values, graph.DateTime(1700000000, 1, zone))
	}
	return append(values, graph.List(values), graph.MapOf(&graph.Map{Keys: []string{"a", "b"}, Values: values[2:4]}))
}

// Whatever is decoded without error encodes to something that decodes to the same.

func FuzzDecodeValue(f *testing.F) {
	for _, v := range someOfEach(f) {
		f.Add(graph.AppendValue(nil, v))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		v, rest, err := graph.DecodeValue(data)
		if err != nil {
			require.Equal(t, failure.BadRecord, failure.CodeOf(err))
			return
		}
		require.Less(t, len(rest), len(data))
		again, rest, err := graph.DecodeValue(graph.AppendValue(nil, v))
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, show(v), show(again))
	})
}

func FuzzDecodeElement(f *testing.F) {
	shape := graph.NewShape("a", "b")
	for _, v := range someOfEach(f) {
		f.Add(graph.AppendElement(nil, &graph.Element{ID: "x", Labels: []string{"L"}, Shape: shape, Values: []graph.Value{v, v}}))
		f.Add(graph.AppendElement(nil, &graph.Element{ID: "x", Labels: []string{"L"}, Start: "a", End: "b", Shape: shape, Values: []graph.Value{v}}))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		e, _, err := graph.DecodeElement(data)
		if err != nil {
			require.Equal(t, failure.BadRecord, failure.CodeOf(err))
			return
		}
		again, rest, err := graph.DecodeElement(graph.AppendElement(nil, e))
		require.NoError(t, err)
		require.Empty(t, rest)
		require.Equal(t, showElement(e), showElement(again))
	})
}

func FuzzDecode(f *testing.F) {
	var e graph.Encoder
	e.Begin()
	f.Add(e.Finish("0/0"))
	shape := graph.NewShape("a", "b")
	for _, v := range someOfEach(f) {
		tx := graph.Transaction{Position: "1/A", CommitTime: time.Unix(1, 2), Changes: []graph.Change{
			{Op: graph.OpInsert, Element: graph.Element{ID: "x", Labels: []string{"L"}, Shape: shape, Values: []graph.Value{v, v}}},
			{Op: graph.OpMerge, Element: graph.Element{ID: "y", Labels: []string{"L"}, Shape: shape, Values: []graph.Value{v}}},
			{Op: graph.OpDelete, Element: graph.Element{ID: "x", Labels: []string{"L"}}},
			{Op: graph.OpTruncate, Element: graph.Element{Labels: []string{"L"}}},
		}}
		e.Begin()
		e.Add(&tx)
		e.AddFragment(&tx, tx.Changes, 3, false)
		f.Add(e.Finish("1/A"))
	}
	e.Begin()
	e.Add(&graph.Transaction{Position: "1/A", Schema: []graph.SchemaChange{{Op: graph.SchemaRenamed, Labels: []string{"L"}, Table: "t", Property: "a", From: "a", To: "b"}}})
	f.Add(e.Finish("1/A"))
	e.Begin()
	e.AddStaged(&graph.Transaction{CommitTime: time.Unix(1, 2)}, &graph.Staged{Key: "1.2.3", From: 4, To: 300, Messages: 5, Bytes: 6})
	f.Add(e.Finish("1/A"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var d graph.Decoder
		m, err := d.Decode(data)
		if err != nil {
			require.Equal(t, failure.BadRecord, failure.CodeOf(err))
			return
		}
		var e graph.Encoder
		e.Begin()
		for _, tx := range m.Transactions {
			switch {
			case tx.Staged != nil:
				e.AddStaged(&tx.Transaction, tx.Staged)
			case tx.Fragment == 0 && tx.Last:
				e.Add(&tx.Transaction)
			default:
				e.AddFragment(&tx.Transaction, tx.Changes, tx.Fragment, tx.Last)
			}
		}
		again, err := new(graph.Decoder).Decode(e.Finish(m.Position))
		require.NoError(t, err)
		require.Len(t, again.Transactions, len(m.Transactions))
		for i, tx := range m.Transactions {
			require.Equal(t, tx.Position, again.Transactions[i].Position)
			require.Equal(t, showChanges(tx.Changes), showChanges(again.Transactions[i].Changes))
			require.Equal(t, tx.Schema, again.Transactions[i].Schema)
			require.Equal(t, tx.Staged, again.Transactions[i].Staged)
		}
	})
}
