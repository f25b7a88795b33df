package operator

import (
	"bytes"
	"errors"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index/cache"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// aggregate gathers rows in groups and passes on one row for each group, when a transaction is flushed.
type aggregate struct {
	base
	plan    *plan.Aggregate
	groups  *cache.Cache[result.RowKey, *group]
	touched []*group // in this transaction
	dirty   []*group // in this batch
	keys    []graph.Value
	inputs  []input
	probes  []accumulator // of no group: they check arguments
	out     []graph.Value // scratch: the row of a group
	saved   []byte        // what the index has of dirty groups
	buf     []byte
	form    []byte
	hashed  []byte // what lastKey is the hash of
	lastKey result.RowKey
}

func newAggregate(b base, p *plan.Aggregate, cacheBytes int) *aggregate {
	a := &aggregate{
		base: b, plan: p, groups: cache.New[result.RowKey](cacheBytes, sizeOfGroup, nil),
		keys: make([]graph.Value, len(p.Keys)), inputs: make([]input, len(p.Aggregates)), out: none,
	}
	for i := range p.Aggregates {
		a.probes = append(a.probes, newAccumulator(&p.Aggregates[i], b.id, result.RowKey{}, i))
	}
	return a
}

// Row takes a row into its group or out of it.
func (a *aggregate) Row(row Identified, weight int) error {
	if out, err := a.evaluate(row, weight); out || err != nil {
		return err
	}
	g, err := a.change(weight)
	if err != nil {
		return err
	}
	if g.rows += int64(weight); g.rows < 0 {
		return errState
	}
	for i := range a.inputs {
		if c := &a.plan.Aggregates[i]; c.Arg == nil || c.Nulls || !a.inputs[i].value.IsNull() {
			if err := g.accumulators[i].add(a.ctx.Batch, &a.inputs[i], weight); err != nil {
				return err
			}
		}
	}
	return nil
}

// seeds takes the rows that make groups without any row.
type seeds aggregate

// Row makes a group or gives it up.
func (s *seeds) Row(_ Identified, weight int) error {
	a := (*aggregate)(s)
	for i := range a.plan.Keys {
		a.keys[i] = a.ctx.Env.Slots[a.plan.Keys[i].Slot]
	}
	g, err := a.change(weight)
	if err != nil {
		return err
	}
	if g.seeds += int64(weight); g.seeds < 0 {
		return errState
	}
	return nil
}

// change returns the group of a.keys, whose rows or seeds change.
func (a *aggregate) change(weight int) (*group, error) {
	a.buf, a.form = a.buf[:0], a.form[:0]
	for _, v := range a.keys {
		a.buf = graph.AppendKey(a.buf, v)
		a.form = appendForm(a.form, v)
	}
	if !bytes.Equal(a.buf, a.hashed) || len(a.buf) == 0 { // an update takes a row out and in again
		a.lastKey = hashKey(a.buf)
		a.hashed = append(a.hashed[:0], a.buf...)
	}
	g, err := a.group(a.lastKey)
	if err != nil {
		return nil, err
	}
	a.touch(g)
	if err := g.changeForm(a.form, a.keys, weight); err != nil {
		return nil, err
	}
	if weight > 0 {
		for i, slot := range a.plan.Carried {
			if v := a.ctx.Env.Slots[slot]; !graph.Identical(g.carried[i], v) {
				g.carried[i] = graph.Clone(v)
			}
		}
	}
	return g, nil
}

// evaluate computes keys and inputs; nothing has changed yet when one fails.
func (a *aggregate) evaluate(row Identified, weight int) (out bool, err error) {
	noted := false
	for i := range a.plan.Keys {
		if a.keys[i], out, err = a.value(a.plan.Keys[i].Eval, row, weight, &noted); out || err != nil {
			return out, err
		}
	}
	order := ""
	if a.plan.Order >= 0 {
		order = a.ctx.Env.Slots[a.plan.Order].AsString()
	}
	for i := range a.plan.Aggregates {
		c, in := &a.plan.Aggregates[i], &a.inputs[i]
		*in = input{row: row, order: order}
		if c.Arg == nil {
			continue
		}
		if in.value, out, err = a.value(c.Arg, row, weight, &noted); out || err != nil {
			return out, err
		}
		if c.Extra != nil {
			if in.extra, out, err = a.value(c.Extra, row, weight, &noted); out || err != nil {
				return out, err
			}
		}
		if in.value.IsNull() {
			continue
		}
		if cause := a.probes[i].check(in); cause != nil {
			in.value = graph.Null
			if noted {
				continue
			}
			noted = true
			if err := a.fail(stageRow, row, cause, weight); err != nil || a.ctx.Policy != Null {
				return true, err
			}
		}
	}
	return false, nil
}

func (a *aggregate) touch(g *group) {
	if !g.touched {
		g.touched = true
		a.touched = append(a.touched, g)
	}
	if !g.dirty {
		g.dirty = true
		a.dirty = append(a.dirty, g)
		if g.stored {
			g.savedFrom = len(a.saved)
			a.saved = g.append(a.saved)
			g.savedTo = len(a.saved)
		}
	}
}

// Flush passes on the rows of the groups that the transaction touched where they changed.
func (a *aggregate) Flush() error {
	for _, g := range a.touched {
		g.touched = false
		if err := a.emit(g); err != nil {
			return err
		}
	}
	clear(a.touched)
	a.touched = a.touched[:0]
	return nil
}

func (a *aggregate) emit(g *group) error {
	var now []graph.Value
	var cause, err error
	if g.rows+g.seeds > 0 {
		if now, cause, err = a.row(g); err != nil {
			return err
		}
	}
	if g.failed {
		if err := a.fail(stageGroup, g, nil, -1); err != nil {
			return err
		}
	}
	if g.failed = cause != nil; g.failed {
		if err := a.fail(stageGroup, g, cause, 1); err != nil {
			return err
		}
	}
	before := g.out
	if before != nil && now != nil && slices.EqualFunc(before, now, graph.Identical) {
		return nil
	}
	g.out = slices.Clone(now)
	if before != nil {
		if err := a.pass(g, before, -1); err != nil {
			return err
		}
	}
	if now != nil {
		return a.pass(g, now, 1)
	}
	return nil
}

// pass passes a group's row on: keys, carried values, aggregates.
func (a *aggregate) pass(g *group, values []graph.Value, weight int) error {
	slots := a.ctx.Env.Slots
	for i := range a.plan.Keys {
		slots[a.plan.Keys[i].Slot] = values[i]
	}
	values = values[len(a.plan.Keys):]
	for i, slot := range a.plan.Carried {
		slots[slot] = values[i]
	}
	values = values[len(a.plan.Carried):]
	for i := range a.plan.Aggregates {
		slots[a.plan.Aggregates[i].Slot] = values[i]
	}
	return a.next.Row(g, weight)
}

// row makes the row of a group, which is valid until the next call. cause says why it has none although it should.
func (a *aggregate) row(g *group) (values []graph.Value, cause, err error) {
	values = append(a.out[:0], g.shown()...)
	values = append(values, g.carried...)
	for _, acc := range g.accumulators {
		v, err := acc.value(a.ctx.Batch)
		if err != nil {
			if cause, err := a.withoutValue(err); cause != nil || err != nil {
				return nil, cause, err
			}
			v = graph.Null
		}
		values = append(values, v)
	}
	a.out = values
	return values, nil, nil
}

// withoutValue says what an aggregate that has no value makes of its group: null, a group without a row, or an error.
func (a *aggregate) withoutValue(err error) (cause, fatal error) {
	var none *groupError
	switch {
	case !errors.As(err, &none):
		return nil, err
	case a.ctx.Policy == Null:
		return nil, nil
	}
	return none, nil
}

// Save writes the groups that changed in the batch.
func (a *aggregate) Save() error {
	for _, g := range a.dirty {
		if err := a.save(g); err != nil {
			return err
		}
	}
	clear(a.dirty)
	a.dirty, a.saved = a.dirty[:0], a.saved[:0]
	a.groups.Age()
	return nil
}

func (a *aggregate) save(g *group) error {
	g.dirty = false
	a.ctx.key = store.GroupKey(a.ctx.key[:0], a.id, g.key)
	if g.rows+g.seeds == 0 {
		a.groups.Delete(g.key)
		if !g.stored {
			return nil
		}
		return a.ctx.Batch.Delete(a.ctx.key)
	}
	a.groups.Grow(g.measure())
	a.buf = g.append(a.buf[:0])
	if g.stored && bytes.Equal(a.buf, a.saved[g.savedFrom:g.savedTo]) {
		return nil // rows went out and came in again
	}
	g.stored = true
	return a.ctx.Batch.Set(a.ctx.key, a.buf)
}

// Reset forgets everything that is not stored.
func (a *aggregate) Reset() {
	a.groups.Clear()
	a.touched, a.dirty, a.saved = nil, nil, nil
}
