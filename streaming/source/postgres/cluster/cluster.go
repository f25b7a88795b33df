package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

const (
	startTimeout = time.Minute // recovery after a crash included
	stopTimeout  = 10 * time.Second
	portFile     = "perdure.port"
)

// Options say where and how to run the server.
type Options struct {
	// Dir is the data directory. It is initialised when it is missing or empty and reused otherwise.
	Dir string
	// Port on 127.0.0.1; 0 takes the port of the last run if that is free, else any free one.
	Port int
	// Settings are server settings beyond those that logical replication needs. An empty value leaves one of those to the
	// server's configuration file.
	Settings map[string]string
	// Log receives the server's log; nil discards it.
	Log io.Writer
}

// Cluster is a running server. Its methods are safe for concurrent use.
type Cluster struct {
	options Options
	bin     string
	account account
	log     *tail

	mu      sync.Mutex
	port    int
	process *process
}

type process struct {
	pid    int
	exited chan struct{} // closed when the process is gone
}

// Start starts a server and returns when it accepts connections. When no server is installed, the error is
// ErrNotInstalled. A server that an earlier, killed parent left running on the same directory is stopped first.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, fmt.Errorf("resolving %s: %w", o.Dir, err)
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, fmt.Errorf("creating the parent of the data directory: %w", err)
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	o.Dir = dir
	if o.Log == nil {
		o.Log = io.Discard
	}
	c := &Cluster{options: o, log: &tail{next: o.Log}}
	if c.account, err = serverAccount(); err != nil {
		return nil, err
	}
	if err := c.prepare(ctx); err != nil {
		return nil, err
	}
	if err := c.start(ctx); err != nil {
		return nil, err
	}
	return c, nil
}

// prepare makes the data directory ready for a server.
func (c *Cluster) prepare(ctx context.Context) error {
	dir := c.options.Dir
	version, err := os.ReadFile(filepath.Join(dir, "PG_VERSION"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the data directory: %w", err)
	}
	if c.bin, err = binaries(strings.TrimSpace(string(version))); err != nil {
		return err
	}
	if len(version) == 0 {
		return c.initialise(ctx)
	}
	if err := c.stopLeftover(ctx); err != nil {
		return err
	}
	return c.account.own(dir)
}

// initialise runs initdb beside dir and moves the result there, so that a half-made directory never looks complete.
func (c *Cluster) initialise(ctx context.Context) error {
	dir := c.options.Dir
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fmt.Errorf("%s is neither empty nor a Postgres data directory", dir)
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return fmt.Errorf("removing a half-made data directory: %w", err)
	}
	if err := os.Mkdir(fresh, 0o700); err != nil {
		return fmt.Errorf("creating the data directory: %w", err)
	}
	if err := c.account.own(fresh); err != nil {
		return fmt.Errorf("handing the data directory to the server's user: %w", err)
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.bin, "initdb"), "-D", fresh, "-U", "postgres", "--auth=trust",
		"--encoding=UTF8", "--locale=C", "--no-sync")
	cmd.Dir = "/"
	cmd.SysProcAttr = c.account.attributes(fresh, syscall.SIGKILL)
	runtime.LockOSThread() // Pdeathsig is about the thread
	out, err := cmd.CombinedOutput()
	runtime.UnlockOSThread()
	if err != nil {
		return fmt.Errorf("running initdb: %w: %s", err, bytes.TrimSpace(out))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("replacing the empty data directory: %w", err)
	}
	if err := os.Rename(fresh, dir); err != nil {
		return fmt.Errorf("moving the new data directory into place: %w", err)
	}
	return nil
}

// stopLeftover ends the server that still runs on dir, if any, and removes a stale lock file, which would stop a new
// one when its process id belongs to something else by now.
func (c *Cluster) stopLeftover(ctx context.Context) error {
	lock := filepath.Join(c.options.Dir, "postmaster.pid")
	content, err := os.ReadFile(lock)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading the server's lock file: %w", err)
	}
	line, _, _ := strings.Cut(string(content), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err == nil && pid > 0 && serves(pid, c.options.Dir) {
		if err := endProcess(ctx, pid, func() bool { return !serves(pid, c.options.Dir) }); err != nil {
			return fmt.Errorf("stopping the server left on %s: %w", c.options.Dir, err)
		}
	}
	if err := os.Remove(lock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing a stale lock file: %w", err)
	}
	return nil
}

// endProcess asks for a fast shutdown, then for an immediate one, then kills.
func endProcess(ctx context.Context, pid int, gone func() bool) error {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGQUIT, syscall.SIGKILL} {
		_ = syscall.Kill(pid, signal) // it may be gone already
		for deadline := time.Now().Add(stopTimeout); time.Now().Before(deadline); {
			if gone() {
				return nil
			}
			if err := pause(ctx, 10*time.Millisecond); err != nil {
				return err
			}
		}
	}
	return fmt.Errorf("process %d does not end", pid)
}

// start runs the server and waits until it accepts connections. It tries a few times, because a port can be taken in
// between and the children of a killed server need a moment to let go of its memory.
func (c *Cluster) start(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	var err error
	for range 4 {
		if c.port, err = c.choosePort(); err != nil {
			return err
		}
		if err = c.launch(ctx); err == nil {
			return os.WriteFile(filepath.Join(c.options.Dir, portFile), []byte(strconv.Itoa(c.port)), 0o644)
		}
		if pause(ctx, 500*time.Millisecond) != nil {
			break
		}
	}
	return fmt.Errorf("starting Postgres on %s: %w", c.options.Dir, err)
}

func (c *Cluster) choosePort() (int, error) {
	if c.options.Port != 0 {
		return c.options.Port, nil
	}
	wanted := c.port
	if wanted == 0 {
		last, _ := os.ReadFile(filepath.Join(c.options.Dir, portFile)) // only a wish
		wanted, _ = strconv.Atoi(string(last))
	}
	listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", wanted))
	if err != nil {
		if listener, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return 0, fmt.Errorf("looking for a free port: %w", err)
		}
	}
	defer listener.Close()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

func (c *Cluster) launch(ctx context.Context) error {
	settings := map[string]string{
		"wal_level":               "logical",
		"max_wal_senders":         "50",
		"max_replication_slots":   "50",
		"max_connections":         "200",
		"listen_addresses":        "127.0.0.1",
		"unix_socket_directories": "",
		"port":                    strconv.Itoa(c.port),
	}
	maps.Copy(settings, c.options.Settings)
	for name, value := range c.options.Settings {
		if value == "" {
			delete(settings, name)
		}
	}
	args := []string{"-D", c.options.Dir}
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, "-c", name+"="+settings[name])
	}
	cmd := exec.Command(filepath.Join(c.bin, "postgres"), args...)
	cmd.Dir = "/"
	cmd.Stdout, cmd.Stderr = c.log, c.log
	cmd.WaitDelay = stopTimeout // its children inherit the pipe
	cmd.SysProcAttr = c.account.attributes(c.options.Dir, syscall.SIGQUIT)
	c.log.reset()

	p := &process{exited: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		defer close(p.exited)
		runtime.LockOSThread() // the server gets its signal when this thread ends
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			_ = cmd.Wait() // however it ended; launch and Stop look at exited
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("running postgres: %w", err)
	}
	p.pid = cmd.Process.Pid
	if err := c.waitReady(ctx, p); err != nil {
		_ = syscall.Kill(p.pid, syscall.SIGQUIT)
		<-p.exited
		return err
	}
	c.process = p
	return nil
}

func (c *Cluster) waitReady(ctx context.Context, p *process) error {
	for {
		attempt, cancel := context.WithTimeout(ctx, 5*time.Second)
		conn, err := pgconn.Connect(attempt, c.urlFor("postgres", "postgres"))
		cancel()
		if err == nil {
			return conn.Close(ctx)
		}
		select {
		case <-p.exited:
			return fmt.Errorf("the server ended: %s", c.log.last())
		case <-ctx.Done():
			return fmt.Errorf("waiting for the server: %w (%w)", ctx.Err(), err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Dir returns the data directory.
func (c *Cluster) Dir() string { return c.options.Dir }

// Port returns the port on 127.0.0.1.
func (c *Cluster) Port() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.port
}

// PID returns the server's process id, 0 when it is stopped.
func (c *Cluster) PID() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return 0
	}
	return c.process.pid
}

// URL returns the connection URL of the database postgres for the superuser postgres.
func (c *Cluster) URL() string { return c.URLFor("postgres", "postgres") }

// URLFor returns the connection URL of a database for a user.
func (c *Cluster) URLFor(database, user string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.urlFor(database, user)
}

func (c *Cluster) urlFor(database, user string) string {
	u := url.URL{
		Scheme:   "postgres",
		User:     url.User(user),
		Host:     fmt.Sprintf("127.0.0.1:%d", c.port),
		Path:     "/" + database,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Stop ends the server: a fast shutdown, within a bound, then harder. The directory stays.
func (c *Cluster) Stop(ctx context.Context) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.process == nil {
		return nil
	}
	p := c.process
	err := endProcess(ctx, p.pid, func() bool {
		select {
		case <-p.exited:
			return true
		default:
			return false
		}
	})
	if err != nil {
		return fmt.Errorf("stopping Postgres: %w", err)
	}
	c.process = nil
	return nil
}

// Restart ends the server and starts it again on the same port; immediate makes it end without a checkpoint, as in a
// crash.
func (c *Cluster) Restart(ctx context.Context, immediate bool) error {
	if pid := c.PID(); immediate && pid != 0 {
		_ = syscall.Kill(pid, syscall.SIGQUIT) // Stop waits
	}
	if err := c.Stop(ctx); err != nil {
		return err
	}
	return c.start(ctx)
}

func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tail passes a log on and keeps its end for error messages.
type tail struct {
	mu   sync.Mutex
	next io.Writer
	kept []byte
}

const keepBytes = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if drop := len(t.kept) - keepBytes; drop > 0 {
		t.kept = append(t.kept[:0], t.kept[drop:]...)
	}
	if n, err := t.next.Write(p); err != nil {
		return n, fmt.Errorf("writing the server's log: %w", err)
	}
	return len(p), nil
}

func (t *tail) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = t.kept[:0]
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.kept))
}
