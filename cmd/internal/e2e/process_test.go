package e2e

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/followtest"
)

// binary returns the path of a program built by `make build`.
func binary(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("PERDURE_BIN_DIR")
	if dir == "" {
		dir = filepath.Join("..", "..", "..", "bin")
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	require.NoError(t, err)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%s is not built: run make build tctl", path)
	}
	return path
}

// process is a program under test. It is ended with its test.
type process struct {
	name   string
	cmd    *exec.Cmd
	output *lockedBuffer
	done   chan struct{}
	err    error // of Wait; read after done
}

func start(t testing.TB, env []string, name string, args ...string) *process {
	t.Helper()
	p := &process{name: name, cmd: exec.Command(binary(t, name), args...), output: &lockedBuffer{}, done: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	require.NoError(t, p.cmd.Start())
	go func() {
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.kill()
		if t.Failed() {
			t.Logf("output of %s (pid %d):\n%s", name, p.cmd.Process.Pid, p.output.tail(20_000))
		}
	})
	return p
}

// kill ends the process as a power cut would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// terminate sends SIGTERM and wants a clean end within the bound.
func (p *process) terminate(t testing.TB, bound time.Duration) {
	t.Helper()
	require.NoError(t, p.cmd.Process.Signal(syscall.SIGTERM))
	select {
	case <-p.done:
		require.NoError(t, p.err, "%s after SIGTERM; output:\n%s", p.name, p.output.tail(5_000))
	case <-time.After(bound):
		t.Fatalf("%s did not stop within %s of SIGTERM; output:\n%s", p.name, bound, p.output.tail(5_000))
	}
}

func (p *process) exited() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// peak returns the most resident memory that the process has had, in bytes.
func (p *process) peak(t testing.TB) int64 { return p.memory(t, "VmHWM:") }

// rss returns the resident memory of the process in bytes.
func (p *process) rss(t testing.TB) int64 { return p.memory(t, "VmRSS:") }

func (p *process) memory(t testing.TB, what string) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	require.NoError(t, err)
	for line := range bytes.Lines(status) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == what {
			kib, err := strconv.ParseInt(string(fields[1]), 10, 64)
			require.NoError(t, err)
			return kib << 10
		}
	}
	require.Fail(t, "no "+what, "%s", status)
	return 0
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) tail(n int) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.buf.String()
	if len(s) > n {
		s = "..." + s[len(s)-n:]
	}
	return s
}

// given are the ports that were given out, to tests that run at the same time.
var given sync.Map

// freePorts returns ports that were free a moment ago and that nobody else was given.
func freePorts(t testing.TB, n int) (ports []int) {
	t.Helper()
	for len(ports) < n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		require.NoError(t, err)
		defer l.Close()
		port := l.Addr().(*net.TCPAddr).Port
		if _, before := given.LoadOrStore(port, true); !before {
			ports = append(ports, port)
		}
	}
	return ports
}

// numberOf returns what an environment variable says, for forms of a test of other sizes.
func numberOf(t testing.TB, variable string, otherwise int) int {
	text := os.Getenv(variable)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	require.NoError(t, err, variable)
	return n
}

// eventually polls until check returns nil; the last error is the test's failure.
func eventually(t testing.TB, bound time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, bound, err)
		}
		time.Sleep(50 * time.Millisecond) // between polls; the deadline decides
	}
}

// requireProgress waits for more events than can have been on their way.
func (s *system) requireProgress(f *followtest.Follower, bound time.Duration, when string) {
	s.t.Helper()
	before, _, _ := f.State()
	eventually(s.t, bound, "progress "+when, func() error {
		if after, _, faults := f.State(); after < before+20 {
			return fmt.Errorf("sequence %d after %d; %v", after, before, faults)
		}
		return nil
	})
}

// run executes a program to its end and returns its output.
func run(t testing.TB, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(binary(t, name), args...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("running %s %s: %w\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out), err
}
