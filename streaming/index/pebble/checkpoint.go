package pebble

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/perdure/perdure/streaming/index"
)

// Directories beside that of a store, on the same disk, as files are linked and renamed.
const (
	checkpointSuffix = ".checkpoint"
	restoreSuffix    = ".restore"
)

// Checkpoint implements index.DurableStore.
func (s *store) Checkpoint() (*index.Checkpoint, error) {
	dir := s.path + checkpointSuffix
	m, err := s.metrics()
	if err != nil {
		return nil, err
	}
	// What is copied is the log, and little else.
	if err := s.ballast.room("making a checkpoint", s.path, s.reserve+m.WAL.Size); err != nil {
		return nil, err
	}
	err = s.guarded(func() error { return s.db.Checkpoint(dir, pebble.WithFlushedWAL()) })
	if err != nil {
		return nil, classify("making a checkpoint", err)
	}
	c := &index.Checkpoint{Dir: dir, Remove: func() error { return classify("removing a checkpoint", os.RemoveAll(dir)) }}
	c.Check = func(f index.File) error { return s.check(filepath.Join(dir, f.Name)) }
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		info, statErr := entry.Info()
		if err = errors.Join(err, statErr); err != nil {
			break
		}
		c.Files = append(c.Files, index.File{Name: entry.Name(), Size: info.Size(), Fixed: strings.HasSuffix(entry.Name(), ".sst")})
	}
	if err != nil {
		return nil, errors.Join(classify("listing a checkpoint", err), c.Remove())
	}
	return c, nil
}

// check compares the blocks of a table with their checksums.
func (s *store) check(path string) error {
	doing := "checking " + filepath.Base(path)
	file, err := vfs.Default.Open(path)
	if err != nil {
		return classify(doing, err)
	}
	readable, err := sstable.NewSimpleReadable(file)
	if err != nil {
		return classify(doing, errors.Join(err, file.Close()))
	}
	r, err := sstable.NewReader(context.Background(), readable, s.files)
	if err != nil {
		return classify(doing, errors.Join(err, readable.Close()))
	}
	return classify(doing, errors.Join(r.ValidateBlockChecksums(), r.Close()))
}

// Restore implements index.Durable.
func (b *backend) Restore(name string, bytes int64, fill func(dir string) error) error {
	path, err := b.path(name)
	if err != nil {
		return err
	}
	lock, err := b.lockStore(name, path)
	if err != nil {
		return err
	}
	err = b.restore(path, bytes, fill)
	return errors.Join(err, lock.Close())
}

func (b *backend) restore(path string, bytes int64, fill func(dir string) error) (err error) {
	dir := path + restoreSuffix
	if err := os.RemoveAll(dir); err != nil { // of an attempt that was interrupted
		return classify("removing an unfinished restore", err)
	}
	needed := b.options.ReserveBytes + uint64(max(bytes, 0)) //nolint:gosec // it is not negative
	if err := b.ballast.room("restoring the index", path, needed); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := os.Mkdir(dir, 0o750); err != nil {
		return classify("creating the directory of a restore", err)
	}
	if err := fill(dir); err != nil {
		return classify("restoring the index", err)
	}
	if err := syncAll(dir); err != nil {
		return classify("syncing a restored index", err)
	}
	// The lock is on a file that goes here; whoever takes the new one before the rename makes it fail.
	if err := os.RemoveAll(path); err != nil {
		return classify("removing the index before", err)
	}
	if err := os.Rename(dir, path); err != nil {
		return classify("moving a restored index to its place", err)
	}
	return classify("syncing the directory of a restored index", syncPath(filepath.Dir(path)))
}

// syncAll syncs the files of a directory and then itself.
func syncAll(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("listing %s: %w", dir, err)
	}
	for _, entry := range entries {
		if err := syncPath(filepath.Join(dir, entry.Name())); err != nil {
			return err
		}
	}
	return syncPath(dir)
}

func syncPath(path string) error {
	f, err := os.Open(path) //nolint:gosec // it is our own
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
