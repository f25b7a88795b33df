package pebble_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/atomicfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/indextest"
	"github.com/perdure/perdure/streaming/index/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func backend(dir string) index.Backend {
	return pebble.New(pebble.Options{Dir: dir, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, RecordBytes: 500})
}

func TestConformance(t *testing.T) {
	indextest.Run(t, func(t *testing.T) index.Backend { return backend(t.TempDir()) })
}

func TestKill(t *testing.T) { indextest.Kill(t, "TestKill", backend) }

func TestNameStaysInside(t *testing.T) {
	for _, name := range []string{"", ".", "..", "../other", "a/../../b"} {
		_, err := backend(t.TempDir()).Open(name)
		require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), name)
		require.Error(t, backend(t.TempDir()).Remove(name), name)
	}
}

// TestDiskFull asks for more room to be left than any disk has.
func TestDiskFull(t *testing.T) {
	s, err := pebble.New(pebble.Options{Dir: t.TempDir(), ReserveBytes: 1 << 62}).Open("q")
	require.NoError(t, err)
	b := s.NewBatch()
	require.NoError(t, b.Set([]byte("k"), []byte("v")))
	err = b.Commit()
	b.Discard()
	require.Equal(t, failure.DiskFull, failure.CodeOf(err))
	_, found, err := s.Get([]byte("k"))
	require.NoError(t, err)
	require.False(t, found)
	require.NoError(t, s.Close())
}

// TestCorrupt damages every file of a store.
func TestCorrupt(t *testing.T) {
	dir := t.TempDir()
	s, err := backend(dir).Open("q")
	require.NoError(t, err)
	b := s.NewBatch()
	require.NoError(t, b.Set([]byte("k"), make([]byte, 1000)))
	require.NoError(t, b.Commit())
	require.NoError(t, s.Sync())
	require.NoError(t, s.Close())
	files, err := filepath.Glob(filepath.Join(dir, "q", "MANIFEST*"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		for i := range data {
			data[i] ^= 0x55
		}
		require.NoError(t, os.WriteFile(file, data, 0o600))
	}
	_, err = backend(dir).Open("q")
	require.Equal(t, failure.StateCorrupt, failure.CodeOf(err), "%v", err)
}

// TestNewerFormat: what a newer version has written is not taken for damage, and is there when that runs again.
func TestNewerFormat(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "q")
	write(t, s, "x", 10)
	want := indextest.Content(t, s, nil, nil)
	require.NoError(t, s.Close())
	format := func(to string) (before string) {
		marker, before, err := atomicfs.LocateMarker(vfs.Default, filepath.Join(dir, "q"), "format-version")
		require.NoError(t, err)
		require.NoError(t, marker.Move(to))
		require.NoError(t, marker.Close())
		return before
	}
	before := format("999")
	_, err := backend(dir).Open("q")
	require.Equal(t, failure.ConfigInvalid, failure.CodeOf(err), "%v", err)
	require.NotErrorIs(t, err, index.ErrDamaged)
	format(before)
	s = open(t, dir, "q")
	require.Equal(t, want, indextest.Content(t, s, nil, nil))
	require.NoError(t, s.Close())
}
