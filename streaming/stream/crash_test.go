package stream_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/stream"
)

// crashDir makes the test binary a process that appends to a log in this directory until it is killed.
const crashDir = "PERDURE_TEST_CRASH_DIR"

func TestKilledServerKeepsWhatItAcknowledged(t *testing.T) {
	if dir := os.Getenv(crashDir); dir != "" {
		appendForEver(t, dir)
	}
	dir := t.TempDir()
	acknowledged := 0
	for range 3 {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), crashDir+"="+dir)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		lines := bufio.NewScanner(out)
		for range 200 {
			require.True(t, lines.Scan(), "%s", lines.Text())
			_, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged)
			require.NoError(t, err, "%s", lines.Text())
		}
		require.NoError(t, cmd.Process.Kill())
		for lines.Scan() { // what it said before it died counts
			if _, err := fmt.Sscanf(lines.Text(), "acknowledged %d", &acknowledged); err != nil {
				break
			}
		}
		require.Error(t, cmd.Wait())
	}
	server := serve(t, dir, "")
	defer stop(t, server)
	conn := connect(t, stream.Options{Server: server})
	defer conn.Close()
	log, err := conn.OpenLog(t.Context(), "L")
	require.NoError(t, err)
	r, err := log.Read(t.Context(), 0)
	require.NoError(t, err)
	defer r.Close()
	require.Equal(t, names(1, acknowledged), read(t, r, acknowledged))
}

func appendForEver(t *testing.T, dir string) {
	server := serve(t, dir, "")
	conn := connect(t, stream.Options{Server: server})
	log := openLog(t, conn, "L")
	last, err := log.Last(t.Context())
	require.NoError(t, err)
	n := 0
	if last != nil {
		_, err = fmt.Sscanf(last.ID, "m%d", &n)
		require.NoError(t, err)
	}
	w := writer(t, conn, log, uint64(n)) // each life is newer than the one before
	for {
		n++
		appendAll(t, w, fmt.Sprintf("m%d", n))
		fmt.Printf("acknowledged %d\n", n)
	}
}
