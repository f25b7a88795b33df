package pebble

import (
	"fmt"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/index"
)

// TestFilesFail has files of a store fail that Pebble cannot do without, in its own goroutines too: that ends the store with
// the error of the disk, and neither the process nor the store beside it. What was synced is there when it is opened again.
func TestFilesFail(t *testing.T) {
	list := func(op errorfs.Op) bool { return strings.HasPrefix(filepath.Base(op.Path), "MANIFEST-") }
	log := func(op errorfs.Op) bool { return filepath.Ext(op.Path) == ".log" }
	within := func(function string) bool { return strings.Contains(string(debug.Stack()), function) }
	alone(t, func(dir string) {
		for name, fails := range map[string]func(errorfs.Op) bool{
			"write of the list in a flush":      func(op errorfs.Op) bool { return list(op) && op.Kind == errorfs.OpFileWrite && within(").flush1(") },
			"sync of the list in a flush":       func(op errorfs.Op) bool { return list(op) && op.Kind == errorfs.OpFileSync && within(").flush1(") },
			"write of the list in a compaction": func(op errorfs.Op) bool { return list(op) && op.Kind == errorfs.OpFileWrite && within(").compact1(") },
			"sync of the list in a compaction":  func(op errorfs.Op) bool { return list(op) && op.Kind == errorfs.OpFileSync && within(").compact1(") },
			"creation of the next log": func(op errorfs.Op) bool {
				return log(op) && (op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpReuseForWrite)
			},
			"end of a log": func(op errorfs.Op) bool {
				return log(op) && (op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData)
			},
			"every table": func(op errorfs.Op) bool { return filepath.Ext(op.Path) == ".sst" && op.Kind == errorfs.OpFileWrite },
		} {
			t.Run(name, func(t *testing.T) { failing(t, filepath.Join(dir, name), fails, true) })
		}
		// What else Pebble cannot answer, it tells its logger.
		t.Run("told", func(t *testing.T) {
			failing(t, filepath.Join(dir, "told"), func(op errorfs.Op) bool {
				return list(op) && op.Kind == errorfs.OpFileWrite && within(").flush1(")
			}, false)
		})
	})
}

func failing(t *testing.T, dir string, fails func(errorfs.Op) bool, watched bool) {
	broken := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if filepath.Base(filepath.Dir(op.Path)) != "q" || !fails(op) {
			return nil
		}
		return syscall.EIO
	})}
	b := New(Options{Dir: dir, MemTableBytes: 64 << 10, RecordBytes: 500}).(*backend)
	b.fs = errorfs.Wrap(vfs.Default, broken)
	open := func(name string) *store {
		s, err := b.Open(name)
		require.NoError(t, err)
		return s.(*store)
	}
	put := func(s index.Store, n int) error {
		w := s.NewBatch()
		defer w.Discard()
		require.NoError(t, w.Set(fmt.Appendf(nil, "%06d", n), make([]byte, 1000)))
		return w.Commit()
	}
	within := func(what string, do func() error) {
		t.Helper()
		done := make(chan error, 1)
		go func() { done <- do() }()
		select {
		case err := <-done:
			require.NoError(t, err, what)
		case <-time.After(30 * time.Second):
			t.Fatal("it takes for ever: " + what)
		}
	}
	s, beside := open("q"), open("beside")
	s.disk.opened.Store(watched)
	require.NoError(t, put(s, 0))
	require.NoError(t, s.Sync())

	broken.On()
	within("a write fails", func() error {
		for n := 1; ; n++ {
			if err := put(s, n%5000); err != nil {
				require.ErrorIs(t, err, syscall.EIO)
				return nil
			}
		}
	})
	require.ErrorIs(t, s.Sync(), syscall.EIO)
	within("it is still read and closed", func() error {
		_, found, err := s.Get(fmt.Appendf(nil, "%06d", 0))
		require.True(t, found)
		s.Bytes()
		if err != nil {
			return err
		}
		return s.Close()
	})
	for n := range 1000 {
		require.NoError(t, put(beside, n))
	}
	require.NoError(t, beside.Close())

	broken.Off()
	s = open("q")
	_, found, err := s.Get(fmt.Appendf(nil, "%06d", 0))
	require.NoError(t, err)
	require.True(t, found)
	for n := range 1000 {
		require.NoError(t, put(s, n))
	}
	require.NoError(t, s.Close())
}
