// Package pebble keeps query state on disk, one Pebble database per query.
//
// Commits are not synced one by one: the write-ahead log reaches the disk on Sync, which the pipeline calls about once a
// second, and a crash before that costs only a replay of the change stream.
package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
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
	// database can still be closed in order. As much again is taken by the file "ballast" in Dir, which is given up when
	// others have filled the disk. Default 64 MiB.
	ReserveBytes uint64
	// Log receives errors only. Default: nothing is logged.
	Log *zap.Logger
}

// format is that of the files of all stores. It does not follow the newest one that the library has: what is written in
// a later format cannot be read by the versions of Perdure before.
const format = pebble.FormatValueSeparation

// New returns a back end below o.Dir.
func New(o Options) index.Backend {
	o.Dir = filepath.Clean(o.Dir)
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
	b := &backend{options: o, ballast: &ballast{dir: o.Dir, bytes: o.ReserveBytes}, cache: pebble.NewCache(o.CacheBytes)}
	runtime.AddCleanup(b, (*pebble.Cache).Unref, b.cache) // databases that are still open hold references of their own
	b.fs = vfs.OnDiskFull(vfs.Default, b.ballast.release)
	return b
}

type backend struct {
	options Options
	ballast *ballast
	cache   *pebble.Cache
	fs      vfs.FS
	dirs    sync.Mutex // held while directories come and go
}

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
	lock, err := b.lockStore(name, path)
	if err != nil {
		return nil, err
	}
	if err := os.RemoveAll(path + checkpointSuffix); err != nil { // of an earlier process
		return nil, errors.Join(classify("removing a checkpoint", err), lock.Close())
	}
	s := &store{disk: &disk{FS: b.fs, dir: path, failed: make(chan struct{})}, lock: lock, path: path, reserve: b.options.ReserveBytes, ballast: b.ballast, writes: newWrites(b.options.RecordBytes)}
	log := logger{b.options.Log.Sugar().With("index", name), s.disk}
	o := &pebble.Options{
		FS:           s.disk, // without the wrapper that watches for slow disks, whose goroutine outlives a failed Open
		Cache:        b.cache,
		Logger:       log,
		MemTableSize: b.options.MemTableBytes,
		// Writing stops for a flush only when four memtables wait; level 0 may grow a little, as reads are mostly cached.
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       4,
		L0StopWritesThreshold:       24,
		FormatMajorVersion:          format,
		EventListener: &pebble.EventListener{
			// What a compaction meets is told to the query at its next commit. Without a listener it would be fatal.
			DataCorruption: func(info pebble.DataCorruptionInfo) { s.damage(info.Path, info.Details) },
			// What cannot be written is tried again at once, for ever. A write that waits for it does not.
			WriteStallBegin: func(pebble.WriteStallBeginInfo) { s.stalled.Store(true) },
			WriteStallEnd:   func() { s.stalled.Store(false) },
			BackgroundError: func(err error) {
				log.Errorf("background error: %s", err)
				if s.stalled.Load() {
					s.disk.fail(err)
				}
			},
		},
	}
	o.Levels[0].FilterPolicy = bloom.FilterPolicy(10)
	for i := 1; i < len(o.Levels); i++ {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	if err := failure.Guard(func() (err error) { s.db, err = pebble.Open(path, o); return err }); err != nil {
		if cause := s.disk.failure(); cause != nil { // it panicked with that
			err = cause
		}
		if b.isNewer(path) {
			err = failure.ConfigInvalid.Errorf("opening the index %q: a newer version has written it: %w", name, err).
				WithFix("Run the version of Perdure that wrote it, or a newer one, on this host, then signal resume.")
		} else {
			err = classifyOpen(name, err)
		}
		s.disk.leave()
		return nil, errors.Join(err, lock.Close())
	}
	s.disk.opened.Store(true)
	s.files = o.MakeReaderOptions()
	return s, nil
}

// isNewer reports whether a store is in a format that this version does not know, of which Pebble says no more than it
// does of damage.
func (b *backend) isNewer(path string) bool {
	marker, err := atomicfs.ReadMarker(b.fs, path, "format-version")
	if err != nil {
		return false
	}
	version, err := strconv.ParseUint(marker, 10, 32)
	return err == nil && version > uint64(pebble.FormatNewest)
}

// lockStore takes the directory of a store, creating it when missing.
func (b *backend) lockStore(name, path string) (*pebble.Lock, error) {
	b.dirs.Lock()
	defer b.dirs.Unlock()
	if err := os.MkdirAll(path, 0o750); err != nil {
		return nil, classify("creating the index directory", err)
	}
	lock, err := pebble.LockDirectory(path, vfs.Default)
	if err != nil {
		return nil, failure.IndexLocked.Errorf("locking the index %q: %w", name, err)
	}
	return lock, nil
}

// Names lists the stores of which there are files.
func (b *backend) Names() ([]string, error) {
	dirs, err := b.list()
	for i, dir := range dirs {
		dirs[i] = storeOf(dir)
	}
	slices.Sort(dirs)
	return slices.Compact(dirs), err
}

// Clean implements index.Durable.
func (b *backend) Clean() error {
	dirs, err := b.list()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		name := storeOf(dir)
		if name == dir {
			continue
		}
		lock, err := b.lockStore(name, filepath.Join(b.options.Dir, filepath.FromSlash(name)))
		if failure.CodeOf(err) == failure.IndexLocked { // it may be in use
			continue
		}
		if err == nil {
			err = errors.Join(os.RemoveAll(filepath.Join(b.options.Dir, filepath.FromSlash(dir))), lock.Close())
		}
		if err != nil {
			return classify("removing what is left of the index "+name, err)
		}
	}
	return nil
}

// list returns the directories that hold files, relative to that of all.
func (b *backend) list() ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(b.options.Dir, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case errors.Is(err, fs.ErrNotExist): // none yet, or removed meanwhile
			return nil
		case err != nil || entry.IsDir():
			return err
		}
		dir, err := filepath.Rel(b.options.Dir, filepath.Dir(path))
		if err != nil || dir == "." {
			return err
		}
		dirs = append(dirs, filepath.ToSlash(dir))
		return fs.SkipDir // the rest of the directory
	})
	if err != nil {
		return nil, fmt.Errorf("listing the index directory: %w", err)
	}
	return dirs, nil
}

// storeOf returns which store a directory is of.
func storeOf(dir string) string {
	return strings.TrimSuffix(strings.TrimSuffix(dir, checkpointSuffix), restoreSuffix)
}

// Remove deletes the store, which must be closed.
func (b *backend) Remove(name string) error {
	path, err := b.path(name)
	if err != nil {
		return err
	}
	all := []string{path + checkpointSuffix, path + restoreSuffix, path}
	if !slices.ContainsFunc(all, func(dir string) bool { _, err := os.Stat(dir); return err == nil }) {
		return nil
	}
	lock, err := b.lockStore(name, path)
	if err != nil {
		return err
	}
	for _, dir := range all {
		err = errors.Join(err, os.RemoveAll(dir))
	}
	if err := errors.Join(err, lock.Close()); err != nil {
		return classify("removing the index", err)
	}
	b.dirs.Lock()
	defer b.dirs.Unlock()
	for dir := filepath.Dir(path); dir != b.options.Dir; dir = filepath.Dir(dir) {
		if os.Remove(dir) != nil { // there are others in it
			break
		}
	}
	return nil
}

// classify says what an error of Pebble or the file system means to the query.
func classify(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case pebble.IsCorruptionError(err):
		return failure.StateCorrupt.Errorf("%s: %w: %w", doing, index.ErrDamaged, err)
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return failure.DiskFull.Errorf("%s: %w", doing, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// classifyOpen does so for an error of opening a store. Where the file system has nothing to say, or only that a file is
// not there, it is the files that are wrong: the directory and its lock are there.
func classifyOpen(name string, err error) error {
	doing := fmt.Sprintf("opening the index %q", name)
	coded := classify(doing, err)
	var system syscall.Errno
	if failure.Of(coded) == nil && (!errors.As(err, &system) || errors.Is(err, os.ErrNotExist)) {
		return failure.StateCorrupt.Errorf("%s: %w: %w", doing, index.ErrDamaged, err)
	}
	return coded
}

// logger passes on what an operator must know and nothing else.
type logger struct {
	log  *zap.SugaredLogger
	disk *disk
}

func (logger) Infof(string, ...any) {}

func (l logger) Errorf(format string, args ...any) { l.log.Errorf(format, args...) }

// Fatalf must not return. Whoever reads or writes gets a panic, which is turned into an error. Nobody catches one of a
// goroutine that Pebble has started, which ends instead and lets go of its locks.
func (l logger) Fatalf(format string, args ...any) {
	err := fatal{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if cause, ok := a.(error); ok {
			err.cause = cause
		}
	}
	l.disk.fail(err)
	if ofPebble() {
		runtime.Goexit()
	}
	panic(err)
}

// fatal is an error after which Pebble cannot go on.
type fatal struct {
	text  string
	cause error // of which the text tells; may be nil
}

func (f fatal) Error() string { return f.text }

func (f fatal) Unwrap() error { return f.cause }

// ofPebble reports whether Pebble has started the goroutine that calls it.
func ofPebble() bool {
	callers := make([]uintptr, 1<<10)
	frames := runtime.CallersFrames(callers[:runtime.Callers(0, callers)])
	var first string
	for {
		frame, more := frames.Next()
		if !strings.HasPrefix(frame.Function, "runtime.") {
			first = frame.Function
		}
		if !more {
			return strings.HasPrefix(first, "github.com/cockroachdb/pebble/")
		}
	}
}
