package operator

import (
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// collect keeps the value of each row in the order of the rows.
//
// All of them are keys of the index. Once it was asked for the list it keeps that too, and merges what has changed into
// it: the list is made anew each time all the same, as the one that was passed on is still what others retract.
type collect struct {
	prefix   []byte
	distinct bool // of equivalent values the first is shown
	key, buf []byte

	kept    bool
	rows    []string      // what follows the prefix in the keys, ascending
	values  []graph.Value // of the rows; it is passed on and so never changed
	changes []collected   // since then, the last of a row counts
	bytes   int           // of rows and values
}

// collected is a row that came or went.
type collected struct {
	row   string
	value graph.Value
	gone  bool
}

func newCollect(node int, group result.RowKey, number int, distinct bool) *collect {
	return &collect{prefix: store.MultisetPrefix(nil, node, group, number), distinct: distinct}
}

func (c *collect) check(*input) error { return nil }

func (c *collect) add(b index.Batch, in *input, weight int) error {
	row := in.row.Key()
	c.key = append(append(append(c.key[:0], c.prefix...), in.order...), row[:]...)
	change := collected{gone: weight < 0}
	if !change.gone {
		c.buf = graph.AppendValue(c.buf[:0], in.value)
	}
	if c.kept {
		change.row = string(c.key[len(c.prefix):])
		if !change.gone {
			change.value = graph.Clone(in.value)
		}
		c.changes = append(c.changes, change)
	}
	if change.gone {
		return b.Delete(c.key)
	}
	return b.Set(c.key, c.buf)
}

func (c *collect) value(b index.Batch) (graph.Value, error) {
	if err := c.update(b); err != nil {
		return graph.Null, err
	}
	if !c.distinct {
		return graph.List(c.values), nil
	}
	list := []graph.Value{}
	seen := make(map[string]bool)
	for _, v := range c.values {
		if c.buf = graph.AppendKey(c.buf[:0], v); !seen[string(c.buf)] {
			seen[string(c.buf)] = true
			list = append(list, v)
		}
	}
	return graph.List(list), nil
}

// update makes rows and values those of now.
func (c *collect) update(b index.Batch) error {
	switch {
	case !c.kept:
		c.rows, c.values, c.kept = nil, []graph.Value{}, true
		err := b.Scan(c.prefix, store.After(c.prefix), func(key, record []byte) (bool, error) {
			v, _, err := graph.DecodeValue(record)
			c.rows, c.values = append(c.rows, string(key[len(c.prefix):])), append(c.values, v)
			return true, err
		})
		c.measure()
		return err
	case len(c.changes) > 0:
		c.merge()
	}
	return nil
}

func (c *collect) merge() {
	slices.SortStableFunc(c.changes, func(x, y collected) int { return strings.Compare(x.row, y.row) })
	size := len(c.rows) + len(c.changes)
	rows, values := make([]string, 0, size), make([]graph.Value, 0, size)
	from := 0
	for i, change := range c.changes {
		if i+1 < len(c.changes) && c.changes[i+1].row == change.row {
			continue
		}
		n, found := slices.BinarySearch(c.rows[from:], change.row)
		rows, values = append(rows, c.rows[from:from+n]...), append(values, c.values[from:from+n]...)
		from += n
		if found {
			from++
		}
		if !change.gone {
			rows, values = append(rows, change.row), append(values, change.value)
		}
	}
	c.rows, c.values = append(rows, c.rows[from:]...), append(values, c.values[from:]...)
	clear(c.changes)
	c.changes = c.changes[:0]
	c.measure()
}

func (c *collect) measure() {
	const perRow = 16 + 24 // the string and the value
	c.bytes = 0
	for i, row := range c.rows {
		c.bytes += perRow + len(row) + graph.SizeOf(c.values[i])
	}
}

func (c *collect) append(dst []byte) []byte { return dst }

func (c *collect) read(*store.Reader) {}

func (c *collect) size() int { return accumulatorSize + c.bytes }

// percentile is percentileDisc or, continuous, percentileCont.
type percentile struct {
	name       string
	continuous bool
	values     *multiset
	count      int64
	wanted     []share // usually one: the same for all rows
}

// share is a percentile with how many rows ask for it.
type share struct {
	value float64
	count int64
}

func (p *percentile) check(in *input) error {
	if err := wantNumber(p.name, in.value); err != nil {
		return err
	}
	if !in.extra.IsNumber() {
		return fmt.Errorf("%s wants a number from 0 to 1 as its second argument, got %s", p.name, in.extra.Kind())
	}
	if f := toFloat(in.extra); !(f >= 0 && f <= 1) {
		return fmt.Errorf("%s wants a number from 0 to 1 as its second argument, got %s", p.name, in.extra)
	}
	return nil
}

func (p *percentile) add(b index.Batch, in *input, weight int) error {
	if _, _, err := p.values.add(b, in.value, weight, false); err != nil {
		return err
	}
	p.count += int64(weight)
	return p.want(toFloat(in.extra), weight)
}

func (p *percentile) want(f float64, weight int) error {
	for i := range p.wanted {
		if w := &p.wanted[i]; w.value == f {
			if w.count += int64(weight); w.count == 0 {
				p.wanted = append(p.wanted[:i], p.wanted[i+1:]...)
			}
			return nil
		}
	}
	if weight < 0 {
		return errState
	}
	p.wanted = append(p.wanted, share{f, 1})
	return nil
}

func (p *percentile) value(b index.Batch) (graph.Value, error) {
	if p.count == 0 {
		return graph.Null, nil
	}
	f := p.wanted[0].value
	for _, w := range p.wanted { // rows that differ: the smallest, whichever came first
		f = min(f, w.value)
	}
	if !p.continuous {
		return p.values.nth(b, max(int64(math.Ceil(f*float64(p.count)))-1, 0))
	}
	at := f * float64(p.count-1)
	low, err := p.values.nth(b, int64(math.Floor(at)))
	if err != nil {
		return graph.Null, err
	}
	if at == math.Floor(at) {
		return graph.Float(toFloat(low)), nil
	}
	high, err := p.values.nth(b, int64(math.Ceil(at)))
	part := at - math.Floor(at)
	return graph.Float(toFloat(low)*(1-part) + toFloat(high)*part), err
}

func (p *percentile) append(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(p.count))
	dst = binary.AppendUvarint(dst, uint64(len(p.wanted)))
	for _, w := range p.wanted {
		dst = binary.AppendUvarint(binary.AppendUvarint(dst, math.Float64bits(w.value)), uint64(w.count))
	}
	return dst
}

func (p *percentile) size() int { return 2*accumulatorSize + 16*len(p.wanted) }

func (p *percentile) read(r *store.Reader) {
	p.count = int64(r.Uvarint())
	for n := r.Uvarint(); n > 0 && r.Err == nil; n-- {
		w := share{value: math.Float64frombits(r.Uvarint())}
		w.count = int64(r.Uvarint())
		p.wanted = append(p.wanted, w)
	}
}
