package operator

import (
	"bytes"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/cache"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// remembered is the rows that came into a Match, each stored once for every set of shared positions, and of values, that
// an anchor's way knows when it comes to the rows.
type remembered struct {
	shared  []int // positions
	ids     []int // slots of those that are one element, of which a row keeps the id
	rest    []int // the other slots that it keeps
	sets    []rowSet
	setOf   []int // by anchor
	saved   []graph.Value
	joining []graph.Value // what the way had bound
	lists   *cache.Cache[string, *rowList]
	last    []byte // key of the list that was used last
	lastOf  *rowList
	gone    withheld
	row     plainRow // the one at hand
	prefix  []byte
	key     []byte
}

// rowSet is by what rows are found.
type rowSet struct {
	shared []int // positions
	keys   []plan.JoinKey
}

// rowList is all rows that have the same elements at the positions of a set, in the order of their keys. It is known
// once somebody has joined with them.
type rowList struct{ rows []rememberedRow }

type rememberedRow struct {
	key    result.RowKey
	record *viewRow // of rest, then the ids
}

const (
	rowListBytes = 16 << 20 // of lists, all together
	joinRows     = 256      // how many rows are read at once; longer lists are not kept
)

func sizeOfRowList(l *rowList) int {
	const fixed, perRow = 160, 48
	return fixed + perRow*len(l.rows)
}

// search returns where a row is or would be.
func (l *rowList) search(key result.RowKey) (at int, found bool) {
	return slices.BinarySearchFunc(l.rows, key, func(r rememberedRow, key result.RowKey) int {
		return bytes.Compare(r.key[:], key[:])
	})
}

func newRemembered(m *plan.Match) remembered {
	r := remembered{setOf: make([]int, len(m.Anchors)), lists: cache.New[string](rowListBytes, sizeOfRowList, nil)}
	for i := range m.Positions {
		if p := &m.Positions[i]; p.Shared >= 0 {
			r.shared = append(r.shared, i)
			if !p.Variable {
				r.ids = append(r.ids, p.Shared)
			}
		}
	}
	r.rest = without(m.Keep, r.ids)
	for a := range m.Anchors {
		for i := range m.Anchors[a].Steps {
			if s := &m.Anchors[a].Steps[i]; s.Kind == plan.Join {
				r.setOf[a] = r.set(rowSet{s.Shared, s.Keys})
			}
		}
	}
	return r
}

func (r *remembered) set(wanted rowSet) int {
	same := func(a, b plan.JoinKey) bool { return a.At == b.At && a.Property == b.Property && a.Text == b.Text }
	for i, s := range r.sets {
		if slices.Equal(s.shared, wanted.shared) && slices.EqualFunc(s.keys, wanted.keys, same) {
			return i
		}
	}
	r.sets = append(r.sets, wanted)
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
	for i, set := range r.sets {
		r.prefix = r.appendIDs(m, store.RowPrefix(r.prefix[:0], m.id, i), set.shared)
		if r.prefix, ok = set.appendKeys(m.env, r.prefix); !ok {
			continue // it equals nothing
		}
		r.key = append(append(r.key[:0], r.prefix...), key[:]...)
		if weight > 0 {
			err = r.add(m, key)
		} else {
			err = r.remove(m, key)
		}
		if err != nil {
			return false, err
		}
	}
	return true, nil
}

// What follows the ids in the keys of rows that are found by values, too.
const (
	keyValues = 'v'
	keyFailed = 'f' // a value cannot be computed: the row makes one that fails with whatever it would be joined with
)

// appendKeys appends what the row that came in is found by beside the ids of elements. It reports false when a value is
// null, so that the condition on it is never true.
func (s *rowSet) appendKeys(env *eval.Env, dst []byte) (_ []byte, ok bool) {
	if len(s.keys) == 0 {
		return dst, true
	}
	start, failed := len(dst), false
	dst = append(dst, keyValues)
	for i := range s.keys {
		v, cause := s.keys[i].Value(env)
		switch {
		case cause != nil:
			failed = true
		case v.IsNull():
			return dst, false
		default:
			dst = graph.AppendKey(dst, v)
		}
	}
	if failed {
		dst = append(dst[:start], keyFailed)
	}
	return dst, true
}

// appendProperties appends what rows are found by that go with the elements that are bound. It reports false when a
// property is null.
func (s *rowSet) appendProperties(m *Match, dst []byte) (_ []byte, ok bool) {
	if len(s.keys) == 0 {
		return dst, true
	}
	dst = append(dst, keyValues)
	for i := range s.keys {
		v := m.bounds[s.keys[i].At].Get(s.keys[i].Property)
		if v.IsNull() {
			return dst, false
		}
		dst = graph.AppendKey(dst, v)
	}
	return dst, true
}

// add remembers the row at hand under r.key.
func (r *remembered) add(m *Match, key result.RowKey) error {
	row := r.gone.back(r.key)
	if row == nil || !m.ctx.isAt(row, r.rest) || !r.hasElements(m.ctx, row) {
		row = r.recordOf(m.ctx)
		if err := m.ctx.Batch.Put(r.key, row); err != nil {
			return err
		}
	}
	if l := r.known(); l != nil {
		if len(l.rows) == joinRows {
			r.forget()
			return nil
		}
		at, _ := l.search(key)
		before := sizeOfRowList(l)
		l.rows = slices.Insert(l.rows, at, rememberedRow{key, row})
		r.lists.Grow(sizeOfRowList(l) - before)
	}
	return nil
}

// remove forgets the row at hand, which is under r.key.
func (r *remembered) remove(m *Match, key result.RowKey) error {
	var row *viewRow
	if l := r.known(); l != nil {
		at, found := l.search(key)
		if !found {
			return errState
		}
		row = l.rows[at].record
		before := sizeOfRowList(l)
		l.rows = slices.Delete(l.rows, at, at+1)
		r.lists.Grow(sizeOfRowList(l) - before)
	} else {
		row = r.recordOf(m.ctx)
	}
	return r.gone.take(m.ctx.Batch, r.key, row)
}

// recordOf returns what is kept of the row at hand. Of its elements at shared positions that is the id, as the graph has
// the rest.
func (r *remembered) recordOf(c *Context) *viewRow {
	row := newViewRow(len(r.rest) + len(r.ids))
	for i, slot := range r.rest {
		row.values[i] = c.Env.Slots[slot]
	}
	for i, slot := range r.ids {
		row.values[len(r.rest)+i] = graph.String(string(c.Env.Slots[slot].AsElement().ID))
	}
	return row
}

// hasElements reports whether a record has the ids of the row at hand.
func (r *remembered) hasElements(c *Context, row *viewRow) bool {
	for i, slot := range r.ids {
		if row.values[len(r.rest)+i].AsString() != string(c.Env.Slots[slot].AsElement().ID) {
			return false
		}
	}
	return true
}

// known returns the list of r.prefix, or nil.
func (r *remembered) known() *rowList {
	if r.lastOf != nil && bytes.Equal(r.last, r.prefix) {
		return r.lastOf
	}
	l, ok := r.lists.Get(string(r.prefix))
	if ok {
		r.last, r.lastOf = append(r.last[:0], r.prefix...), l
	}
	return l
}

// forget forgets the list of r.prefix.
func (r *remembered) forget() {
	r.lists.Delete(string(r.prefix))
	r.lastOf = nil
}

// Flush deletes the rows that the transaction took out.
func (m *Match) Flush() error {
	m.rows.lastOf = nil
	m.rows.lists.Age()
	return m.rows.gone.settle(m.ctx.Batch)
}

// Reset forgets everything that is not stored.
func (m *Match) Reset() {
	m.rows.lastOf = nil
	m.rows.lists.Clear()
	m.rows.gone.forget()
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

// join goes on with each remembered row that goes with what is bound.
func (m *Match) join(n int, s *plan.Step) error {
	r := &m.rows
	number := r.setOf[m.anchor.Position]
	set := &r.sets[number]
	r.prefix = r.appendIDs(m, store.RowPrefix(r.prefix[:0], m.id, number), set.shared)
	r.joining = r.joining[:0]
	for _, at := range s.Shared {
		r.joining = append(r.joining, m.env.Slots[m.plan.Positions[at].Shared])
	}
	start := len(r.prefix)
	var ok bool
	if r.prefix, ok = set.appendProperties(m, r.prefix); ok {
		if err := m.joinList(n, s); err != nil {
			return err
		}
	}
	if len(set.keys) == 0 {
		return nil
	}
	r.prefix = append(r.prefix[:start], keyFailed)
	return m.joinList(n, s)
}

// joinList goes on with each row under r.prefix.
func (m *Match) joinList(n int, s *plan.Step) error {
	r := &m.rows
	if l := r.known(); l != nil {
		return m.joinAll(n, s, l.rows)
	}
	if err := r.gone.settle(m.ctx.Batch); err != nil {
		return err
	}
	end := store.After(r.prefix)
	for from, first := r.prefix, true; ; first = false {
		rows, last, err := m.read(from, end)
		if err != nil {
			return err
		}
		if first && len(rows) < joinRows {
			r.lists.Put(string(r.prefix), &rowList{rows})
		}
		if err := m.joinAll(n, s, rows); err != nil || len(rows) < joinRows {
			return err
		}
		from = append(last, 0)
	}
}

// read returns the next remembered rows and the key of the last.
func (m *Match) read(from, end []byte) (rows []rememberedRow, last []byte, err error) {
	r := &m.rows
	err = m.ctx.Batch.Scan(from, end, func(key, record []byte) (bool, error) {
		row, ok := store.RowKeyOf(key)
		if !ok {
			return false, errState
		}
		values, _, err := m.ctx.decode(len(r.rest)+len(r.ids), bytes.Clone(record))
		if err != nil {
			return false, err
		}
		rows = append(rows, rememberedRow{row, values})
		last = append(last[:0], key...)
		return len(rows) < joinRows, nil
	})
	return rows, last, err
}

func (m *Match) joinAll(n int, s *plan.Step, rows []rememberedRow) error {
	before := m.bound
	for i := range rows {
		ok, err := m.joinRow(s, &rows[i])
		if ok {
			err = m.proceed(n, s)
		}
		m.bound = before
		if err != nil {
			return err
		}
	}
	return nil
}

// joinRow binds the shared positions that are not bound yet to what a remembered row has there.
func (m *Match) joinRow(s *plan.Step, row *rememberedRow) (ok bool, err error) {
	r := &m.rows
	m.ctx.putBack(r.rest, row.record.values)
	for i, at := range s.Shared { // as the graph has it
		m.env.Slots[m.plan.Positions[at].Shared] = r.joining[i]
	}
	ids := row.record.values[len(r.rest):]
	for _, at := range r.shared {
		p := &m.plan.Positions[at]
		bound := slices.Contains(s.Shared, at)
		switch {
		case p.Variable && !bound:
			ok, err = m.takeList(at, m.env.Slots[p.Shared])
		case !p.Variable && !bound:
			ok, err = m.takeElement(at, graph.ElementID(ids[0].AsString()))
		default:
			ok = true
		}
		if !ok {
			return false, err
		}
		if !p.Variable {
			ids = ids[1:]
		}
	}
	r.row.key = row.key
	m.incoming = &r.row
	return true, nil
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
	}
	return m.takeElement(at, v.AsElement().ID)
}

// takeElement binds a position to the element with an id.
func (m *Match) takeElement(at int, id graph.ElementID) (ok bool, err error) {
	if !m.plan.Positions[at].Relationship {
		return m.reach(at, id)
	}
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
