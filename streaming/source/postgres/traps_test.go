package postgres_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTrapsAreShown checks that the tests exist that traps.md names.
func TestTrapsAreShown(t *testing.T) {
	text, err := os.ReadFile("traps.md")
	require.NoError(t, err)
	there := make(map[string]bool)
	for prefix, dir := range map[string]string{"": ".", "p ": "../../pipeline", "e ": "../../../cmd/internal/e2e"} {
		files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
		require.NoError(t, err)
		require.NotEmpty(t, files)
		for _, file := range files {
			source, err := os.ReadFile(file)
			require.NoError(t, err)
			for _, name := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllSubmatch(source, -1) {
				there[prefix+string(name[1])] = true
			}
		}
	}
	named := regexp.MustCompile(`(?:\b[pe] )?\bTest[A-Z]\w+`).FindAllString(string(text), -1)
	require.Greater(t, len(named), 80)
	for _, name := range named {
		require.True(t, there[name], "%s does not exist", name)
	}
}
