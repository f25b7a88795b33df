package postgres

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5/pgtype"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
)

func numeric(precision, scale int32) int32 { return precision<<16 | scale + modOffset }

func TestTypesWithTheSameValues(t *testing.T) {
	types := newTypeMap()
	const mood, citext, pair = 90000, 90001, 90002
	types.known[mood] = &typeInfo{name: "mood", kind: 'e'}
	types.known[citext] = &typeInfo{name: "citext", kind: 'b', text: true, binary: true}
	types.known[pair] = &typeInfo{name: "pair", kind: 'c'}
	of := func(oid uint32, mod int32) column { return column{oid: oid, mod: mod} }
	for _, c := range []struct {
		old, now column
		same     bool
	}{
		{of(pgtype.Int4OID, -1), of(pgtype.Int8OID, -1), true},
		{of(pgtype.Int8OID, -1), of(pgtype.Int2OID, -1), true},
		{of(pgtype.Int4OID, -1), of(pgtype.NumericOID, -1), false}, // a decimal is another value
		{of(pgtype.Int4OID, -1), of(pgtype.TextOID, -1), false},
		{of(pgtype.Float4OID, -1), of(pgtype.Float8OID, -1), false},
		{of(pgtype.VarcharOID, 14), of(pgtype.TextOID, -1), true},
		{of(pgtype.VarcharOID, 14), of(pgtype.VarcharOID, 24), true},
		{of(pgtype.VarcharOID, 24), of(pgtype.VarcharOID, 14), false}, // blanks are cut off
		{of(pgtype.VarcharOID, -1), of(pgtype.VarcharOID, 14), false},
		{of(pgtype.TextOID, -1), of(pgtype.VarcharOID, -1), true},
		{of(pgtype.BPCharOID, 14), of(pgtype.TextOID, -1), true},
		{of(pgtype.TextOID, -1), of(pgtype.BPCharOID, 14), false},
		{of(pgtype.BPCharOID, 14), of(pgtype.BPCharOID, 24), true},
		{of(pgtype.UUIDOID, -1), of(pgtype.TextOID, -1), true},
		{of(pgtype.InetOID, -1), of(pgtype.TextOID, -1), false}, // a cast shows the mask
		{of(mood, -1), of(pgtype.TextOID, -1), true},
		{of(citext, -1), of(pgtype.TextOID, -1), true},
		{of(pair, -1), of(pgtype.TextOID, -1), false},
		{of(pgtype.TextOID, -1), of(mood, -1), false},
		{of(pgtype.NumericOID, numeric(10, 2)), of(pgtype.NumericOID, numeric(12, 2)), true},
		{of(pgtype.NumericOID, numeric(10, 2)), of(pgtype.NumericOID, numeric(12, 4)), false},
		{of(pgtype.NumericOID, numeric(10, 2)), of(pgtype.NumericOID, -1), true},
		{of(pgtype.NumericOID, -1), of(pgtype.NumericOID, numeric(10, 2)), false},
		{of(pgtype.TimestampOID, 0), of(pgtype.TimestampOID, 3), true},
		{of(pgtype.TimestampOID, -1), of(pgtype.TimestampOID, 3), false},
		{of(pgtype.TimestampOID, -1), of(pgtype.TimestamptzOID, -1), false},
		{of(pgtype.JSONOID, -1), of(pgtype.JSONBOID, -1), false},
	} {
		require.Equal(t, c.same, types.sameValues(c.old, c.now), "%s to %s", types.text(c.old), types.text(c.now))
	}
}

// TestColumnsAreNumbered: the description of a table has names and types, the catalog, which may be further, numbers.
func TestColumnsAreNumbered(t *testing.T) {
	const text, integer = pgtype.TextOID, pgtype.Int4OID
	col := func(num int16, name string, oid uint32) column {
		return column{num: num, name: name, oid: oid, mod: -1}
	}
	at := func(num int16, name string) attribute { return attribute{column: column{num: num, name: name}} }
	gone := func(num int16) attribute { return attribute{column: column{num: num}, dropped: true} }
	known := []column{col(1, "id", integer), col(2, "a", integer), col(3, "b", integer)}
	for name, c := range map[string]struct {
		here []column
		now  []attribute
		want []int16
	}{
		"as it was":          {known, nil, []int16{1, 2, 3}},
		"added":              {append(known[:3:3], col(0, "c", text)), []attribute{at(1, "id"), at(2, "a"), at(3, "b"), at(4, "c")}, []int16{1, 2, 3, 4}},
		"dropped":            {[]column{known[0], known[2]}, []attribute{at(1, "id"), gone(2), at(3, "b")}, []int16{1, 3}},
		"renamed":            {[]column{known[0], col(0, "x", integer), known[2]}, []attribute{at(1, "id"), at(2, "x"), at(3, "b")}, []int16{1, 2, 3}},
		"renamed again":      {[]column{known[0], col(0, "x", integer), known[2]}, []attribute{at(1, "id"), at(2, "y"), at(3, "b")}, []int16{1, 2, 3}},
		"renamed, dropped":   {[]column{known[0], col(0, "x", integer), known[2]}, []attribute{at(1, "id"), gone(2), at(3, "b")}, []int16{1, 2, 3}},
		"exchanged":          {[]column{known[0], known[2], known[1]}, []attribute{at(1, "id"), at(2, "b"), at(3, "a")}, []int16{1, 2, 3}},
		"dropped and added":  {[]column{known[0], known[2], known[1]}, []attribute{at(1, "id"), gone(2), at(3, "b"), at(4, "a")}, []int16{1, 3, 4}},
		"with another type":  {[]column{known[0], known[2], col(0, "a", text)}, []attribute{at(1, "id"), gone(2), at(3, "b"), at(4, "a")}, []int16{1, 3, 4}},
		"added again behind": {[]column{known[0], known[1], col(0, "b", text)}, []attribute{at(1, "id"), gone(2), at(3, "b"), at(4, "a")}, []int16{1, 2, 3}},
		"nothing is known":   {[]column{col(0, "x", text), col(0, "y", text)}, []attribute{at(5, "u"), at(6, "v"), at(7, "w")}, []int16{0, 0}},
	} {
		here := append([]column(nil), c.here...)
		for i := range here {
			here[i].num = 0
		}
		number(here, known, c.now)
		var got []int16
		for _, h := range here {
			got = append(got, h.num)
		}
		require.Equal(t, c.want, got, name)
	}
}

func TestWhatBecameOfElements(t *testing.T) {
	columns := []column{{name: "id", oid: pgtype.Int4OID, num: 1, mod: -1}, {name: "owner", oid: pgtype.Int4OID, num: 2, mod: -1}}
	owner := layout{Spec: "o", Label: "Owner", OID: 1, Name: "public.o", Key: []int16{1}, Columns: columns[:1]}
	pet := layout{Spec: "p", Label: "Pet", OID: 2, Name: "public.p", Key: []int16{1}, Columns: columns, Edges: []layoutOfEdge{{"OF", "Owner", []int16{2}}}}
	text := func(c []column, at int) []column {
		c = append([]column(nil), c...)
		c[at].oid = pgtype.TextOID
		return c
	}
	for name, c := range map[string]struct {
		change func(owner, pet *layout)
		want   []string
	}{
		"nothing":         {func(*layout, *layout) {}, nil},
		"stored anew":     {func(o, _ *layout) { o.File = 7 }, nil},
		"ids of a target": {func(o, _ *layout) { o.Columns = text(o.Columns, 0) }, []string{"column id of public.o has the type text and had int4", "what rows of public.o are as Owner changed, because of column id", "what rows of public.p are as OF changed, because of column id"}},
		"an end":          {func(_, p *layout) { p.Columns = text(p.Columns, 1) }, []string{"column owner of public.p has the type text and had int4", "what rows of public.p are as OF changed, because of column owner"}},
		"ids":             {func(_, p *layout) { p.Key = []int16{2} }, []string{"what rows of public.p are as Pet, OF changed, because of column id"}},
		"a row filter":    {func(_, p *layout) { p.Filter = "id > 1" }, []string{"what rows of public.p are as Pet, OF changed"}},
		"another table":   {func(_, p *layout) { p.OID = 3 }, []string{"public.p is read as Pet, OF from now on"}},
		"another label": {func(_, p *layout) { p.Label = "Animal" }, []string{"public.p is read as Animal, OF from now on",
			"public.p is not read as Pet, OF any more: the spec does not name it"}},
		"another relationship": {func(_, p *layout) { p.Edges = []layoutOfEdge{{"BY", "Owner", []int16{2}}} }, []string{
			"public.p is not read as OF any more: its columns are gone, or the spec does not name it", "public.p is read as BY from now on"}},
	} {
		o, p := owner, pet
		c.change(&o, &p)
		var got []string
		for _, change := range schemaChanges(newTypeMap(), []layout{owner, pet}, []layout{o, p}) {
			got = append(got, change.String())
		}
		require.Equal(t, c.want, got, name)
	}
}

func TestLayoutsAreKept(t *testing.T) {
	all := []layout{{Spec: "p", Label: "Pet", OID: 2, Name: "public.p", Key: []int16{1}, Columns: []column{{"id", 23, 1, -1, true}}, Edges: []layoutOfEdge{{"OF", "Owner", []int16{2}}}},
		{Spec: "q", Label: "Q", Missing: "it was dropped"}}
	got, err := decodeLayouts(encodeLayouts(all))
	require.NoError(t, err)
	require.Equal(t, all, got)
	got, err = decodeLayouts(nil)
	require.NoError(t, err)
	require.Nil(t, got)
	_, err = decodeLayouts([]byte("{"))
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(err))
}

// TestWhatTheWatcherSaysMayBeOld: it looked before the stream told of something newer, which stands.
func TestWhatTheWatcherSaysMayBeOld(t *testing.T) {
	of := func(name string) layout {
		return layout{Spec: "t", Label: "T", OID: 1, Name: "public.t", Columns: []column{{name: name, oid: pgtype.Int4OID, num: 1, mod: -1}}}
	}
	say := func(before, now layout) []byte {
		data, err := json.Marshal(announcement{[]layout{before}, []layout{now}})
		require.NoError(t, err)
		return append(wire{}.u8(1).u64(0).text("perdure s").u32(uint32(len(data))), data...)
	}
	a := &assembler{decoder: decoder{types: newTypeMap()}, prefix: "perdure s", known: []layout{of("a")}, open: true}
	require.NoError(t, a.announced(say(of("x"), of("y"))))
	require.Empty(t, a.schema)
	require.True(t, a.known[0].like(&[]layout{of("a")}[0]))
	require.False(t, a.news || a.renewed, "there is nothing to read anew")
	require.NoError(t, a.announced(say(of("a"), of("b"))))
	require.Len(t, a.schema, 1)
	require.True(t, a.renewed)

	a = &assembler{decoder: decoder{types: newTypeMap()}, prefix: "perdure other", known: []layout{of("a")}, open: true}
	require.NoError(t, a.announced(say(of("a"), of("b"))), "for another source")
	require.NoError(t, a.announced([]byte{1, 2}))
	require.Empty(t, a.schema)
	a.prefix, a.taken = "perdure s", true
	require.NoError(t, a.announced(say(of("a"), of("b"))), "of a transaction that was taken")
	require.Empty(t, a.schema)
}
