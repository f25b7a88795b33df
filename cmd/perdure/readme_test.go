package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

const root = "../.."

// TestReadmeWalkthrough runs the commands that the README shows, against the programs that make builds.
func TestReadmeWalkthrough(t *testing.T) {
	if !hasPostgres() {
		t.Skip("no Postgres server is installed")
	}
	for _, program := range []string{"psql", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the walkthrough needs %s", program)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	built(ctx, t, "tctl", "deploy/tctl", "go.temporal.io/server/cmd/tools/cli")
	api, temporal := freePort(t), freePort(t)
	dev := startDev(t, "--with-postgres", "--data-dir", t.TempDir(), "--ui-port", "0",
		"--api-port", strconv.Itoa(api), "--temporal-port", strconv.Itoa(temporal))
	env := append(os.Environ(), "PG="+dev["Postgres"], "TEMPORAL_CLI_ADDRESS="+dev["Temporal"])

	for _, line := range walkthrough(t) {
		command, want, _ := strings.Cut(line, "# shows ")
		command = strings.ReplaceAll(command, "127.0.0.1:8080", fmt.Sprintf("127.0.0.1:%d", api))
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) { // between polls
			cmd := exec.CommandContext(ctx, "bash", "-c", command)
			cmd.Dir, cmd.Env = root, env
			out, err := cmd.CombinedOutput()
			if err == nil && bytes.Contains(out, []byte(want)) {
				t.Logf("$ %s\n%s", command, out)
				break
			}
			if want == "" || time.Now().After(deadline) {
				t.Fatalf("$ %s\n%s\n%v: it must come to show %q", command, out, err, want)
			}
		}
	}
}

// TestReadmeNamesWhatIsThere checks the files of the reading order.
func TestReadmeNamesWhatIsThere(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, section, found := strings.Cut(string(text), "## Reading the code")
	require.True(t, found)
	files := regexp.MustCompile("`([a-z]+/[a-z/._]+)`").FindAllStringSubmatch(section, -1)
	require.Greater(t, len(files), 8)
	for _, file := range files {
		_, err := os.Stat(filepath.Join(root, file[1]))
		require.NoError(t, err)
	}
}

func walkthrough(t *testing.T) []string {
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, block, found := strings.Cut(string(text), "```sh walkthrough\n")
	require.True(t, found)
	block, _, found = strings.Cut(block, "```")
	require.True(t, found)
	var lines []string
	for line := range strings.Lines(block) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	require.NotEmpty(t, lines)
	return lines
}

// built makes sure that a program is in bin, where make leaves it.
func built(ctx context.Context, t *testing.T, name, dir, pkg string) {
	file, err := filepath.Abs(filepath.Join(root, "bin", name))
	require.NoError(t, err)
	if _, err := os.Stat(file); err == nil {
		return
	}
	cmd := exec.CommandContext(ctx, "go", "build", "-o", file, pkg)
	cmd.Dir = filepath.Join(root, dir)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
}

// startDev runs this test binary as perdure and returns the addresses that it prints, by name.
func startDev(t *testing.T, args ...string) map[string]string {
	self, err := os.Executable()
	require.NoError(t, err)
	link := filepath.Join(t.TempDir(), "perdure") // by this name testscript.Main runs main
	require.NoError(t, os.Symlink(self, link))
	cmd := exec.Command(link, append([]string{"dev"}, args...)...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		require.NoError(t, cmd.Process.Signal(os.Interrupt))
		abort := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
		defer abort.Stop()
		require.NoError(t, cmd.Wait(), "%s", errs.String())
		require.Empty(t, errs.String())
	})
	addresses := make(map[string]string)
	lines := bufio.NewScanner(out)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "ready.") {
		name, address, _ := strings.Cut(lines.Text(), "  ")
		address, _, _ = strings.Cut(strings.TrimSpace(address), ",")
		addresses[name] = address
	}
	go func() {
		for lines.Scan() { // the reaction's lines: a full pipe would stop it
		}
	}()
	return addresses
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}
