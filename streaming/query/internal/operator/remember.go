package operator

import (
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// remembered is the rows that came into a Match, each stored once for every set of shared positions that an anchor's way
// has bound when it comes to the rows.
type remembered struct {
	keep    []int   // slots
	shared  []int   // positions
	sets    [][]int // of shared positions
	setOf   []int   // by anchor
	saved   []graph.Value
	joining []graph.Value // what the way had bound
	row     plainRow      // the one at hand
	key     []byte
	record  []byte
}

func newRemembered(m *plan.Match) remembered {
	r := remembered{keep: m.Keep, setOf: make([]int, len(m.Anchors))}
	for i := range m.Positions {
		if m.Positions[i].Shared >= 0 {
			r.shared = append(r.shared, i)
		}
	}
	for a := range m.Anchors {
		for i := range m.Anchors[a].Steps {
			if s := &m.Anchors[a].Steps[i]; s.Kind == plan.Join {
				r.setOf[a] = r.set(s.Shared)
			}
		}
	}
	return r
}

func (r *remembered) set(positions []int) int {
	for i, s := range r.sets {
		if slices.Equal(s, positions) {
			return i
		}
	}
	r.sets = append(r.sets, positions)
	return len(r.sets) - 1
}

// appendIDs appends what identifies the elements at positions, whose slots hold them.
func (r *remembered) appendIDs(m *Match, dst []byte, positions []int) []byte {
	for _, at := range positions {
		dst = graph.AppendKey(dst, m.env.Slots[m.plan.Positions[at].Shared])
	}
	return dst
}

// change remembers or forgets the row that came in. A row that has no element at a shared position has no match, now or
// later.
func (r *remembered) change(m *Match, row Identified, weight int) (ok bool, err error) {
	for _, at := range r.shared {
		if !mayHold(&m.plan.Positions[at], m.env.Slots[m.plan.Positions[at].Shared]) {
			return false, nil
		}
	}
	key := row.Key()
	if weight > 0 {
		r.record = m.ctx.appendSlots(r.record[:0], r.keep)
	}
	for i, set := range r.sets {
		r.key = append(r.appendIDs(m, store.RowPrefix(r.key[:0], m.id, i), set), key[:]...)
		if weight > 0 {
			err = m.ctx.Batch.Set(r.key, r.record)
		} else {
			err = m.ctx.Batch.Delete(r.key)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// mayHold reports whether a value is of the kind that stands at a position.
func mayHold(p *plan.Position, v graph.Value) bool {
	switch {
	case p.Variable:
		return v.Kind() == graph.KindList
	case p.Relationship:
		return v.Kind() == graph.KindRelationship
	}
	return v.Kind() == graph.KindNode
}

func (r *remembered) saveShared(m *Match) {
	r.saved = r.saved[:0]
	for _, at := range r.shared {
		r.saved = append(r.saved, m.env.Slots[m.plan.Positions[at].Shared])
	}
}

func (r *remembered) putBackShared(m *Match) {
	for i, at := range r.shared {
		m.env.Slots[m.plan.Positions[at].Shared] = r.saved[i]
	}
}

// joinRows is how many remembered rows are read at once.
const joinRows = 256

// join goes on with each remembered row that has what is bound at the shared positions.
func (m *Match) join(n int, s *plan.Step) error {
	r := &m.rows
	prefix := r.appendIDs(m, store.RowPrefix(nil, m.id, r.setOf[m.anchor.Position]), s.Shared)
	r.joining = r.joining[:0]
	for _, at := range s.Shared {
		r.joining = append(r.joining, m.env.Slots[m.plan.Positions[at].Shared])
	}
	from, end := prefix, store.After(prefix)
	for {
		var rows []result.RowKey
		var records []byte
		var ends []int
		var last []byte
		err := m.ctx.Batch.Scan(from, end, func(key, record []byte) (bool, error) {
			row, ok := store.RowKeyOf(key)
			if !ok {
				return false, errState
			}
			rows, records = append(rows, row), append(records, record...)
			ends = append(ends, len(records))
			last = append(last[:0], key...)
			return len(rows) < joinRows, nil
		})
		if err != nil {
			return err
		}
		start := 0
		for i, row := range rows {
			if err := m.joinRow(n, s, row, records[start:ends[i]:ends[i]]); err != nil {
				return err
			}
			start = ends[i]
		}
		if len(rows) < joinRows {
			return nil
		}
		from = append(last, 0)
	}
}

func (m *Match) joinRow(n int, s *plan.Step, key result.RowKey, record []byte) error {
	r := &m.rows
	before := m.bound
	defer func() { m.bound = before }()
	if _, err := m.ctx.loadSlots(r.keep, record); err != nil {
		return err
	}
	for i, at := range s.Shared { // as the graph has it
		m.env.Slots[m.plan.Positions[at].Shared] = r.joining[i]
	}
	for _, at := range r.shared {
		if !slices.Contains(s.Shared, at) {
			if ok, err := m.take(at); !ok {
				return err
			}
		}
	}
	r.row.key = key
	m.incoming = &r.row
	return m.proceed(n, s)
}

// take binds a shared position to what the row that came in has there.
func (m *Match) take(at int) (ok bool, err error) {
	p := &m.plan.Positions[at]
	v := m.env.Slots[p.Shared]
	switch {
	case v.IsNull():
		return false, nil
	case p.Variable:
		return m.takeList(at, v)
	case !p.Relationship:
		return m.reach(at, v.AsElement().ID)
	}
	id := v.AsElement().ID
	if m.found(at, id) || !m.free(at, id) {
		return false, nil
	}
	e, err := m.elements.Get(m.ctx.Batch, id)
	if err != nil || e == nil || !e.May(m.plan.Number, at) {
		return false, err
	}
	m.bind(at, e)
	return true, nil
}

// takeList binds a variable-length position to a list of relationships; the step that binds its ends follows it.
func (m *Match) takeList(at int, v graph.Value) (ok bool, err error) {
	p, seg := &m.plan.Positions[at], &m.segments[at]
	list := v.AsList()
	if len(list) < p.Min || p.Max >= 0 && len(list) > p.Max {
		return false, nil
	}
	seg.relationships, seg.nodes = seg.relationships[:0], seg.nodes[:0]
	for _, item := range list {
		if item.Kind() != graph.KindRelationship {
			return false, nil
		}
		id := item.AsElement().ID
		e, err := m.elements.Get(m.ctx.Batch, id)
		if err != nil || e == nil || !e.May(m.plan.Number, at) || seg.has(id) || m.found(at, id) || !m.free(at, id) {
			return false, err
		}
		ok, err := m.innerConditions(at, id)
		if !ok {
			return false, err
		}
		seg.relationships = append(seg.relationships, id)
	}
	if p.Reversed {
		slices.Reverse(seg.relationships)
	}
	m.bound |= 1 << at
	m.ids[at] = ""
	return m.showSegment(at)
}
