// Package pebble keeps query state on disk, one Pebble database per query.
//
// Commits are not synced one by one: the write-ahead log reaches the disk on Sync, which the pipeline calls about once a
// second, and a crash before that costs only a replay of the change stream.
package pebble

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/zap"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// Options configure a back end. The zero value of a field asks for its default.
type Options struct {
	// Dir is the directory below which each store has its own.
	Dir string
	// CacheBytes bounds the block cache that all stores share. Default 64 MiB.
	CacheBytes int64
	// RecordBytes bounds what each store keeps of the values that are read as records. Default 64 MiB.
	RecordBytes int
	// MemTableBytes bounds what a store gathers in memory before it writes a table. Default 4 MiB: in a larger one places are found
	// more slowly than tables are written.
	MemTableBytes uint64
	// ReserveBytes is the room that must be left on the disk: with less, commits are refused as DiskFull while the
	// database can still be closed in order. Default 64 MiB.
	ReserveBytes uint64
	// Log receives errors only. Default: nothing is logged.
	Log *zap.Logger
}

// New returns a back end below o.Dir.
func New(o Options) index.Backend {
	if o.CacheBytes == 0 {
		o.CacheBytes = 64 << 20
	}
	if o.RecordBytes == 0 {
		o.RecordBytes = 64 << 20
	}
	if o.MemTableBytes == 0 {
		o.MemTableBytes = 4 << 20
	}
	if o.ReserveBytes == 0 {
		o.ReserveBytes = 64 << 20
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	return &backend{options: o}
}

type backend struct{ options Options }

func (b *backend) path(name string) (string, error) {
	path := filepath.Join(b.options.Dir, filepath.FromSlash(name))
	if inside, err := filepath.Rel(b.options.Dir, path); err != nil || inside == "." || strings.HasPrefix(inside, "..") {
		return "", failure.ConfigInvalid.Errorf("the index name %q leads out of the data directory", name)
	}
	return path, nil
}

// Open opens or creates the store. It stays locked until it is closed or the process ends, however it ends.
func (b *backend) Open(name string) (index.Store, error) {
	path, err := b.path(name)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, classify("creating the index directory", err)
	}
	lock, err := pebble.LockDirectory(path, vfs.Default)
	if err != nil {
		return nil, failure.IndexLocked.Errorf("locking the index %q: %w", name, err)
	}
	cache := pebble.NewCache(b.options.CacheBytes)
	defer cache.Unref() // the database holds its own reference
	o := &pebble.Options{
		FS:           vfs.Default, // without the wrapper that watches for slow disks, whose goroutine outlives a failed Open
		Cache:        cache,
		Lock:         lock,
		Logger:       logger{b.options.Log.Sugar().With("index", name)},
		MemTableSize: b.options.MemTableBytes,
		// Writing stops for a flush only when four memtables wait; level 0 may grow a little, as reads are mostly cached.
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          pebble.FormatNewest,
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	for i := 1; i < len(o.Levels); i++ {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(path, o)
	if err != nil {
		return nil, errors.Join(classify(fmt.Sprintf("opening the index %q", name), err), lock.Close())
	}
	return &store{db: db, lock: lock, path: path, reserve: b.options.ReserveBytes, writes: newWrites(b.options.RecordBytes)}, nil
}

// Remove deletes the store, which must be closed.
func (b *backend) Remove(name string) error {
	path, err := b.path(name)
	if err != nil {
		return err
	}
	if _, err := os.Stat(path); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	lock, err := pebble.LockDirectory(path, vfs.Default)
	if err != nil {
		return failure.IndexLocked.Errorf("locking the index %q: %w", name, err)
	}
	if err := errors.Join(os.RemoveAll(path), lock.Close()); err != nil {
		return classify("removing the index", err)
	}
	return nil
}

// classify says what an error of Pebble or the file system means to the query.
func classify(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		return failure.StateCorrupt.Errorf("%s: %w", doing, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return failure.DiskFull.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// logger passes on what an operator must know and nothing else.
type logger struct{ log *zap.SugaredLogger }

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) { l.log.Errorf(format, args...) }

// Fatalf must not return. A failed commit panics in the committing goroutine, which turns it into an error.
func (l logger) Fatalf(format string, args ...any) { panic(fatal{fmt.Errorf(format, args...)}) }

type fatal struct{ err error }
