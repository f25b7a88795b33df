package graph

import "slices"

// ElementID names a node or relationship, unique within its source and stable for the element's life. Postgres nodes
// are "<label>:<key>"; a query that reads several sources keeps them apart by the source's name.
type ElementID string

// Shape is the ordered list of property names that many elements share, such as the columns of a table. It is
// immutable; elements of one origin share the same pointer, so that a plan resolves a name to a slot once per shape.
type Shape struct {
	names []string
	slots map[string]int
}

// NewShape returns a shape of these names, which must differ.
func NewShape(names ...string) *Shape {
	s := &Shape{names: slices.Clone(names), slots: make(map[string]int, len(names))}
	for i, n := range s.names {
		s.slots[n] = i
	}
	return s
}

// Names returns the property names in slot order; the slice must not be changed.
func (s *Shape) Names() []string { return s.names }

// Slot returns the slot of a property, or -1.
func (s *Shape) Slot(name string) int {
	if i, ok := s.slots[name]; ok {
		return i
	}
	return -1
}

// Element is a node or a relationship. It is immutable once it left its maker.
type Element struct {
	ID     ElementID
	Labels []string // a node's labels; a relationship has exactly one, its type
	Start  ElementID
	End    ElementID // Start and End are empty for nodes
	Shape  *Shape    // nil when there are no properties
	Values []Value   // by slot of Shape; null and absent are the same
}

// IsRelationship reports whether e connects two nodes.
func (e *Element) IsRelationship() bool { return e.Start != "" || e.End != "" }

// Get returns a property, or null.
func (e *Element) Get(name string) Value {
	if e.Shape == nil {
		return Null
	}
	if i := e.Shape.Slot(name); i >= 0 && i < len(e.Values) {
		return e.Values[i]
	}
	return Null
}

// HasLabel reports whether e has the label or type.
func (e *Element) HasLabel(label string) bool { return slices.Contains(e.Labels, label) }
