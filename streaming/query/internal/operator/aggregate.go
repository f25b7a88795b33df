package operator

import (
	"encoding/binary"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/eval"
	"github.com/perdure/perdure/streaming/query/internal/plan"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// Aggregate gathers rows in groups and passes on one row for each group that has rows; without keys there is one group,
// which always has its row. DISTINCT is an aggregation by all columns that computes nothing.
type Aggregate struct {
	ctx        *Context
	operator   byte
	keys       []eval.Func
	aggregates []plan.Aggregate
	items      []eval.Func
	env        *eval.Env // of items: keys, then aggregates
	next       Rows

	groups  *store.Cache[result.RowKey, *group]
	touched []*group // in this transaction
	dirty   []*group // in this batch
	values  []graph.Value
	probes  []accumulator // of no group: they check arguments
	buf     []byte
}

type group struct {
	key            result.RowKey
	rows           int64
	keys           []graph.Value
	accumulators   []accumulator
	out            []graph.Value // the row that was passed on; nil: none
	failed         bool          // the row could not be made
	touched, dirty bool
	size           int
}

const groupOverhead = 256

func sizeOfGroup(g *group) int { return g.size }

// GroupSpec is what an Aggregate computes.
type GroupSpec struct {
	Operator   byte
	Keys       []eval.Func // read the input's slots
	Aggregates []plan.Aggregate
	Items      []eval.Func // read the group's slots
	Env        *eval.Env   // of Items
}

// NewAggregate returns the operator.
func NewAggregate(ctx *Context, s GroupSpec, cacheBytes int, next Rows) *Aggregate {
	a := &Aggregate{
		ctx: ctx, operator: s.Operator, keys: s.Keys, aggregates: s.Aggregates, items: s.Items, env: s.Env, next: next,
		groups: store.NewCache[result.RowKey, *group](cacheBytes), values: make([]graph.Value, len(s.Keys)+len(s.Aggregates)),
	}
	for i := range s.Aggregates {
		a.probes = append(a.probes, newAccumulator(&s.Aggregates[i], s.Operator, result.RowKey{}, i))
	}
	return a
}

// Begin makes the row of an aggregation without keys, which is there before any input.
func (a *Aggregate) Begin() error {
	if len(a.keys) > 0 {
		return nil
	}
	g, err := a.group(hashKey(nil))
	if err == nil {
		a.touch(g)
	}
	return err
}

// Input takes a row into its group or out of it.
func (a *Aggregate) Input(env *eval.Env, row Identified, weight int) error {
	keys, args := a.values[:len(a.keys)], a.values[len(a.keys):]
	if cause := a.evaluate(env, keys, args); cause != nil {
		return a.ctx.fail(failedInput, row, cause, weight)
	}
	a.buf = a.buf[:0]
	for _, v := range keys {
		a.buf = graph.AppendKey(a.buf, v)
	}
	g, err := a.group(hashKey(a.buf))
	if err != nil {
		return err
	}
	a.touch(g)
	if g.rows += int64(weight); g.rows < 0 {
		return errState
	}
	// The latest form of the keys is shown: an element as it is now.
	if weight > 0 && !slices.EqualFunc(g.keys, keys, graph.Identical) {
		g.keys = make([]graph.Value, len(keys))
		g.size = groupOverhead
		for i, v := range keys {
			g.keys[i] = graph.Clone(v)
		}
		g.size += len(a.buf)
	}
	for i, v := range args {
		if a.aggregates[i].Arg == nil || !v.IsNull() {
			if err := g.accumulators[i].add(a.ctx.Batch, v, weight); err != nil {
				return err
			}
		}
	}
	return nil
}

// evaluate computes keys and arguments; nothing has changed yet when one fails.
func (a *Aggregate) evaluate(env *eval.Env, keys, args []graph.Value) (err error) {
	for i, key := range a.keys {
		if keys[i], err = key(env); err != nil {
			return err
		}
	}
	for i := range a.aggregates {
		if args[i] = graph.Null; a.aggregates[i].Arg == nil {
			continue
		}
		if args[i], err = a.aggregates[i].Arg(env); err != nil {
			return err
		}
		if !args[i].IsNull() {
			if err := a.probes[i].check(args[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

// group returns a group as it is, or an empty one.
func (a *Aggregate) group(key result.RowKey) (*group, error) {
	if g, ok := a.groups.Get(key, sizeOfGroup); ok {
		return g, nil
	}
	g := &group{key: key, size: groupOverhead}
	for i := range a.aggregates {
		g.accumulators = append(g.accumulators, newAccumulator(&a.aggregates[i], a.operator, key, i))
	}
	a.ctx.key = store.GroupKey(a.ctx.key[:0], a.operator, key)
	record, found, err := a.ctx.Batch.Get(a.ctx.key)
	if err != nil {
		return nil, err
	}
	if found {
		if err := a.read(g, append([]byte(nil), record...)); err != nil {
			return nil, err
		}
	}
	a.groups.Put(key, g, g.size)
	return g, nil
}

func (a *Aggregate) read(g *group, record []byte) error {
	r := store.Reader{Src: record}
	g.rows = r.Varint()
	g.keys = make([]graph.Value, len(a.keys))
	for i := range g.keys {
		g.keys[i] = r.Value()
	}
	for _, acc := range g.accumulators {
		acc.read(&r)
	}
	if r.Err != nil {
		return r.Err
	}
	g.size += len(record)
	var err, cause error
	if g.out, cause, err = a.row(g); err != nil {
		return err
	}
	g.failed = cause != nil
	return nil
}

// row makes the row of a group. cause says why it has none although it should.
func (a *Aggregate) row(g *group) (values []graph.Value, cause, err error) {
	copy(a.env.Slots, g.keys)
	for i, acc := range g.accumulators {
		v, cause := acc.value(a.ctx.Batch)
		if cause != nil {
			if cause == errSumOverflow { //nolint:errorlint // it is returned as it is
				return nil, cause, nil
			}
			return nil, nil, cause
		}
		a.env.Slots[len(a.keys)+i] = v
	}
	values = make([]graph.Value, len(a.items))
	for i, item := range a.items {
		if values[i], cause = item(a.env); cause != nil {
			return nil, cause, nil
		}
	}
	return values, nil, nil
}

func (a *Aggregate) touch(g *group) {
	if !g.touched {
		g.touched = true
		a.touched = append(a.touched, g)
	}
	if !g.dirty {
		g.dirty = true
		a.dirty = append(a.dirty, g)
	}
}

// Flush passes on the rows of the groups that the transaction touched where they changed.
func (a *Aggregate) Flush() error {
	for _, g := range a.touched {
		g.touched = false
		if err := a.emit(g); err != nil {
			return err
		}
	}
	clear(a.touched)
	a.touched = a.touched[:0]
	return a.next.Flush()
}

func (a *Aggregate) emit(g *group) error {
	var now []graph.Value
	var cause, err error
	if g.rows > 0 || len(a.keys) == 0 {
		if now, cause, err = a.row(g); err != nil {
			return err
		}
	}
	if g.failed {
		if err := a.ctx.fail(failedOutput, g, nil, -1); err != nil {
			return err
		}
	}
	if g.failed = cause != nil; g.failed {
		if err := a.ctx.fail(failedOutput, g, cause, 1); err != nil {
			return err
		}
	}
	before := g.out
	if before != nil && now != nil && slices.EqualFunc(before, now, graph.Identical) {
		return nil
	}
	g.out = now
	if before != nil {
		if err := a.next.Row(g.key, before, -1); err != nil {
			return err
		}
	}
	if now != nil {
		return a.next.Row(g.key, now, 1)
	}
	return nil
}

// Key returns the identity of the group.
func (g *group) Key() result.RowKey { return g.key }

// Origin describes the group by its keys.
func (g *group) Origin() string { return graph.List(g.keys).String() }

// Save writes the groups that changed in the batch.
func (a *Aggregate) Save() error {
	for _, g := range a.dirty {
		g.dirty = false
		a.ctx.key = store.GroupKey(a.ctx.key[:0], a.operator, g.key)
		if g.rows == 0 && len(a.keys) > 0 {
			a.groups.Delete(g.key)
			if err := a.ctx.Batch.Delete(a.ctx.key); err != nil {
				return err
			}
			continue
		}
		a.buf = binary.AppendVarint(a.buf[:0], g.rows)
		for _, v := range g.keys {
			a.buf = graph.AppendValue(a.buf, v)
		}
		for _, acc := range g.accumulators {
			a.buf = acc.append(a.buf)
		}
		if err := a.ctx.Batch.Set(a.ctx.key, a.buf); err != nil {
			return err
		}
	}
	clear(a.dirty)
	a.dirty = a.dirty[:0]
	a.groups.Age()
	return nil
}

// Reset forgets everything that is not stored.
func (a *Aggregate) Reset() {
	a.groups.Clear()
	a.touched, a.dirty = nil, nil
}

// Distinct makes rows inputs of an aggregation by all their columns.
type Distinct struct {
	*Aggregate
	in  *eval.Env
	row plainRow
}

type plainRow struct{ key result.RowKey }

func (r *plainRow) Key() result.RowKey { return r.key }

func (r *plainRow) Origin() string { return r.key.String() }

// NewDistinct returns the operator for rows of so many columns.
func NewDistinct(ctx *Context, columns, cacheBytes int, next Rows) *Distinct {
	c := &eval.Compiler{}
	s := GroupSpec{Operator: groupOfUnique, Env: c.NewEnv(columns)}
	for i := range columns {
		s.Keys = append(s.Keys, eval.Slot(i))
		s.Items = append(s.Items, eval.Slot(i))
	}
	return &Distinct{Aggregate: NewAggregate(ctx, s, cacheBytes, next), in: c.NewEnv(columns)}
}

// Row takes a row in or out.
func (d *Distinct) Row(key result.RowKey, values []graph.Value, weight int) error {
	copy(d.in.Slots, values)
	d.row.key = key
	return d.Input(d.in, &d.row, weight)
}
