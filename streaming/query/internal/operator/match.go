package operator

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Match joins the rows that come in with the matches of a pattern, see plan.Match.
type Match struct {
	base
	plan     *plan.Match
	indexes  []plan.Index
	elements *store.Elements
	env      *eval.Env

	ids      []graph.ElementID // by position
	bounds   []*store.Element  // by position, of nodes
	segments []segment         // by position, of variable-length relationships
	trails   []trail           // by position, while they are searched
	bound    uint64            // positions
	built    uint64            // paths
	anchor   *plan.Anchor
	pivot    graph.ElementID // the element at the anchor
	earlier  uint64          // positions where the pivot was the anchor before: matches that have it there are found
	weight   int
	unsure   int  // conditions that failed so far on the match at hand
	deferred bool // conditions on single relationships wait for the row that came in
	steps    int  // how many relationships variable-length patterns have followed

	rows     remembered
	incoming Identified
	key      result.RowKey // of the match at hand
	keyed    bool
	buf      []byte
	hashed   []byte // what key is the hash of
}

func newMatch(b base, p *plan.Plan, m *plan.Match, elements *store.Elements) *Match {
	o := &Match{
		base: b, plan: m, indexes: p.Indexes, elements: elements, env: b.ctx.Env,
		ids: make([]graph.ElementID, len(m.Positions)), bounds: make([]*store.Element, len(m.Positions)), segments: make([]segment, len(m.Positions)),
		trails: make([]trail, len(m.Positions)),
	}
	for i := range m.Positions {
		for _, c := range m.Positions[i].Inner {
			o.deferred = o.deferred || isDeferred(&c)
		}
	}
	o.rows = newRemembered(m)
	return o
}

// delta passes on, with this weight, each match that has e at one of the positions, once.
func (m *Match) delta(e *store.Element, positions uint64, weight int) error {
	m.start(weight)
	m.pivot, m.incoming = e.ID, unitRow
	for rest := e.Relevance().Positions[m.plan.Number] & positions; rest != 0; rest &= rest - 1 {
		at := bits.TrailingZeros64(rest)
		m.anchor, m.bound = &m.plan.Anchors[at], 0
		if err := m.anchored(at, e); err != nil {
			return err
		}
		m.earlier |= 1 << at
	}
	return nil
}

func (m *Match) start(weight int) {
	m.weight, m.earlier, m.bound, m.built, m.unsure, m.steps = weight, 0, 0, 0, 0, 0
}

func (m *Match) anchored(at int, e *store.Element) error {
	if m.plan.Positions[at].Variable {
		return m.through(at, e)
	}
	m.bind(at, e)
	return m.begin()
}

// begin goes the anchor's way from what is bound.
func (m *Match) begin() error { return m.checked(m.anchor.Conditions, 0) }

// Row joins a row with all matches, and remembers it, or forgets it, for those to come.
func (m *Match) Row(row Identified, weight int) error {
	if m.plan.Root { // it comes before any element
		return nil
	}
	if ok, err := m.rows.change(m, row, weight); !ok {
		return err
	}
	m.rows.saveShared(m)
	m.start(weight)
	m.anchor, m.pivot, m.incoming = &m.plan.Incoming, "", row
	err := m.begin()
	m.rows.putBackShared(m) // for others that take the same row
	return err
}

func (m *Match) bind(at int, e *store.Element) {
	m.bound |= 1 << at
	m.ids[at], m.bounds[at] = e.ID, e
	if slot := m.plan.Positions[at].Slot; slot >= 0 {
		m.env.Slots[slot] = graph.ElementOf(&e.Element)
	}
}

// checked goes on with step n if what has been bound satisfies conditions. One that fails does not decide: if another
// one turns out to be false, the row is simply not there, whatever order they are tried in; else complete makes the row
// a failed one.
func (m *Match) checked(conditions []int, n int) error {
	unsure, built := m.unsure, m.built
	err := m.tried(conditions, n)
	m.unsure, m.built = unsure, built
	return err
}

func (m *Match) tried(conditions []int, n int) error {
	if len(m.plan.Paths) > 0 {
		if err := m.buildPaths(); err != nil {
			return err
		}
	}
	for _, c := range conditions {
		isTrue, cause := holds(&m.plan.Conditions[c], m.env)
		switch {
		case cause != nil:
			m.unsure++
		case !isTrue:
			return nil
		}
	}
	return m.step(n)
}

func (m *Match) step(n int) error {
	if n == len(m.anchor.Steps) {
		return m.complete()
	}
	switch s := &m.anchor.Steps[n]; s.Kind {
	case plan.Expand:
		if m.plan.Positions[s.Relationship].Variable {
			return m.expandVariable(n, s)
		}
		return m.expand(n, s)
	case plan.Ends:
		return m.ends(n, s)
	case plan.Look:
		return m.look(n, s, m.plan.Positions[s.To].Scan)
	case plan.Find:
		return m.find(n, s)
	case plan.Take:
		before := m.bound
		ok, err := m.take(s.To)
		if ok {
			err = m.proceed(n, s)
		}
		m.bound = before
		return err
	default:
		return m.join(n, s)
	}
}

// proceed goes on with the next step if what step n bound satisfies its conditions.
func (m *Match) proceed(n int, s *plan.Step) error { return m.checked(s.Conditions, n+1) }

// isBound reports whether a position is bound.
func (m *Match) isBound(at int) bool { return m.bound&(1<<at) != 0 }

// found reports whether a match with the pivot at this position was passed on already.
func (m *Match) found(at int, id graph.ElementID) bool {
	return m.earlier&(1<<at) != 0 && id == m.pivot
}

// free reports whether no other relationship of the same MATCH clause is this one.
func (m *Match) free(at int, id graph.ElementID) bool {
	clause := m.plan.Positions[at].Clause
	for other := m.plan.Nodes; other < len(m.plan.Positions); other++ {
		if !m.isBound(other) || other == at || m.plan.Positions[other].Clause != clause {
			continue
		}
		if m.ids[other] == id || m.plan.Positions[other].Variable && m.segments[other].has(id) {
			return false
		}
	}
	return true
}

// reach binds a node, or compares it when it is bound.
func (m *Match) reach(at int, id graph.ElementID) (ok bool, err error) {
	if m.isBound(at) {
		return m.ids[at] == id, nil
	}
	if m.found(at, id) {
		return false, nil
	}
	e, err := m.elements.Get(m.ctx.Batch, id)
	return m.reached(at, e), err
}

// reachAlong is reach for the node at the other end of a relationship.
func (m *Match) reachAlong(at int, c *store.Neighbour) (ok bool, err error) {
	if m.isBound(at) {
		return m.ids[at] == c.Node, nil
	}
	if m.found(at, c.Node) {
		return false, nil
	}
	e, err := m.elements.Neighbour(m.ctx.Batch, c)
	return m.reached(at, e), err
}

// reached binds a node, which may be nil, if it may stand at a position.
func (m *Match) reached(at int, e *store.Element) bool {
	if e == nil || !e.May(m.plan.Number, at) {
		return false
	}
	m.bind(at, e)
	return true
}

// complete passes on the match, unless conditions failed on it and none is false.
func (m *Match) complete() error {
	m.keyed = false
	if m.unsure > 0 || m.deferred {
		cause, out, err := m.verdict()
		switch {
		case out || err != nil:
			return err
		case cause != nil:
			return m.fail(stageRow, m, cause, m.weight)
		}
	}
	if err := m.ctx.made(); err != nil {
		return err
	}
	return m.next.Row(m, m.weight)
}

// verdict evaluates all conditions in the order of the text, then those on single relationships: the row is out if one
// is not true, else it fails with the first error.
func (m *Match) verdict() (cause error, out bool, err error) {
	cause, out = verdict(m.plan.Conditions, m.env)
	for at := m.plan.Nodes; at < len(m.plan.Positions) && !out; at++ {
		p := &m.plan.Positions[at]
		if len(p.Inner) == 0 {
			continue
		}
		for _, id := range m.segments[at].relationships {
			e, err := m.elements.Get(m.ctx.Batch, id)
			if err != nil || e == nil {
				return nil, true, err
			}
			m.env.Slots[p.InnerSlot] = graph.ElementOf(&e.Element)
			failed, isOut := verdict(p.Inner, m.env)
			if out = isOut; out {
				return nil, true, nil
			}
			if cause == nil {
				cause = failed
			}
		}
	}
	return cause, out, nil
}

// Key returns the identity of the match at hand: that of the row that came in and the ids of its elements.
func (m *Match) Key() result.RowKey {
	if m.keyed {
		return m.key
	}
	m.buf = m.buf[:0]
	if !m.plan.Root {
		in := m.incoming.Key()
		m.buf = append(m.buf, in[:]...)
	}
	for at := range m.plan.Positions {
		if !m.plan.Positions[at].Variable {
			m.buf = store.AppendBytes(m.buf, m.ids[at])
			continue
		}
		list := m.segments[at].relationships
		m.buf = binary.AppendUvarint(m.buf, uint64(len(list)))
		for _, id := range list {
			m.buf = store.AppendBytes(m.buf, id)
		}
	}
	if !bytes.Equal(m.buf, m.hashed) || len(m.buf) == 0 { // an update takes a row out and in again
		m.key = hashKey(m.buf)
		m.hashed = append(m.hashed[:0], m.buf...)
	}
	m.keyed = true
	return m.key
}

// Origin lists the elements of the match at hand.
func (m *Match) Origin() string {
	var list []string
	for at := range m.plan.Positions {
		if !m.plan.Positions[at].Variable {
			list = append(list, string(m.ids[at]))
			continue
		}
		for _, id := range m.segments[at].relationships {
			list = append(list, string(id))
		}
	}
	return strings.Join(list, ", ")
}

// followed counts a relationship that a variable-length pattern follows: there may be as many ways as there are
// subsets of relationships.
func (m *Match) followed() error {
	if m.steps++; m.ctx.MaxSteps > 0 && m.steps > m.ctx.MaxSteps {
		return failure.PatternUnbounded.Errorf("following a variable-length pattern: more than %d relationships for one change", m.ctx.MaxSteps).
			WithDetail("element", string(m.pivot))
	}
	return nil
}
