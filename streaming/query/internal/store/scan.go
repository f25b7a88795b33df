package store

import (
	"encoding/binary"
	"strings"
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

// side is a node's relationships in one direction.
type side struct {
	node      graph.ElementID
	direction byte
}

type neighbours struct {
	list []Neighbour
	size int
}

func sizeOfNeighbours(n *neighbours) int { return n.size }

// neighbourOverhead is about what a cached neighbour takes beside its ids.
const neighbourOverhead = 40

// Neighbours returns the relationships of a node in one direction, in the order of type and id. The list must not be
// changed.
func (s *Elements) Neighbours(r index.Reader, node graph.ElementID, direction byte) ([]Neighbour, error) {
	if n, ok := s.adjacent.Get(side{node, direction}); ok {
		return n.list, nil
	}
	prefix := appendAdjacencyPrefix(nil, node, direction)
	var list []Neighbour
	var text []byte // ids back to back; strings are cut from it when it has its final place
	var lengths []int
	err := r.Scan(prefix, After(prefix), func(key, value []byte) (bool, error) {
		rest := key[len(prefix):]
		if len(rest) < 4 {
			return false, corrupt("an adjacency")
		}
		list = append(list, Neighbour{Type: binary.BigEndian.Uint32(rest)})
		text = append(append(text, rest[4:]...), value...)
		lengths = append(lengths, len(rest)-4, len(value))
		return true, nil
	})
	if err != nil {
		return nil, err
	}
	size := elementOverhead + len(text) + len(list)*neighbourOverhead
	all := unsafe.String(unsafe.SliceData(text), len(text))
	for i := range list {
		a, b := lengths[2*i], lengths[2*i+1]
		list[i].Relationship, list[i].Node = graph.ElementID(all[:a]), graph.ElementID(all[a:a+b])
		all = all[a+b:]
	}
	s.adjacent.Put(side{graph.ElementID(strings.Clone(string(node))), direction}, &neighbours{list, size})
	s.adjacent.Age()
	return list, nil
}

// TypeName returns the name of an interned type.
func (s *Elements) TypeName(number uint32) string { return s.names.labels[number] }

// TypeRelevance returns what the plan wants of relationships of a type.
func (s *Elements) TypeRelevance(number uint32) *Relevance {
	for int(number) >= len(s.types) {
		s.types = append(s.types, nil)
	}
	if s.types[number] == nil {
		s.types[number] = &s.kind(s.names.labels[number:number+1], true).relevance
	}
	return s.types[number]
}

// Class returns the ids of the elements that a scan finds, in order.
func (s *Elements) Class(r index.Reader, scan int) ([]graph.ElementID, error) {
	return ids(r, appendScanKey(nil, scan, ""))
}

// Find returns the ids of the elements of an index that have a value equivalent to v, in order. None has null.
func (s *Elements) Find(r index.Reader, index int, v graph.Value) ([]graph.ElementID, error) {
	if v.IsNull() {
		return nil, nil
	}
	return ids(r, appendIndexPrefix(nil, index, v))
}

func ids(r index.Reader, prefix []byte) (list []graph.ElementID, err error) {
	err = r.Scan(prefix, After(prefix), func(key, _ []byte) (bool, error) {
		list = append(list, graph.ElementID(key[len(prefix):]))
		return true, nil
	})
	return list, err
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
