package log

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/reaction/reactiontest"
)

// file is a log that is read back.
type file struct{ path string }

func (f file) Config() json.RawMessage { return json.RawMessage(`{"output":"` + f.path + `"}`) }

func (f file) Got(t *testing.T) []reactiontest.Got {
	content, err := os.ReadFile(f.path)
	require.NoError(t, err)
	var got []reactiontest.Got
	for lines := bufio.NewScanner(strings.NewReader(string(content))); lines.Scan(); {
		var g reactiontest.Got
		_, err := fmt.Sscanf(lines.Text(), `%s %d added {"id":%d,`, &g.Query, &g.Sequence, &g.ID)
		require.NoError(t, err, lines.Text())
		got = append(got, g)
	}
	return got
}

// Break does nothing: a file has no outages that a test could bring about.
func (file) Break(*testing.T, bool) (func(), bool) { return nil, false }

func TestConformance(t *testing.T) {
	reactiontest.Run(t, reactiontest.Fixture{
		Factory: Factory{},
		Target: func(t *testing.T) reactiontest.Target {
			return file{filepath.Join(t.TempDir(), "lines")}
		},
		Bad: []reactiontest.BadConfig{{Config: `{"output":"x","addded":"y"}`, Problems: []string{"output: must be", "addded: unknown field"}}},
	})
}
