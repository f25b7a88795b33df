package operator

import (
	"math/bits"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Match finds matches of the plan's pattern that contain a given element.
type Match struct {
	ctx      *Context
	plan     *plan.Plan
	elements *store.Elements
	next     Input

	env     *eval.Env
	ids     []graph.ElementID // by position
	bound   uint64
	anchor  *plan.Anchor
	pivot   graph.ElementID // the element at the anchor
	earlier uint64          // positions where the pivot was the anchor before: matches that have it there are found
	weight  int
	unsure  int // conditions that failed so far on the match at hand
	buf     []byte
}

// NewMatch returns the operator for a plan.
func NewMatch(ctx *Context, p *plan.Plan, elements *store.Elements, next Input) *Match {
	return &Match{
		ctx: ctx, plan: p, elements: elements, next: next, env: p.MatchEnv(),
		ids: make([]graph.ElementID, len(p.Positions)),
	}
}

// Delta passes on, with this weight, each match that has e at one of the positions, once.
func (m *Match) Delta(e *store.Element, positions uint64, weight int) error {
	m.earlier, m.weight, m.pivot = 0, weight, e.ID
	for rest := e.Positions & positions; rest != 0; rest &= rest - 1 {
		at := bits.TrailingZeros64(rest)
		if err := m.anchored(at, e); err != nil {
			return err
		}
		m.earlier |= 1 << at
	}
	return nil
}

// Empty passes on the one match of a pattern without elements.
func (m *Match) Empty() error {
	m.weight, m.bound, m.unsure = 1, 0, 0
	for i := range m.plan.Conditions {
		if ok := m.try(i); !ok {
			return nil
		}
	}
	return m.complete()
}

func (m *Match) anchored(at int, e *store.Element) error {
	m.bound, m.unsure, m.anchor = 0, 0, &m.plan.Anchors[at]
	m.bind(at, e)
	unsure, ok := m.decide(m.anchor.Conditions)
	m.unsure = unsure
	if !ok {
		return nil
	}
	return m.step(0)
}

func (m *Match) bind(at int, e *store.Element) {
	m.bound |= 1 << at
	m.ids[at] = e.ID
	if m.plan.Positions[at].Read {
		m.env.Slots[at] = graph.ElementOf(&e.Element)
	}
}

// decide evaluates conditions. One that fails does not decide: if another one turns out to be false, the row is simply
// not there, whatever order they are tried in; else complete makes the row a failed one.
func (m *Match) decide(conditions []int) (unsure int, ok bool) {
	before := m.unsure
	for _, c := range conditions {
		if !m.try(c) {
			m.unsure = before
			return before, false
		}
	}
	unsure, m.unsure = m.unsure, before
	return unsure, true
}

func (m *Match) try(condition int) bool {
	v, err := m.plan.Conditions[condition].Eval(m.env)
	isTrue := false
	if err == nil {
		isTrue, _, err = eval.Truth(v)
	}
	if err != nil {
		m.unsure++
		return true
	}
	return isTrue
}

func (m *Match) step(n int) error {
	if n == len(m.anchor.Steps) {
		return m.complete()
	}
	switch s := &m.anchor.Steps[n]; s.Kind {
	case plan.Expand:
		return m.expand(n, s)
	case plan.Ends:
		return m.ends(n, s)
	default:
		return m.scan(n, s)
	}
}

// proceed goes on with the next step if what step n bound satisfies its conditions.
func (m *Match) proceed(n int, s *plan.Step) error {
	before := m.unsure
	unsure, ok := m.decide(s.Conditions)
	if !ok {
		return nil
	}
	m.unsure = unsure
	err := m.step(n + 1)
	m.unsure = before
	return err
}

// found reports whether a match with the pivot at this position was passed on already.
func (m *Match) found(at int, id graph.ElementID) bool {
	return m.earlier&(1<<at) != 0 && id == m.pivot
}

// free reports whether no other relationship of the same MATCH is this one.
func (m *Match) free(at int, id graph.ElementID) bool {
	clause := m.plan.Positions[at].Match
	for other := m.plan.Nodes; other < len(m.plan.Positions); other++ {
		if m.bound&(1<<other) != 0 && m.ids[other] == id && m.plan.Positions[other].Match == clause {
			return false
		}
	}
	return true
}

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
	from, before := m.ids[s.From], m.bound
	list, err := m.elements.Neighbours(m.ctx.Batch, from, direction)
	if err != nil {
		return err
	}
	for _, candidate := range list {
		if skipLoops && candidate.Node == from {
			continue
		}
		if err := m.follow(n, s, candidate); err != nil {
			return err
		}
		m.bound = before
	}
	return nil
}

func (m *Match) follow(n int, s *plan.Step, c store.Neighbour) error {
	toBound := m.bound&(1<<s.To) != 0
	switch {
	case toBound && m.ids[s.To] != c.Node,
		m.elements.TypePositions(c.Type)&(1<<s.Relationship) == 0,
		m.found(s.Relationship, c.Relationship),
		!m.free(s.Relationship, c.Relationship):
		return nil
	}
	if !toBound {
		if ok, err := m.bindNode(s.To, c.Node); !ok {
			return err
		}
	}
	if !m.plan.Positions[s.Relationship].Read {
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

// bindNode binds the node if it is there and may stand at the position.
func (m *Match) bindNode(at int, id graph.ElementID) (ok bool, err error) {
	if m.found(at, id) {
		return false, nil
	}
	e, err := m.elements.Get(m.ctx.Batch, id)
	if err != nil || e == nil || e.Positions&(1<<at) == 0 {
		return false, err
	}
	m.bind(at, e)
	return true, nil
}

func (m *Match) ends(n int, s *plan.Step) error {
	r := &m.plan.Positions[s.Relationship]
	e, err := m.elements.Get(m.ctx.Batch, m.ids[s.Relationship])
	if err != nil || e == nil {
		return err
	}
	start, end := e.Start, e.End
	if err := m.orient(n, s, r, start, end); err != nil {
		return err
	}
	if r.Undirected && start != end {
		return m.orient(n, s, r, end, start)
	}
	return nil
}

func (m *Match) orient(n int, s *plan.Step, r *plan.Position, left, right graph.ElementID) error {
	before := m.bound
	defer func() { m.bound = before }()
	if r.Left == r.Right && left != right {
		return nil
	}
	if ok, err := m.bindNode(r.Left, left); !ok {
		return err
	}
	if r.Left != r.Right {
		if ok, err := m.bindNode(r.Right, right); !ok {
			return err
		}
	}
	return m.proceed(n, s)
}

func (m *Match) scan(n int, s *plan.Step) error {
	ids, err := m.elements.At(m.ctx.Batch, s.To)
	if err != nil {
		return err
	}
	before := m.bound
	for _, id := range ids {
		ok, err := m.bindNode(s.To, id)
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

// complete passes on the match, unless conditions failed on it and none is false.
func (m *Match) complete() error {
	if m.unsure > 0 {
		cause, out := m.verdict()
		if out || cause == nil {
			return nil
		}
		return m.ctx.fail(failedMatch, m, cause, m.weight)
	}
	return m.next.Input(m.env, m, m.weight)
}

// verdict evaluates all conditions in the order of the text: the row is out if one is not true, else it fails with the
// first error.
func (m *Match) verdict() (cause error, out bool) {
	for i := range m.plan.Conditions {
		v, err := m.plan.Conditions[i].Eval(m.env)
		isTrue := false
		if err == nil {
			isTrue, _, err = eval.Truth(v)
		}
		switch {
		case err == nil && !isTrue:
			return nil, true
		case err != nil && cause == nil:
			cause = err
		}
	}
	return cause, false
}

// Key returns the identity of the match at hand: the ids of its elements.
func (m *Match) Key() (key result.RowKey) {
	key, m.buf = elementsKey(m.buf[:0], m.ids)
	return key
}

// Origin lists the elements of the match at hand.
func (m *Match) Origin() string { return joinIDs(m.ids) }
