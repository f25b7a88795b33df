// Package store keeps a query's state in an index: the elements that its patterns read with their adjacency, what its
// operators remember, the view, and the outbox. All keys are made in this file.
package store

import (
	"encoding/binary"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

// The first byte of a key says what it belongs to. Numbers of nodes, scans and indexes take two bytes.
const (
	spaceMeta      = 0x01 // -> meta record
	spaceName      = 0x02 // table, number -> name or names
	spaceElement   = 0x03 // id -> element record
	spaceScan      = 0x04 // scan, id -> nothing
	spaceAdjacency = 0x05 // node, direction, type, relationship -> node at the other end
	spaceGroup     = 0x06 // node, group -> group record
	spaceMultiset  = 0x07 // node, group, aggregate, ordered value -> values equivalent to it with their counts
	spaceView      = 0x08 // order, row key -> values
	spaceFailed    = 0x09 // node, stage, row key -> cause
	spaceOutbox    = 0x0a // sequence of the last event of a batch -> its events
	spaceIndex     = 0x0b // index, ordered value, id -> nothing
	spaceRow       = 0x0c // node, set of shared elements, their ids, row key -> slots, ids of all shared elements
	spaceScope     = 0x0d // node, scope -> what waits in it
	spaceWindow    = 0x0e // node, scope, order, row key -> slots
	spaceVolatile  = 0x0f // node, row key -> values
	spaceTimer     = 0x10 // time, node, row key -> nothing
)

// Directions of a relationship as its node sees it.
const (
	Outgoing = 0
	Incoming = 1
)

// MetaKey returns the key of the query's own record.
func MetaKey() []byte { return []byte{spaceMeta} }

func nameKey(table byte, number uint32) []byte {
	return binary.BigEndian.AppendUint32([]byte{spaceName, table}, number)
}

func appendElementKey(dst []byte, id graph.ElementID) []byte {
	return append(append(dst, spaceElement), id...)
}

func appendNumber(dst []byte, space byte, number int) []byte {
	return binary.BigEndian.AppendUint16(append(dst, space), uint16(number))
}

func appendScanKey(dst []byte, scan int, id graph.ElementID) []byte {
	return append(appendNumber(dst, spaceScan, scan), id...)
}

// appendIndexPrefix appends what the keys of all elements with a value start with.
func appendIndexPrefix(dst []byte, index int, v graph.Value) []byte {
	return graph.AppendKey(appendNumber(dst, spaceIndex, index), v)
}

func appendAdjacencyPrefix(dst []byte, node graph.ElementID, direction byte) []byte {
	dst = graph.AppendKeyString(append(dst, spaceAdjacency), string(node))
	return append(dst, direction)
}

func appendAdjacencyKey(dst []byte, node graph.ElementID, direction byte, label uint32, relationship graph.ElementID) []byte {
	dst = appendAdjacencyPrefix(dst, node, direction)
	return append(binary.BigEndian.AppendUint32(dst, label), relationship...)
}

// GroupKey appends the key of a group of an aggregation.
func GroupKey(dst []byte, node int, group result.RowKey) []byte {
	return append(appendNumber(dst, spaceGroup, node), group[:]...)
}

// MultisetPrefix appends what the keys of one of an aggregation's multisets start with.
func MultisetPrefix(dst []byte, node int, group result.RowKey, number int) []byte {
	dst = append(appendNumber(dst, spaceMultiset, node), group[:]...)
	return binary.BigEndian.AppendUint16(dst, uint16(number))
}

// RowPrefix appends what the keys of the rows start with that a node remembers by one set of shared elements; the ids of
// these and the row's key follow.
func RowPrefix(dst []byte, node, set int) []byte {
	return append(appendNumber(dst, spaceRow, node), byte(set))
}

// ScopeKey appends the key of what a node remembers of a scope.
func ScopeKey(dst []byte, node int, scope result.RowKey) []byte {
	return append(appendNumber(dst, spaceScope, node), scope[:]...)
}

// WindowPrefix appends what the keys of all rows start with that a node keeps in order for a scope; the order and the
// row's key follow.
func WindowPrefix(dst []byte, node int, scope result.RowKey) []byte {
	return append(appendNumber(dst, spaceWindow, node), scope[:]...)
}

// VolatileKey appends the key of what a row was given by chance or by the time.
func VolatileKey(dst []byte, node int, row result.RowKey) []byte {
	return append(appendNumber(dst, spaceVolatile, node), row[:]...)
}

// ViewKey appends the key of a row of the view. In a result without an order, order is empty.
func ViewKey(dst []byte, order string, row result.RowKey) []byte {
	return append(append(append(dst, spaceView), order...), row[:]...)
}

// FailedKey appends the key of a row that failed at a stage of a node.
func FailedKey(dst []byte, node int, stage byte, row result.RowKey) []byte {
	return append(append(appendNumber(dst, spaceFailed, node), stage), row[:]...)
}

// RowKeyOf returns the row key that a key ends with.
func RowKeyOf(key []byte) (row result.RowKey, ok bool) {
	if len(key) < len(row) {
		return row, false
	}
	return result.RowKey(key[len(key)-len(row):]), true
}

// Spaces of a node are the ranges where its state lies.
func Spaces(node int, visit func(from, to []byte) error) error {
	for _, space := range [...]byte{spaceGroup, spaceMultiset, spaceRow, spaceScope, spaceWindow, spaceVolatile} {
		if err := visit(appendNumber(nil, space, node), appendNumber(nil, space, node+1)); err != nil {
			return err
		}
	}
	return nil
}

// OutboxKey appends the key of the events of a batch, the last of which has this sequence.
func OutboxKey(dst []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, spaceOutbox), sequence)
}

// OutboxSequence returns the sequence that a key of the outbox has.
func OutboxSequence(key []byte) (sequence uint64, ok bool) {
	if len(key) != 1+8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(key[1:]), true
}

// ViewBounds returns the range of the view's keys.
func ViewBounds() (from, to []byte) { return []byte{spaceView}, []byte{spaceView + 1} }

// FailedBounds returns the range of the keys of failed rows.
func FailedBounds() (from, to []byte) { return []byte{spaceFailed}, []byte{spaceFailed + 1} }

// OutboxEnd returns the end of the outbox.
func OutboxEnd() []byte { return []byte{spaceOutbox + 1} }

// After returns the first key behind all that start with prefix.
func After(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i]++; end[i] != 0 {
			return end[:i+1]
		}
	}
	return nil
}
