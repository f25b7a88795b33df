package pebble

import (
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/cache"
)

// writes are what the open batch does to single keys, and records those that were used lately. Writes wait in memory
// for the commit, as a batch of Pebble's that can be read costs more than all the rest; only where somebody scans they
// are brought into one.
type writes struct {
	list    []write
	at      map[string]int // into list
	pending [256][]int     // into list, by first byte of the key: those that a scan would not find
	values  []byte         // of the list, back to back
	buf     []byte
	most    int  // how many wait
	spilled bool // others are in Pebble's batch

	cached *cache.Cache[string, index.Record]
	read   [256]bool // by first byte of the key: somebody reads records there, so that they are cached
}

// A write that waits is taken to need so many bytes, of the budget of records. Those of a larger batch go into Pebble's,
// which needs a fraction.
const (
	waitingBytes = 1 << 10
	leastWaiting = 4
)

// write is what becomes of a key.
type write struct {
	key    string
	kind   kind
	inside bool         // Pebble's batch has it, too
	value  []byte       // of set
	record index.Record // of put; of set, when somebody has asked for one
}

type kind uint8

const (
	set kind = iota + 1
	put
	deleted
)

func newWrites(recordBytes int) writes {
	return writes{
		most:   max(recordBytes/waitingBytes, leastWaiting),
		at:     make(map[string]int),
		cached: cache.New[string](recordBytes, index.Record.Size, index.Record.Forgotten),
	}
}

func space[T ~string | ~[]byte](key T) byte {
	if len(key) == 0 {
		return 0
	}
	return key[0]
}

// find returns what the batch does to a key, or nil.
func (w *writes) find(key []byte) *write {
	if i, ok := w.at[string(key)]; ok {
		return &w.list[i]
	}
	return nil
}

// note says what becomes of a key, in place of what was said before.
func (w *writes) note(key []byte, now write) {
	i, ok := w.at[string(key)]
	if ok {
		before := &w.list[i]
		if before.record != nil && before.record != now.record {
			before.record.Forgotten()
		}
		if before.inside {
			w.pending[space(key)] = append(w.pending[space(key)], i)
		}
		now.key = before.key
		*before = now
		return
	}
	if w.read[space(key)] {
		if before, ok := w.cached.Get(string(key)); ok {
			before.Forgotten()
		}
	}
	i = len(w.list)
	now.key = string(key)
	w.list = append(w.list, now)
	w.at[now.key] = i
	w.pending[space(key)] = append(w.pending[space(key)], i)
}

// show brings what is in the way of a scan into Pebble's batch: everything in its spaces, so that each write is brought
// there once.
func (w *writes) show(b *pebble.Batch, from, to []byte) error {
	last := 255
	if to != nil {
		last = int(space(to))
	}
	for s := int(space(from)); s <= last; s++ {
		for _, i := range w.pending[s] {
			if err := w.apply(b, &w.list[i]); err != nil {
				return err
			}
			w.list[i].inside = true
		}
		w.pending[s] = w.pending[s][:0]
	}
	return nil
}

// finish adds to a batch what only we have, behind everything else, and in order: Pebble finds a key's place faster when
// it is near that of the one before.
func (w *writes) finish(b *pebble.Batch) error {
	slices.SortFunc(w.list, func(a, b write) int { return strings.Compare(a.key, b.key) })
	for i := range w.list {
		if p := &w.list[i]; !p.inside {
			if err := w.apply(b, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func (w *writes) apply(b *pebble.Batch, p *write) error {
	w.buf = append(w.buf[:0], p.key...)
	n := len(w.buf)
	switch p.kind {
	case set:
		return b.Set(w.buf, p.value, nil)
	case put:
		w.buf = p.record.AppendTo(w.buf)
		return b.Set(w.buf[:n], w.buf[n:], nil)
	case deleted:
		return b.Delete(w.buf, nil)
	}
	return nil
}

// end forgets the writes. What was committed is cached where it is read.
func (w *writes) end(committed bool) {
	for i := range w.list {
		p := &w.list[i]
		switch {
		case committed && w.read[space(p.key)] && (p.kind == set || p.kind == deleted) && p.record == nil:
			w.cached.Delete(p.key)
		case p.record == nil:
		case committed && w.read[space(p.key)]:
			w.cached.Put(p.key, p.record)
		default:
			p.record.Forgotten()
		}
	}
	if w.spilled && !committed {
		w.cached.Clear() // some may be of what this batch wrote
	}
	w.spilled = false
	w.cached.Age()
	w.reset()
}

// spill brings everything into Pebble's batch, from which it is read from now on.
func (w *writes) spill(b *pebble.Batch) error {
	if err := w.show(b, nil, nil); err != nil {
		return err
	}
	for i := range w.list {
		p := &w.list[i]
		if p.record != nil {
			p.record.Forgotten()
		}
		if w.read[space(p.key)] {
			w.cached.Delete(p.key)
		}
	}
	w.spilled = true
	w.cached.Age()
	w.reset()
	return nil
}

func (w *writes) reset() {
	const usual = 1 << 12 // what a large batch needed is not kept
	if cap(w.list) > usual {
		w.list, w.values, w.at = nil, nil, make(map[string]int)
		w.pending = [256][]int{}
		return
	}
	clear(w.list)
	w.list, w.values = w.list[:0], w.values[:0]
	clear(w.at)
	for s := range w.pending {
		w.pending[s] = w.pending[s][:0]
	}
}

func (b *batch) Record(key []byte, decode func(value []byte) (index.Record, error)) (index.Record, error) {
	w := &b.store.writes
	if p := w.find(key); p != nil {
		if p.kind == deleted || p.record != nil {
			return p.record, nil
		}
		r, err := decode(slices.Clone(p.value))
		if err != nil {
			return nil, err
		}
		p.record = r
		return r, nil
	}
	if r, ok := w.cached.Get(string(key)); ok {
		return r, nil
	}
	w.read[space(key)] = true
	value, found, err := get(b.batch, key)
	if err != nil || !found {
		return nil, err
	}
	r, err := decode(value)
	if err != nil {
		return nil, err
	}
	w.cached.Put(string(key), r)
	w.cached.Age()
	return r, nil
}

// Expect does nothing: what is cached is in maps, and Pebble reads one key after the other.
func (b *batch) Expect([][]byte, bool) {}

func (b *batch) Put(key []byte, r index.Record) error {
	return b.note(key, write{kind: put, record: r})
}

func (b *batch) Set(key, value []byte) error {
	w := &b.store.writes
	start := len(w.values)
	w.values = append(w.values, value...)
	return b.note(key, write{kind: set, value: w.values[start:len(w.values):len(w.values)]})
}

func (b *batch) Delete(key []byte) error { return b.note(key, write{kind: deleted}) }

func (b *batch) note(key []byte, now write) error {
	w := &b.store.writes
	w.note(key, now)
	if len(w.list) < w.most {
		return nil
	}
	return classify("writing to the index", w.spill(b.batch))
}

func (b *batch) Get(key []byte) ([]byte, bool, error) {
	p := b.store.writes.find(key)
	switch {
	case p == nil:
		return get(b.batch, key)
	case p.kind == set:
		return p.value, true, nil
	case p.kind == put:
		return p.record.AppendTo(nil), true, nil
	}
	return nil, false, nil
}
