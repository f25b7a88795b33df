package pebble

import (
	"io"
	"path/filepath"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// disk is the file system as one store has it. It knows when the log could not be written, which Pebble cannot go on
// after: it tells so at the next commit, by a panic that may end the process. And since Pebble can then not be closed
// either, it keeps what Pebble leaves running from the files, which another store has opened by then.
type disk struct {
	vfs.FS
	dir    string                // of the store, where its log is; the copy of it in a checkpoint is a file like others
	failed atomic.Pointer[error] // of the log

	mu   sync.RWMutex // held for reading while files change
	gone bool         // the store is closed, and Pebble is not
}

// Lock leaves the lock to the store, since it ends with that.
func (*disk) Lock(string) (io.Closer, error) { return io.NopCloser(nil), nil }

// failure returns why the log could not be written, or nil.
func (d *disk) failure() error {
	if err := d.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// leave ends what Pebble does to files.
func (d *disk) leave() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone = true
}

// change begins a change of files, which the function that it returns ends. It does not return once the store is gone: an
// error would be no answer, as Pebble tries again at once, for ever.
func (d *disk) change() (done func()) {
	d.mu.RLock()
	if d.gone {
		d.mu.RUnlock()
		select {}
	}
	return d.mu.RUnlock
}

func (d *disk) file(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &file{File: f, disk: d, log: filepath.Ext(name) == ".log" && filepath.Dir(name) == d.dir}, nil
}

// Create implements vfs.FS, as the following do.
func (d *disk) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer d.change()()
	f, err := d.FS.Create(name, c)
	return d.file(name, f, err)
}

func (d *disk) OpenReadWrite(name string, c vfs.DiskWriteCategory, o ...vfs.OpenOption) (vfs.File, error) {
	defer d.change()()
	f, err := d.FS.OpenReadWrite(name, c, o...)
	return d.file(name, f, err)
}

func (d *disk) ReuseForWrite(before, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	defer d.change()()
	f, err := d.FS.ReuseForWrite(before, name, c)
	return d.file(name, f, err)
}

func (d *disk) Link(before, name string) error {
	defer d.change()()
	return d.FS.Link(before, name)
}

func (d *disk) Rename(before, name string) error {
	defer d.change()()
	return d.FS.Rename(before, name)
}

func (d *disk) Remove(name string) error {
	defer d.change()()
	return d.FS.Remove(name)
}

func (d *disk) RemoveAll(name string) error {
	defer d.change()()
	return d.FS.RemoveAll(name)
}

// file is one that was opened for writing.
type file struct {
	vfs.File
	disk *disk
	log  bool
}

// Write implements vfs.File, as the following do.
func (f *file) Write(p []byte) (int, error) {
	defer f.disk.change()()
	n, err := f.File.Write(p)
	return n, f.note(err)
}

func (f *file) Sync() error { return f.note(f.File.Sync()) }

func (f *file) SyncData() error { return f.note(f.File.SyncData()) }

func (f *file) note(err error) error {
	if err != nil && f.log {
		f.disk.failed.CompareAndSwap(nil, &err)
	}
	return err
}
