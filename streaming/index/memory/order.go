package memory

import "github.com/tidwall/btree"

// order keeps the keys that share their first byte in order, as far as they have been asked for.
type order struct {
	tree     *btree.BTreeG[uint32]
	unsorted []uint32
	dropped  int // entries among unsorted that are no longer keys
}

// spaceOf returns which order a key belongs to.
func spaceOf[T ~string | ~[]byte](key T) byte {
	if len(key) == 0 {
		return 0
	}
	return key[0]
}

// enter notes a new key.
func (s *store) enter(number uint32) {
	o := &s.orders[spaceOf(s.at(number).key())]
	o.unsorted = append(o.unsorted, number)
}

// drop forgets a key.
func (s *store) drop(number uint32) {
	e := s.at(number)
	o := &s.orders[spaceOf(e.key())]
	if e.sorted {
		o.tree.Delete(number)
	}
	s.remove(e.key())
	if e.sorted {
		s.release(number)
		return
	}
	*e = entry{dropped: true}
	const few = 1024
	if o.dropped++; o.dropped > few && o.dropped*2 > len(o.unsorted) {
		s.sweep(o)
	}
}

// sweep takes what is no longer a key from the unsorted ones.
func (s *store) sweep(o *order) {
	kept := o.unsorted[:0]
	for _, number := range o.unsorted {
		if s.at(number).dropped {
			s.release(number)
		} else {
			kept = append(kept, number)
		}
	}
	o.unsorted, o.dropped = kept, 0
}

// sort brings all keys into order.
func (s *store) sort(o *order) {
	if len(o.unsorted) == 0 {
		return
	}
	if o.tree == nil {
		less := func(a, b uint32) bool { return s.at(a).key() < s.at(b).key() }
		o.tree = btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
	}
	s.sweep(o)
	for _, number := range o.unsorted {
		o.tree.Set(number)
		s.at(number).sorted = true
	}
	o.unsorted = o.unsorted[:0]
}

// walk visits all entries with keys in [from, to), those that are not committed included.
func (s *store) walk(from, to []byte, visit func(e *entry) (more bool, err error)) (err error) {
	if to != nil && string(from) >= string(to) {
		return nil
	}
	last := 255
	if to != nil {
		last = int(spaceOf(to))
	}
	more := true
	for space := int(spaceOf(from)); space <= last && more && err == nil; space++ {
		o := &s.orders[space]
		s.sort(o)
		if o.tree == nil {
			continue
		}
		// The number 0 stands for the place to start from.
		*s.at(0) = entry{data: text(from), size: uint32(len(from))}
		o.tree.Ascend(0, func(number uint32) bool {
			e := s.at(number)
			if to != nil && e.key() >= text(to) {
				more = false
				return false
			}
			more, err = visit(e)
			return more && err == nil
		})
	}
	return err
}
