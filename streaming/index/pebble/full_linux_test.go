package pebble_test

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/indextest"
	"github.com/perdure/perdure/streaming/index/pebble"
)

// small mounts a disk of so many bytes.
func small(t *testing.T, bytes int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", bytes)); err != nil {
		t.Skip("this needs the right to mount: ", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(dir, 0)) })
	return dir
}

// TestFullDisk has a store, and others than the store, fill a disk.
func TestFullDisk(t *testing.T) {
	for name, left := range map[string]uint64{"by itself": 6 << 20, "by others": 0} {
		t.Run(name, func(t *testing.T) {
			const reserve = 4 << 20
			dir := small(t, 24<<20)
			options := pebble.Options{Dir: dir, CacheBytes: 1 << 20, MemTableBytes: 256 << 10, RecordBytes: 500, ReserveBytes: reserve}
			s, err := pebble.New(options).Open("q")
			require.NoError(t, err)
			write(t, s, "before", 100)
			require.NoError(t, s.Sync())
			filler := filepath.Join(dir, "filler")
			require.NoError(t, commit(s, 1)) // it has looked at the disk
			require.NoError(t, fill(filler, left))
			committed := 1
			for range 10000 {
				if err = commit(s, committed+1); err != nil {
					break
				}
				committed++
			}
			require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%v", err)
			require.Equal(t, failure.DiskFull, failure.CodeOf(commit(s, 1)), "there is still no room")
			after := indextest.Content(t, s, nil, nil)
			require.NoError(t, s.Close())
			s, err = pebble.New(options).Open("q")
			require.NoError(t, err)
			require.Equal(t, after, indextest.Content(t, s, nil, nil), "nothing that was committed is lost")
			if left == 0 { // opening may have made room
				require.Equal(t, failure.DiskFull, failure.CodeOf(commit(s, 1)))
			}
			require.NoError(t, os.Remove(filler))
			require.NoError(t, commit(s, 10), "there is room again")
			require.NoError(t, s.Close())
		})
	}
}

// fill leaves so much room on a disk.
func fill(file string, leave uint64) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	block := make([]byte, 4<<10)
	for {
		var stat syscall.Statfs_t
		if err := syscall.Statfs(file, &stat); err != nil {
			return err
		}
		if stat.Bavail*uint64(stat.Bsize) < leave+uint64(len(block)) {
			return nil
		}
		if _, err := f.Write(block); err != nil {
			return err
		}
	}
}

func commit(s index.Store, keys int) error {
	b := s.NewBatch()
	defer b.Discard()
	for i := range keys {
		if err := b.Set(fmt.Appendf(nil, "%06d", i), make([]byte, 1000)); err != nil {
			return err
		}
	}
	return b.Commit()
}
