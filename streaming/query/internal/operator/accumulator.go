package operator

import (
	"encoding/binary"
	"fmt"
	"slices"
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
	// size returns about how many bytes of memory the accumulator takes.
	size() int
}

// accumulatorSize is about what an accumulator takes that keeps no values.
const accumulatorSize = 128

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
		return &extreme{values: values(name == "max"), all: true}
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

func (c *counter) size() int { return accumulatorSize }

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

func (d *distinct) size() int { return accumulatorSize + d.inner.size() }

// extreme is min or max.
type extreme struct {
	values *multiset
	// head are the first values, without gaps, so that the next one is known when the first goes; all says that there are
	// no others.
	head []graph.Value
	all  bool
	// from is where the first value is looked for when head is empty and not all.
	from graph.Value
	// last is a value that none comes behind, if bounded and not all. As head, it saves looking for what cannot be there;
	// nothing else depends on it.
	last    graph.Value
	bounded bool
}

// headValues is how many values a head has at most.
const headValues = 8

func (x *extreme) check(*input) error { return nil }

// compare compares values in the order of the multiset.
func (x *extreme) compare(a, b graph.Value) int {
	if x.values.descending {
		return graph.Compare(b, a)
	}
	return graph.Compare(a, b)
}

// unknown reports whether the first value must be looked for.
func (x *extreme) unknown() bool { return len(x.head) == 0 && !x.all }

func (x *extreme) add(b index.Batch, in *input, weight int) error {
	v := in.value
	at, found := slices.BinarySearchFunc(x.head, v, x.compare)
	inHead := at < len(x.head) || x.all || x.unknown() && x.compare(v, x.from) <= 0
	isLast := !inHead && x.bounded && x.compare(v, x.last) > 0
	_, now, err := x.values.add(b, v, weight, weight > 0 && !found && (inHead || isLast))
	if err != nil {
		return err
	}
	first, there := now.first()
	switch {
	case found && there:
		x.head[at] = first
	case found:
		x.head = slices.Delete(x.head, at, at+1)
		x.from = v
	case inHead:
		x.head = slices.Insert(x.head, at, first)
		x.cut()
	case isLast:
		x.last = first
	}
	return nil
}

// cut bounds the head.
func (x *extreme) cut() {
	if len(x.head) <= headValues {
		return
	}
	if x.all {
		x.last, x.bounded = x.head[headValues], true
	}
	x.head, x.all = x.head[:headValues], false
}

func (x *extreme) value(b index.Batch) (graph.Value, error) {
	if x.unknown() {
		err := x.values.scan(b, x.values.keyOf(x.from), func(c *class) bool {
			x.head = append(x.head, c.forms[0].value)
			return len(x.head) < headValues
		})
		if err != nil {
			return graph.Null, err
		}
		x.all = len(x.head) < headValues
	}
	if len(x.head) == 0 {
		return graph.Null, nil
	}
	return x.head[0], nil
}

func (x *extreme) append(dst []byte) []byte {
	switch {
	case x.unknown():
		return graph.AppendValue(append(dst, extremeUnknown), x.from)
	case len(x.head) == 0:
		return append(dst, extremeNone)
	}
	return graph.AppendValue(append(dst, extremeKnown), x.head[0])
}

func (x *extreme) read(r *store.Reader) {
	switch kind := r.Uvarint(); kind {
	case extremeUnknown:
		x.from, x.all = r.Value(), false
	case extremeKnown:
		x.head, x.all = []graph.Value{r.Value()}, false
	}
}

func (x *extreme) size() int {
	return 2*accumulatorSize + graph.SizeOfAll(x.head)
}

// What the record of an extreme starts with.
const (
	extremeNone = iota
	extremeKnown
	extremeUnknown
)

func wantNumber(name string, v graph.Value) error {
	if v.IsNumber() {
		return nil
	}
	return fmt.Errorf("%s wants numbers, got %s", name, v.Kind())
}
