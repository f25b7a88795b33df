package operator

import (
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

func (m *Match) expand(n int, s *plan.Step) error {
	r := &m.plan.Positions[s.Relationship]
	loop := r.Left == r.Right
	if r.Undirected || s.From == r.Left {
		if err := m.along(n, s, store.Outgoing, false); err != nil {
			return err
		}
	}
	if !loop && (r.Undirected || s.From == r.Right) {
		return m.along(n, s, store.Incoming, r.Undirected) // undirected, a loop was outgoing already
	}
	return nil
}

// along follows the relationships in one direction of the node that the step starts from.
func (m *Match) along(n int, s *plan.Step, direction byte, skipLoops bool) error {
	from, before := m.bounds[s.From], m.bound
	list, err := m.elements.Neighbours(m.ctx.Batch, from, direction)
	if err != nil {
		return err
	}
	for i := range list {
		if skipLoops && list[i].Node == from.ID {
			continue
		}
		if err := m.follow(n, s, &list[i]); err != nil {
			return err
		}
		m.bound = before
	}
	return nil
}

func (m *Match) follow(n int, s *plan.Step, c *store.Neighbour) error {
	if m.isBound(s.To) && m.ids[s.To] != c.Node || !m.candidate(s.Relationship, c) {
		return nil
	}
	if ok, err := m.reachAlong(s.To, c); !ok {
		return err
	}
	if m.plan.Positions[s.Relationship].Slot < 0 {
		m.bound |= 1 << s.Relationship
		m.ids[s.Relationship] = c.Relationship
		return m.proceed(n, s)
	}
	e, err := m.elements.Get(m.ctx.Batch, c.Relationship)
	if err != nil || e == nil {
		return err
	}
	m.bind(s.Relationship, e)
	return m.proceed(n, s)
}

// candidate reports whether a relationship may stand at a position, as far as its type and the other relationships say.
func (m *Match) candidate(at int, c *store.Neighbour) bool {
	return m.elements.TypeRelevance(c.Type).Positions[m.plan.Number]&(1<<at) != 0 &&
		!m.found(at, c.Relationship) && m.free(at, c.Relationship)
}

func (m *Match) ends(n int, s *plan.Step) error {
	r := &m.plan.Positions[s.Relationship]
	if r.Variable {
		return m.endsOfSegment(n, s)
	}
	e, err := m.elements.Get(m.ctx.Batch, m.ids[s.Relationship])
	if err != nil || e == nil {
		return err
	}
	start, end := e.Start, e.End
	if err := m.orient(n, s, start, end); err != nil {
		return err
	}
	if r.Undirected && start != end {
		return m.orient(n, s, end, start)
	}
	return nil
}

// orient binds both ends of a relationship, or compares them.
func (m *Match) orient(n int, s *plan.Step, left, right graph.ElementID) error {
	before := m.bound
	defer func() { m.bound = before }()
	r := &m.plan.Positions[s.Relationship]
	if ok, err := m.reach(r.Left, left); !ok {
		return err
	}
	if ok, err := m.reach(r.Right, right); !ok {
		return err
	}
	return m.proceed(n, s)
}

// look tries every element of a class.
func (m *Match) look(n int, s *plan.Step, scan int) error {
	ids, err := m.elements.Class(m.ctx.Batch, scan)
	if err != nil {
		return err
	}
	return m.try(n, s, ids)
}

// find tries the elements with a value. When the value cannot be computed no condition on it can be decided either, so
// that every element of the class makes a row that fails.
func (m *Match) find(n int, s *plan.Step) error {
	v, cause := s.Value(m.env)
	if cause != nil {
		return m.look(n, s, m.indexes[s.Index].Scan)
	}
	ids, err := m.elements.Find(m.ctx.Batch, s.Index, v)
	if err != nil {
		return err
	}
	return m.try(n, s, ids)
}

func (m *Match) try(n int, s *plan.Step, ids []graph.ElementID) error {
	before := m.bound
	for _, id := range ids {
		ok, err := m.reach(s.To, id)
		if ok {
			err = m.proceed(n, s)
		}
		if err != nil {
			return err
		}
		m.bound = before
	}
	return nil
}
