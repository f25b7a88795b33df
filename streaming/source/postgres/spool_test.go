package postgres

import (
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/perdure/perdure/streaming/failure"
)

// TestSpool keeps messages of subtransactions, some of which are rolled back, in memory and in a file.
func TestSpool(t *testing.T) {
	dir := t.TempDir()
	rapid.Check(t, func(t *rapid.T) {
		s := &spool{dir: dir, memory: rapid.IntRange(0, 100).Draw(t, "memory")}
		defer s.close()
		type kept struct {
			owner   uint32
			message string
		}
		var all []kept
		aborted := make(map[uint32]bool)
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			owner := rapid.Uint32Range(1, 4).Draw(t, "owner")
			if rapid.IntRange(0, 9).Draw(t, "abort") == 0 {
				s.abort(owner)
				aborted[owner] = true
				continue
			}
			if aborted[owner] {
				continue // its number is never used again
			}
			message := rapid.StringN(0, 20, -1).Draw(t, "message")
			require.NoError(t, s.add(owner, 'I', []byte(message)))
			all = append(all, kept{owner, "I" + message})
		}
		var want, got []string
		for _, k := range all {
			if !aborted[k.owner] {
				want = append(want, k.message)
			}
		}
		for range 2 { // it can be read again
			got = nil
			require.NoError(t, s.replay(func(message []byte) error {
				got = append(got, string(message))
				return nil
			}))
			require.Equal(t, want, got)
		}
	})
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Empty(t, left, "files are left behind")
}

func TestSpoolFails(t *testing.T) {
	file := t.TempDir() + "/file"
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	s := &spool{dir: file}
	err := s.add(1, 'I', []byte(strings.Repeat("x", 10)))
	require.Equal(t, failure.SpillFailed, failure.CodeOf(err), "%v", err)
	s.close()
}
