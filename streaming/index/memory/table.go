package memory

import (
	"hash/maphash"
	"unsafe"
)

// entry is one key with its committed value and, while a batch is open, what becomes of it.
type entry struct {
	data    string // the key and, behind it, the value unless only its record has it; replaced as a whole, never changed
	size    uint32 // of the key
	change  uint32 // place in the open batch's changes plus 1; 0: none
	record  uint32 // place among the records; 0: none
	used    bool   // the record, lately
	present bool   // committed; else the open batch made the key
	sorted  bool   // in its space's tree; else among its unsorted
	dropped bool   // no longer a key, waits for its unsorted list to be cleared
}

func (e *entry) key() string { return e.data[:e.size] }

// table finds entries by key: open addressing over numbers of entries, which stay where they are.
type table struct {
	seed   maphash.Seed
	slots  []slot
	used   int
	chunks [][]entry
	next   uint32   // the first number that was never given out; 0 stands for no entry
	free   []uint32 // numbers to be given out again
}

// slot is a number with its key's hash in the upper half.
type slot uint64

func (s slot) number() uint32 { return uint32(s) }
func (s slot) hash() uint32   { return uint32(s >> 32) }

const (
	chunkBits  = 10
	firstSlots = 64
)

func newTable() table {
	t := table{seed: maphash.MakeSeed(), slots: make([]slot, firstSlots), next: 1}
	t.chunks = append(t.chunks, make([]entry, 1<<chunkBits))
	return t
}

func (t *table) at(number uint32) *entry {
	return &t.chunks[number>>chunkBits][number&(1<<chunkBits-1)]
}

func (t *table) hash(key []byte) uint32 { return uint32(maphash.Bytes(t.seed, key)) }

// find returns the entry of a key, or 0 and where it would go.
func (t *table) find(key []byte) (number uint32, hash uint32, place int) {
	hash = t.hash(key)
	mask := len(t.slots) - 1
	for place = int(hash) & mask; t.slots[place] != 0; place = (place + 1) & mask {
		if s := t.slots[place]; s.hash() == hash {
			if e := t.at(s.number()); e.key() == text(key) {
				return s.number(), hash, place
			}
		}
	}
	return 0, hash, place
}

// add makes an entry where find said that it goes.
func (t *table) add(hash uint32, place int, data string, size int) uint32 {
	var number uint32
	if n := len(t.free); n > 0 {
		number, t.free = t.free[n-1], t.free[:n-1]
	} else {
		number = t.next
		t.next++
		if int(number>>chunkBits) == len(t.chunks) {
			t.chunks = append(t.chunks, make([]entry, 1<<chunkBits))
		}
	}
	*t.at(number) = entry{data: data, size: uint32(size)}
	t.slots[place] = slot(hash)<<32 | slot(number)
	if t.used++; t.used*4 > len(t.slots)*3 {
		t.grow()
	}
	return number
}

func (t *table) grow() {
	old := t.slots
	t.slots = make([]slot, 2*len(old))
	mask := len(t.slots) - 1
	for _, s := range old {
		if s == 0 {
			continue
		}
		place := int(s.hash()) & mask
		for t.slots[place] != 0 {
			place = (place + 1) & mask
		}
		t.slots[place] = s
	}
}

// remove makes the key of an entry unknown; its number is not free yet. Slots behind it that would no longer be found
// move up.
func (t *table) remove(key string) {
	_, _, hole := t.find(unsafe.Slice(unsafe.StringData(key), len(key)))
	mask := len(t.slots) - 1
	for place := (hole + 1) & mask; t.slots[place] != 0; place = (place + 1) & mask {
		home := int(t.slots[place].hash()) & mask
		if (place-home)&mask >= (place-hole)&mask {
			t.slots[hole] = t.slots[place]
			hole = place
		}
	}
	t.slots[hole] = 0
	t.used--
}

// release gives a number back.
func (t *table) release(number uint32) {
	*t.at(number) = entry{}
	t.free = append(t.free, number)
}

// text and bytes lend each other's content, which nobody changes.
func text(b []byte) string  { return unsafe.String(unsafe.SliceData(b), len(b)) }
func bytes(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }
