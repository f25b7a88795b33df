package pebble_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/index"
	"github.com/perdure/perdure/streaming/index/indextest"
)

// write commits so many keys of a kilobyte, whose values begin with a mark.
func write(t *testing.T, s index.Store, mark string, keys int) {
	t.Helper()
	b := s.NewBatch()
	for i := range keys {
		require.NoError(t, b.Set(fmt.Appendf(nil, "%06d", i), append([]byte(mark), make([]byte, 1000)...)))
	}
	require.NoError(t, b.Commit())
}

func open(t *testing.T, dir, name string) index.DurableStore {
	t.Helper()
	s, err := backend(dir).Open(name)
	require.NoError(t, err)
	return s.(index.DurableStore)
}

// flushed opens a store again, which brings all that it holds into tables.
func flushed(t *testing.T, dir, name string, s index.Store) index.DurableStore {
	t.Helper()
	require.NoError(t, s.Close())
	return open(t, dir, name)
}

// copied returns what fills a directory with the files of a checkpoint.
func copied(c *index.Checkpoint) func(dir string) error {
	return func(dir string) error {
		for _, f := range c.Files {
			from, err := os.Open(filepath.Join(c.Dir, f.Name))
			if err != nil {
				return err
			}
			to, err := os.Create(filepath.Join(dir, f.Name))
			if err == nil {
				_, err = io.Copy(to, from)
			}
			if err := errors.Join(err, from.Close(), to.Close()); err != nil {
				return err
			}
		}
		return nil
	}
}

func TestCheckpointAndRestore(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	s := open(t, dir, "a/q")
	write(t, s, "first", 2000)
	s = flushed(t, dir, "a/q", s)
	write(t, s, "second", 10)
	first, err := s.Checkpoint()
	require.NoError(t, err)
	before := indextest.Content(t, s, nil, nil)
	_, err = s.Checkpoint()
	require.Error(t, err, "there is one")
	write(t, s, "third", 3000) // goes on beside it
	require.NotEqual(t, before, indextest.Content(t, s, nil, nil))

	// Into a place where there is another state.
	other := open(t, elsewhere, "a/q")
	write(t, other, "other", 10)
	err = backend(elsewhere).(index.Durable).Restore("a/q", 1<<20, copied(first))
	require.Equal(t, failure.IndexLocked, failure.CodeOf(err))
	require.NoError(t, other.Close())
	failing := errors.New("no more")
	err = backend(elsewhere).(index.Durable).Restore("a/q", 1<<20, func(dir string) error {
		require.NoError(t, copied(first)(dir))
		return failing
	})
	require.ErrorIs(t, err, failing)
	other = open(t, elsewhere, "a/q")
	require.NotEqual(t, before, indextest.Content(t, other, nil, nil))
	require.NoError(t, other.Close())
	err = backend(elsewhere).(index.Durable).Restore("a/q", 1<<60, func(string) error { t.Error("there is no room for it"); return nil })
	require.Equal(t, failure.DiskFull, failure.CodeOf(err), "%v", err)
	require.NoDirExists(t, filepath.Join(elsewhere, "a/q.restore"))
	require.NoError(t, backend(elsewhere).(index.Durable).Restore("a/q", 1<<20, copied(first)))
	other = open(t, elsewhere, "a/q")
	require.Equal(t, before, indextest.Content(t, other, nil, nil))
	write(t, other, "more", 10)
	require.NoError(t, other.Close())

	// Files that are fixed are the same in the next one.
	sizes := make(map[string]int64)
	for _, f := range first.Files {
		if f.Fixed {
			sizes[f.Name] = f.Size
			require.NoError(t, first.Check(f))
		}
	}
	require.NotEmpty(t, sizes)
	require.NoError(t, first.Remove())
	second, err := s.Checkpoint()
	require.NoError(t, err)
	for _, f := range second.Files {
		if size, ok := sizes[f.Name]; ok {
			require.Equal(t, size, f.Size)
		}
	}
	require.NoError(t, s.Close())
	s = open(t, dir, "a/q")
	require.NoDirExists(t, second.Dir, "an unfinished one keeps no room")
	require.NoError(t, s.Close())
	require.NoError(t, backend(dir).Remove("a/q"))
	require.NoDirExists(t, filepath.Join(dir, "a"))
}

// TestDamage damages a store in every way that a disk can and wants to be told, or find what was there.
func TestDamage(t *testing.T) {
	flip := func(at int) func(t *testing.T, file string) {
		return func(t *testing.T, file string) {
			data, err := os.ReadFile(file)
			require.NoError(t, err)
			data[len(data)*at/100] ^= 0x55
			require.NoError(t, os.Remove(file)) // not in place: it may be linked
			require.NoError(t, os.WriteFile(file, data, 0o600))
		}
	}
	truncate := func(t *testing.T, file string) {
		info, err := os.Stat(file)
		require.NoError(t, err)
		require.NoError(t, os.Truncate(file, info.Size()/2))
	}
	remove := func(t *testing.T, file string) { require.NoError(t, os.Remove(file)) }
	for name, c := range map[string]struct {
		files  string
		damage func(t *testing.T, file string)
	}{
		"table flipped":            {"*.sst", flip(30)},
		"table cut off":            {"*.sst", truncate},
		"table gone":               {"*.sst", remove},
		"manifest flipped":         {"MANIFEST*", flip(10)},
		"manifest cut off":         {"MANIFEST*", truncate},
		"manifest gone":            {"MANIFEST*", remove},
		"marker and manifest gone": {"*MANIFEST*", remove},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := open(t, dir, "q")
			for i := range 8 { // tables, also of deeper levels
				write(t, s, fmt.Sprint(i), 1000)
			}
			s = flushed(t, dir, "q", s)
			want := indextest.Content(t, s, nil, nil)
			require.NoError(t, s.Close())
			files, err := filepath.Glob(filepath.Join(dir, "q", c.files))
			require.NoError(t, err)
			require.NotEmpty(t, files)
			for _, file := range files {
				c.damage(t, file)
			}
			store, err := backend(dir).Open("q")
			if err == nil {
				err = store.Scan(nil, nil, func(_, value []byte) (bool, error) { return true, nil })
				if err == nil {
					require.NotEqual(t, want, indextest.Content(t, store, nil, nil))
					t.Log("it is empty now")
				} else {
					b := store.NewBatch()
					require.NoError(t, b.Set([]byte("k"), nil))
					commit := b.Commit()
					b.Discard()
					require.ErrorIs(t, commit, index.ErrDamaged, "nothing is added to what is damaged")
				}
				require.NoError(t, store.Close())
			}
			if err != nil {
				t.Log(err)
				require.Equal(t, failure.StateCorrupt, failure.CodeOf(err))
				require.ErrorIs(t, err, index.ErrDamaged)
			}
		})
	}
}

// TestCheckpointLeavesOutDamage damages a table that is not read again before the checkpoint.
func TestCheckpointLeavesOutDamage(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, "q")
	write(t, s, "x", 4000)
	s = flushed(t, dir, "q", s)
	c, err := s.Checkpoint()
	require.NoError(t, err)
	damaged := 0
	for _, f := range c.Files {
		if !f.Fixed {
			continue
		}
		path := filepath.Join(c.Dir, f.Name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		data[len(data)/3] ^= 1
		require.NoError(t, os.WriteFile(path, data, 0o600))
		require.ErrorIs(t, c.Check(f), index.ErrDamaged)
		damaged++
	}
	require.NotZero(t, damaged)
	require.NoError(t, c.Remove())
	_ = s.Close() // some of it may not be readable any more
}

// TestClean leaves alone what may be in use, and all that is whole.
func TestClean(t *testing.T) {
	dir := t.TempDir()
	busy := open(t, dir, "a/busy")
	write(t, busy, "x", 10)
	c, err := busy.Checkpoint()
	require.NoError(t, err)
	idle := open(t, dir, "a/idle")
	write(t, idle, "x", 10)
	want := indextest.Content(t, idle, nil, nil)
	require.NoError(t, idle.Close())
	for _, half := range []string{"a/idle.restore", "a/idle.checkpoint", "a/gone.restore", "a/busy.restore"} {
		require.NoError(t, os.MkdirAll(filepath.Join(dir, half), 0o750))
		require.NoError(t, os.WriteFile(filepath.Join(dir, half, "000001.sst"), []byte("half"), 0o600))
	}
	require.NoError(t, backend(dir).(index.Durable).Clean())
	for _, half := range []string{"a/idle.restore", "a/idle.checkpoint", "a/gone.restore"} {
		require.NoDirExists(t, filepath.Join(dir, half))
	}
	require.DirExists(t, filepath.Join(dir, "a/busy.restore"))
	require.DirExists(t, c.Dir)
	require.NoError(t, c.Remove())
	require.NoError(t, busy.Close())
	idle = open(t, dir, "a/idle")
	require.Equal(t, want, indextest.Content(t, idle, nil, nil))
	require.NoError(t, idle.Close())
}
