package operator

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

var errState = failure.StateCorrupt.Errorf("applying a change: a row is retracted that the query's state does not have")

// input is what a row gives to an aggregate.
type input struct {
	value, extra graph.Value
	order        string
	row          Identified
}

// accumulator is the state of one aggregate of one group. What it holds depends on the multiset of inputs that it was
// given, not on when they came.
type accumulator interface {
	// check says whether a value that is not null can be taken; add is called with such inputs only.
	check(in *input) error
	add(b index.Batch, in *input, weight int) error
	// value returns the aggregate; a *groupError says that it has none.
	value(b index.Batch) (graph.Value, error)
	append(dst []byte) []byte
	read(r *store.Reader)
}

// groupError says why a group has no row although it should.
type groupError struct{ cause error }

// Error returns the cause's message.
func (e *groupError) Error() string { return e.cause.Error() }

// Unwrap returns the cause.
func (e *groupError) Unwrap() error { return e.cause }

// newAccumulator returns the state of an aggregate; it may use two multisets, 2*number and 2*number+1.
func newAccumulator(a *plan.Aggregation, node int, group result.RowKey, number int) accumulator {
	values := func(descending bool) *multiset { return newMultiset(node, group, 2*number, descending) }
	var inner accumulator
	shown := a.Name
	if a.Expr != nil {
		shown = a.Expr.Name
	}
	switch name := strings.ToLower(a.Name); {
	case a.Arg == nil: // count(*)
		return &counter{}
	case name == "min", name == "max": // DISTINCT makes no difference
		return &extreme{values: values(name == "max")}
	case name == "collect":
		return newCollect(node, group, 2*number, a.Distinct)
	case name == "count":
		inner = &counter{}
	case name == "sum", name == "avg":
		inner = &sum{average: name == "avg"}
	case name == "stdev", name == "stdevp":
		inner = &deviation{name: shown, population: name == "stdevp"}
	case name == "percentilecont", name == "percentiledisc":
		inner = &percentile{name: shown, continuous: name == "percentilecont", values: newMultiset(node, group, 2*number+1, false)}
	default:
		panic("operator: no aggregate " + a.Name)
	}
	if a.Distinct {
		return &distinct{inner: inner, values: values(false)}
	}
	return inner
}

// counter counts values.
type counter struct{ n int64 }

func (c *counter) check(*input) error { return nil }

func (c *counter) add(_ index.Batch, _ *input, weight int) error {
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

func (d *distinct) check(in *input) error { return d.inner.check(in) }

func (d *distinct) add(b index.Batch, in *input, weight int) error {
	was, is, err := d.values.add(b, in.value, weight, false)
	if err != nil {
		return err
	}
	before, had := was.first()
	now, has := is.first()
	if had && has && graph.Identical(before, now) {
		return nil
	}
	if had {
		if err := d.inner.add(b, &input{value: before, extra: in.extra, row: in.row}, -1); err != nil {
			return err
		}
	}
	if has {
		return d.inner.add(b, &input{value: now, extra: in.extra, row: in.row}, 1)
	}
	return nil
}

func (d *distinct) value(b index.Batch) (graph.Value, error) { return d.inner.value(b) }

func (d *distinct) append(dst []byte) []byte { return d.inner.append(dst) }

func (d *distinct) read(r *store.Reader) { d.inner.read(r) }

// extreme is min or max.
type extreme struct {
	values  *multiset
	current graph.Value // the first value; null when there are none
	gone    bool        // current is no longer there: the first one is behind it
	// last is a value that none comes behind, if isKnown. It saves looking for what cannot be there; nothing else
	// depends on it.
	last    graph.Value
	isKnown bool
}

func (x *extreme) check(*input) error { return nil }

// compare compares values in the order of the multiset.
func (x *extreme) compare(a, b graph.Value) int {
	if x.values.descending {
		return graph.Compare(b, a)
	}
	return graph.Compare(a, b)
}

func (x *extreme) add(b index.Batch, in *input, weight int) error {
	v := in.value
	place := -1 // of v with regard to current
	if !x.current.IsNull() {
		place = x.compare(v, x.current)
	}
	isLast := x.current.IsNull() || x.isKnown && x.compare(v, x.last) > 0
	_, now, err := x.values.add(b, v, weight, weight > 0 && (place < 0 || isLast))
	if err != nil {
		return err
	}
	if isLast {
		x.last, x.isKnown = graph.Clone(v), true
	}
	if place <= 0 {
		first, ok := now.first()
		if x.gone = !ok; ok {
			x.current = first
		}
	}
	return nil
}

func (x *extreme) value(b index.Batch) (graph.Value, error) {
	if x.gone {
		first, err := x.values.firstFrom(b, x.current)
		if err != nil {
			return graph.Null, err
		}
		x.current, x.gone = first, false
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
