// Package store keeps a query's state in an index: the elements that its patterns read with their adjacency, what its
// operators remember, the view, and the outbox. All keys are made in this file.
package store

import (
	"encoding/binary"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/result"
)

// The first byte of a key says what it belongs to.
const (
	spaceMeta      = 0x01 // -> meta record
	spaceName      = 0x02 // table, number -> name or names
	spaceElement   = 0x03 // id -> element record
	spacePosition  = 0x04 // pattern position, id -> nothing: the elements that may stand there
	spaceAdjacency = 0x05 // node, direction, type, relationship -> node at the other end
	spaceGroup     = 0x06 // operator, group -> group record
	spaceMultiset  = 0x07 // operator, group, aggregate, ordered value -> count, value
	spaceView      = 0x08 // row key -> values
	spaceFailed    = 0x09 // operator, row key -> cause
	spaceOutbox    = 0x0a // sequence -> event
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

func appendPositionKey(dst []byte, position int, id graph.ElementID) []byte {
	return append(append(dst, spacePosition, byte(position)), id...)
}

func appendAdjacencyPrefix(dst []byte, node graph.ElementID, direction byte) []byte {
	dst = graph.AppendKeyString(append(dst, spaceAdjacency), string(node))
	return append(dst, direction)
}

func appendAdjacencyKey(dst []byte, node graph.ElementID, direction byte, label uint32, relationship graph.ElementID) []byte {
	dst = appendAdjacencyPrefix(dst, node, direction)
	return append(binary.BigEndian.AppendUint32(dst, label), relationship...)
}

// GroupKey appends the key of an operator's group.
func GroupKey(dst []byte, operator byte, group result.RowKey) []byte {
	return append(append(dst, spaceGroup, operator), group[:]...)
}

// MultisetPrefix appends what the keys of one aggregate's values start with.
func MultisetPrefix(dst []byte, operator byte, group result.RowKey, aggregate byte) []byte {
	return append(append(append(dst, spaceMultiset, operator), group[:]...), aggregate)
}

// ViewKey appends the key of a row of the view.
func ViewKey(dst []byte, row result.RowKey) []byte { return append(append(dst, spaceView), row[:]...) }

// FailedKey appends the key of a row that failed in an operator.
func FailedKey(dst []byte, operator byte, row result.RowKey) []byte {
	return append(append(dst, spaceFailed, operator), row[:]...)
}

// OutboxKey appends the key of an event.
func OutboxKey(dst []byte, sequence uint64) []byte {
	return binary.BigEndian.AppendUint64(append(dst, spaceOutbox), sequence)
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
