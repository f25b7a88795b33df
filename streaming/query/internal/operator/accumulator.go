package operator

import (
	"encoding/binary"
	"fmt"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

var errState = failure.StateCorrupt.Errorf("applying a change: a row is retracted that the query's state does not have")

// accumulator is the state of one aggregate of one group. What it holds depends on the multiset of values that it was
// given, not on their order.
type accumulator interface {
	// check says whether a value that is not null can be taken; add is called with such values only.
	check(v graph.Value) error
	add(b index.Batch, v graph.Value, weight int) error
	value(b index.Batch) (graph.Value, error)
	append(dst []byte) []byte
	read(r *store.Reader)
}

func newAccumulator(a *plan.Aggregate, operator byte, group result.RowKey, number int) accumulator {
	var inner accumulator
	switch {
	case a.Arg == nil: // count(*): the group counts its rows itself
		return &counter{}
	case a.Name == "min", a.Name == "max": // DISTINCT makes no difference
		return &extreme{values: newMultiset(operator, group, number, a.Name == "max")}
	case a.Name == "count":
		inner = &counter{}
	default:
		inner = &sum{average: a.Name == "avg"}
	}
	if a.Distinct {
		return &distinct{inner: inner, values: newMultiset(operator, group, number, false)}
	}
	return inner
}

// counter counts values.
type counter struct{ n int64 }

func (c *counter) check(graph.Value) error { return nil }

func (c *counter) add(_ index.Batch, _ graph.Value, weight int) error {
	if c.n += int64(weight); c.n < 0 {
		return errState
	}
	return nil
}

func (c *counter) value(index.Batch) (graph.Value, error) { return graph.Int(c.n), nil }

func (c *counter) append(dst []byte) []byte { return binary.AppendUvarint(dst, uint64(c.n)) }

func (c *counter) read(r *store.Reader) { c.n = int64(r.Uvarint()) }

// distinct passes the first of each class of equivalent values on to another accumulator.
type distinct struct {
	inner  accumulator
	values *multiset
}

func (d *distinct) check(v graph.Value) error { return d.inner.check(v) }

func (d *distinct) add(b index.Batch, v graph.Value, weight int) error {
	before, had, err := d.values.firstOf(b, v)
	if err != nil {
		return err
	}
	if changed, err := d.values.add(b, v, weight); err != nil || !changed {
		return err
	}
	now, has, err := d.values.firstOf(b, v)
	if err != nil || had && has && graph.Identical(before, now) {
		return err
	}
	if had {
		if err := d.inner.add(b, before, -1); err != nil {
			return err
		}
	}
	if has {
		return d.inner.add(b, now, 1)
	}
	return nil
}

func (d *distinct) value(b index.Batch) (graph.Value, error) { return d.inner.value(b) }

func (d *distinct) append(dst []byte) []byte { return d.inner.append(dst) }

func (d *distinct) read(r *store.Reader) { d.inner.read(r) }

// extreme is min or max.
type extreme struct {
	values  *multiset
	current graph.Value // null when there are no values
	stale   bool        // current may be gone
}

func (x *extreme) check(graph.Value) error { return nil }

func (x *extreme) add(b index.Batch, v graph.Value, weight int) error {
	changed, err := x.values.add(b, v, weight)
	if err != nil || x.stale {
		return err
	}
	if weight < 0 {
		x.stale = changed && graph.Compare(v, x.current) == 0
		return nil
	}
	sign := graph.Compare(v, x.current)
	if x.values.descending {
		sign = -sign
	}
	switch {
	case x.current.IsNull() || sign < 0:
		x.current = graph.Clone(v)
	case sign == 0: // another form or a newer version of an element
		x.stale = true
	}
	return nil
}

func (x *extreme) value(b index.Batch) (graph.Value, error) {
	if x.stale {
		v, _, err := x.values.first(b)
		if err != nil {
			return graph.Null, err
		}
		x.current, x.stale = v, false
	}
	return x.current, nil
}

func (x *extreme) append(dst []byte) []byte { return graph.AppendValue(dst, x.current) }

func (x *extreme) read(r *store.Reader) { x.current = r.Value() }

func wantNumber(name string, v graph.Value) error {
	if v.IsNumber() {
		return nil
	}
	return fmt.Errorf("%s wants numbers, got %s", name, v.Kind())
}
