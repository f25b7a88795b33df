package graph

import (
	"fmt"
	"slices"
	"strings"
)

// SchemaOp says what happened to all elements of a label at once.
type SchemaOp uint8

// The operations. Those up to SchemaRetyped and the last two are about one property, the others about the elements themselves.
const (
	// SchemaAdded: there is another property, which the elements that exist do not have.
	SchemaAdded SchemaOp = iota + 1
	// SchemaFilled: there is another property, and elements that exist have a value of it.
	SchemaFilled
	// SchemaDropped: a property is gone, with its values.
	SchemaDropped
	// SchemaRenamed: a property has the name To now and had From before.
	SchemaRenamed
	// SchemaRetyped: the values of a property are others now; From and To are types of the source.
	SchemaRetyped
	// SchemaMoved: the table has the name To now and had From before. Nothing becomes of the elements.
	SchemaMoved
	// SchemaRekeyed: elements have other ids or ends now, or others of them are told of.
	SchemaRekeyed
	// SchemaJoined: the source tells of these elements from now on; those that exist came without changes.
	SchemaJoined
	// SchemaGone: the source does not tell of these elements any more, for the reason in To.
	SchemaGone
	// SchemaMissed: changes are lost, of these labels or of whatever elements, perhaps after the position From; of a Table, From
	// may say what became of its rows. To says what whoever has followed the changes is to do, which is one of the words below.
	SchemaMissed
	// SchemaWithheld: the source leaves out a property from here on, because nobody reads it.
	SchemaWithheld
	// SchemaSupplied: the source tells of a property that it left out before; the values that there are came without changes.
	SchemaSupplied
)

// What to do about changes that are lost: read all elements again, and then tell of the differences, or of everything
// anew.
const (
	MissedDiff    = "diff"
	MissedRebuild = "rebuild"
)

// SchemaChange says that elements became others without changes that say so, as when a column of a table is dropped.
type SchemaChange struct {
	Op       SchemaOp
	Labels   []string // of the nodes, or types of the relationships; none: of all there are
	Table    string   // where the elements come from, as the source names it
	Property string   // the one that it is about, or because of which the elements themselves are; may be empty
	From, To string
	// State names, in the source's own notation, what the elements look like now; a snapshot that has the same for their
	// label was taken behind the change. It may be empty.
	State string
}

// Touches reports whether whoever reads these properties of such elements, "*" being all of them, may know something
// that is not so any more.
func (c *SchemaChange) Touches(properties []string) bool {
	reads := func(name string) bool { return slices.Contains(properties, name) || slices.Contains(properties, "*") }
	switch c.Op {
	case SchemaAdded, SchemaMoved:
		return false
	case SchemaFilled, SchemaDropped, SchemaRetyped, SchemaWithheld, SchemaSupplied:
		return reads(c.Property)
	case SchemaRenamed:
		return reads(c.From) || reads(c.To)
	}
	return true
}

// String says for people what happened.
func (c *SchemaChange) String() string {
	column := fmt.Sprintf("column %s of %s", c.Property, c.Table)
	switch c.Op {
	case SchemaAdded:
		return fmt.Sprintf("%s (%s) was added", column, c.To)
	case SchemaFilled:
		return fmt.Sprintf("%s (%s) was added with a value in the rows that existed", column, c.To)
	case SchemaDropped:
		return column + " was dropped"
	case SchemaRenamed:
		return column + " was renamed to " + c.To
	case SchemaRetyped:
		return fmt.Sprintf("%s has the type %s and had %s", column, c.To, c.From)
	case SchemaWithheld:
		return column + " is not sent any more"
	case SchemaSupplied:
		return column + " is sent from now on"
	case SchemaMoved:
		return fmt.Sprintf("table %s was renamed to %s", c.From, c.To)
	case SchemaMissed:
		switch {
		case c.Table != "" && c.From != "":
			return "rows of " + c.Table + " " + c.From
		case c.Table != "":
			return "rows came or went with partitions of " + c.Table
		}
		return "changes after " + c.From + " are lost"
	}
	text := ""
	switch c.Op {
	case SchemaRekeyed:
		text = fmt.Sprintf("what rows of %s are as %s changed", c.Table, strings.Join(c.Labels, ", "))
	case SchemaJoined:
		text = fmt.Sprintf("%s is read as %s from now on", c.Table, strings.Join(c.Labels, ", "))
	case SchemaGone:
		text = fmt.Sprintf("%s is not read as %s any more: %s", c.Table, strings.Join(c.Labels, ", "), c.To)
	}
	if c.Property != "" {
		text += ", because of column " + c.Property
	}
	return text
}
