package streaming_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/perdure/perdure/"

// rule is one line of the law: what is left and what is right of its colon.
type rule struct {
	left  string
	right []string
}

type law struct {
	inside  []rule // package: what it may import of this module
	outside []rule // import prefix: the packages that may import it; longest prefix first
}

// TestLayers holds every import of the module against the law in testdata/layers.txt. It reads import clauses itself
// instead of asking the go command, so that files of all build tags count and nothing needs to be resolved.
func TestLayers(t *testing.T) {
	l := readLaw(t, "testdata/layers.txt")
	imports := importsOf(t, "..")
	require.Contains(t, imports, "streaming/graph")
	for _, problem := range l.check(imports) {
		t.Error(problem)
	}
}

// TestLayersRefuse shows that the law has teeth.
func TestLayersRefuse(t *testing.T) {
	l := readLaw(t, "testdata/layers.txt")
	require.Equal(t, []string{
		"streaming/catalog may not import go.temporal.io/server/temporal",
		"streaming/graph may not import streaming/stream",
		"streaming/novelty has no line in testdata/layers.txt",
		"streaming/pipeline may not import streaming/catalog",
		"streaming/query may not import go.temporal.io/sdk/client",
		"streaming/source/postgres may not import streaming/query",
		"streaming/stream may not import github.com/jackc/pgx/v5",
		"workers may not import go.temporal.io/server/temporal",
	}, l.check(map[string][]string{
		"streaming/graph":           {"fmt", module + "streaming/stream"},
		"streaming/source/postgres": {module + "streaming/query", module + "streaming/source", "github.com/jackc/pgx/v5"},
		"streaming/query":           {"go.temporal.io/sdk/client", module + "streaming/query/internal/plan"},
		"streaming/stream":          {"github.com/jackc/pgx/v5"},
		"streaming/pipeline":        {module + "streaming/catalog", "github.com/nats-io/nats.go"},
		"streaming/catalog":         {"go.temporal.io/server/temporal"},
		"streaming/novelty":         {},
		"workers":                   {"go.temporal.io/server/temporal", "go.temporal.io/sdk/worker"},
		"cmd/internal/devserver":    {"go.temporal.io/server/temporal"},
	}))
}

func (l law) check(imports map[string][]string) []string {
	var problems []string
	for importer, list := range imports {
		allowed, ok := l.allows(importer)
		if !ok {
			problems = append(problems, importer+" has no line in testdata/layers.txt")
			continue
		}
		for _, imported := range list {
			local, inside := strings.CutPrefix(imported, module)
			if inside && local != importer && !matchesAny(allowed, local) || !inside && !l.mayReachOut(importer, imported) {
				problems = append(problems, importer+" may not import "+local)
			}
		}
	}
	slices.Sort(problems)
	return problems
}

func (l law) allows(importer string) ([]string, bool) {
	for _, r := range l.inside {
		if matches(r.left, importer) {
			return r.right, true
		}
	}
	return nil, false
}

func (l law) mayReachOut(importer, imported string) bool {
	for _, r := range l.outside {
		if matches(r.left+"/...", imported) {
			return matchesAny(r.right, importer)
		}
	}
	return true
}

func matchesAny(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { return matches(p, name) })
}

func matches(pattern, name string) bool {
	if root, tree := strings.CutSuffix(pattern, "/..."); tree {
		return name == root || strings.HasPrefix(name, root+"/")
	}
	return name == pattern
}

func readLaw(t *testing.T, file string) law {
	text, err := os.ReadFile(file)
	require.NoError(t, err)
	var l law
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		left, right, ok := strings.Cut(line, ":")
		require.True(t, ok, line)
		if prefix, out := strings.CutPrefix(left, "outside "); out {
			l.outside = append(l.outside, rule{prefix, strings.Fields(right)})
		} else {
			l.inside = append(l.inside, rule{left, strings.Fields(right)})
		}
	}
	slices.SortStableFunc(l.outside, func(a, b rule) int { return len(b.left) - len(a.left) })
	return l
}

// importsOf lists the imports of every package below root, tests left out.
func importsOf(t *testing.T, root string) map[string][]string {
	imports := make(map[string][]string)
	require.NoError(t, filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			name := d.Name()
			_, missing := os.Stat(filepath.Join(file, "go.mod"))
			other := file != root && missing == nil // a module of its own has its own law
			if other || name == "testdata" || name == "vendor" || file != root && strings.HasPrefix(name, ".") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		dir = path.Clean(filepath.ToSlash(dir))
		imports[dir] = append(imports[dir], nil...)
		for _, spec := range parsed.Imports {
			name, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				return err
			}
			if !slices.Contains(imports[dir], name) {
				imports[dir] = append(imports[dir], name)
			}
		}
		return nil
	}))
	return imports
}
