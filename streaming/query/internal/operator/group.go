package operator

import (
	"encoding/binary"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// group is the state of one group of an aggregation.
type group struct {
	key            result.RowKey
	rows, seeds    int64
	forms          []form
	carried        []graph.Value
	accumulators   []accumulator
	out            []graph.Value // the row that was passed on; nil: none
	failed         bool          // the row could not be made
	touched, dirty bool
	stored         bool // the index has it
	size           int

	savedFrom, savedTo int // in aggregate.saved, when it is dirty
}

// form is one way in which the keys of a group are written: 1, 1.0 and 1.00 are one key.
type form struct {
	name  string
	count int64
	keys  []graph.Value
}

const groupOverhead = 256

func sizeOfGroup(g *group) int { return g.size }

// measure works out what the group takes in memory, and returns by how much that has changed.
func (g *group) measure() (grown int) {
	const perValue = 24 // of out, which shares what lies behind them
	size := groupOverhead
	for i := range g.forms {
		size += len(g.forms[i].name) + graph.SizeOfAll(g.forms[i].keys)
	}
	size += graph.SizeOfAll(g.carried) + perValue*len(g.out)
	for _, acc := range g.accumulators {
		size += acc.size()
	}
	grown, g.size = size-g.size, size
	return grown
}

// group returns a group as it is, or an empty one.
func (a *aggregate) group(key result.RowKey) (*group, error) {
	if g, ok := a.groups.Get(key); ok {
		return g, nil
	}
	g := &group{key: key, size: groupOverhead, carried: make([]graph.Value, len(a.plan.Carried))}
	for i := range a.plan.Aggregates {
		g.accumulators = append(g.accumulators, newAccumulator(&a.plan.Aggregates[i], a.id, key, i))
	}
	a.ctx.key = store.GroupKey(a.ctx.key[:0], a.id, key)
	record, found, err := a.ctx.Batch.Get(a.ctx.key)
	if err != nil {
		return nil, err
	}
	if found {
		if err := a.read(g, append([]byte(nil), record...)); err != nil {
			return nil, err
		}
	}
	a.groups.Put(key, g)
	return g, nil
}

func (a *aggregate) read(g *group, record []byte) error {
	r := store.Reader{Src: record}
	g.rows, g.seeds = r.Varint(), r.Varint()
	for n := r.Uvarint(); n > 0 && r.Err == nil; n-- {
		f := form{name: r.Text(), count: r.Varint(), keys: make([]graph.Value, len(a.plan.Keys))}
		for i := range f.keys {
			f.keys[i] = r.Value()
		}
		g.forms = append(g.forms, f)
	}
	for i := range g.carried {
		g.carried[i] = r.Value()
	}
	for _, acc := range g.accumulators {
		acc.read(&r)
	}
	if r.Err != nil {
		return r.Err
	}
	if len(g.forms) == 0 {
		return errState
	}
	g.stored = true
	g.measure()
	out, cause, err := a.row(g)
	if err != nil {
		return err
	}
	g.out, g.failed = slices.Clone(out), cause != nil
	return nil
}

func (g *group) append(dst []byte) []byte {
	dst = binary.AppendVarint(binary.AppendVarint(dst, g.rows), g.seeds)
	dst = binary.AppendUvarint(dst, uint64(len(g.forms)))
	for _, f := range g.forms {
		dst = binary.AppendVarint(store.AppendBytes(dst, f.name), f.count)
		for _, v := range f.keys {
			dst = graph.AppendValue(dst, v)
		}
	}
	for _, v := range g.carried {
		dst = graph.AppendValue(dst, v)
	}
	for _, acc := range g.accumulators {
		dst = acc.append(dst)
	}
	return dst
}

// changeForm counts a row with keys of a form. The latest version of an element among them is the one that is shown.
func (g *group) changeForm(name []byte, keys []graph.Value, weight int) error {
	for i := range g.forms {
		f := &g.forms[i]
		if f.name != string(name) {
			continue
		}
		if f.count += int64(weight); f.count < 0 {
			return errState
		}
		if weight > 0 {
			for j, v := range keys {
				if !graph.Identical(f.keys[j], v) {
					f.keys[j] = graph.Clone(v)
				}
			}
		} else if f.count == 0 && len(g.forms) > 1 {
			g.forms = append(g.forms[:i], g.forms[i+1:]...)
		}
		return nil
	}
	if weight < 0 {
		return errState
	}
	if len(g.forms) == 1 && g.forms[0].count == 0 {
		g.forms = g.forms[:0]
	}
	f := form{name: string(name), count: 1, keys: make([]graph.Value, len(keys))}
	for i, v := range keys {
		f.keys[i] = graph.Clone(v)
	}
	g.forms = append(g.forms, f)
	return nil
}

// shown returns the keys in the form that is shown, whichever came first.
func (g *group) shown() []graph.Value {
	best := &g.forms[0]
	for i := range g.forms {
		if g.forms[i].name < best.name {
			best = &g.forms[i]
		}
	}
	return best.keys
}

// Key returns the identity of the group.
func (g *group) Key() result.RowKey { return g.key }

// Origin describes the group by its keys.
func (g *group) Origin() string { return graph.List(g.shown()).String() }

// appendForm appends what tells equivalent values apart: 1, 1.0 and 1.00. An element has one form, whatever its
// version.
func appendForm(dst []byte, v graph.Value) []byte {
	switch v.Kind() {
	case graph.KindInt:
		return append(dst, byte(graph.KindInt))
	case graph.KindFloat, graph.KindDecimal:
		return graph.AppendValue(dst, v)
	case graph.KindList:
		for _, item := range v.AsList() {
			dst = appendForm(dst, item)
		}
	case graph.KindMap:
		for _, item := range v.AsMap().Values {
			dst = appendForm(dst, item)
		}
	}
	return dst
}
