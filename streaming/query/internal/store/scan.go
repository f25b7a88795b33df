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

	node *Element // lately; nil: not asked for yet
}

// side is a node's relationships in one direction.
type side struct {
	node      graph.ElementID
	direction byte
}

type neighbours struct {
	list      []Neighbour
	size      int
	forgotten bool // by the cache
}

func sizeOfNeighbours(n *neighbours) int { return n.size }

// neighbourOverhead is about what a cached neighbour takes beside its ids.
const neighbourOverhead = 48

// Neighbours returns the relationships of a node in one direction, in the order of type and id. The list must not be
// changed.
func (s *Elements) Neighbours(r index.Reader, node *Element, direction byte) ([]Neighbour, error) {
	if n := node.links[direction]; n != nil && !n.forgotten {
		return n.list, nil
	}
	n, ok := s.adjacent.Get(side{node.ID, direction})
	if !ok {
		var err error
		if n, err = s.neighbours(r, node.ID, direction); err != nil {
			return nil, err
		}
		s.adjacent.Put(side{node.ID, direction}, n)
		s.adjacent.Age()
	}
	node.links[direction] = n
	return n.list, nil
}

// Neighbour returns the node at the other end of a relationship, or nil when it is not stored.
func (s *Elements) Neighbour(b index.Batch, n *Neighbour) (*Element, error) {
	if n.node != nil && !n.node.stale {
		return n.node, nil
	}
	e, err := s.Get(b, n.Node)
	n.node = e
	return e, err
}

func (s *Elements) neighbours(r index.Reader, node graph.ElementID, direction byte) (*neighbours, error) {
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
	const fixed = 128 // struct and map entry
	size := fixed + len(text) + len(list)*neighbourOverhead
	all := unsafe.String(unsafe.SliceData(text), len(text))
	for i := range list {
		a, b := lengths[2*i], lengths[2*i+1]
		list[i].Relationship, list[i].Node = graph.ElementID(all[:a]), graph.ElementID(all[a:a+b])
		all = all[a+b:]
	}
	return &neighbours{list: list, size: size}, nil
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
