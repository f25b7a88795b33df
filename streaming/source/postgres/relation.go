package postgres

import (
	"encoding/base64"
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/cockroachdb/apd/v3"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
)

// relation is a table compiled for decoding: how to read its columns and what elements its rows are. It is immutable.
type relation struct {
	table  *table
	name   tableName
	labels []string
	prefix string // of element ids
	shape  *graph.Shape
	types  *typeMap

	// By the place on the wire:
	columns []column
	decode  []decodeFunc

	wire  []wireColumn // by slot; fewer where not all columns are kept
	key   []int        // slots
	edges []relationEdge
	ends  []relationEdge // start and end, where rows are relationships
	// blind says that changed and deleted rows cannot be told apart: the replica identity lacks columns of the key.
	blind bool
	// needsOld says that they can only be told apart by complete old rows.
	needsOld bool
	// deferrable says that for a moment two rows may have the same key.
	deferrable bool
}

// wireColumn is where a column stands in a tuple, and the type and format that it has there.
type wireColumn struct {
	at     int
	oid    uint32
	format int16
}

// row is a decoded row and what identifies it, as element ids have it.
type row struct {
	values []graph.Value
	key    []byte
}

type relationEdge struct {
	labels  []string
	prefix  string // of relationship ids
	target  string // prefix of the target's ids
	columns []int
}

// compile prepares a table whose columns are, at this place of the stream or in this snapshot, those given.
func compile(t *table, columns []column, types *typeMap) (*relation, error) {
	r := &relation{table: t, name: t.name, labels: []string{t.label}, prefix: t.label + ":", types: types, columns: columns}
	var names []string
	var kept []column
	for i, c := range columns {
		if !t.keeps(c) {
			r.decode = append(r.decode, skip)
			continue
		}
		names, kept = append(names, c.name), append(kept, c)
		r.wire = append(r.wire, wireColumn{i, c.oid, types.format(c.oid)})
		r.decode = append(r.decode, types.decoder(c.oid))
	}
	r.shape = graph.NewShape(names...)
	missing := ""
	if r.key, missing = t.slots(kept, t.key); missing != "" {
		return nil, columnGone(r.name, missing)
	}
	for _, e := range t.edges {
		if columns, missing := t.slots(kept, e.columns); missing == "" { // else a change of the schema says so
			r.edges = append(r.edges, compiledEdge(e, columns))
		}
	}
	for _, e := range t.ends {
		columns, missing := t.slots(kept, e.columns)
		if missing != "" {
			return nil, columnGone(r.name, missing)
		}
		r.ends = append(r.ends, compiledEdge(e, columns))
	}
	return r, nil
}

func compiledEdge(e edge, columns []int) relationEdge {
	return relationEdge{[]string{e.kind}, e.kind + ":", e.target + ":", columns}
}

func columnGone(table tableName, column string) error {
	return failure.SchemaMismatch.Errorf("table %s has no column %s any more", table, column).
		WithDetail("table", table.String()).WithDetail("column", column)
}

// slots finds columns of the catalog among those that there are here: by number, since names may be others here.
func (t *table) slots(here []column, names []string) (slots []int, missing string) {
	numbers := t.numbers(names)
	for i, name := range names {
		slot := slices.IndexFunc(here, func(c column) bool {
			if c.num != 0 && numbers[i] != 0 {
				return c.num == numbers[i]
			}
			return c.name == name
		})
		if slot < 0 {
			return nil, name
		}
		slots = append(slots, slot)
	}
	return slots, ""
}

// tuple decodes a row of the stream into values and returns what follows it. Each column has a kind: null, unchanged,
// text or binary; text comes of the rare types that have no binary form.
func (r *relation) tuple(d *decoder, src []byte) ([]graph.Value, []byte, error) {
	if len(src) < 2 || int(binary.BigEndian.Uint16(src)) != len(r.decode) {
		return nil, nil, failure.BadRecord.Errorf("row of %s does not have the %d columns announced", r.name, len(r.decode))
	}
	src = src[2:]
	values := d.values.take(len(r.decode), valueChunk)
	for i, decode := range r.decode {
		if len(src) == 0 {
			return nil, nil, failure.BadRecord.Errorf("row of %s ends early", r.name)
		}
		kind := src[0]
		src = src[1:]
		switch kind {
		case 'n':
			values[i] = graph.Null
			continue
		case 'u':
			values[i] = graph.Unchanged
			d.unchanged = true
			continue
		case 't':
			decode = decodeText
		case 'b':
		default:
			return nil, nil, failure.BadRecord.Errorf("row of %s has a column of kind %q", r.name, kind)
		}
		if len(src) < 4 || int(binary.BigEndian.Uint32(src)) > len(src)-4 {
			return nil, nil, failure.BadRecord.Errorf("row of %s ends early", r.name)
		}
		end := 4 + int(binary.BigEndian.Uint32(src))
		v, err := decode(d, src[4:end])
		if err != nil {
			return nil, nil, r.columnError(i, err)
		}
		values[i], src = v, src[end:]
	}
	if len(r.wire) < len(values) {
		for slot, c := range r.wire {
			values[slot] = values[c.at]
		}
		values = values[:len(r.wire):len(r.wire)]
	}
	return values, src, nil
}

// skip decodes columns that are not kept.
func skip(*decoder, []byte) (graph.Value, error) { return graph.Null, nil }

// columnError says which column, by its place on the wire, could not be decoded. An error that has a code, such as a
// lost connection to the server that was asked for help, keeps it.
func (r *relation) columnError(at int, err error) error {
	c := r.columns[at]
	e := failure.BadRecord.Errorf("decoding column %s (%s) of %s: %w", c.name, r.types.name(c.oid), r.name, err)
	if cause := failure.Of(err); cause != nil {
		e = cause.Code().Errorf("%w", e).WithFix("%s", cause.Fix())
	}
	return e.WithDetail("table", r.name.String()).WithDetail("column", c.name)
}

// row adds to values the key, for which space is used. A primary key is never null; columns that the spec names as key
// may become so. Where all columns are the key, it is up to the caller.
func (r *relation) row(space *[]byte, values []graph.Value) (row, error) {
	for _, slot := range r.key {
		if values[slot].IsNull() {
			name := r.shape.Names()[slot]
			return row{}, failure.BadRecord.Errorf("row of %s has no key: column %s is null", r.name, name).
				WithDetail("table", r.name.String()).WithDetail("column", name)
		}
	}
	*space = appendColumns((*space)[:0], values, r.key)
	return row{values, *space}, nil
}

// id returns the element id of a prefix and a key.
func (d *decoder) id(prefix string, key []byte) graph.ElementID {
	b := append(d.newBytes(len(prefix)+len(key)), prefix...)
	return graph.ElementID(sealed(append(b, key...)))
}

// target returns the element id of a prefix and a foreign key; empty when a column of it is null.
func (d *decoder) target(prefix string, values []graph.Value, columns []int) graph.ElementID {
	for _, c := range columns {
		if values[c].IsNull() {
			return ""
		}
	}
	var space [128]byte
	return graph.ElementID(d.text(appendColumns(append(space[:0], prefix...), values, columns)))
}

// appendColumns writes the parts of a key.
func appendColumns(b []byte, values []graph.Value, columns []int) []byte {
	for i, c := range columns {
		if i > 0 {
			b = append(b, ',')
		}
		from := len(b)
		b = appendKey(b, values[c])
		if len(columns) > 1 {
			b = escape(b, from)
		}
	}
	return b
}

// escape puts a backslash before commas and backslashes from there on, so that the parts of a key stay apart.
func escape(b []byte, from int) []byte {
	for i := from; i < len(b); i++ {
		if b[i] == ',' || b[i] == '\\' {
			b = slices.Insert(b, i, '\\')
			i++
		}
	}
	return b
}

// appendKey writes a value of a key so that values that are equal in Postgres are written alike: numbers of all types
// without trailing zeros.
func appendKey(b []byte, v graph.Value) []byte {
	switch v.Kind() {
	case graph.KindInt:
		return strconv.AppendInt(b, v.AsInt(), 10)
	case graph.KindString:
		return append(b, v.AsString()...)
	case graph.KindBool:
		return strconv.AppendBool(b, v.AsBool())
	case graph.KindFloat:
		return strconv.AppendFloat(b, v.AsFloat(), 'g', -1, 64)
	case graph.KindDecimal:
		var reduced apd.Decimal
		reduced.Reduce(v.AsDecimal())
		return reduced.Append(b, 'f')
	case graph.KindDate:
		return strconv.AppendInt(b, v.AsDate(), 10)
	case graph.KindLocalTime:
		return strconv.AppendInt(b, v.AsLocalTime(), 10)
	case graph.KindTime:
		ns, offset := v.AsTime()
		return strconv.AppendInt(append(strconv.AppendInt(b, ns, 10), '/'), int64(offset), 10)
	case graph.KindLocalDateTime:
		sec, ns := v.AsLocalDateTime()
		return strconv.AppendInt(append(strconv.AppendInt(b, sec, 10), '.'), int64(ns), 10)
	case graph.KindDateTime:
		sec, ns, _ := v.AsDateTime()
		return strconv.AppendInt(append(strconv.AppendInt(b, sec, 10), '.'), int64(ns), 10)
	default: // lists, maps and durations are rare in keys: their encoding is as good a name as any
		return base64.StdEncoding.AppendEncode(b, graph.AppendValue(nil, v))
	}
}

// inserted appends what a new row is: its node and, where the foreign key is not null, its relationships; or the
// relationship that the row is.
func (r *relation) inserted(d *decoder, changes []graph.Change, row row) []graph.Change {
	id := d.id(r.prefix, row.key)
	changes = append(changes, graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: id, Labels: r.labels, Shape: r.shape, Values: row.values}})
	if r.table.relates {
		return r.connected(d, changes)
	}
	for i := range r.edges {
		if c := r.relationship(d, &r.edges[i], id, row); c.Op == graph.OpInsert {
			changes = append(changes, c)
		}
	}
	return changes
}

// updated appends what a changed row is. An update does not say which columns changed: a relationship is stated anew,
// or deleted when the foreign key is null.
func (r *relation) updated(d *decoder, changes []graph.Change, row row) []graph.Change {
	id := d.id(r.prefix, row.key)
	changes = append(changes, graph.Change{Op: graph.OpUpdate, Element: graph.Element{ID: id, Labels: r.labels, Shape: r.shape, Values: row.values}})
	if r.table.relates {
		return r.connected(d, changes)
	}
	for i := range r.edges {
		if c := r.relationship(d, &r.edges[i], id, row); c.Op != 0 {
			changes = append(changes, c)
		}
	}
	return changes
}

// connected gives the last of changes, which is about a relationship, its ends. The columns that name them are not among
// its properties. Where one is null, there is no relationship: an insert is dropped, and an update becomes a delete.
func (r *relation) connected(d *decoder, changes []graph.Change) []graph.Change {
	last := len(changes) - 1
	e := &changes[last].Element
	start, end := &r.ends[0], &r.ends[1]
	e.Start, e.End = d.target(start.target, e.Values, start.columns), d.target(end.target, e.Values, end.columns)
	if e.Start == "" || e.End == "" {
		r.table.optional = true // what was NOT NULL may not be any more
		if changes[last].Op == graph.OpInsert {
			return changes[:last]
		}
		changes[last] = graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: e.ID, Labels: e.Labels}}
		return changes
	}
	for _, slot := range start.columns {
		e.Values[slot] = graph.Null
	}
	for _, slot := range end.columns {
		e.Values[slot] = graph.Null
	}
	return changes
}

// deleted appends the end of a row of which the key columns are known.
func (r *relation) deleted(d *decoder, changes []graph.Change, row row) []graph.Change {
	for i := range r.edges {
		e := &r.edges[i]
		changes = append(changes, graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: d.id(e.prefix, row.key), Labels: e.labels}})
	}
	return append(changes, graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: d.id(r.prefix, row.key), Labels: r.labels}})
}

// truncated appends the end of all rows.
func (r *relation) truncated(changes []graph.Change) []graph.Change {
	for i := range r.edges {
		changes = append(changes, graph.Change{Op: graph.OpTruncate, Element: graph.Element{Labels: r.edges[i].labels}})
	}
	return append(changes, graph.Change{Op: graph.OpTruncate, Element: graph.Element{Labels: r.labels}})
}

// partial reports whether values that an update did not bring are needed: those of a relationship that may not have been
// there, since an end was missing, and the rest of a foreign key of which a part came.
func (r *relation) partial(values []graph.Value) bool {
	unchanged := func(slot int) bool { return values[slot].Kind() == graph.KindUnchanged }
	if r.table.optional && slices.ContainsFunc(values, isUnchanged) {
		return true
	}
	for _, e := range r.ends {
		if slices.ContainsFunc(e.columns, unchanged) {
			return true
		}
	}
	return slices.ContainsFunc(r.edges, func(e relationEdge) bool {
		at := slices.IndexFunc(e.columns, unchanged)
		return at >= 0 && slices.ContainsFunc(e.columns, func(slot int) bool { return !unchanged(slot) })
	})
}

// leadsByUnchanged reports whether a column that says where a relationship leads did not come.
func (r *relation) leadsByUnchanged(values []graph.Value) bool {
	return slices.ContainsFunc(slices.Concat(r.edges, r.ends), func(e relationEdge) bool {
		return slices.ContainsFunc(e.columns, func(slot int) bool { return isUnchanged(values[slot]) })
	})
}

func isUnchanged(v graph.Value) bool { return v.Kind() == graph.KindUnchanged }

// relationship returns an insert, a delete when the foreign key is null, or nothing when it did not change.
func (r *relation) relationship(d *decoder, e *relationEdge, owner graph.ElementID, row row) graph.Change {
	for _, c := range e.columns {
		if row.values[c].Kind() == graph.KindUnchanged {
			return graph.Change{}
		}
	}
	id := d.id(e.prefix, row.key)
	target := d.target(e.target, row.values, e.columns)
	if target == "" {
		return graph.Change{Op: graph.OpDelete, Element: graph.Element{ID: id, Labels: e.labels}}
	}
	return graph.Change{Op: graph.OpInsert, Element: graph.Element{ID: id, Labels: e.labels, Start: owner, End: target}}
}
