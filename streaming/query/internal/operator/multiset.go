package operator

import (
	"encoding/binary"

	"github.com/perdure/perdure/streaming/graph"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/query/internal/store"
	"github.com/perdure/perdure/streaming/result"
)

// multiset keeps the values that an aggregate has seen in order, each with its count, as keys of the index.
//
// A key holds the value's sort key and then its form, as 1 and 1.0 are equivalent and yet not the same: what is shown
// must not depend on which of them came first.
type multiset struct {
	prefix     []byte
	descending bool
	key, buf   []byte
}

func newMultiset(node int, group result.RowKey, number int, descending bool) *multiset {
	return &multiset{prefix: store.MultisetPrefix(nil, node, group, number), descending: descending}
}

// keyOf returns the full key of v and how long the part is that equivalent values share; valid until the next call.
func (m *multiset) keyOf(v graph.Value) (key []byte, class int) {
	m.key = graph.AppendKey(append(m.key[:0], m.prefix...), v)
	class = len(m.key)
	if m.descending {
		for i := len(m.prefix); i < class; i++ {
			m.key[i] = ^m.key[i]
		}
	}
	m.key = appendForm(m.key, v)
	return m.key, class
}

// add changes the count of v and reports whether it appeared or vanished.
func (m *multiset) add(b index.Batch, v graph.Value, weight int) (changed bool, err error) {
	key, _ := m.keyOf(v)
	record, found, err := b.Get(key)
	if err != nil {
		return false, err
	}
	count := int64(weight)
	if found {
		old, n := binary.Uvarint(record)
		if n <= 0 {
			return false, errState
		}
		count += int64(old)
	}
	switch {
	case count < 0:
		return false, errState
	case count == 0:
		return true, b.Delete(key)
	}
	m.buf = binary.AppendUvarint(m.buf[:0], uint64(count))
	if weight > 0 {
		m.buf = graph.AppendValue(m.buf, v)
	} else { // an element may have a newer version already
		_, n := binary.Uvarint(record)
		m.buf = append(m.buf, record[n:]...)
	}
	return !found, b.Set(key, m.buf)
}

// first returns the first value.
func (m *multiset) first(b index.Batch) (v graph.Value, ok bool, err error) {
	return m.firstFrom(b, m.prefix)
}

// firstOf returns the first value that is equivalent to v.
func (m *multiset) firstOf(b index.Batch, v graph.Value) (graph.Value, bool, error) {
	key, class := m.keyOf(v)
	return m.firstFrom(b, append([]byte(nil), key[:class]...))
}

// nth returns a value by its place, counted from 0.
func (m *multiset) nth(b index.Batch, n int64) (v graph.Value, err error) {
	found := false
	err = b.Scan(m.prefix, store.After(m.prefix), func(_, record []byte) (bool, error) {
		count, size := binary.Uvarint(record)
		if size <= 0 {
			return false, errState
		}
		if n -= int64(count); n >= 0 {
			return true, nil
		}
		v, _, err = graph.DecodeValue(record[size:])
		found = true
		return false, err
	})
	if err == nil && !found {
		err = errState
	}
	return v, err
}

func (m *multiset) firstFrom(b index.Batch, prefix []byte) (v graph.Value, ok bool, err error) {
	err = b.Scan(prefix, store.After(prefix), func(_, record []byte) (bool, error) {
		_, n := binary.Uvarint(record)
		if n <= 0 {
			return false, errState
		}
		// The value may share its bytes, which are only lent.
		v, _, err = graph.DecodeValue(append([]byte(nil), record[n:]...))
		ok = true
		return false, err
	})
	return v, ok, err
}
