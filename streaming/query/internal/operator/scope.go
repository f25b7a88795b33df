package operator

import (
	"bytes"
	"encoding/binary"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// scopes keeps what waits in the scopes of a subquery: the outer row of each, and what its inner rows have come to.
type scopes struct {
	base
	slot    int   // the scope
	live    []int // slots of the outer row
	touched []*scope
	at      map[result.RowKey]*scope
	row     plainRow
	key     []byte
	buf     []byte
}

type scope struct {
	key    result.RowKey
	before scopeState // the transaction
	now    scopeState
}

type scopeState struct {
	outer []byte // slots of the outer row; nil: there is none
	inner int64  // how many inner rows
	value []byte // of the inner row; nil: there is none
}

func newScopes(b base, slot int, live []int) scopes {
	return scopes{base: b, slot: slot, live: live, at: make(map[result.RowKey]*scope)}
}

// touch returns the scope of the row at hand.
func (s *scopes) touch() (*scope, error) {
	key := s.ctx.scopeOf(s.slot)
	if sc, ok := s.at[key]; ok {
		return sc, nil
	}
	s.key = store.ScopeKey(s.key[:0], s.id, key)
	record, found, err := s.ctx.Batch.Get(s.key)
	if err != nil {
		return nil, err
	}
	sc := &scope{key: key}
	if found {
		r := store.Reader{Src: bytes.Clone(record)}
		sc.before = scopeState{inner: r.Varint(), outer: readOptional(&r), value: readOptional(&r)}
		if r.Err != nil {
			return nil, r.Err
		}
		sc.now = sc.before
	}
	s.at[key] = sc
	s.touched = append(s.touched, sc)
	return sc, nil
}

// Row takes an outer row.
func (s *scopes) Row(_ Identified, weight int) error {
	sc, err := s.touch()
	if err != nil {
		return err
	}
	if weight < 0 {
		sc.now.outer = nil
		return nil
	}
	sc.now.outer = s.ctx.appendSlots([]byte{}, s.live)
	return nil
}

func (s *scopes) save(sc *scope) error {
	s.key = store.ScopeKey(s.key[:0], s.id, sc.key)
	if sc.now.outer == nil && sc.now.inner == 0 && sc.now.value == nil {
		return s.ctx.Batch.Delete(s.key)
	}
	s.buf = binary.AppendVarint(s.buf[:0], sc.now.inner)
	s.buf = appendOptional(appendOptional(s.buf, sc.now.outer), sc.now.value)
	return s.ctx.Batch.Set(s.key, s.buf)
}

func appendOptional(dst, b []byte) []byte {
	if b == nil {
		return append(dst, 0)
	}
	return store.AppendBytes(append(dst, 1), b)
}

func readOptional(r *store.Reader) []byte {
	if r.Uvarint() == 0 {
		return nil
	}
	b := r.Bytes()
	if b == nil {
		return []byte{}
	}
	return b
}

// flush compares the row of each touched scope before and after the transaction, which makeRow puts in the slots.
func (s *scopes) flush(has func(*scopeState) bool, same func(a, b *scopeState) bool, pass func(sc *scope, state *scopeState, weight int) error) error {
	for _, sc := range s.touched {
		had, has := has(&sc.before), has(&sc.now)
		if !had || !has || !same(&sc.before, &sc.now) {
			if had {
				if err := pass(sc, &sc.before, -1); err != nil {
					return err
				}
			}
			if has {
				if err := pass(sc, &sc.now, 1); err != nil {
					return err
				}
			}
		}
		if err := s.save(sc); err != nil {
			return err
		}
	}
	s.Reset()
	return nil
}

// Reset forgets the transaction.
func (s *scopes) Reset() {
	clear(s.touched)
	s.touched = s.touched[:0]
	clear(s.at)
}

// optional passes inner rows on, and the outer row of each scope without any.
//
// Such an outer row is passed on when the transaction is flushed, but taken back at once. A Match behind would join it
// with what else changes, and of the versions of an element the group of an aggregation shows the one that came last.
type optional struct {
	scopes
	plan  *plan.Optional
	saved []graph.Value // slots of the row at hand
}

func newOptional(b base, p *plan.Optional) *optional {
	return &optional{scopes: newScopes(b, p.Scope, without(p.Live, p.Nulls)), plan: p}
}

func alone(s *scopeState) bool { return s.outer != nil && s.inner == 0 }

// Row takes an outer row.
func (o *optional) Row(row Identified, weight int) error {
	if weight < 0 {
		sc, err := o.touch()
		if err != nil {
			return err
		}
		if err := o.withdraw(sc); err != nil {
			return err
		}
	}
	return o.scopes.Row(row, weight)
}

// withdraw takes the outer row back if it was passed on. The slots stay as they are.
func (o *optional) withdraw(sc *scope) error {
	if !alone(&sc.before) {
		return nil
	}
	o.saved = o.saved[:0]
	for _, slot := range o.plan.Live {
		o.saved = append(o.saved, o.ctx.Env.Slots[slot])
	}
	before := sc.before
	sc.before = scopeState{}
	err := o.pass(sc, &before, -1)
	for i, slot := range o.plan.Live {
		o.ctx.Env.Slots[slot] = o.saved[i]
	}
	return err
}

// pass passes on an outer row without inner rows.
func (o *optional) pass(sc *scope, state *scopeState, weight int) error {
	if _, err := o.ctx.loadSlots(o.live, state.outer); err != nil {
		return err
	}
	for _, slot := range o.plan.Nulls {
		o.ctx.Env.Slots[slot] = graph.Null
	}
	o.row.key = derive(sc.key, tagNull, 0)
	return o.next.Row(&o.row, weight)
}

// innerOfOptional takes the inner rows of an optional.
type innerOfOptional optional

// Row counts an inner row and passes it on.
func (i *innerOfOptional) Row(row Identified, weight int) error {
	o := (*optional)(i)
	sc, err := o.touch()
	if err != nil {
		return err
	}
	if weight > 0 {
		if err := o.withdraw(sc); err != nil {
			return err
		}
	}
	sc.now.inner += int64(weight)
	return o.next.Row(row, weight)
}

// Flush passes on the rows without a match.
func (o *optional) Flush() error {
	same := func(*scopeState, *scopeState) bool { return true } // else it was taken back
	return o.flush(alone, same, o.pass)
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
	sc, err := a.touch()
	if err != nil {
		return err
	}
	sc.now.value = nil
	if weight > 0 {
		sc.now.value = graph.AppendValue(nil, a.ctx.Env.Slots[a.plan.From])
	}
	return nil
}

// Flush passes on the rows that changed.
func (a *apply) Flush() error {
	there := func(s *scopeState) bool { return s.outer != nil }
	same := func(x, y *scopeState) bool {
		return bytes.Equal(x.outer, y.outer) && (x.value == nil) == (y.value == nil) && bytes.Equal(x.value, y.value)
	}
	return a.flush(there, same, func(sc *scope, state *scopeState, weight int) error {
		if _, err := a.ctx.loadSlots(a.live, state.outer); err != nil {
			return err
		}
		a.ctx.Env.Slots[a.plan.Slot] = a.plan.Default
		if state.value != nil {
			if _, err := a.ctx.loadSlots([]int{a.plan.Slot}, state.value); err != nil {
				return err
			}
		}
		a.row.key = sc.key
		return a.next.Row(&a.row, weight)
	})
}
