package pebble

import (
	"errors"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// roomCheckBytes is how much is committed between two looks at the free room of the disk.
const roomCheckBytes = 4 << 20

type store struct {
	db      *pebble.DB
	disk    *disk
	lock    *pebble.Lock
	path    string
	reserve uint64
	ballast *ballast
	// unchecked counts bytes committed since the disk's room was last looked at; start and shortage make it look at once.
	unchecked uint64
	checked   bool
	broken    error       // set when Pebble gave up
	stalled   atomic.Bool // a write waits for Pebble to write tables
	bytes     uint64      // as of when Pebble was last asked
	damaged   atomic.Pointer[failure.Error]
	files     sstable.ReaderOptions // to check the files of a checkpoint
	writes    writes
}

// damage notes what Pebble found while it read in the background.
func (s *store) damage(path string, details error) {
	s.damaged.CompareAndSwap(nil, failure.StateCorrupt.Errorf("reading the index: %w: %w", index.ErrDamaged, details).
		WithDetail("file", filepath.Base(path)))
}

func (s *store) Get(key []byte) ([]byte, bool, error) { return get(s.db, key) }

func (s *store) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	return scan(s.db, from, to, visit)
}

func (s *store) NewBatch() index.Batch { return &batch{store: s, batch: s.db.NewIndexedBatch()} }

func (s *store) NewSnapshot() (index.Snapshot, error) { return snapshot{s.db.NewSnapshot()}, nil }

func (s *store) Sync() error {
	return s.guarded(func() error { return classify("syncing the index", s.db.LogData(nil, pebble.Sync)) })
}

func (s *store) Bytes() uint64 {
	if m, err := s.metrics(); err == nil {
		s.bytes = m.DiskSpaceUsage()
	}
	return s.bytes
}

// metrics asks Pebble, which waits for whoever writes the list of files.
func (s *store) metrics() (*pebble.Metrics, error) {
	var m *pebble.Metrics
	if err := s.guarded(func() error { m = s.db.Metrics(); return nil }); err != nil {
		return nil, err
	}
	return m, nil
}

func (s *store) Close() error {
	if s.broken != nil || s.disk.failure() != nil {
		s.disk.leave()
		return s.lock.Close() // Pebble holds its own locks for ever once it gave up
	}
	return errors.Join(classify("closing the index", s.db.Close()), s.lock.Close())
}

// guarded runs what writes, or waits for those who do, in a goroutine of its own: when Pebble cannot go on it never ends.
// What Pebble panics with, as it does with errors that it has no answer to, is an error of this and all that follow.
func (s *store) guarded(write func() error) error {
	if s.broken != nil {
		return s.broken
	}
	var err error
	if s.disk.failure() == nil {
		if damaged := s.damaged.Load(); damaged != nil {
			return damaged
		}
		select {
		case err = <-failure.Go(func() error { return caught(write) }):
		case <-s.disk.failed:
		}
	}
	var over gaveUp
	switch cause := s.disk.failure(); {
	case cause != nil:
		s.broken = classify("writing the index", cause)
	case errors.As(err, &over):
		s.broken = classify("writing the index", over.error)
	case failure.CodeOf(err) == failure.Panic:
		s.broken = err
	default:
		return err
	}
	return s.broken
}

// gaveUp is what Pebble panicked with.
type gaveUp struct{ error }

// caught runs a write of Pebble's. Panics that are bugs it leaves to others.
func caught(write func() error) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case runtime.Error:
			panic(r)
		case error:
			err = gaveUp{r}
		default:
			panic(r)
		}
	}()
	return write()
}

// checkRoom refuses a write that might fill the disk, as a database that hits the end of it cannot go on.
func (s *store) checkRoom(size int) error {
	s.unchecked += uint64(size)
	if s.checked && s.ballast.kept() && s.unchecked < roomCheckBytes {
		return nil
	}
	if err := s.ballast.room("committing to the index", s.path, s.reserve); err != nil {
		s.checked = false
		return err
	}
	s.checked, s.unchecked = true, 0
	return nil
}

type snapshot struct{ s *pebble.Snapshot }

func (s snapshot) Get(key []byte) ([]byte, bool, error) { return get(s.s, key) }

func (s snapshot) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	return scan(s.s, from, to, visit)
}

func (s snapshot) Close() error { return s.s.Close() }

type batch struct {
	store *store
	batch *pebble.Batch // nil when over
	// scans uses one iterator again and again, as making one costs more than most scans; busy while a visit is on.
	scans *pebble.Iterator
	busy  bool
}

func (b *batch) Scan(from, to []byte, visit func(key, value []byte) (bool, error)) error {
	if err := b.store.writes.show(b.batch, from, to); err != nil {
		return classify("writing to the index", err)
	}
	if b.busy {
		return scan(b.batch, from, to, visit)
	}
	// The iterator may keep its bounds. Setting them also shows it what the batch wrote since.
	o := &pebble.IterOptions{LowerBound: slices.Clone(from), UpperBound: slices.Clone(to)}
	if b.scans == nil {
		it, err := b.batch.NewIter(o)
		if err != nil {
			return classify("reading the index", err)
		}
		b.scans = it
	} else {
		b.scans.SetOptions(o)
	}
	b.busy = true
	defer func() { b.busy = false }()
	return walk(b.scans, visit)
}

// endScans closes the iterator, before the batch that it reads.
func (b *batch) endScans() error {
	if b.scans == nil {
		return nil
	}
	err := b.scans.Close()
	b.scans = nil
	return classify("reading the index", err)
}

func (b *batch) Commit() error {
	if b.batch == nil {
		return errors.New("committing a batch that is over")
	}
	out := b.batch
	err := b.endScans()
	if !b.store.writes.spilled { // Pebble indexes no more than what is read
		out = b.store.db.NewBatch()
		defer func() {
			if b.store.broken == nil {
				_ = out.Close() // it is committed, or will not be
			}
		}()
		err = errors.Join(err, out.Apply(b.batch, nil))
	}
	if err = errors.Join(err, b.store.writes.finish(out), b.store.checkRoom(out.Len())); err != nil {
		return err
	}
	err = b.store.guarded(func() error { return classify("committing to the index", out.Commit(pebble.NoSync)) })
	if b.store.broken == nil {
		err = errors.Join(err, b.batch.Close())
	}
	b.store.writes.end(err == nil)
	b.batch = nil
	return err
}

func (b *batch) Discard() {
	if b.batch != nil && b.store.broken == nil {
		_ = errors.Join(b.endScans(), b.batch.Close()) // releases memory; there is nothing to lose
	}
	if b.batch != nil {
		b.store.writes.end(false)
	}
	b.batch = nil
}

// get returns a copy, so that no block of the cache stays pinned.
func get(r pebble.Reader, key []byte) ([]byte, bool, error) {
	value, closer, err := r.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	if err != nil {
		return nil, false, classify("reading the index", err)
	}
	value = append([]byte(nil), value...)
	return value, true, closer.Close()
}

func scan(r pebble.Reader, from, to []byte, visit func(key, value []byte) (bool, error)) error {
	it, err := r.NewIter(&pebble.IterOptions{LowerBound: from, UpperBound: to})
	if err != nil {
		return classify("reading the index", err)
	}
	return errors.Join(walk(it, visit), classify("reading the index", it.Close()))
}

func walk(it *pebble.Iterator, visit func(key, value []byte) (bool, error)) error {
	for more := it.First(); more; more = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return classify("reading the index", err)
		}
		if more, err = visit(it.Key(), value); !more || err != nil {
			return err
		}
	}
	return classify("reading the index", it.Error())
}
