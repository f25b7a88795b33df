package operator

import (
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/result"
)

// unit has one row from the start.
type unit struct{ base }

var unitRow = &plainRow{origin: "the query"}

// argument puts the identity of each row in a slot.
type argument struct {
	base
	scope int
}

// Row passes a row on.
func (a *argument) Row(row Identified, weight int) error {
	key := row.Key()
	a.ctx.Env.Slots[a.scope] = graph.String(string(key[:]))
	return a.next.Row(row, weight)
}

// filter passes on the rows on which all conditions are true.
type filter struct {
	base
	conditions []plan.Condition
}

// Row passes a row on or not. A condition that fails does not decide if another one is not true.
func (f *filter) Row(row Identified, weight int) error {
	cause, out := verdict(f.conditions, f.ctx.Env)
	switch {
	case out:
		return nil
	case cause != nil:
		return f.fail(stageRow, row, cause, weight)
	}
	return f.next.Row(row, weight)
}

// verdict evaluates conditions in the order of the text: the row is out if one is not true, else it fails with the first
// error.
func verdict(conditions []plan.Condition, env *eval.Env) (cause error, out bool) {
	for i := range conditions {
		isTrue, err := holds(&conditions[i], env)
		switch {
		case err == nil && !isTrue:
			return nil, true
		case err != nil && cause == nil:
			cause = err
		}
	}
	return cause, false
}

func holds(c *plan.Condition, env *eval.Env) (bool, error) {
	t, err := c.Eval(env)
	return t == eval.True, err
}

// order makes one string of the keys of ORDER BY.
type order struct {
	base
	plan *plan.Order
	buf  []byte
}

// Row passes a row on with its order. Each key says itself where it ends, so that the complement of its bytes sorts in
// the opposite order.
func (o *order) Row(row Identified, weight int) error {
	o.buf = o.buf[:0]
	noted := false
	for i := range o.plan.Keys {
		v, out, err := o.value(o.plan.Keys[i].Eval, row, weight, &noted)
		if out || err != nil {
			return err
		}
		start := len(o.buf)
		o.buf = graph.AppendKey(o.buf, v)
		if o.plan.Keys[i].Descending {
			for j := start; j < len(o.buf); j++ {
				o.buf[j] = ^o.buf[j]
			}
		}
	}
	o.ctx.Env.Slots[o.plan.Slot] = graph.String(string(o.buf))
	return o.next.Row(row, weight)
}

// union passes on the rows of all its branches.
type union struct{ base }

// branchOfUnion takes the rows of one branch.
type branchOfUnion struct {
	*union
	number   uint64
	from, to []int
	in       Identified
}

// Row passes a row on with the columns where all branches have them.
func (b *branchOfUnion) Row(row Identified, weight int) error {
	slots := b.ctx.Env.Slots
	for i, from := range b.from {
		slots[b.to[i]] = slots[from]
	}
	b.in = row
	return b.next.Row(b, weight)
}

// Key returns the identity of the row at hand.
func (b *branchOfUnion) Key() result.RowKey { return derive(b.in.Key(), tagBranch, b.number) }

// Origin describes the row at hand.
func (b *branchOfUnion) Origin() string { return b.in.Origin() }
