// Package result is what comes out of a query: differences between result sets, the envelope they travel in, and their
// binary and JSON forms. Values of this package are immutable once published.
package result

import (
	"encoding/hex"
	"time"

	"github.com/perdure/perdure/streaming/graph"
)

// RowKey is the stable identity of a row, a 128-bit hash of the elements (or the group, or the row) that it stands for.
type RowKey [16]byte

// String returns the key in hexadecimal.
func (k RowKey) String() string { return hex.EncodeToString(k[:]) }

// Op is the kind of a difference.
type Op uint8

// The kinds of differences.
const (
	Added Op = iota + 1
	Updated
	Deleted
)

var opNames = [...]string{"", "added", "updated", "deleted"}

// String returns "added", "updated" or "deleted".
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return "op?"
}

// Diff is one difference of the result set. Before is nil for Added, After is nil for Deleted; otherwise they have one
// value per column.
type Diff struct {
	Op            Op
	Key           RowKey
	Before, After []graph.Value
}

// Row is one row of a result set.
type Row struct {
	Key    RowKey
	Values []graph.Value
}

// Event is what one source transaction did to a query's result set; or, when Snapshot is set, a part of the rows that
// the query started with, all of them added. What is too large for a message is several events, of which all but the last
// have More. Sequences of a query grow by one, without gaps.
type Event struct {
	Sequence   uint64
	Source     string         // name of the source whose transaction it was
	Position   graph.Position // that transaction's position in the source
	CommitTime time.Time      // that transaction's commit time at the source
	Snapshot   bool
	More       bool // the next event is about the same transaction
	Columns    []string
	Diffs      []Diff
}

// State says up to where a result set has come.
type State struct {
	Sequence  uint64                    // of the last event
	Positions map[string]graph.Position // by source: everything up to it is contained
	Offsets   map[string]uint64         // by source: last message of the change stream that is contained
}
