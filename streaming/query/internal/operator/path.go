package operator

import (
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
)

// buildPaths makes the named paths whose elements are all bound, for conditions may read them.
func (m *Match) buildPaths() error {
	for i := range m.plan.Paths {
		p := &m.plan.Paths[i]
		if m.built&(1<<i) != 0 || p.Slot < 0 || slices.ContainsFunc(p.Positions, func(at int) bool { return !m.isReady(at) }) {
			continue
		}
		path, err := m.path(p)
		if err != nil {
			return err
		}
		m.env.Slots[p.Slot] = graph.PathOf(path)
		m.built |= 1 << i
	}
	return nil
}

// isReady reports whether a position is bound and, if it is a list that a row brought, has got its direction.
func (m *Match) isReady(at int) bool {
	return m.isBound(at) && (!m.plan.Positions[at].Variable || len(m.segments[at].nodes) > 0)
}

func (m *Match) path(p *plan.Path) (*graph.Path, error) {
	path := &graph.Path{}
	add := func(to *[]*graph.Element, id graph.ElementID) error {
		e, err := m.elements.Get(m.ctx.Batch, id)
		if err != nil || e == nil {
			return err
		}
		*to = append(*to, &e.Element)
		return nil
	}
	for i, at := range p.Positions {
		position := &m.plan.Positions[at]
		var err error
		switch {
		case !position.Relationship && i > 0 && m.plan.Positions[p.Positions[i-1]].Variable:
			// the segment before has brought it, and if it is empty it is the node before
		case !position.Relationship:
			err = add(&path.Nodes, m.ids[at])
		case !position.Variable:
			err = add(&path.Relationships, m.ids[at])
		default:
			relationships, nodes := m.segments[at].relationships, m.segments[at].nodes[1:]
			if p.Reversed[i/2] {
				relationships, nodes = reversed(relationships), reversed(m.segments[at].nodes)[1:]
			}
			for j := 0; j < len(relationships) && err == nil; j++ {
				if err = add(&path.Relationships, relationships[j]); err == nil {
					err = add(&path.Nodes, nodes[j])
				}
			}
		}
		if err != nil {
			return nil, err
		}
	}
	return path, nil
}

func reversed(list []graph.ElementID) []graph.ElementID {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
