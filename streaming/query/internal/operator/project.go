package operator

import (
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
)

// project computes values.
type project struct {
	base
	items []plan.Item
}

func newProject(b base, p *plan.Project) Operator {
	var volatile []int
	for i := range p.Items {
		if p.Items[i].Volatile {
			volatile = append(volatile, p.Items[i].Slot)
		}
	}
	if volatile == nil {
		return &project{b, p.Items}
	}
	return &keep{project{b, p.Items}, volatile}
}

// Row passes a row on with the values.
func (p *project) Row(row Identified, weight int) error {
	noted := false
	for i := range p.items {
		v, out, err := p.value(p.items[i].Eval, row, weight, &noted)
		if out || err != nil {
			return err
		}
		p.ctx.Env.Slots[p.items[i].Slot] = v
	}
	return p.next.Row(row, weight)
}

// keep computes values of which some depend on chance or time. It stores them with the row, to retract it as it was.
type keep struct {
	project
	volatile []int // slots
}

// Row passes a row on with the values.
func (k *keep) Row(row Identified, weight int) error {
	if weight < 0 {
		return k.retract(row)
	}
	noted := false
	for i := range k.items {
		v, out, err := k.value(k.items[i].Eval, row, weight, &noted)
		if out || err != nil {
			return err
		}
		k.ctx.Env.Slots[k.items[i].Slot] = v
	}
	k.ctx.key = store.VolatileKey(k.ctx.key[:0], k.id, row.Key())
	k.ctx.buf = k.ctx.appendSlots(k.ctx.buf[:0], k.volatile)
	if err := k.ctx.Batch.Set(k.ctx.key, k.ctx.buf); err != nil {
		return err
	}
	return k.next.Row(row, weight)
}

func (k *keep) retract(row Identified) error {
	c := k.ctx
	c.key = store.FailedKey(c.key[:0], k.id, stageRow, row.Key())
	_, failed, err := c.Batch.Get(c.key)
	if err != nil {
		return err
	}
	if failed {
		if err := k.fail(stageRow, row, nil, -1); err != nil || c.Policy != Null {
			return err
		}
	}
	c.key = store.VolatileKey(c.key[:0], k.id, row.Key())
	record, found, err := c.Batch.Get(c.key)
	if err != nil {
		return err
	}
	if !found {
		return errState
	}
	if _, err := c.loadSlots(k.volatile, slices.Clone(record)); err != nil {
		return err
	}
	if err := c.Batch.Delete(c.key); err != nil {
		return err
	}
	for i := range k.items {
		if !k.items[i].Volatile {
			v, cause := k.items[i].Eval(c.Env)
			if cause != nil {
				v = graph.Null // its failure was noted when it came in
			}
			c.Env.Slots[k.items[i].Slot] = v
		}
	}
	return k.next.Row(row, -1)
}
