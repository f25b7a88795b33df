package operator

import (
	"bytes"
	"encoding/binary"
	"slices"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// multiset keeps the values that an aggregate has seen in order, each with its count, in the index. Equivalent values
// share a record, under their sort key.
type multiset struct {
	prefix     []byte
	descending bool
	key        []byte
}

// class is the record of equivalent values that are there, in the order of their forms, as 1 and 1.0 are equivalent and
// yet not the same: what is shown must not depend on which of them came first.
type class struct {
	forms []countedForm
	one   [1]countedForm // most have one form, which lies here
}

type countedForm struct {
	value graph.Value
	count int64
}

func newMultiset(node int, group result.RowKey, number int, descending bool) *multiset {
	return &multiset{prefix: store.MultisetPrefix(nil, node, group, number), descending: descending}
}

// keyOf returns the key of the values that are equivalent to v, valid until the next call.
func (m *multiset) keyOf(v graph.Value) []byte {
	m.key = graph.AppendKey(append(m.key[:0], m.prefix...), v)
	if m.descending {
		for i := len(m.prefix); i < len(m.key); i++ {
			m.key[i] = ^m.key[i]
		}
	}
	return m.key
}

// add changes the count of v. It returns the values that are equivalent to v as they were and as they are; nil: none.
// isNew says that there are none yet, which saves looking.
func (m *multiset) add(b index.Batch, v graph.Value, weight int, isNew bool) (before, now *class, err error) {
	key := m.keyOf(v)
	if !isNew {
		record, err := b.Record(key, readClass)
		if err != nil {
			return nil, nil, err
		}
		if record != nil {
			before = record.(*class)
		}
	}
	if now, err = before.with(v, weight); err != nil {
		return nil, nil, err
	}
	if now == nil {
		return before, nil, b.Delete(key)
	}
	return before, now, b.Put(key, now)
}

// with returns the class after the count of a form has changed, nil if nothing is left. Of several versions of an element
// the last that came is kept.
func (c *class) with(v graph.Value, weight int) (*class, error) {
	at, found := c.search(v)
	if !found {
		if weight < 0 {
			return nil, errState
		}
		now := c.clone()
		now.forms = slices.Insert(now.forms, at, countedForm{graph.Clone(v), 1})
		return now, nil
	}
	switch count := c.forms[at].count + int64(weight); {
	case count < 0:
		return nil, errState
	case count == 0 && len(c.forms) == 1:
		return nil, nil //nolint:nilnil // no values
	}
	now := c.clone()
	f := &now.forms[at]
	f.count += int64(weight)
	switch {
	case f.count == 0:
		now.forms = slices.Delete(now.forms, at, at+1)
	case weight > 0 && !graph.Identical(f.value, v):
		f.value = graph.Clone(v)
	}
	return now, nil
}

func (c *class) clone() *class {
	now := new(class)
	now.forms = now.one[:0]
	if c != nil {
		now.forms = append(now.forms, c.forms...)
	}
	return now
}

// search returns where the form of v is or would be.
func (c *class) search(v graph.Value) (at int, found bool) {
	switch {
	case c == nil:
		return 0, false
	case len(c.forms) == 1 && graph.Identical(c.forms[0].value, v):
		return 0, true
	}
	form := appendForm(nil, v)
	return slices.BinarySearchFunc(c.forms, form, func(f countedForm, form []byte) int {
		return bytes.Compare(appendForm(nil, f.value), form)
	})
}

// first returns the value that is shown for the class.
func (c *class) first() (v graph.Value, ok bool) {
	if c == nil {
		return graph.Null, false
	}
	return c.forms[0].value, true
}

func readClass(record []byte) (index.Record, error) {
	r := store.Reader{Src: record}
	c := new(class)
	c.forms = c.one[:0]
	for n := r.Uvarint(); n > 0 && r.Err == nil; n-- {
		c.forms = append(c.forms, countedForm{count: r.Varint(), value: r.Value()})
	}
	if r.Err == nil && len(c.forms) == 0 {
		return nil, errState
	}
	return c, r.Err
}

// AppendTo appends the values with their counts.
func (c *class) AppendTo(dst []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(c.forms)))
	for _, f := range c.forms {
		dst = graph.AppendValue(binary.AppendVarint(dst, f.count), f.value)
	}
	return dst
}

// Size returns about what the values take in memory.
func (c *class) Size() int {
	const fixed, perForm = 112, 32 // structs and the key
	size := fixed + perForm*len(c.forms)
	for _, f := range c.forms {
		size += graph.SizeOf(f.value)
	}
	return size
}

// Forgotten does nothing.
func (*class) Forgotten() {}

// nth returns a value by its place, counted from 0.
func (m *multiset) nth(b index.Batch, n int64) (v graph.Value, err error) {
	found := false
	err = m.scan(b, m.prefix, func(c *class) bool {
		for _, f := range c.forms {
			if n -= f.count; n < 0 {
				v, found = f.value, true
				return false
			}
		}
		return true
	})
	if err == nil && !found {
		err = errState
	}
	return v, err
}

// scan visits the classes from a key on.
func (m *multiset) scan(b index.Batch, from []byte, visit func(c *class) (more bool)) error {
	return b.Scan(from, store.After(m.prefix), func(_, record []byte) (bool, error) {
		r, err := readClass(bytes.Clone(record)) // the values may share the bytes, which are only lent
		return err == nil && visit(r.(*class)), err
	})
}
