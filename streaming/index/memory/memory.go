// Package memory keeps query state in memory: for tests and for queries whose state may be built anew.
package memory

import (
	"errors"
	"sync"

	"github.com/tidwall/btree"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// New returns a back end whose stores live as long as it does: closing and opening one again finds its content.
func New() index.Backend { return &backend{stores: make(map[string]*store)} }

type backend struct {
	mu     sync.Mutex
	stores map[string]*store
}

func (b *backend) Open(name string) (index.Store, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, ok := b.stores[name]
	if !ok {
		s = &store{tree: tree{newTree()}}
		b.stores[name] = s
	}
	s.mu.Lock()
	defer s.mu.Unlock()
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

type pair struct {
	key   string
	value []byte
}

func newTree() *btree.BTreeG[pair] {
	less := func(a, b pair) bool { return a.key < b.key }
	return btree.NewBTreeGOptions(less, btree.Options{NoLocks: true})
}

// tree reads an ordered tree; batches and snapshots are copies that share nodes until they are written.
type tree struct{ pairs *btree.BTreeG[pair] }

func (t tree) Get(key []byte) ([]byte, bool, error) {
	p, ok := t.pairs.Get(pair{key: string(key)})
	return p.value, ok, nil
}

func (t tree) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	var err error
	end := string(to)
	t.pairs.Ascend(pair{key: string(from)}, func(p pair) bool {
		if to != nil && p.key >= end {
			return false
		}
		var more bool
		more, err = visit([]byte(p.key), p.value)
		return more && err == nil
	})
	return err
}

type store struct {
	mu    sync.Mutex // guards the fields against NewSnapshot in other goroutines
	tree  tree
	bytes uint64
	open  bool
}

func (s *store) Get(key []byte) ([]byte, bool, error) { return s.tree.Get(key) }

func (s *store) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	return s.tree.Scan(from, to, visit)
}

func (s *store) NewBatch() index.Batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &batch{tree: tree{s.tree.pairs.Copy()}, store: s, bytes: s.bytes}
}

func (s *store) NewSnapshot() (index.Snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return snapshot{tree{s.tree.pairs.Copy()}}, nil
}

func (s *store) Sync() error { return nil }

func (s *store) Bytes() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

func (s *store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open = false
	return nil
}

type snapshot struct{ tree }

func (snapshot) Close() error { return nil }

// batch writes to a copy of the store's tree, which takes the original's place on commit.
type batch struct {
	tree
	store *store
	bytes uint64
}

func (b *batch) Set(key, value []byte) error {
	p := pair{key: string(key), value: append([]byte(nil), value...)}
	old, replaced := b.pairs.Set(p)
	b.bytes += uint64(len(p.key) + len(p.value))
	if replaced {
		b.bytes -= uint64(len(old.key) + len(old.value))
	}
	return nil
}

func (b *batch) Delete(key []byte) error {
	b.remove(string(key))
	return nil
}

func (b *batch) remove(key string) {
	if old, ok := b.pairs.Delete(pair{key: key}); ok {
		b.bytes -= uint64(len(old.key) + len(old.value))
	}
}

func (b *batch) DeleteRange(from, to []byte) error {
	var keys []string
	err := b.Scan(from, to, func(key, _ []byte) (bool, error) {
		keys = append(keys, string(key))
		return true, nil
	})
	for _, key := range keys {
		b.remove(key)
	}
	return err
}

func (b *batch) Commit() error {
	if b.store == nil {
		return errors.New("committing a batch that is over")
	}
	b.store.mu.Lock()
	b.store.tree, b.store.bytes = b.tree, b.bytes
	b.store.mu.Unlock()
	b.store = nil
	return nil
}

func (b *batch) Discard() { b.store = nil }
