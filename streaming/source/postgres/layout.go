package postgres

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/jackc/pgx/v5/pgtype"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/source"
)

// layout is what the rows of one of the spec's tables look like as elements, as far as it matters to those who have
// read them. The source learns the layouts of all its tables, so that it sees what DDL did while it was away. A layout is
// immutable.
type layout struct {
	Spec    string `json:"spec"`              // the table's name in the spec
	Asked   string `json:"asked,omitempty"`   // stands for what the spec says of it
	Label   string `json:"label"`             // unique
	Missing string `json:"missing,omitempty"` // why the table is not read; then what is below is what it was like

	OID     uint32         `json:"oid,omitempty"`
	Name    string         `json:"name,omitempty"`
	File    uint32         `json:"file,omitempty"` // where its rows are: another one when the table was rewritten
	Filter  string         `json:"filter,omitempty"`
	Whole   bool           `json:"whole,omitempty"` // all columns are the key
	Key     []int16        `json:"key,omitempty"`   // numbers of columns
	Columns []column       `json:"columns,omitempty"`
	Unsent  []column       `json:"unsent,omitempty"` // which the stream does not have, because nobody reads them
	Rows    source.Only    `json:"rows,omitempty"`   // those that the stream has, because nobody reads the others; see ownRows
	Edges   []layoutOfEdge `json:"edges,omitempty"`
	Ends    []layoutOfEdge `json:"ends,omitempty"` // start and end, where the rows are relationships
	Parts   []part         `json:"parts,omitempty"`
	Stored  []stored       `json:"stored,omitempty"`
	// Types are the names that values of user-defined types are made of, by the OID of what has them.
	Types map[string]string `json:"types,omitempty"`
}

// part is a partition that has rows.
type part struct {
	OID uint32 `json:"oid"`
	// Full says that it came with rows, of which the stream does not tell.
	Full bool `json:"full,omitempty"`
}

func (l *layout) hasPart(oid uint32) bool {
	return slices.ContainsFunc(l.Parts, func(p part) bool { return p.OID == oid })
}

type layoutOfEdge struct {
	Type    string  `json:"type"`
	Target  string  `json:"target"`
	Columns []int16 `json:"columns"`
}

// layouts says what a catalog's tables look like. Those that the publication does not have are missing.
func (c *catalog) layouts() []layout {
	all := make([]layout, 0, len(c.tables))
	for _, t := range c.tables {
		l := layout{Spec: t.spec, Asked: t.asked, Label: t.label}
		if t.unpublished {
			l.Missing = "the publication does not have it"
		}
		l.OID, l.Name, l.File, l.Filter, l.Whole = t.oid, t.name.String(), t.file, t.filter, t.wholeRow
		l.Key, l.Columns, l.Unsent, l.Rows = t.numbers(t.key), t.columns, t.unsent, t.rows
		for _, e := range t.edges {
			l.Edges = append(l.Edges, layoutOfEdge{e.kind, e.target, t.numbers(e.columns)})
		}
		for _, e := range t.ends {
			l.Ends = append(l.Ends, layoutOfEdge{e.kind, e.target, t.numbers(e.columns)})
		}
		for _, leaf := range t.leaves {
			l.Parts = append(l.Parts, part{OID: leaf.oid})
		}
		l.tellTypes(c.types)
		slices.SortFunc(l.Parts, func(a, b part) int { return cmp.Compare(a.OID, b.OID) })
		all = append(all, l)
	}
	return all
}

// labelled returns the layout of a label, nil when there is none.
func labelled(all []layout, label string) *layout {
	for i := range all {
		if all[i].Label == label {
			return &all[i]
		}
	}
	return nil
}

func (l *layout) column(num int16) *column { return numbered(l.Columns, num) }

func (l *layout) leavesOut(num int16) bool { return numbered(l.Unsent, num) != nil }

// leavesOut reports whether there are columns or rows that the stream does not have because nobody reads them.
func leavesOut(all []layout) bool {
	return slices.ContainsFunc(all, func(l layout) bool { return len(l.Unsent) > 0 || l.Rows != nil })
}

func numbered(columns []column, num int16) *column {
	for i := range columns {
		if columns[i].num == num && num != 0 {
			return &columns[i]
		}
	}
	return nil
}

func (l *layout) edge(kind string) *layoutOfEdge {
	for i := range l.Edges {
		if l.Edges[i].Type == kind {
			return &l.Edges[i]
		}
	}
	return nil
}

// like reports whether nothing has to be learned from the stream: whether rows that existed got a value says something only
// beside another change.
func (l *layout) like(other *layout) bool {
	return l.Spec == other.Spec && l.Label == other.Label && l.Missing == other.Missing && l.OID == other.OID && l.Name == other.Name &&
		l.Filter == other.Filter && l.Whole == other.Whole && slices.Equal(l.Key, other.Key) &&
		slices.EqualFunc(l.Columns, other.Columns, alike) && slices.EqualFunc(l.Unsent, other.Unsent, alike) &&
		l.Rows.Covers(other.Rows) && other.Rows.Covers(l.Rows) &&
		slices.EqualFunc(l.Edges, other.Edges, layoutOfEdge.equal) && slices.EqualFunc(l.Ends, other.Ends, layoutOfEdge.equal) &&
		slices.EqualFunc(l.Parts, other.Parts, func(a, b part) bool { return a.OID == b.OID }) &&
		slices.EqualFunc(l.Stored, other.Stored, stored.sameFile) && maps.Equal(l.Types, other.Types)
}

// likeButStored is like, wherever the rows are.
func (l *layout) likeButStored(other *layout) bool {
	same := *l
	same.Stored = other.Stored
	return same.like(other)
}

func alike(a, b column) bool { a.filled = b.filled; return a == b }

func (e layoutOfEdge) equal(other layoutOfEdge) bool {
	return e.Type == other.Type && e.Target == other.Target && slices.Equal(e.Columns, other.Columns)
}

// state names what the table looks like, whatever of it is sent.
func (l *layout) state() string {
	same := *l
	same.Spec, same.Asked, same.File, same.Columns, same.Unsent, same.Parts = "", "", 0, slices.Concat(l.Columns, l.Unsent), nil, slices.Clone(l.Parts)
	same.Rows, same.Stored = nil, nil
	slices.SortFunc(same.Columns, byNumber)
	for i := range same.Parts {
		same.Parts[i].Full = false
	}
	for i := range same.Columns {
		same.Columns[i].filled = false
	}
	sum := sha256.Sum256(encodeLayouts([]layout{same}))
	return hex.EncodeToString(sum[:8])
}

// MarshalJSON writes the column short: there are many.
func (c column) MarshalJSON() ([]byte, error) {
	return json.Marshal([]any{c.num, c.name, c.oid, c.mod, c.filled})
}

// UnmarshalJSON implements json.Unmarshaler.
func (c *column) UnmarshalJSON(data []byte) error {
	return json.Unmarshal(data, &[]any{&c.num, &c.name, &c.oid, &c.mod, &c.filled})
}

func encodeLayouts(all []layout) []byte {
	data, _ := json.Marshal(all) // has nothing that cannot be encoded
	return data
}

// decodeLayouts returns nil for what nobody has learned yet.
func decodeLayouts(data []byte) (all []layout, err error) {
	if len(data) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(data, &all); err != nil {
		return nil, failure.StateCorrupt.Errorf("decoding what was learned of the tables: %w", err)
	}
	return all, nil
}

// differ finds out what happened to elements between two states of the tables.
type differ struct {
	types   *typeMap
	changes []graph.SchemaChange
	rekeyed map[string]string // labels whose elements have other ids, with the column to blame
	state   string            // of the table at hand
}

// schemaChanges returns what happened to elements between two states of the tables.
func schemaChanges(types *typeMap, before, now []layout) []graph.SchemaChange {
	d := &differ{types: types, rekeyed: make(map[string]string)}
	for i := range now {
		d.state = now[i].state()
		d.columns(labelled(before, now[i].Label), &now[i])
	}
	for i := range now {
		d.state = now[i].state()
		d.elements(labelled(before, now[i].Label), &now[i])
	}
	d.state = ""
	for i := range before {
		if labelled(now, before[i].Label) == nil {
			d.elements(&before[i], &layout{Missing: "the spec does not name it"})
		}
	}
	return d.changes
}

func (d *differ) add(op graph.SchemaOp, table string, labels []string, property, from, to string) {
	d.changes = append(d.changes, graph.SchemaChange{Op: op, Labels: labels, Table: table, Property: property, From: from, To: to, State: d.state})
}

// addList is add for what says nothing about the table: whoever has read it with a snapshot is not behind that.
func (d *differ) addList(op graph.SchemaOp, table string, labels []string, c *column) {
	d.changes = append(d.changes, graph.SchemaChange{Op: op, Labels: labels, Table: table, Property: c.name})
}

// comparable reports whether it is the same table, read before and now.
func (l *layout) comparable(old *layout) bool {
	return old != nil && old.Missing == "" && l.Missing == "" && old.OID == l.OID
}

// columns compares the columns of one table, by their numbers: a column that was dropped and added again has another.
func (d *differ) columns(old, now *layout) {
	if !now.comparable(old) {
		return
	}
	label := []string{now.Label}
	if old.Name != now.Name {
		d.add(graph.SchemaMoved, now.Name, label, "", old.Name, now.Name)
	}
	for i := range old.Columns {
		was := &old.Columns[i]
		is := now.column(was.num)
		if is == nil && now.leavesOut(was.num) {
			d.addList(graph.SchemaWithheld, now.Name, label, was)
			continue
		}
		if is == nil {
			d.add(graph.SchemaDropped, now.Name, label, was.name, "", "")
			continue
		}
		if was.name != is.name {
			d.add(graph.SchemaRenamed, now.Name, label, was.name, was.name, is.name)
		}
		if !d.types.sameValues(*was, *is) {
			d.add(graph.SchemaRetyped, now.Name, label, is.name, d.types.text(*was), d.types.text(*is))
		}
	}
	for i := range now.Columns {
		is := &now.Columns[i]
		switch {
		case old.column(is.num) != nil:
		case old.leavesOut(is.num):
			d.addList(graph.SchemaSupplied, now.Name, label, is)
		case is.filled || is.num == 0 || old.File != now.File:
			d.add(graph.SchemaFilled, now.Name, label, is.name, "", d.types.text(*is))
		default:
			d.add(graph.SchemaAdded, now.Name, label, is.name, "", d.types.text(*is))
		}
	}
	if column, other := d.otherIDs(old, now); other {
		d.rekeyed[now.Label] = column
	}
}

// otherIDs reports whether rows have other ids than before, or others of them are elements.
func (d *differ) otherIDs(old, now *layout) (column string, other bool) {
	if old.Filter != now.Filter || old.Whole != now.Whole {
		return "", true
	}
	if !now.Whole {
		return d.otherValues(old, now, old.Key, now.Key)
	}
	for i := range max(len(old.Columns), len(now.Columns)) { // ids are made of the binary forms of all columns
		switch {
		case i >= len(old.Columns):
			return now.Columns[i].name, true
		case i >= len(now.Columns) || old.Columns[i].num != now.Columns[i].num || old.Columns[i].oid != now.Columns[i].oid:
			return old.Columns[i].name, true
		}
	}
	return "", false
}

// otherValues reports whether what is made of some columns is another by now, and the column to blame.
func (d *differ) otherValues(old, now *layout, before, after []int16) (column string, other bool) {
	for i, num := range before {
		was := old.column(num)
		if was == nil {
			continue
		}
		if is := now.column(num); i >= len(after) || after[i] != num || is == nil || !d.types.sameValues(*was, *is) {
			return was.name, true
		}
	}
	return "", len(before) != len(after)
}

// elements compares what the rows of a table are.
func (d *differ) elements(old, now *layout) {
	switch present, wasPresent := now.Missing == "", old != nil && old.Missing == ""; {
	case !present && !wasPresent:
	case !present:
		d.add(graph.SchemaGone, old.Name, old.labels(), "", "", now.Missing)
	case !now.comparable(old):
		d.add(graph.SchemaJoined, now.Name, now.labels(), "", "", "")
	default:
		column, other := d.rekeyed[now.Label]
		if !other {
			column, other = d.otherEnds(old, now)
		}
		if other {
			d.add(graph.SchemaRekeyed, now.Name, now.labels(), column, "", "")
		}
		if now.otherRows(old) {
			d.add(graph.SchemaMissed, now.Name, now.labels(), "", "", graph.MissedDiff)
		}
		if now.otherNames(old) {
			d.add(graph.SchemaMissed, now.Name, now.labels(), "", "are written otherwise, since labels of an enum or attributes of a composite type are others", graph.MissedDiff)
		}
		if !slices.Equal(old.Rows[others], now.Rows[others]) {
			d.state = "" // it does not say which rows are sent
			d.add(graph.SchemaMissed, now.Name, now.labels(), "", "were left out, since somebody altered the row filter of the publication", graph.MissedDiff)
		}
		if now.rewritten(old) {
			d.state = "" // it does not say where rows are
			d.add(graph.SchemaMissed, now.Name, now.labels(), "", "were written anew or removed", graph.MissedDiff)
		}
		d.edges(old, now)
	}
}

// otherEnds reports whether rows that are relationships lead elsewhere now, and the column to blame.
func (d *differ) otherEnds(old, now *layout) (column string, other bool) {
	if len(old.Ends) != len(now.Ends) {
		return "", true
	}
	for i, is := range now.Ends {
		was := old.Ends[i]
		if column, other = d.otherValues(old, now, was.Columns, is.Columns); other || was.Target != is.Target {
			return column, true
		}
		if column, other = d.rekeyed[is.Target]; other {
			d.state = "" // it says nothing about the target
			return column, true
		}
	}
	return "", false
}

// otherRows reports whether rows came or went with partitions. What was learned before partitions were is not compared.
func (l *layout) otherRows(old *layout) bool {
	return len(old.Parts) > 0 && (slices.ContainsFunc(old.Parts, func(p part) bool { return !l.hasPart(p.OID) }) ||
		slices.ContainsFunc(l.Parts, func(p part) bool { return p.Full && !old.hasPart(p.OID) }))
}

// edges compares the relationships of a table's rows.
func (d *differ) edges(old, now *layout) {
	_, rekeyed := d.rekeyed[now.Label] // and they are told of already
	for i := range old.Edges {
		if was := &old.Edges[i]; now.edge(was.Type) == nil {
			d.add(graph.SchemaGone, now.Name, []string{was.Type}, "", "", "its columns are gone, or the spec does not name it")
		}
	}
	for i := range now.Edges {
		is := &now.Edges[i]
		was := old.edge(is.Type)
		if was == nil {
			d.add(graph.SchemaJoined, now.Name, []string{is.Type}, "", "", "")
			continue
		}
		column, other := d.otherValues(old, now, was.Columns, is.Columns)
		if target, ok := d.rekeyed[is.Target]; ok {
			if !other {
				column, other = target, true
			}
			d.state = "" // it says nothing about the target
		}
		if (other || was.Target != is.Target) && !rekeyed {
			d.add(graph.SchemaRekeyed, now.Name, []string{is.Type}, column, "", "")
		}
	}
}

// labels returns the label of a table's nodes and the types of their relationships.
func (l *layout) labels() []string {
	labels := []string{l.Label}
	for _, e := range l.Edges {
		labels = append(labels, e.Type)
	}
	return labels
}

// sameValues reports whether what a column holds is the same after its type changed, as values of the graph. What USING
// makes of the values nobody can know.
func (m *typeMap) sameValues(old, now column) bool {
	if old.oid == now.oid && old.mod == now.mod {
		return true
	}
	integer := func(c column) bool {
		return c.oid == pgtype.Int2OID || c.oid == pgtype.Int4OID || c.oid == pgtype.Int8OID
	}
	loosened := now.mod == -1 || old.mod != -1 && now.mod >= old.mod
	switch {
	case integer(old) && integer(now):
		return true
	case now.oid == pgtype.TextOID || now.oid == pgtype.VarcharOID && now.mod == -1:
		return m.isText(old.oid)
	case old.oid != now.oid:
		return false
	}
	switch now.oid {
	case pgtype.BPCharOID: // without its padding
		return true
	case pgtype.NumericOID: // a value keeps its scale unless the column has another one
		return now.mod == -1 || old.mod != -1 && scale(old.mod) == scale(now.mod)
	case pgtype.VarcharOID, pgtype.TimeOID, pgtype.TimetzOID, pgtype.TimestampOID, pgtype.TimestamptzOID:
		return loosened
	}
	return false
}

// isText reports whether values of a type are the strings that a cast to text makes of them.
func (m *typeMap) isText(oid uint32) bool {
	switch oid {
	case pgtype.TextOID, pgtype.VarcharOID, pgtype.BPCharOID, pgtype.NameOID, pgtype.UUIDOID:
		return true
	}
	t := m.known[oid]
	return t != nil && (t.kind == 'e' || t.kind == 'b' && t.text)
}

// What a column's modifier holds: the length or, of a numeric, precision and scale, and an offset.
const modOffset = 4

func scale(mod int32) int32 { return (mod - modOffset) & 0x7ff }

// text returns a column's type for people.
func (m *typeMap) text(c column) string {
	name := m.name(c.oid)
	switch {
	case c.mod == -1:
	case c.oid == pgtype.NumericOID:
		return fmt.Sprintf("%s(%d,%d)", name, (c.mod-modOffset)>>16, scale(c.mod))
	case c.oid == pgtype.VarcharOID || c.oid == pgtype.BPCharOID:
		return fmt.Sprintf("%s(%d)", name, c.mod-modOffset)
	case slices.Contains([]uint32{pgtype.TimeOID, pgtype.TimetzOID, pgtype.TimestampOID, pgtype.TimestamptzOID}, c.oid):
		return fmt.Sprintf("%s(%d)", name, c.mod)
	}
	return name
}
