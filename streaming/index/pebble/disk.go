package pebble

import (
	"io"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system as one store has it. Pebble cannot go on when its log, or the list of its files, could not be
// written: it panics, now and then with a lock that it does not hold any more, or in a goroutine of its own, which ends the
// process. So it is never told. What failed does not return; the store is told instead, whose writes end with the reason. And
// since Pebble can then not be closed either, it is kept from the files, which another store may have opened by then.
type disk struct {
	vfs.FS
	dir    string      // of the store; the copies of its files in a checkpoint are files like others
	opened atomic.Bool // until then, failures are errors of opening the store

	once   sync.Once
	cause  error         // set before failed is closed
	failed chan struct{} // closed when Pebble is not to go on

	mu   sync.RWMutex // held for reading while files change
	gone bool         // the store is closed, and Pebble is not
}

// Lock leaves the lock to the store, since it ends with that.
func (*disk) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// fail ends all that Pebble does to files, and all writes that wait for it.
func (d *disk) fail(cause error) {
	d.once.Do(func() {
		d.cause = cause
		close(d.failed)
	})
}

// failure returns why Pebble is not to go on, or nil.
func (d *disk) failure() error {
	select {
	case <-d.failed:
		return d.cause
	default:
		return nil
	}
}

// leave ends what Pebble does to files.
func (d *disk) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// change changes files. It does not return once Pebble is not to go on: an error would be no answer, as Pebble tries again
// at once, for ever.
func (d *disk) change(name string, change func() error) error {
	d.mu.RLock()
	if d.gone || d.failure() != nil {
		d.mu.RUnlock()
		select {}
	}
	err := change()
	d.mu.RUnlock()
	return d.note(name, err)
}

// note returns how something went with a file, if Pebble may know it.
func (d *disk) note(name string, err error) error {
	if err != nil && d.opened.Load() && d.vital(name) {
		d.fail(err)
		select {}
	}
	return err
}

// vital reports whether Pebble gives up when a file fails: the log, the list of files, which of the lists is the one, and the
// directory with all of them.
func (d *disk) vital(name string) bool {
	if name == d.dir {
		return true
	}
	dir, file := filepath.Split(name)
	return filepath.Clean(dir) == d.dir &&
		(filepath.Ext(file) == ".log" || strings.HasPrefix(file, "MANIFEST-") || strings.HasPrefix(file, "marker."))
}

// open opens a file for writing.
func (d *disk) open(name string, open func() (vfs.File, error)) (f vfs.File, err error) {
	err = d.change(name, func() error {
		f, err = open()
		return err
	})
	if err != nil {
		return nil, err
	}
	return &file{f, d, name}, nil
}

// Create implements vfs.FS, as the following do.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.Create(name, c) })
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.OpenReadWrite(name, c, o...) })
}

func (d *disk) ReuseForWrite(before, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	return d.open(name, func() (vfs.File, error) { return d.FS.ReuseForWrite(before, name, c) })
}

func (d *disk) OpenDir(name string) (vfs.File, error) {
	f, err := d.FS.OpenDir(name)
	if err != nil {
		return nil, d.note(name, err)
	}
	return &file{f, d, name}, nil
}

func (d *disk) Link(before, name string) error {
	return d.change(name, func() error { return d.FS.Link(before, name) })
}

func (d *disk) Rename(before, name string) error {
	return d.change(name, func() error { return d.FS.Rename(before, name) })
}

func (d *disk) Remove(name string) error {
	return d.change("", func() error { return d.FS.Remove(name) }) // what stays does no harm
}

func (d *disk) RemoveAll(name string) error {
	return d.change("", func() error { return d.FS.RemoveAll(name) })
}

// file is one that was opened for writing, or a directory.
type file struct {
	vfs.File
	disk *disk
	name string
}

// Write implements vfs.File, as the following do.
func (f *file) Write(p []byte) (n int, err error) {
	err = f.disk.change(f.name, func() error {
		n, err = f.File.Write(p)
		return err
	})
	return n, err
}

func (f *file) Sync() error { return f.disk.note(f.name, f.File.Sync()) }

func (f *file) SyncData() error { return f.disk.note(f.name, f.File.SyncData()) }

func (f *file) SyncTo(length int64) (full bool, err error) {
	full, err = f.File.SyncTo(length)
	return full, f.disk.note(f.name, err)
}

func (f *file) Close() error { return f.disk.note(f.name, f.File.Close()) }
