package postgres

import (
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestSpoolGivesBack: what was read of a file takes no room on the disk any more.
func TestSpoolGivesBack(t *testing.T) {
	const piece, pieces = 64 << 10, 16
	s := &spool{dir: t.TempDir(), memory: piece}
	defer s.close()
	message := make([]byte, piece)
	for range pieces {
		require.NoError(t, s.add(1, 'I', message))
	}
	taken := func() int64 {
		var stat syscall.Stat_t
		require.NoError(t, syscall.Fstat(int(s.file.Fd()), &stat))
		return stat.Blocks * 512
	}
	require.Greater(t, taken(), int64(pieces*piece))
	read := int64(0)
	require.NoError(t, s.replay(func([]byte) error { return nil }, func() error {
		read++
		require.Less(t, taken(), (pieces-read+1)*piece+piece/2)
		return nil
	}))
	require.Equal(t, int64(pieces), read)
}
