package memory

import (
	"github.com/tidwall/btree"

	"github.com/perdure/perdure/streaming/index"
)

// snapshot is the store without what was committed since: it keeps what was there before.
type snapshot struct {
	store  *store
	before btree.Map[string, image] // by key, of those that changed
}

// image is an entry as it was.
type image struct {
	data    string
	record  index.Record // when only this has the value
	present bool
}

func (i *image) value() string {
	if i.record != nil {
		return text(i.record.AppendTo(nil))
	}
	return i.data
}

// keep notes what an entry is before it changes, unless it changed before.
func (s *snapshot) keep(e *entry) {
	if _, ok := s.before.Get(e.key()); ok {
		return
	}
	old := image{data: e.data[e.size:], present: e.present}
	if h := &s.store.records.list[e.record]; h.only {
		old.record = h.record
	}
	s.before.Set(e.key(), old)
}

func (s *snapshot) Get(key []byte) (value []byte, found bool, err error) {
	s.store.mu.Lock()
	defer s.store.mu.Unlock()
	if old, ok := s.before.Get(text(key)); ok {
		return bytes(old.value()), old.present, nil
	}
	number, _, _ := s.store.find(key)
	if e := s.store.at(number); number != 0 && e.present {
		return bytes(s.store.value(e)), true, nil
	}
	return nil, false, nil
}

func (s *snapshot) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	return s.store.scanInPieces(from, to, &s.before, visit)
}

// piece is how many pairs a scan takes at once, so that it neither holds up the store's batches for long nor calls
// anybody with the lock held.
const piece = 256

type pair struct{ key, value string }

// scanInPieces visits what is committed, with what is in before in its place.
func (s *store) scanInPieces(from, to []byte, before *btree.Map[string, image], visit func(key, value []byte) (bool, error)) error {
	for {
		pairs, next, err := s.read(from, to, before)
		if err != nil {
			return err
		}
		for _, p := range pairs {
			if more, err := visit(bytes(p.key), bytes(p.value)); !more || err != nil {
				return err
			}
		}
		if next == nil {
			return nil
		}
		from = next
	}
}

// read returns the next pairs and where to go on, nil at the end.
func (s *store) read(from, to []byte, before *btree.Map[string, image]) (pairs []pair, next []byte, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var now []pair
	err = s.walk(from, to, func(e *entry) (bool, error) {
		if len(now) == piece {
			next = bytes(e.key())
			return false, nil
		}
		if e.present {
			now = append(now, pair{e.key(), s.value(e)})
		}
		return true, nil
	})
	if before == nil || err != nil {
		return now, next, err
	}
	end := to
	if next != nil {
		end = next
	}
	before.Ascend(string(from), func(key string, old image) bool {
		if end != nil && key >= text(end) {
			return false
		}
		for len(now) > 0 && now[0].key < key {
			pairs, now = append(pairs, now[0]), now[1:]
		}
		if len(now) > 0 && now[0].key == key {
			now = now[1:]
		}
		if old.present {
			pairs = append(pairs, pair{key, old.value()})
		}
		return true
	})
	return append(pairs, now...), next, nil
}
