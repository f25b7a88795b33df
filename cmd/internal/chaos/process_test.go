package chaos

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/cmd/internal/devserver"
	"github.com/perdure/perdure/cmd/internal/process"
	"github.com/perdure/perdure/streaming/stream"
)

// The test binary runs itself again as the servers that are killed on their own, and as one that tells the time.
const (
	roleVariable    = "PERDURE_CHAOS_ROLE"
	dirVariable     = "PERDURE_CHAOS_DIR"
	addressVariable = "PERDURE_CHAOS_ADDRESS"
	roleTemporal    = "temporal"
	roleStream      = "stream"
	roleHook        = hookName
	roleClock       = "clock"
)

// serve is such a server, until it gets a signal.
func serve(role string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, address := os.Getenv(dirVariable), os.Getenv(addressVariable)
	log, err := process.NewLogger(config.Log{LogLevel: "info", LogFormat: "console"}, os.Stderr)
	if err != nil {
		return process.Explain(os.Stderr, err)
	}
	var end func(context.Context) error
	switch role {
	case roleTemporal:
		var s *devserver.Server
		if s, err = devserver.Start(ctx, devserver.Options{DBFile: filepath.Join(dir, "temporal.db"), FrontendAddr: address, Log: log}); err == nil {
			end = s.Stop
		}
	case roleStream:
		var s *stream.Server
		if s, err = stream.Serve(stream.ServerOptions{Dir: dir, Listen: address, Log: log}); err == nil {
			end = s.Close
		}
	case roleHook:
		var h *hook
		if h, err = startHook(dir, address); err == nil {
			end = h.stop
		}
	case roleClock:
		for ctx.Err() == nil {
			fmt.Println(time.Now().UnixNano())
			sleep(ctx, 100*time.Millisecond)
		}
		return 0
	default:
		err = fmt.Errorf("there is no role %q", role)
	}
	if err != nil {
		return process.Explain(os.Stderr, err)
	}
	log.Info("serving", zap.String("role", role), zap.String("address", address))
	<-ctx.Done()
	bounded, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	return process.Explain(os.Stderr, end(bounded))
}

// service is a process that is started again whenever it ends, as systemd or Kubernetes would, except while it is to be
// down.
type service struct {
	name string
	path string
	args []string
	env  []string
	log  *os.File

	mu      sync.Mutex
	wanted  bool
	asked   syscall.Signal // that we sent so that it ends, 0 when we sent none
	cmd     *exec.Cmd      // nil: it does not run
	changed chan struct{}  // closed, and replaced, when it has started or ended
	exits   []exit         // that nobody asked for, or not with success
	done    chan struct{}  // closed when the goroutine that keeps it has ended
}

// startService starts keeping a service up until ctx ends, which kills it.
func startService(ctx context.Context, name, logDir string, env []string, path string, args ...string) (*service, error) {
	log, err := os.OpenFile(filepath.Join(logDir, name+".log"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	s := &service{
		name: name, path: path, args: args, env: env, log: log,
		wanted: true, changed: make(chan struct{}), done: make(chan struct{}),
	}
	go s.keep(ctx)
	return s, nil
}

func (s *service) keep(ctx context.Context) {
	defer close(s.done)
	defer s.log.Close()
	runtime.LockOSThread() // the process gets its signal when this thread ends
	defer runtime.UnlockOSThread()
	for ctx.Err() == nil {
		s.mu.Lock()
		wanted, changed := s.wanted, s.changed
		s.mu.Unlock()
		if !wanted {
			select {
			case <-ctx.Done():
			case <-changed:
			}
			continue
		}
		s.once(ctx)
		sleep(ctx, 100*time.Millisecond)
	}
}

// once runs the process until it ends.
func (s *service) once(ctx context.Context) {
	var said int64
	if info, err := s.log.Stat(); err == nil {
		said = info.Size()
	}
	cmd := exec.CommandContext(ctx, s.path, s.args...)
	cmd.Env = append(os.Environ(), s.env...)
	cmd.Stdout, cmd.Stderr = s.log, s.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	began := time.Now()
	fmt.Fprintf(s.log, "--- %s starts at %s\n", s.name, time.Now().Format("15:04:05.000"))
	err := cmd.Start()
	if err == nil {
		s.set(cmd)
		err = cmd.Wait()
	}
	s.set(nil)
	fmt.Fprintf(s.log, "--- %s ended at %s: %v\n", s.name, time.Now().Format("15:04:05.000"), err)
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = 0
	young := time.Since(began) < time.Second // it may not have come to listen to signals
	if ctx.Err() != nil || asked == syscall.SIGKILL || asked == syscall.SIGTERM && (err == nil || young) {
		return
	}
	text, _ := os.ReadFile(s.log.Name()) // without it nothing is known of the reason
	s.exits = append(s.exits, exit{s.name, asked != 0, err, lastWords(text[min(said, int64(len(text))):])})
}

// exit is the end of a process that nobody asked for, or another one than it was told to come to.
type exit struct {
	name string
	told bool
	err  error
	why  string // what it said
}

func (x exit) String() string {
	told := ""
	if x.told {
		told = ", told to stop"
	}
	return fmt.Sprintf("%s%s: %v: %s", x.name, told, x.err, x.why)
}

// excused reports whether a process may end like this: one that is started while the servers cannot be reached gives up soon
// and is started again.
func (x exit) excused() bool {
	return strings.HasPrefix(x.why, "error: ") && slices.ContainsFunc(
		[]string{"connecting to Temporal at", "connecting to JetStream at", "starting the worker of task queue"},
		func(step string) bool { return strings.Contains(x.why, step) })
}

// lastWords returns the line in which a process told why it ended, "" when it did not.
func lastWords(text []byte) string {
	for line := range strings.Lines(string(text)) {
		for _, word := range []string{"error: ", "panic: ", "fatal error: "} {
			if strings.HasPrefix(line, word) {
				return strings.TrimSpace(line)
			}
		}
	}
	return ""
}

// set notes the process that runs now.
func (s *service) set(cmd *exec.Cmd) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd = cmd
	close(s.changed)
	s.changed = make(chan struct{})
}

// kill ends the process as a crash would, and keeps it down until up is called.
func (s *service) kill() { s.end(syscall.SIGKILL) }

// stopBound is a little more than a worker takes at most to stop.
const stopBound = process.StopBound + 10*time.Second

// stop ends the process as an operator does, and keeps it down until up is called.
func (s *service) stop() error {
	stopped := make(chan struct{})
	go func() { defer close(stopped); s.end(syscall.SIGTERM) }()
	timer := time.NewTimer(stopBound)
	defer timer.Stop()
	select {
	case <-stopped:
		return nil
	case <-timer.C:
		s.kill()
		<-stopped
		return fmt.Errorf("%s was told to stop and still ran after %s", s.name, stopBound)
	}
}

func (s *service) end(with syscall.Signal) {
	s.mu.Lock()
	s.wanted = false
	s.mu.Unlock()
	for {
		s.mu.Lock()
		cmd, changed := s.cmd, s.changed
		if cmd != nil {
			s.asked = with
			_ = cmd.Process.Signal(with) // it may have ended by itself
		}
		s.mu.Unlock()
		if cmd == nil {
			return
		}
		<-changed
	}
}

func (s *service) up() {
	s.mu.Lock()
	s.wanted = true
	close(s.changed)
	s.changed = make(chan struct{})
	s.mu.Unlock()
}

// signal sends a signal to the process, if it runs.
func (s *service) signal(sig syscall.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd != nil {
		_ = s.cmd.Process.Signal(sig) // it may have ended by itself
	}
}

// pid returns the id of the process, 0 when it does not run.
func (s *service) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return 0
	}
	return s.cmd.Process.Pid
}

// unasked returns, once, how the process has ended by itself.
func (s *service) unasked() []exit {
	s.mu.Lock()
	defer s.mu.Unlock()
	exits := s.exits
	s.exits = nil
	return exits
}
