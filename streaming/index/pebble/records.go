package pebble

import (
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2"

	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/cache"
)

// records are the values that are read as records, in the form that they are worked with: those that were used lately,
// and before them those that the open batch puts. Puts wait in memory for the commit, as a batch of Pebble's that can be
// read costs more than all the rest.
type records struct {
	cached *cache.Cache[string, index.Record]
	read   [256]bool // by first byte of the key: records are cached where somebody reads them
	puts   []put
	at     map[string]int // into puts
	buf    []byte
}

// put is a record that the open batch stores.
type put struct {
	key    string
	record index.Record // nil: the batch did something else to the key since
	inside bool         // Pebble's batch has it, too
}

func newRecords(budget int) records {
	return records{
		cached: cache.New[string](budget, index.Record.Size, index.Record.Forgotten),
		at:     make(map[string]int),
	}
}

func space[T ~string | ~[]byte](key T) byte {
	if len(key) == 0 {
		return 0
	}
	return key[0]
}

func (b *batch) Record(key []byte, decode func(value []byte) (index.Record, error)) (index.Record, error) {
	r := &b.store.records
	if i, ok := r.at[string(key)]; ok && r.puts[i].record != nil {
		return r.puts[i].record, nil
	}
	if record, ok := r.cached.Get(string(key)); ok {
		return record, nil
	}
	r.read[space(key)] = true
	value, found, err := get(b.batch, key)
	if err != nil || !found {
		return nil, err
	}
	record, err := decode(value)
	if err != nil {
		return nil, err
	}
	r.cached.Put(string(key), record)
	r.cached.Age()
	return record, nil
}

// Expect does nothing: what is cached is in maps, and Pebble reads one key after the other.
func (b *batch) Expect([][]byte, bool) {}

func (b *batch) Put(key []byte, record index.Record) error {
	r := &b.store.records
	if i, ok := r.at[string(key)]; ok {
		r.replace(&r.puts[i], record)
		return nil
	}
	if r.read[space(key)] {
		if before, ok := r.cached.Get(string(key)); ok {
			before.Forgotten()
		}
	}
	r.puts = append(r.puts, put{key: string(key), record: record})
	r.at[r.puts[len(r.puts)-1].key] = len(r.puts) - 1
	return nil
}

func (r *records) replace(p *put, record index.Record) {
	if p.record != nil && p.record != record {
		p.record.Forgotten()
	}
	p.record, p.inside = record, false
}

// overrule says that the open batch writes to a key in another way.
func (r *records) overrule(key []byte) {
	if i, ok := r.at[string(key)]; ok {
		r.replace(&r.puts[i], nil)
	}
	if r.read[space(key)] {
		r.cached.Delete(string(key))
	}
}

func (r *records) overruleRange(from, to []byte) {
	inside := func(key string) bool { return key >= string(from) && (to == nil || key < string(to)) }
	for i := range r.puts {
		if inside(r.puts[i].key) {
			r.replace(&r.puts[i], nil)
		}
	}
	if r.read[space(from)] || to == nil || space(to) != space(from) {
		r.cached.DeleteFunc(inside)
	}
}

// show brings what was put in a range into Pebble's batch, where a scan finds it.
func (r *records) show(b *pebble.Batch, from, to []byte) error {
	for i := range r.puts {
		p := &r.puts[i]
		if p.record == nil || p.inside || p.key < string(from) || to != nil && p.key >= string(to) {
			continue
		}
		r.buf = p.record.AppendTo(r.buf[:0])
		if err := b.Set([]byte(p.key), r.buf, nil); err != nil {
			return err
		}
		p.inside = true
	}
	return nil
}

// write adds what was put to a batch, behind everything else, and in order: Pebble finds a key's place faster when it is
// near that of the one before.
func (r *records) write(b *pebble.Batch) error {
	slices.SortFunc(r.puts, func(a, b put) int { return strings.Compare(a.key, b.key) })
	for i := range r.puts {
		p := &r.puts[i]
		if p.record == nil || p.inside {
			continue
		}
		r.buf = append(r.buf[:0], p.key...)
		r.buf = p.record.AppendTo(r.buf)
		if err := b.Set(r.buf[:len(p.key)], r.buf[len(p.key):], nil); err != nil {
			return err
		}
	}
	return nil
}

// end takes what was put into the cache or, when the batch was not committed, forgets it.
func (r *records) end(committed bool) {
	for i := range r.puts {
		p := &r.puts[i]
		switch {
		case p.record == nil:
		case committed && r.read[space(p.key)]:
			r.cached.Put(p.key, p.record)
		default:
			p.record.Forgotten()
		}
	}
	r.cached.Age()
	clear(r.puts)
	r.puts = r.puts[:0]
	clear(r.at)
}
