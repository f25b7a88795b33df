package postgres

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

func TestPosition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := rapid.Uint64().Draw(t, "a"), rapid.Uint64().Draw(t, "b")
		back, err := parsePosition(position(a))
		require.NoError(t, err)
		require.Equal(t, a, back)
		require.Equal(t, a < b, position(a).Compare(position(b)) < 0)
	})
	require.Equal(t, graph.Position("16/B374D848"), position(0x16_B374D848))
	require.Equal(t, graph.Position("0/0"), position(0))
	for _, bad := range []graph.Position{"x", "1", "1/", "/1", "1/2/3", "100000000/0"} {
		_, err := parsePosition(bad)
		require.Equal(t, failure.StateCorrupt, failure.CodeOf(err), bad)
	}
}

// TestKeysDiffer: different composite keys never get the same element id.
func TestKeysDiffer(t *testing.T) {
	d := &decoder{}
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringOfN(rapid.SampledFrom([]rune(`a,\`)), 0, 4, -1)
		a := []graph.Value{graph.String(part.Draw(t, "a0")), graph.String(part.Draw(t, "a1"))}
		b := []graph.Value{graph.String(part.Draw(t, "b0")), graph.String(part.Draw(t, "b1"))}
		same := a[0].AsString() == b[0].AsString() && a[1].AsString() == b[1].AsString()
		require.Equal(t, same, d.target("T:", a, []int{0, 1}) == d.target("T:", b, []int{0, 1}))
	})
	require.Empty(t, d.target("T:", []graph.Value{graph.Int(1), graph.Null}, []int{0, 1}))
}

// wire builds messages of the plugin.
type wire []byte

func (w wire) u8(n byte) wire      { return append(w, n) }
func (w wire) u16(n uint16) wire   { return binary.BigEndian.AppendUint16(w, n) }
func (w wire) u32(n uint32) wire   { return binary.BigEndian.AppendUint32(w, n) }
func (w wire) u64(n uint64) wire   { return binary.BigEndian.AppendUint64(w, n) }
func (w wire) text(s string) wire  { return append(append(w, s...), 0) }
func (w wire) field(b []byte) wire { return append(w.u8('b').u32(uint32(len(b))), b...) }
func (w wire) column(flags byte, s string, oid uint32) wire {
	return w.u8(flags).text(s).u32(oid).u32(0xFFFFFFFF)
}

// orders is a table like that of the demonstration, its messages as the server sends them.
func orders() (*assembler, [][]byte) {
	columns := []column{{name: "id", oid: pgtype.Int8OID}, {name: "customer_id", oid: pgtype.Int4OID}, {name: "status", oid: pgtype.TextOID},
		{name: "total", oid: pgtype.NumericOID}, {name: "placed", oid: pgtype.TimestamptzOID}, {name: "note", oid: pgtype.TextOID}}
	for i := range columns {
		columns[i].num, columns[i].mod = int16(i+1), -1
	}
	t := &table{name: tableName{"public", "orders"}, label: "Order", oid: 1, key: []string{"id"}, all: columns, columns: columns,
		edges: []edge{{"OF", "Customer", []string{"customer_id"}}}}
	types := newTypeMap()
	a := &assembler{decoder: decoder{types: types}, catalog: &catalog{tables: []*table{t}, types: types}, relations: make(map[uint32]*relation),
		resolve:    func(context.Context, []uint32) error { return nil },
		attributes: func(context.Context, uint32) ([]attribute, uint32, error) { return nil, 0, nil },
		files:      func(context.Context, []uint32) (map[uint32]file, error) { return nil, nil },
		described:  func() {},
		fetch:      func(_ context.Context, lacks []lack) ([][][]byte, error) { return make([][][]byte, len(lacks)), nil }}
	relation := wire{}.u8('R').u32(1).text("public").text("orders").u8('d').u16(uint16(len(columns)))
	for i, c := range columns {
		relation = relation.column("\x01\x00"[min(i, 1)], c.name, c.oid)
	}
	row := wire{}.u8('N').u16(6).
		field(wire{}.u64(12345)).field(wire{}.u32(17)).field([]byte("delivered")).
		field(wire{}.u16(2).u16(0).u16(0).u16(2).u16(19).u16(9900)).field(wire{}.u64(700_000_000_000_000)).u8('n')
	return a, [][]byte{
		wire{}.u8('B').u64(100).u64(700_000_000_000_000).u32(7),
		relation,
		append(wire{}.u8('I').u32(1), row...),
		append(wire{}.u8('U').u32(1), row...),
		append(wire{}.u8('D').u32(1), wire{}.u8('K').u16(6).field(wire{}.u64(12345)).u8('n').u8('n').u8('n').u8('n').u8('n')...),
		wire{}.u8('T').u32(1).u8(0).u32(1),
		wire{}.u8('C').u8(0).u64(100).u64(148).u64(700_000_000_000_000),
	}
}

func TestAssembler(t *testing.T) {
	a, messages := orders()
	var tx *graph.Transaction
	for _, m := range messages {
		require.Nil(t, tx)
		var err error
		tx, err = a.message(t.Context(), m)
		require.NoError(t, err)
	}
	require.Equal(t, graph.Position("0/94"), tx.Position)
	require.Equal(t, 2022, tx.CommitTime.Year())
	var ops []string
	for _, c := range tx.Changes {
		ops = append(ops, c.Op.String()+" "+c.Element.Labels[0]+" "+string(c.Element.ID))
	}
	require.Equal(t, []string{"insert Order Order:12345", "insert OF OF:12345", "update Order Order:12345", "insert OF OF:12345",
		"delete OF OF:12345", "delete Order Order:12345", "truncate OF ", "truncate Order "}, ops)
	require.Equal(t, "19.99", tx.Changes[0].Element.Get("total").AsDecimal().String())
}

// FuzzAssembler: whatever arrives, the assembler returns errors and never panics.
func FuzzAssembler(f *testing.F) {
	_, messages := orders()
	for _, m := range messages {
		f.Add(m, uint16(0), byte(0))
		f.Add(m, uint16(len(m)/2), byte(255))
	}
	f.Fuzz(func(t *testing.T, src []byte, at uint16, by byte) {
		a, messages := orders()
		for _, m := range messages[:2] {
			_, err := a.message(t.Context(), m)
			require.NoError(t, err)
		}
		if len(src) > 0 {
			src[int(at)%len(src)] ^= by
		}
		_, _ = a.message(t.Context(), src)
	})
}

// FuzzValues feeds every decoder.
func FuzzValues(f *testing.F) {
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 40 {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(random.Uint32() & 7)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"a": [1, 2.5e3, "\u00e9\ud83d\ude00", null, true, {}]}`))
	f.Add([]byte("\x01[[[[]]]]"))
	f.Add([]byte(wire{}.u32(2).u32(pgtype.TextOID).u32(1).u8('x').u32(pgtype.Int4OID).u32(4).u32(7)))
	f.Fuzz(func(t *testing.T, src []byte) {
		d := &decoder{types: newTypeMap(), serverText: func(uint32, []byte) (string, error) { return "", nil }}
		for _, decode := range scalars {
			_, _ = decode(d, src)
		}
		pair := &typeInfo{kind: 'c', attributes: []column{{name: "b", oid: pgtype.TextOID}, {name: "a", oid: pgtype.Int4OID}}, order: []int{1, 0}, keys: []string{"a", "b"}}
		d.types.known[1] = pair
		for _, decode := range []decodeFunc{decodeArray, decodeComposite(1), decodeRange(pgtype.Int4OID), decodeMultirange(decodeRange(pgtype.TextOID))} {
			_, _ = decode(d, src)
		}
	})
}

// BenchmarkDecode is the cost of a row from the bytes to the changes of its node and one relationship.
func BenchmarkDecode(b *testing.B) {
	a, messages := orders()
	for _, m := range messages[:2] {
		_, err := a.message(b.Context(), m)
		require.NoError(b, err)
	}
	insert, begin, commit := messages[2], messages[0], messages[6]
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		if _, err := a.message(b.Context(), insert); err != nil {
			b.Fatal(err)
		}
		if n++; n%10 == 0 {
			if _, err := a.message(b.Context(), commit); err != nil {
				b.Fatal(err)
			}
			if _, err := a.message(b.Context(), begin); err != nil {
				b.Fatal(err)
			}
		}
	}
}
