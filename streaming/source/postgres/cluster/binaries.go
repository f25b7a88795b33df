package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNotInstalled says that no Postgres server binaries were found.
var ErrNotInstalled = errors.New("no Postgres server found: install it (Debian, Ubuntu: apt-get install postgresql; macOS: brew install postgresql) or set PERDURE_POSTGRES_BIN to the directory of initdb and postgres")

// binaries returns the directory that holds initdb and postgres of the wanted major version, or of the newest when any
// will do (empty).
func binaries(version string) (string, error) {
	if dir := os.Getenv("PERDURE_POSTGRES_BIN"); dir != "" {
		if !complete(dir) {
			return "", fmt.Errorf("PERDURE_POSTGRES_BIN is %s, which does not hold initdb and postgres: %w", dir, ErrNotInstalled)
		}
		return dir, nil
	}
	best, bestMajor := "", -1
	for _, dir := range candidates() {
		major := majorOf(dir)
		if complete(dir) && major > bestMajor && (version == "" || strconv.Itoa(major) == version) {
			best, bestMajor = dir, major
		}
	}
	if best == "" && version != "" {
		return "", fmt.Errorf("the directory was made by Postgres %s: %w", version, ErrNotInstalled)
	}
	if best == "" {
		return "", ErrNotInstalled
	}
	return best, nil
}

func candidates() []string {
	dirs, _ := filepath.Glob("/usr/lib/postgresql/*/bin") // the pattern is valid
	for _, pattern := range []string{"/usr/pgsql-*/bin", "/opt/homebrew/opt/postgresql@*/bin", "/usr/local/opt/postgresql@*/bin"} {
		more, _ := filepath.Glob(pattern)
		dirs = append(dirs, more...)
	}
	if path, err := exec.LookPath("initdb"); err == nil {
		if real, err := filepath.EvalSymlinks(path); err == nil {
			path = real
		}
		dirs = append(dirs, filepath.Dir(path))
	}
	if out, err := exec.Command("pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	return dirs
}

func complete(dir string) bool {
	for _, name := range []string{"initdb", "postgres"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.IsDir() {
			return false
		}
	}
	return true
}

// majorOf asks the server in dir for its version ("postgres (PostgreSQL) 15.18 (Debian ...)"); 0 when it does not say.
func majorOf(dir string) int {
	out, err := exec.Command(filepath.Join(dir, "postgres"), "--version").Output()
	if err != nil {
		return 0
	}
	_, version, _ := strings.Cut(string(out), ") ")
	end := strings.IndexFunc(version, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(version)
	}
	major, _ := strconv.Atoi(version[:end])
	return major
}
