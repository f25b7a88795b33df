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
		var held [][]byte // they are valid for a while
		done := func() error {
			for _, message := range held {
				got = append(got, string(message))
			}
			held = nil
			return nil
		}
		require.NoError(t, s.replay(func(message []byte) error {
			held = append(held, message)
			return nil
		}, done))
		require.NoError(t, done())
		require.Equal(t, want, got)
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

// FuzzInProgress takes whatever a server might send about transactions in progress; each message has its length in front.
func FuzzInProgress(f *testing.F) {
	for _, seed := range []string{
		"\x06S\x00\x00\x00\x07\x01\x08I\x00\x00\x00\x07abc\x01E\x1ec\x00\x00\x00\x0701234567012345670123456789",
		"\x06S\x00\x00\x00\x07\x01\x06I\x00\x00\x00\x08x\x01E\x09A\x00\x00\x00\x07\x00\x00\x00\x08",
		"\x05A1234\x02cc\x01S",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		p := inProgress{}
		defer p.close()
		for len(data) > 0 {
			n := min(int(data[0]), len(data)-1)
			message := data[1 : 1+n]
			data = data[1+n:]
			_, err := p.take(t.Context(), message, committing{
				replay: func(message []byte) error {
					require.NotEmpty(t, message)
					return nil
				},
				done: func() error { return nil },
			})
			if err != nil {
				require.Equal(t, failure.BadRecord, failure.CodeOf(err))
			}
		}
	})
}
