package pebble

import (
	"errors"
	"os"
	"path/filepath"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/perdure/perdure/streaming/failure"
)

// ballast is a file that takes room on the disk for nothing, so that it can be given up when others have filled the disk:
// a write of Pebble's that finds no room is the end of the process, and a look at the free room before each commit comes
// too late for what is filled in between. It is safe for concurrent use.
type ballast struct {
	dir   string
	bytes uint64

	mu    sync.Mutex
	there bool
}

// keep makes sure that there is the ballast, if the disk has room for it and for reserve beside it.
func (b *ballast) keep(free, reserve uint64) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.there {
		return true, nil
	}
	if info, err := os.Stat(b.path()); err == nil && uint64(info.Size()) == b.bytes { //nolint:gosec // no file has a negative size
		b.there = true
		return true, nil
	}
	if free < b.bytes || free-b.bytes < reserve {
		return false, nil
	}
	f, err := os.Create(b.path())
	if err != nil {
		return false, err
	}
	if err := errors.Join(allocate(f, int64(b.bytes)), f.Close()); err != nil { //nolint:gosec // it is less than what is free
		return false, errors.Join(err, os.Remove(b.path()))
	}
	b.there = true
	return true, nil
}

// room refuses as DiskFull what may fill the disk of a path: beside the ballast so many bytes must be free.
func (b *ballast) room(doing, path string, needed uint64) error {
	left, err := free(path)
	if err != nil {
		return classify("looking at the disk's free room", err)
	}
	kept, err := b.keep(left, needed)
	if err != nil {
		return classify("taking room for when the disk is full", err)
	}
	if !kept || left < needed {
		return failure.DiskFull.Errorf("%s: %d MiB are free, %d MiB must be", doing, left>>20, needed>>20).WithDetail("path", path)
	}
	return nil
}

// kept reports whether it has not been needed.
func (b *ballast) kept() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.there
}

// release gives the room up.
func (b *ballast) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.there = false
	_ = os.Remove(b.path()) // there is nobody to tell; the write that is tried again says what is the matter
}

func (b *ballast) path() string { return filepath.Join(b.dir, "ballast") }

// fill writes zeros, where the file system cannot take room without.
func fill(f *os.File, bytes int64) error {
	block := make([]byte, 1<<20)
	for bytes > 0 {
		n, err := f.Write(block[:min(bytes, int64(len(block)))])
		if err != nil {
			return err
		}
		bytes -= int64(n)
	}
	return nil
}

// free returns how many bytes of the disk are free.
func free(path string) (uint64, error) {
	usage, err := vfs.Default.GetDiskUsage(path)
	return usage.AvailBytes, err
}
