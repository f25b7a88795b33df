package pebble

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
)

// TestDiskFillsUp has the disk fill up faster than the room that is left on it lets one see. The store ends with an error
// that says so, and goes on when there is room again.
func TestDiskFillsUp(t *testing.T) {
	alone(t, func(dir string) {
		fillUp(t, filepath.Join(dir, "commit"), func(s index.Store, commit func() error) (err error) {
			require.Eventually(t, func() bool { err = commit(); return err != nil }, 20*time.Second, time.Millisecond, "the log cannot be written")
			return err
		})
		fillUp(t, filepath.Join(dir, "sync"), func(s index.Store, _ func() error) error { return s.Sync() })
	})
}

// alone runs a test in a process of its own, because of the goroutines that Pebble leaves behind.
func alone(t *testing.T, test func(dir string)) {
	const child = "PERDURE_TEST_ALONE"
	if dir := os.Getenv(child); dir != "" {
		test(dir)
		if t.Failed() {
			os.Exit(1)
		}
		os.Exit(0)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), child+"="+t.TempDir())
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func fillUp(t *testing.T, dir string, notice func(s index.Store, commit func() error) error) {
	full := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpFileWrite || filepath.Ext(op.Path) != ".log" {
			return nil
		}
		return syscall.ENOSPC
	})}
	b := New(Options{Dir: dir}).(*backend)
	b.fs = errorfs.Wrap(vfs.Default, full)
	s, err := b.Open("q")
	require.NoError(t, err)
	set := func(key string, size int) error {
		w := s.NewBatch()
		defer w.Discard()
		require.NoError(t, w.Set([]byte(key), make([]byte, size)))
		return w.Commit()
	}
	require.NoError(t, set("before", 1))
	require.NoError(t, s.Sync())

	full.On()
	require.NoError(t, set("while", 10))
	err = notice(s, func() error { return set("while", 10<<10) }) // the log is written when a block of it is full
	require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%v", err)
	require.Equal(t, failure.DiskFull, failure.CodeOf(s.Sync()))
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	select {
	case err := <-closed:
		require.NoError(t, err)
	case <-time.After(20 * time.Second):
		t.Fatal("the store cannot be closed")
	}

	full.Off()
	s, err = b.Open("q")
	require.NoError(t, err)
	_, found, err := s.Get([]byte("before"))
	require.NoError(t, err)
	require.True(t, found)
	require.NoError(t, set("after", 1))
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
}

// TestCheckpointWithoutRoom has the disk fill up while a checkpoint is made, which is not the end of the store.
func TestCheckpointWithoutRoom(t *testing.T) {
	full := &errorfs.Toggle{Injector: errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind != errorfs.OpFileWrite || filepath.Base(filepath.Dir(op.Path)) != "q"+checkpointSuffix {
			return nil
		}
		return syscall.ENOSPC
	})}
	onlyLog := false
	b := New(Options{Dir: t.TempDir()}).(*backend)
	b.fs = errorfs.Wrap(vfs.Default, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if onlyLog && filepath.Ext(op.Path) != ".log" {
			return nil
		}
		return full.MaybeError(op)
	}))
	opened, err := b.Open("q")
	require.NoError(t, err)
	s := opened.(*store)
	set := func() {
		w := s.NewBatch()
		defer w.Discard()
		require.NoError(t, w.Set([]byte("k"), make([]byte, 1000)))
		require.NoError(t, w.Commit())
		require.NoError(t, s.Sync())
	}
	set()
	for _, onlyLog = range []bool{false, true} {
		full.On()
		_, err = s.Checkpoint()
		require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%v", err)
		set()
		full.Off()
	}

	s.reserve = 1 << 62
	_, err = s.Checkpoint()
	require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%v", err)
	require.NoDirExists(t, s.path+checkpointSuffix, "it is not even begun")
	s.reserve = b.options.ReserveBytes

	c, err := s.Checkpoint()
	require.NoError(t, err)
	require.NoError(t, c.Remove())
	set()
	require.NoError(t, s.Close())
}
