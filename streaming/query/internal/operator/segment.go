package operator

import (
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// segment is what stands at a variable-length position: the relationships from Left to Right and the nodes that they
// lead through, both ends included.
type segment struct {
	relationships []graph.ElementID
	nodes         []graph.ElementID // one more than relationships
}

func (s *segment) has(relationship graph.ElementID) bool {
	return slices.Contains(s.relationships, relationship)
}

// trail is a segment while it is searched: it grows from the middle, which is one node or a relationship with its nodes.
type trail struct {
	middle  [2]graph.ElementID // Left's side first; the same node twice without a pivot
	pivot   graph.ElementID    // the relationship in the middle, or ""
	back    []hop              // from the middle to Left
	forward []hop              // from the middle to Right
}

// hop is a relationship and the node that it leads to.
type hop struct{ relationship, node graph.ElementID }

func (t *trail) has(relationship graph.ElementID) bool {
	same := func(h hop) bool { return h.relationship == relationship }
	return t.pivot == relationship || slices.ContainsFunc(t.back, same) || slices.ContainsFunc(t.forward, same)
}

func (t *trail) length() int {
	n := len(t.back) + len(t.forward)
	if t.pivot != "" {
		n++
	}
	return n
}

// segment writes the trail from Left to Right.
func (t *trail) segment(s *segment) {
	s.relationships, s.nodes = s.relationships[:0], s.nodes[:0]
	for i := len(t.back) - 1; i >= 0; i-- {
		s.relationships = append(s.relationships, t.back[i].relationship)
		s.nodes = append(s.nodes, t.back[i].node)
	}
	s.nodes = append(s.nodes, t.middle[0])
	if t.pivot != "" {
		s.relationships = append(s.relationships, t.pivot)
		s.nodes = append(s.nodes, t.middle[1])
	}
	for _, h := range t.forward {
		s.relationships = append(s.relationships, h.relationship)
		s.nodes = append(s.nodes, h.node)
	}
}

// walk is a search along one side of a trail.
type walk struct {
	at     int // position
	back   bool
	avoid  bool // the pivot must not be a node inside
	atEach func(end graph.ElementID) error
}

// walk calls atEach for the trail as it is and for each way to make it longer by up to room relationships; a negative
// room is no bound. node is the one with the id from, or nil where that is not known.
func (m *Match) walk(w *walk, from graph.ElementID, node *store.Element, room int, inner bool) (err error) {
	if err := w.atEach(from); err != nil {
		return err
	}
	if room == 0 {
		return nil
	}
	if node == nil {
		if node, err = m.elements.Get(m.ctx.Batch, from); err != nil {
			return err
		}
	}
	if node == nil || inner && !m.inside(w, node) {
		return nil
	}
	first, second := byte(store.Outgoing), byte(store.Incoming)
	if w.back {
		first, second = second, first
	}
	if err := m.walkAlong(w, node, room, first, false); err != nil {
		return err
	}
	if m.plan.Positions[w.at].Undirected {
		return m.walkAlong(w, node, room, second, true)
	}
	return nil
}

// inside reports whether a node may be one inside of the segment.
func (m *Match) inside(w *walk, node *store.Element) bool {
	return !(w.avoid && node.ID == m.pivot) && !m.found(w.at, node.ID) && node.May(m.plan.Number, w.at)
}

func (m *Match) walkAlong(w *walk, from *store.Element, room int, direction byte, skipLoops bool) error {
	list, err := m.elements.Neighbours(m.ctx.Batch, from, direction)
	if err != nil {
		return err
	}
	t := &m.trails[w.at]
	side := &t.forward
	if w.back {
		side = &t.back
	}
	before := m.unsure
	for i := range list {
		c := &list[i]
		if err := m.followed(); err != nil {
			return err
		}
		if skipLoops && c.Node == from.ID || t.has(c.Relationship) || !m.candidate(w.at, c) {
			continue
		}
		ok, err := m.innerConditions(w.at, c.Relationship)
		if err != nil {
			return err
		}
		if ok {
			node, err := m.elements.Neighbour(m.ctx.Batch, c)
			if err != nil {
				return err
			}
			*side = append(*side, hop{c.Relationship, c.Node})
			if err := m.walk(w, c.Node, node, room-1, true); err != nil {
				return err
			}
			*side = (*side)[:len(*side)-1]
		}
		m.unsure = before
	}
	return nil
}

// isDeferred reports whether a condition on a single relationship needs more than the relationship.
func isDeferred(c *plan.Condition) bool { return c.Incoming || c.Positions != 0 }

// innerConditions tests what each relationship must satisfy alone; m.unsure counts the conditions that fail.
func (m *Match) innerConditions(at int, id graph.ElementID) (bool, error) {
	p := &m.plan.Positions[at]
	if len(p.Inner) == 0 {
		return true, nil
	}
	e, err := m.elements.Get(m.ctx.Batch, id)
	if err != nil || e == nil {
		return false, err
	}
	m.env.Slots[p.InnerSlot] = graph.ElementOf(&e.Element)
	for i := range p.Inner {
		if isDeferred(&p.Inner[i]) {
			continue
		}
		isTrue, cause := holds(&p.Inner[i], m.env)
		switch {
		case cause != nil:
			m.unsure++
		case !isTrue:
			return false, nil
		}
	}
	return true, nil
}

// room returns how many more relationships a segment may have that has n.
func room(p *plan.Position, n int) int {
	if p.Max < 0 {
		return -1
	}
	return p.Max - n
}

func (m *Match) expandVariable(n int, s *plan.Step) error {
	at := s.Relationship
	p, t := &m.plan.Positions[at], &m.trails[at]
	if m.isBound(at) {
		return m.endsOfSegment(n, s)
	}
	from := m.ids[s.From]
	*t = trail{middle: [2]graph.ElementID{from, from}, back: t.back[:0], forward: t.forward[:0]}
	w := &walk{at: at, back: s.From == p.Right && p.Left != p.Right}
	w.atEach = func(end graph.ElementID) error {
		if t.length() < p.Min {
			return nil
		}
		before := m.bound
		defer func() { m.bound = before }()
		if ok, err := m.reach(s.To, end); !ok {
			return err
		}
		if ok, err := m.bindSegment(at); !ok {
			return err
		}
		return m.proceed(n, s)
	}
	return m.walk(w, from, m.bounds[s.From], room(p, 0), false)
}

// bindSegment binds what the trail of the position has found.
func (m *Match) bindSegment(at int) (ok bool, err error) {
	s := &m.segments[at]
	m.trails[at].segment(s)
	m.bound |= 1 << at
	m.ids[at] = ""
	return m.showSegment(at)
}

// showSegment puts the list of relationships in the position's slot, in the order in which the pattern was written.
func (m *Match) showSegment(at int) (ok bool, err error) {
	p := &m.plan.Positions[at]
	if p.Slot < 0 {
		return true, nil
	}
	list := make([]graph.Value, len(m.segments[at].relationships))
	for i, id := range m.segments[at].relationships {
		e, err := m.elements.Get(m.ctx.Batch, id)
		if err != nil || e == nil {
			return false, err
		}
		list[i] = graph.ElementOf(&e.Element)
	}
	if p.Reversed {
		slices.Reverse(list)
	}
	m.env.Slots[p.Slot] = graph.List(list)
	return true, nil
}

// through finds all segments that have an element inside: a relationship, or a node between two.
func (m *Match) through(at int, e *store.Element) error {
	if !e.IsRelationship() {
		return m.throughMiddle(at, e.ID, e.ID, "")
	}
	if !m.free(at, e.ID) {
		return nil
	}
	before := m.unsure
	defer func() { m.unsure = before }()
	if ok, err := m.innerConditions(at, e.ID); !ok {
		return err
	}
	if err := m.throughMiddle(at, e.Start, e.End, e.ID); err != nil {
		return err
	}
	if m.plan.Positions[at].Undirected && e.Start != e.End {
		return m.throughMiddle(at, e.End, e.Start, e.ID)
	}
	return nil
}

// throughMiddle makes the middle longer on both sides in all ways. A node that is the middle is the first inside of the
// segment that is this node, so that a segment that visits it twice is found once.
func (m *Match) throughMiddle(at int, left, right, pivot graph.ElementID) error {
	p, t := &m.plan.Positions[at], &m.trails[at]
	*t = trail{middle: [2]graph.ElementID{left, right}, pivot: pivot, back: t.back[:0], forward: t.forward[:0]}
	ofRelationship := pivot != ""
	forward := &walk{at: at, atEach: func(graph.ElementID) error {
		if t.length() < p.Min || !ofRelationship && len(t.forward) == 0 {
			return nil
		}
		before := m.bound
		defer func() { m.bound = before }()
		if ok, err := m.bindSegment(at); !ok {
			return err
		}
		return m.begin()
	}}
	back := &walk{at: at, back: true, avoid: !ofRelationship}
	back.atEach = func(graph.ElementID) error {
		if !ofRelationship && len(t.back) == 0 {
			return nil
		}
		return m.walk(forward, right, nil, room(p, t.length()), ofRelationship)
	}
	return m.walk(back, left, nil, room(p, t.length()), ofRelationship)
}

// endsOfSegment binds the ends of a segment that is bound, or compares them. A list of relationships that a row brought
// has no direction yet where the pattern has none.
func (m *Match) endsOfSegment(n int, s *plan.Step) error {
	seg := &m.segments[s.Relationship]
	if len(seg.nodes) > 0 {
		return m.orient(n, s, seg.nodes[0], seg.nodes[len(seg.nodes)-1])
	}
	p := &m.plan.Positions[s.Relationship]
	if len(seg.relationships) == 0 {
		return m.endsOfNothing(n, s)
	}
	first, err := m.elements.Get(m.ctx.Batch, seg.relationships[0])
	if err != nil || first == nil {
		return err
	}
	if err := m.chain(n, s, first.Start); err != nil {
		return err
	}
	if p.Undirected && first.Start != first.End {
		return m.chain(n, s, first.End)
	}
	return nil
}

// endsOfNothing binds both ends of an empty list of relationships to the same node: to the one that is bound, or to each
// node of the graph in turn.
func (m *Match) endsOfNothing(n int, s *plan.Step) error {
	p, seg := &m.plan.Positions[s.Relationship], &m.segments[s.Relationship]
	var ids []graph.ElementID
	switch {
	case m.isBound(p.Left):
		ids = append(ids, m.ids[p.Left])
	case m.isBound(p.Right):
		ids = append(ids, m.ids[p.Right])
	default:
		err := m.elements.Scan(m.ctx.Batch, "", func(e *store.Element) (bool, error) {
			if !e.IsRelationship() && e.May(m.plan.Number, p.Left) {
				ids = append(ids, e.ID)
			}
			return true, nil
		})
		if err != nil {
			return err
		}
	}
	defer func() { seg.nodes = seg.nodes[:0] }()
	for _, id := range ids {
		seg.nodes = append(seg.nodes[:0], id)
		if err := m.orient(n, s, id, id); err != nil {
			return err
		}
	}
	return nil
}

// chain follows the list of relationships from a node and goes on if it leads somewhere.
func (m *Match) chain(n int, s *plan.Step, from graph.ElementID) error {
	p, seg := &m.plan.Positions[s.Relationship], &m.segments[s.Relationship]
	seg.nodes = append(seg.nodes[:0], from)
	defer func() { seg.nodes = seg.nodes[:0] }()
	w := &walk{at: s.Relationship}
	for i, id := range seg.relationships {
		if i > 0 {
			if node, err := m.elements.Get(m.ctx.Batch, from); err != nil || node == nil || !m.inside(w, node) {
				return err
			}
		}
		e, err := m.elements.Get(m.ctx.Batch, id)
		switch {
		case err != nil || e == nil:
			return err
		case e.Start == from:
			from = e.End
		case p.Undirected && e.End == from:
			from = e.Start
		default:
			return nil
		}
		seg.nodes = append(seg.nodes, from)
	}
	return m.orient(n, s, seg.nodes[0], from)
}
