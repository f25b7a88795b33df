package indextest

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/index"
)

// The environment of the child process that Kill starts: the test binary itself.
const childEnv = "INDEXTEST_CHILD_DIR"

// kills is how often the writer is killed in one test.
const kills = 5

// Kill checks a back end that keeps its stores in a directory: it has a process write batch after batch and kills it
// without warning; what is found afterwards must be a prefix of the batches, whole, with all that were synced. test is
// the name of the calling test, which the child runs.
func Kill(t *testing.T, test string, open func(dir string) index.Backend) {
	if dir := os.Getenv(childEnv); dir != "" {
		write(t, open(dir))
		return
	}
	dir := t.TempDir()
	last := uint64(0)
	for round := range kills {
		synced := runUntilKilled(t, test, dir, time.Duration(20+round*37)*time.Millisecond)
		s := openStore(t, open(dir))
		found := check(t, s)
		require.NoError(t, s.Close())
		require.GreaterOrEqual(t, found, synced, "a synced batch is lost")
		require.GreaterOrEqual(t, found, last)
		last = found
	}
}

// runUntilKilled lets a child write for a while and returns the last batch that it saw synced.
func runUntilKilled(t *testing.T, test, dir string, life time.Duration) (synced uint64) {
	cmd := exec.Command(os.Args[0], "-test.run=^"+test+"$") //nolint:gosec // the test binary itself
	cmd.Env = append(os.Environ(), childEnv+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var kill *time.Timer
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		text, ok := strings.CutPrefix(lines.Text(), "synced ")
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(text, 10, 64)
		require.NoError(t, err)
		synced = n
		if kill == nil { // it is at work: from now on it has this long to live
			kill = time.AfterFunc(life, func() { _ = cmd.Process.Kill() })
		}
	}
	require.NotNil(t, kill, "the child wrote nothing")
	kill.Stop()
	require.Error(t, cmd.Wait(), "the child was killed")
	return synced
}

const keysPerBatch = 20

// write goes on where the store is. Batch n sets the same keys to n, adds one that is named after n, and removes the
// one of ten batches before.
func write(t *testing.T, backend index.Backend) {
	s := openStore(t, backend)
	for n := check(t, s) + 1; ; n++ {
		b := s.NewBatch()
		for i := range keysPerBatch {
			require.NoError(t, b.Set([]byte(fmt.Sprintf("same%d", i)), binary.BigEndian.AppendUint64(nil, n)))
		}
		require.NoError(t, b.Set(binary.BigEndian.AppendUint64([]byte("own"), n), []byte(strings.Repeat("x", 500))))
		if n > 10 {
			require.NoError(t, b.Delete(binary.BigEndian.AppendUint64([]byte("own"), n-10)))
		}
		require.NoError(t, b.Commit())
		if n%10 == 0 {
			require.NoError(t, s.Sync())
			fmt.Printf("synced %d\n", n)
		}
	}
}

// check returns the number of the last batch and that all of it, and nothing of a later one, is there.
func check(t *testing.T, s index.Store) (last uint64) {
	same := 0
	require.NoError(t, s.Scan([]byte("same"), []byte("samf"), func(_, value []byte) (bool, error) {
		n := binary.BigEndian.Uint64(value)
		require.True(t, same == 0 || n == last, "a batch was applied in part")
		last = n
		same++
		return true, nil
	}))
	if last == 0 {
		require.Zero(t, same)
		return 0
	}
	require.Equal(t, keysPerBatch, same)
	first := uint64(1)
	if last > 10 {
		first = last - 9
	}
	n := first
	require.NoError(t, s.Scan([]byte("own"), []byte("owo"), func(key, _ []byte) (bool, error) {
		require.Equal(t, n, binary.BigEndian.Uint64(key[3:]))
		n++
		return true, nil
	}))
	require.Equal(t, last+1, n)
	return last
}
