package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"github.com/perdure/perdure/streaming/failure"
)

// DataDir is a directory that belongs to one process at a time.
type DataDir struct {
	// Path is absolute.
	Path string
	// HostID names this directory, and with it the state of queries that is in it, for ever.
	HostID string
	lock   *os.File
}

// OpenDataDir creates path when it is missing, takes possession of it and reads its id, which is drawn at the first
// time. It fails when another process has the directory.
func OpenDataDir(path string) (*DataDir, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("finding the data directory: %w", err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, failure.ConfigInvalid.Errorf("creating the data directory: %w", err).WithFix("Choose another one with --data-dir.")
	}
	lock, err := os.OpenFile(filepath.Join(path, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, failure.ConfigInvalid.Errorf("opening the data directory's lock: %w", err).WithFix("Choose another one with --data-dir.")
	}
	if err := lockFile(lock); err != nil {
		return nil, errors.Join(failure.ConfigInvalid.Errorf("locking data directory %s: %w", path, err).
			WithFix("Another process uses it: stop that one or choose another directory with --data-dir."), lock.Close())
	}
	id, err := hostID(filepath.Join(path, "host-id"))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("reading this host's id: %w", err), lock.Close())
	}
	return &DataDir{Path: path, HostID: id, lock: lock}, nil
}

// Join returns a path in the directory.
func (d *DataDir) Join(elements ...string) string {
	return filepath.Join(append([]string{d.Path}, elements...)...)
}

// Close gives the directory up.
func (d *DataDir) Close() error { return d.lock.Close() }

// hostID returns the id in file. It is the machine's name, for people, with something random, for certainty.
func hostID(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	name, err := os.Hostname()
	if err != nil {
		name = "host"
	}
	name = strings.Trim(strings.ToLower(strings.Map(plain, name)), "-")
	id := "h" + uuid.NewString()[:8]
	if name != "" {
		id = name[:min(len(name), 40)] + "-" + id
	}
	return id, os.WriteFile(file, []byte(id+"\n"), 0o600)
}

// plain keeps what may be in the name of a task queue and of a subject.
func plain(r rune) rune {
	switch {
	case 'a' <= r && r <= 'z', 'A' <= r && r <= 'Z', '0' <= r && r <= '9', r == '-':
		return r
	}
	return '-'
}
