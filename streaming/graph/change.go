package graph

import "time"

// Op says what happened to an element.
type Op uint8

// The operations. Insert and Update are both upserts: an insert of an element that exists replaces it, an update of
// one that does not creates it.
const (
	// OpInsert puts the whole element in place of whatever was there.
	OpInsert Op = iota + 1
	// OpUpdate puts the whole element in place, except properties that are Unchanged, which keep their stored values.
	OpUpdate
	// OpMerge changes only the properties that are given, for sources that send partial elements; a null removes one.
	// Without labels these stay as they are. One that gives an element other labels gives all its properties, as those that
	// nobody asked of the former labels may not have been kept.
	OpMerge
	// OpDelete removes the element. Only its ID and Labels are given.
	OpDelete
	// OpTruncate removes all elements of the source that have the label (or type) in Labels. There is no ID.
	OpTruncate
)

var opNames = [...]string{"", "insert", "update", "merge", "delete", "truncate"}

// String returns the operation's lower-case name.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "op?"
}

// Change is what happened to one element.
type Change struct {
	Op      Op
	Element Element
}

// Transaction is the unit in which a source's changes become visible: all of them or none.
type Transaction struct {
	Position   Position  // where the source stands after it; resuming there must not repeat it
	CommitTime time.Time // at the source, UTC
	Changes    []Change
	Schema     []SchemaChange // what elements look like from this transaction on
}
