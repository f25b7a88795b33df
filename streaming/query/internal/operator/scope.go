package operator

import (
	"encoding/binary"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/query/internal/touched"
	"github.com/perdure/perdure/streaming/result"
)

// scopes keeps what waits in the scopes of a subquery: the outer row of each, and what its inner rows have come to.
type scopes struct {
	base
	slot    int   // the scope
	live    []int // slots of the outer row
	touched touched.List[result.RowKey, scope]
	read    func(record []byte) (index.Record, error)
	row     plainRow
	key     []byte
}

// scope is what a transaction does to a scope.
type scope struct {
	before *scopeState // as it is stored
	now    scopeState
	// withdrawn says that the row that was passed on before the transaction has been taken back.
	withdrawn bool
}

// scopeState is the record of a scope.
type scopeState struct {
	outer []graph.Value // of the outer row; nil: there is none
	inner int64         // how many inner rows
	value graph.Value   // of the inner row
	has   bool          // there is a value
}

var emptyScope scopeState

func newScopes(b base, slot int, live []int) scopes {
	s := scopes{base: b, slot: slot, live: live}
	s.read = func(record []byte) (index.Record, error) {
		r := store.Reader{Src: record}
		state := &scopeState{inner: r.Varint()}
		there := r.Uvarint()
		if state.has = there&hasValue != 0; state.has {
			state.value = r.Value()
		}
		if there&hasOuter != 0 {
			values, _, err := b.ctx.decode(len(live), r.Src)
			if err != nil {
				return nil, err
			}
			state.outer = values.values
		}
		return state, r.Err
	}
	return s
}

const (
	hasOuter = 1 << iota
	hasValue
)

// AppendTo appends the state.
func (s *scopeState) AppendTo(dst []byte) []byte {
	there := byte(0)
	if s.outer != nil {
		there |= hasOuter
	}
	if s.has {
		there |= hasValue
	}
	dst = append(binary.AppendVarint(dst, s.inner), there)
	if s.has {
		dst = graph.AppendValue(dst, s.value)
	}
	for _, v := range s.outer {
		dst = graph.AppendValue(dst, v)
	}
	return dst
}

// Size returns about what the state takes in memory.
func (s *scopeState) Size() int {
	const fixed = 144 // structs and the key
	return fixed + graph.SizeOfAll(s.outer) + graph.SizeOf(s.value)
}

// Forgotten does nothing.
func (*scopeState) Forgotten() {}

// alone reports whether there is an outer row without inner rows.
func (s *scopeState) alone() bool { return s.outer != nil && s.inner == 0 }

// sameRow reports whether the outer row and the value are the same.
func (s *scopeState) sameRow(other *scopeState) bool {
	return (s.outer == nil) == (other.outer == nil) && s.has == other.has &&
		graph.Identical(s.value, other.value) && slices.EqualFunc(s.outer, other.outer, graph.Identical)
}

// touch returns the scope of the row at hand, valid until the next call.
func (s *scopes) touch() (key result.RowKey, sc *scope, err error) {
	key = s.ctx.scopeOf(s.slot)
	if sc = s.touched.Find(key); sc != nil {
		return key, sc, nil
	}
	s.key = store.ScopeKey(s.key[:0], s.id, key)
	record, err := s.ctx.Batch.Record(s.key, s.read)
	if err != nil {
		return key, nil, err
	}
	state := &emptyScope
	if record != nil {
		state = record.(*scopeState)
	}
	return key, s.touched.Add(key, scope{before: state, now: *state}), nil
}

// Row takes an outer row.
func (s *scopes) Row(_ Identified, weight int) error {
	_, sc, err := s.touch()
	if err != nil {
		return err
	}
	if weight < 0 {
		sc.now.outer = nil
		return nil
	}
	sc.now.outer = none
	if len(s.live) > 0 {
		sc.now.outer = s.ctx.recordOf(s.live).values
	}
	return nil
}

// save stores what the transaction made of a scope.
func (s *scopes) save(key result.RowKey, sc *scope) error {
	s.key = store.ScopeKey(s.key[:0], s.id, key)
	if sc.now.outer == nil && sc.now.inner == 0 && !sc.now.has {
		return s.ctx.Batch.Delete(s.key)
	}
	state := sc.now
	return s.ctx.Batch.Put(s.key, &state)
}

// Reset forgets the transaction.
func (s *scopes) Reset() { s.touched.Reset() }

// optional passes inner rows on, and the outer row of each scope without any.
//
// Such an outer row is passed on when the transaction is flushed, but taken back at once. A Match behind would join it
// with what else changes, and of the versions of an element the group of an aggregation shows the one that came last.
type optional struct {
	scopes
	plan    *plan.Optional
	saved   []graph.Value // slots of the row at hand
	derived result.RowKey // the scope whose outer row has the identity row.key
}

func newOptional(b base, p *plan.Optional) *optional {
	o := &optional{scopes: newScopes(b, p.Scope, without(p.Live, p.Nulls)), plan: p}
	o.row.key = derive(o.derived, tagNull, 0)
	return o
}

// Row takes an outer row.
func (o *optional) Row(row Identified, weight int) error {
	if weight < 0 {
		key, sc, err := o.touch()
		if err != nil {
			return err
		}
		if err := o.withdraw(key, sc); err != nil {
			return err
		}
	}
	return o.scopes.Row(row, weight)
}

// withdraw takes the outer row back if it was passed on. The slots stay as they are.
func (o *optional) withdraw(key result.RowKey, sc *scope) error {
	if sc.withdrawn || !sc.before.alone() {
		return nil
	}
	sc.withdrawn = true
	o.saved = o.saved[:0]
	for _, slot := range o.plan.Live {
		o.saved = append(o.saved, o.ctx.Env.Slots[slot])
	}
	err := o.pass(key, sc.before, -1)
	o.ctx.putBack(o.plan.Live, o.saved)
	return err
}

// pass passes on an outer row without inner rows.
func (o *optional) pass(scope result.RowKey, state *scopeState, weight int) error {
	o.ctx.putBack(o.live, state.outer)
	for _, slot := range o.plan.Nulls {
		o.ctx.Env.Slots[slot] = graph.Null
	}
	if o.derived != scope { // an update takes a row out and in again
		o.derived, o.row.key = scope, derive(scope, tagNull, 0)
	}
	return o.next.Row(&o.row, weight)
}

// innerOfOptional takes the inner rows of an optional.
type innerOfOptional optional

// Row counts an inner row and passes it on.
func (i *innerOfOptional) Row(row Identified, weight int) error {
	o := (*optional)(i)
	key, sc, err := o.touch()
	if err != nil {
		return err
	}
	if weight > 0 {
		if err := o.withdraw(key, sc); err != nil {
			return err
		}
	}
	sc.now.inner += int64(weight)
	return o.next.Row(row, weight)
}

// Flush passes on the rows without a match. Those that are no longer without one were taken back.
func (o *optional) Flush() error {
	for i := range o.touched.All {
		key, sc := o.touched.All[i].Key, &o.touched.All[i].Value
		if sc.now.alone() && (sc.withdrawn || !sc.before.alone()) {
			if err := o.pass(key, &sc.now, 1); err != nil {
				return err
			}
		}
		if sc.now.inner == sc.before.inner && sc.now.sameRow(sc.before) {
			continue
		}
		if err := o.save(key, sc); err != nil {
			return err
		}
	}
	o.Reset()
	return nil
}

// apply passes outer rows on with a value of their inner rows.
type apply struct {
	scopes
	plan *plan.Apply
}

func newApply(b base, p *plan.Apply) *apply {
	return &apply{newScopes(b, p.Scope, without(p.Live, []int{p.Slot})), p}
}

// innerOfApply takes the inner rows of an apply.
type innerOfApply apply

// Row takes the value of the one inner row.
func (i *innerOfApply) Row(_ Identified, weight int) error {
	a := (*apply)(i)
	_, sc, err := a.touch()
	if err != nil {
		return err
	}
	sc.now.value, sc.now.has = graph.Null, weight > 0
	if sc.now.has {
		sc.now.value = a.ctx.Env.Slots[a.plan.From]
	}
	return nil
}

// Flush passes on the rows that changed.
func (a *apply) Flush() error {
	for i := range a.touched.All {
		key, sc := a.touched.All[i].Key, &a.touched.All[i].Value
		if sc.now.sameRow(sc.before) {
			continue
		}
		if err := a.pass(key, sc.before, -1); err != nil {
			return err
		}
		if err := a.pass(key, &sc.now, 1); err != nil {
			return err
		}
		if err := a.save(key, sc); err != nil {
			return err
		}
	}
	a.Reset()
	return nil
}

// pass passes on the outer row of a scope, if there is one.
func (a *apply) pass(scope result.RowKey, state *scopeState, weight int) error {
	if state.outer == nil {
		return nil
	}
	a.ctx.putBack(a.live, state.outer)
	a.ctx.Env.Slots[a.plan.Slot] = a.plan.Default
	if state.has {
		a.ctx.Env.Slots[a.plan.Slot] = state.value
	}
	a.row.key = scope
	return a.next.Row(&a.row, weight)
}
