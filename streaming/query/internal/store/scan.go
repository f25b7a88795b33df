package store

import (
	"encoding/binary"
	"unsafe"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

// Neighbour is a relationship as one of its nodes sees it.
type Neighbour struct {
	Relationship graph.ElementID
	Node         graph.ElementID // at the other end
	Type         uint32          // interned
}

// Neighbours appends the relationships of a node in one direction, in the order of type and id.
func (s *Elements) Neighbours(r index.Reader, dst []Neighbour, node graph.ElementID, direction byte) ([]Neighbour, error) {
	prefix := appendAdjacencyPrefix(nil, node, direction)
	start := len(dst)
	var text []byte // ids back to back; strings are cut from it when it has its final place
	var lengths []int
	err := r.Scan(prefix, After(prefix), func(key, value []byte) (bool, error) {
		rest := key[len(prefix):]
		if len(rest) < 4 {
			return false, corrupt("an adjacency")
		}
		dst = append(dst, Neighbour{Type: binary.BigEndian.Uint32(rest)})
		text = append(append(text, rest[4:]...), value...)
		lengths = append(lengths, len(rest)-4, len(value))
		return true, nil
	})
	all := unsafe.String(unsafe.SliceData(text), len(text))
	for i := range dst[start:] {
		a, b := lengths[2*i], lengths[2*i+1]
		dst[start+i].Relationship, dst[start+i].Node = graph.ElementID(all[:a]), graph.ElementID(all[a:a+b])
		all = all[a+b:]
	}
	return dst, err
}

// TypeName returns the name of an interned type.
func (s *Elements) TypeName(number uint32) string { return s.names.labels[number] }

// TypePositions returns the positions where relationships of a type may stand.
func (s *Elements) TypePositions(number uint32) uint64 {
	return s.kind(s.names.labels[number:number+1], true).relevance.Positions
}

// At returns the ids of the elements that may stand at a scanned position, in order.
func (s *Elements) At(r index.Reader, position int) ([]graph.ElementID, error) {
	prefix := appendPositionKey(nil, position, "")
	var ids []graph.ElementID
	err := r.Scan(prefix, After(prefix), func(key, _ []byte) (bool, error) {
		ids = append(ids, graph.ElementID(key[len(prefix):]))
		return true, nil
	})
	return ids, err
}

// Scan visits the stored elements with ids from from on, in order, without caching them.
func (s *Elements) Scan(r index.Reader, from graph.ElementID, visit func(*Element) (more bool, err error)) error {
	start := appendElementKey(nil, from)
	return r.Scan(start, []byte{spaceElement + 1}, func(key, record []byte) (bool, error) {
		e, err := s.decode(graph.ElementID(key[1:]), append([]byte(nil), record...))
		if err != nil {
			return false, err
		}
		return visit(e)
	})
}
