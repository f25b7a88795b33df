package operator

import (
	"encoding/binary"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/result"
)

// unwind passes a row on once for each item of a list.
type unwind struct {
	base
	plan   *plan.Unwind
	in     Identified
	inKey  result.RowKey
	known  bool // inKey is in's
	number uint64
}

// Row passes the row on for each item.
func (u *unwind) Row(row Identified, weight int) error {
	noted := false
	list, out, err := u.value(u.plan.List.Eval, row, weight, &noted)
	if out || err != nil {
		return err
	}
	u.in, u.known = row, false
	switch list.Kind() {
	case graph.KindNull:
		return nil
	case graph.KindList:
		prefix := u.order()
		for i, v := range list.AsList() {
			if err := u.item(uint64(i), v, prefix, weight); err != nil {
				return err
			}
		}
		return nil
	}
	return u.item(0, list, u.order(), weight)
}

// order returns the order of the row that came in.
func (u *unwind) order() string {
	if u.plan.Order < 0 || u.plan.From < 0 {
		return ""
	}
	return u.ctx.Env.Slots[u.plan.From].AsString()
}

func (u *unwind) item(number uint64, v graph.Value, prefix string, weight int) error {
	u.number = number
	u.ctx.Env.Slots[u.plan.List.Slot] = v
	if u.plan.Order >= 0 {
		place := binary.BigEndian.AppendUint64([]byte(prefix), number)
		u.ctx.Env.Slots[u.plan.Order] = graph.String(string(place))
	}
	if err := u.ctx.made(); err != nil {
		return err
	}
	return u.next.Row(u, weight)
}

// Key returns the identity of the item at hand.
func (u *unwind) Key() result.RowKey {
	if !u.known {
		u.inKey, u.known = u.in.Key(), true
	}
	return derive(u.inKey, tagItem, u.number)
}

// Origin describes the row that came in.
func (u *unwind) Origin() string { return u.in.Origin() }
