package memory

import "github.com/perdure/perdure/streaming/index"

// records are the values of entries in the form that they are worked with.
type records struct {
	list  []held
	free  []uint32
	hand  uint32 // where to look next for one that can go
	bytes int
}

// held is the record of an entry.
type held struct {
	record index.Record // nil: the place is free
	number uint32       // of the entry
	size   uint32
	only   bool // the entry has no bytes of it
}

func newRecords() records { return records{list: make([]held, 1)} } // 0 stands for no record

// hold keeps the record of a committed entry, in place of the one that it had.
func (s *store) hold(number uint32, r index.Record, only bool) {
	e := s.at(number)
	h := held{record: r, number: number, size: uint32(r.Size()), only: only}
	if e.record != 0 {
		before := &s.records.list[e.record] // which was told when the change was noted
		s.records.bytes -= int(before.size)
		*before = h
	} else if n := len(s.records.free); n > 0 {
		e.record, s.records.free = s.records.free[n-1], s.records.free[:n-1]
		s.records.list[e.record] = h
	} else {
		e.record = uint32(len(s.records.list))
		s.records.list = append(s.records.list, h)
	}
	e.used = true
	s.records.bytes += int(h.size)
}

// letGo forgets the record of an entry, which may have none.
func (s *store) letGo(number uint32) {
	e := s.at(number)
	if e.record == 0 {
		return
	}
	h := &s.records.list[e.record]
	h.record.Forgotten()
	s.records.bytes -= int(h.size)
	s.records.free = append(s.records.free, e.record)
	*h = held{}
	e.record = 0
}

// value returns the bytes of an entry's value, which has no other than the committed one.
func (s *store) value(e *entry) string {
	if h := &s.records.list[e.record]; h.only {
		return text(h.record.AppendTo(nil))
	}
	return e.data[e.size:]
}

// settle makes bytes of a record.
func (s *store) settle(number uint32) {
	e := s.at(number)
	if h := &s.records.list[e.record]; h.only {
		s.buf = h.record.AppendTo(append(s.buf[:0], e.key()...))
		s.data += len(s.buf) - len(e.data)
		e.data = string(s.buf)
	}
	s.letGo(number)
}

// makeRoom settles records until the rest are within the budget: the hand goes round and takes each that was not used
// since it came by.
func (s *store) makeRoom(budget int) {
	for s.records.bytes > max(budget, 0) {
		if s.records.hand++; int(s.records.hand) >= len(s.records.list) {
			s.records.hand = 1
		}
		h := &s.records.list[s.records.hand]
		if h.record == nil {
			continue
		}
		if e := s.at(h.number); e.used {
			e.used = false
			continue
		}
		s.settle(h.number)
	}
}

func (b *batch) Record(key []byte, decode func(value []byte) (index.Record, error)) (index.Record, error) {
	s := b.store
	number, _, _ := s.find(key)
	if number == 0 {
		return nil, nil
	}
	e := s.at(number)
	if e.change != 0 {
		c := &s.changes[e.change-1]
		if c.deleted || c.record != nil {
			return c.record, nil
		}
		r, err := decode(bytes(c.data[e.size:]))
		if err != nil {
			return nil, err
		}
		c.record = r
		return r, nil
	}
	if e.record != 0 {
		e.used = true
		return s.records.list[e.record].record, nil
	}
	r, err := decode(bytes(e.data[e.size:]))
	if err != nil {
		return nil, err
	}
	s.makeRoom(s.backend.recordBytes - r.Size())
	s.hold(number, r, false)
	return r, nil
}

func (b *batch) Put(key []byte, r index.Record) error {
	s := b.store
	number, hash, place := s.find(key)
	if number == 0 {
		number = s.add(hash, place, string(key), len(key))
		s.enter(number)
	}
	s.note(change{number: number, record: r, only: true})
	return nil
}

// Expect reads what Record and Put will, in steps in which no key waits for another one's memory: one by one, each would wait for
// several places that no cache of the processor has.
func (b *batch) Expect(keys [][]byte, read bool) {
	s := b.store
	numbers := s.expected[:0]
	mask := len(s.slots) - 1
	for _, key := range keys {
		numbers = append(numbers, s.slots[int(s.hash(key))&mask].number())
	}
	places := uint32(0)
	for _, number := range numbers {
		places += s.at(number).record
	}
	for _, number := range numbers {
		if e := s.at(number); e.size > 0 {
			places += uint32(e.data[0])
		}
	}
	for _, number := range numbers {
		if h := &s.records.list[s.at(number).record]; read && h.record != nil {
			places += uint32(h.record.Size())
		} else {
			places += h.size
		}
	}
	s.expected, s.sink = numbers, places
}
