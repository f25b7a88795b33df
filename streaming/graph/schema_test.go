package graph_test

import (
	"encoding/hex"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

func TestSchemaChangesRoundTrip(t *testing.T) {
	var schema []graph.SchemaChange
	for op := graph.SchemaAdded; op <= graph.SchemaSupplied; op++ {
		schema = append(schema, graph.SchemaChange{Op: op, Labels: []string{"A", "B"}, Table: "public.a", Property: "p", From: "f", To: "t", State: "s"})
	}
	tx := orders(3)
	tx.Position, tx.Schema = "1/A", schema
	plain := orders(2)
	plain.Position = "1/B"
	var e graph.Encoder
	for _, encode := range []func(){
		func() { e.Add(&tx) },
		func() { e.AddFragment(&tx, tx.Changes[:1], 0, false); e.AddFragment(&tx, tx.Changes[1:], 1, true) },
	} {
		e.Begin()
		encode()
		e.Add(&plain)
		data := e.Finish("1/B")
		require.Equal(t, byte(2), data[0])
		m, err := new(graph.Decoder).Decode(data)
		require.NoError(t, err)
		for i := range m.Transactions {
			switch part := &m.Transactions[i]; {
			case part.Position == "1/A" && part.Last:
				require.Equal(t, schema, part.Schema)
			default:
				require.Empty(t, part.Schema)
			}
		}
	}
}

// TestMessagesOfEarlierVersionsAreRead decodes what was written before there were changes of the schema, and writes the
// same as long as there are none.
func TestMessagesOfEarlierVersionsAreRead(t *testing.T) {
	const written = "010100000001000000010000000103312f41020401510001014c0001016101780102060003312f41"
	tx := graph.Transaction{Position: "1/A", CommitTime: time.Unix(1, 4).UTC(), Changes: []graph.Change{
		{Op: graph.OpInsert, Element: graph.Element{ID: "x", Labels: []string{"L"}, Shape: graph.NewShape("a"), Values: []graph.Value{graph.Int(3)}}},
	}}
	var e graph.Encoder
	e.Begin()
	e.Add(&tx)
	data := e.Finish("1/A")
	require.Equal(t, written, hex.EncodeToString(data))
	m, err := new(graph.Decoder).Decode(data)
	require.NoError(t, err)
	require.Equal(t, showChanges(tx.Changes), showChanges(m.Transactions[0].Changes))
	require.Equal(t, tx.CommitTime, m.Transactions[0].CommitTime)

	data[0] = 4
	_, err = new(graph.Decoder).Decode(data)
	require.Equal(t, failure.BadRecord, failure.CodeOf(err), "a version that does not exist yet")
}

// TestStagedPartIsReadAsWritten decodes what was written of a part that is elsewhere, and writes the same.
func TestStagedPartIsReadAsWritten(t *testing.T) {
	const written = "0301000000000000000000000004000204" + "05312e322e33" + "04" + "ac02" + "05" + "06" + "0003312f41"
	tx, staged := graph.Transaction{CommitTime: time.Unix(1, 4).UTC()}, graph.Staged{Key: "1.2.3", From: 4, To: 300, Messages: 5, Bytes: 6}
	var e graph.Encoder
	e.Begin()
	e.AddStaged(&tx, &staged)
	data := e.Finish("1/A")
	require.Equal(t, written, hex.EncodeToString(data))
	m, err := new(graph.Decoder).Decode(data)
	require.NoError(t, err)
	require.Equal(t, graph.Message{Position: "1/A", Transactions: []graph.FragmentedTransaction{{Transaction: tx, Staged: &staged}}}, m)

	data[headerSize] |= 1 << 7
	_, err = new(graph.Decoder).Decode(data)
	require.Equal(t, failure.BadRecord, failure.CodeOf(err), "changes of the schema belong to the end of a transaction")
}

const headerSize = 13

func TestTouches(t *testing.T) {
	for op, want := range map[graph.SchemaOp][4]bool{ // who reads nothing, a, b or all; the change is about a, which became b
		graph.SchemaAdded:   {false, false, false, false},
		graph.SchemaMoved:   {false, false, false, false},
		graph.SchemaFilled:  {false, true, false, true},
		graph.SchemaDropped: {false, true, false, true},
		graph.SchemaRetyped: {false, true, false, true},
		graph.SchemaRenamed: {false, true, true, true},
		graph.SchemaRekeyed: {true, true, true, true},
		graph.SchemaJoined:  {true, true, true, true},
		graph.SchemaGone:    {true, true, true, true},
	} {
		c := graph.SchemaChange{Op: op, Labels: []string{"A"}, Table: "t", Property: "a", From: "a", To: "b"}
		got := [4]bool{c.Touches(nil), c.Touches([]string{"a"}), c.Touches([]string{"b"}), c.Touches([]string{"*"})}
		require.Equal(t, want, got, c.String())
		require.NotEmpty(t, c.String())
	}
}
