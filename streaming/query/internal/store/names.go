package store

import (
	"encoding/binary"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
)

const (
	tableLabels = 'l'
	tableShapes = 's'
)

// names interns labels and shapes as small numbers, which are stored with the batch that needs them first.
type names struct {
	labels      []string
	labelNumber map[string]uint32
	shapes      []*graph.Shape
	shapeNumber map[string]uint32 // by joined property names
	byPointer   map[*graph.Shape]uint32
	known       map[string]*graph.Shape // by joined property names, numbered or not: stored elements have them
}

func (n *names) load(r index.Reader) error {
	known := n.known
	if known == nil {
		known = map[string]*graph.Shape{}
	}
	*n = names{
		labelNumber: map[string]uint32{}, shapeNumber: map[string]uint32{}, byPointer: map[*graph.Shape]uint32{}, known: known,
	}
	return r.Scan([]byte{spaceName}, []byte{spaceName + 1}, func(key, value []byte) (bool, error) {
		text := string(value)
		switch key[1] {
		case tableLabels:
			n.labelNumber[text] = uint32(len(n.labels))
			n.labels = append(n.labels, text)
		case tableShapes:
			props, ok := splitNames(text)
			if !ok {
				return false, corrupt("a shape")
			}
			n.addShape(text, props)
		}
		return true, nil
	})
}

func (n *names) addShape(joined string, props []string) uint32 {
	s, ok := n.known[joined]
	if !ok {
		s = graph.NewShape(props...)
		n.known[joined] = s
	}
	number := uint32(len(n.shapes))
	n.shapes = append(n.shapes, s)
	n.shapeNumber[joined] = number
	n.byPointer[s] = number
	return number
}

func (n *names) label(b index.Batch, name string) (uint32, error) {
	if number, ok := n.labelNumber[name]; ok {
		return number, nil
	}
	number := uint32(len(n.labels))
	n.labels = append(n.labels, name)
	n.labelNumber[name] = number
	return number, b.Set(nameKey(tableLabels, number), []byte(name))
}

// shape returns the one shape of these property names.
func (n *names) shape(b index.Batch, props []string) (*graph.Shape, error) {
	joined := joinNames(props)
	if number, ok := n.shapeNumber[joined]; ok {
		return n.shapes[number], nil
	}
	number := n.addShape(joined, props)
	return n.shapes[number], b.Set(nameKey(tableShapes, number), []byte(joined))
}

func joinNames(list []string) string {
	var b []byte
	for _, s := range list {
		b = append(binary.AppendUvarint(b, uint64(len(s))), s...)
	}
	return string(b)
}

func splitNames(joined string) (list []string, ok bool) {
	for rest := []byte(joined); len(rest) > 0; {
		n, size := binary.Uvarint(rest)
		if size <= 0 || n > uint64(len(rest)-size) {
			return nil, false
		}
		list = append(list, string(rest[size:size+int(n)]))
		rest = rest[size+int(n):]
	}
	return list, true
}

func corrupt(what string) error {
	return failure.StateCorrupt.Errorf("reading %s of the query's state: it is malformed", strings.TrimSpace(what))
}
