package memory

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/perdure/perdure/streaming/index"
)

type store struct {
	backend *backend
	open    bool // guarded by the back end's mutex

	// mu guards all that follows against snapshots in other goroutines. An open batch holds it, so that reading through
	// the batch costs no lock.
	mu sync.Mutex
	table
	records   records
	orders    [256]order
	changes   []change // of the open batch
	snapshots []*snapshot
	data      int // bytes of entries
	buf       []byte
	expected  []uint32 // scratch: entries
	sink      uint32   // what reading ahead read

	batch *batch       // open; used by the store's goroutine only
	bytes atomic.Int64 // of entries and records, as of the last batch
}

// change is what the open batch does to a key.
type change struct {
	number  uint32
	deleted bool
	data    string       // of the entry afterwards
	record  index.Record // afterwards; nil: nobody has asked for one
	only    bool         // there is a record and no data
}

func newStore(b *backend) *store {
	return &store{backend: b, table: newTable(), records: newRecords()}
}

func (s *store) Close() error {
	s.mu.Lock()
	s.makeRoom(0) // records are those of who opened the store
	s.mu.Unlock()
	s.backend.mu.Lock()
	defer s.backend.mu.Unlock()
	s.open = false
	return nil
}

func (s *store) Sync() error { return nil }

func (s *store) Bytes() uint64 { return uint64(s.bytes.Load()) }

func (s *store) Get(key []byte) (value []byte, found bool, err error) {
	if s.batch == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
	}
	number, _, _ := s.find(key)
	if e := s.at(number); number != 0 && e.present {
		return bytes(s.value(e)), true, nil
	}
	return nil, false, nil
}

func (s *store) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	if s.batch == nil {
		return s.scanInPieces(from, to, nil, visit)
	}
	return s.walk(from, to, func(e *entry) (bool, error) {
		if !e.present {
			return true, nil
		}
		return visit(bytes(e.key()), bytes(s.value(e)))
	})
}

func (s *store) NewBatch() index.Batch {
	s.mu.Lock()
	s.batch = &batch{store: s}
	return s.batch
}

type batch struct{ store *store } // nil when over

func (b *batch) Get(key []byte) (value []byte, found bool, err error) {
	s := b.store
	number, _, _ := s.find(key)
	if number == 0 {
		return nil, false, nil
	}
	current, found := s.current(s.at(number))
	return bytes(current), found, nil
}

// current returns what the open batch sees of an entry's value.
func (s *store) current(e *entry) (value string, found bool) {
	if e.change == 0 {
		return s.value(e), true
	}
	switch c := &s.changes[e.change-1]; {
	case c.deleted:
		return "", false
	case c.only:
		return text(c.record.AppendTo(nil)), true
	default:
		return c.data[e.size:], true
	}
}

func (b *batch) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	return b.store.walk(from, to, func(e *entry) (bool, error) {
		value, found := b.store.current(e)
		if !found {
			return true, nil
		}
		return visit(bytes(e.key()), bytes(value))
	})
}

func (b *batch) Set(key, value []byte) error {
	s := b.store
	packed := make([]byte, len(key)+len(value))
	copy(packed[copy(packed, key):], value)
	data := text(packed)
	number, hash, place := s.find(key)
	if number == 0 {
		number = s.add(hash, place, data, len(key))
		s.enter(number)
	}
	s.note(change{number: number, data: data})
	return nil
}

// note says what the batch does to an entry, in place of what it did before.
func (s *store) note(c change) {
	e := s.at(c.number)
	if e.change == 0 {
		if r := s.records.list[e.record].record; r != nil {
			r.Forgotten()
		}
		s.changes = append(s.changes, c)
		e.change = uint32(len(s.changes))
		return
	}
	before := &s.changes[e.change-1]
	if before.record != nil && before.record != c.record {
		before.record.Forgotten()
	}
	*before = c
}

func (b *batch) Delete(key []byte) error {
	if number, _, _ := b.store.find(key); number != 0 {
		b.store.note(change{number: number, deleted: true})
	}
	return nil
}

func (b *batch) Commit() error {
	s := b.store
	if s == nil {
		return errors.New("committing a batch that is over")
	}
	for i := range s.changes {
		c := &s.changes[i]
		e := s.at(c.number)
		for _, snap := range s.snapshots {
			snap.keep(e)
		}
		if e.present {
			s.data -= len(e.data)
		}
		if c.deleted {
			s.letGo(c.number)
			s.drop(c.number)
			continue
		}
		e.present, e.change = true, 0
		if c.only {
			e.data = keyOnly(e)
		} else {
			e.data = c.data
		}
		if c.record != nil {
			s.hold(c.number, c.record, c.only)
		} else {
			s.letGo(c.number)
		}
		s.data += len(e.data)
	}
	s.makeRoom(s.backend.recordBytes)
	b.end()
	return nil
}

// keyOnly returns the key of an entry without the memory of its value, if that is worth a copy.
func keyOnly(e *entry) string {
	const small = 64
	if len(e.data) > int(e.size)+small {
		return strings.Clone(e.key())
	}
	return e.key()
}

func (b *batch) Discard() {
	if b.store == nil {
		return
	}
	s := b.store
	for i := range s.changes {
		c := &s.changes[i]
		e := s.at(c.number)
		e.change = 0
		if !e.present {
			s.drop(c.number)
		}
		if c.record != nil {
			c.record.Forgotten()
		}
	}
	b.end()
}

func (b *batch) end() {
	s := b.store
	const usual = 1024 // what a large batch needed is not kept
	if clear(s.changes); cap(s.changes) > usual {
		s.changes = nil
	}
	s.changes = s.changes[:0]
	s.bytes.Store(int64(s.data + s.records.bytes))
	b.store, s.batch = nil, nil
	s.mu.Unlock()
}

func (s *store) NewSnapshot() (index.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	snap := &snapshot{store: s}
	s.snapshots = append(s.snapshots, snap)
	return snap, nil
}

func (s *snapshot) Close() error {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	s.store.snapshots = slices.DeleteFunc(s.store.snapshots, func(other *snapshot) bool { return other == s })
	return nil
}
