// Package memory keeps query state in memory: for tests and for queries whose state may be built anew.
//
// A store finds keys by hash. Their order is kept apart, by first byte of the key, and only as far as somebody asks for
// it: new keys wait unsorted for the next scan of their part. A batch writes beside what is committed; a snapshot keeps
// what was overwritten since it was taken. So a write costs a look-up, whatever the size of the store.
package memory

import (
	"maps"
	"slices"
	"sync"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// New returns a back end whose stores live as long as it does: closing and opening one again finds its content.
func New() index.Backend { return Sized(64 << 20) }

// Sized is New with so many bytes for the records of each store. Beyond them, those that were not used for the longest
// time are kept as bytes only, which take a fraction.
func Sized(recordBytes int) index.Backend {
	return &backend{recordBytes: recordBytes, stores: make(map[string]*store)}
}

type backend struct {
	recordBytes int
	mu          sync.Mutex
	stores      map[string]*store
}

func (b *backend) Open(name string) (index.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.stores[name]
	if !ok {
		s = newStore(b)
		b.stores[name] = s
	}
	if s.open {
		return nil, failure.IndexLocked.Errorf("opening the index %q: it is open already", name)
	}
	s.open = true
	return s, nil
}

func (b *backend) Remove(name string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.stores, name)
	return nil
}

func (b *backend) Names() ([]string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Sorted(maps.Keys(b.stores)), nil
}
