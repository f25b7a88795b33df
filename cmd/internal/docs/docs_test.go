// Package docs_test holds the documents in deploy/docs against the code.
package docs_test

import (
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/cmd/internal/config"
	"github.com/perdure/perdure/streaming/component"
	"github.com/perdure/perdure/streaming/failure"
	"github.com/perdure/perdure/streaming/reaction/sse"
	"github.com/perdure/perdure/streaming/source/postgres"
)

const root = "../../.."

// TestTimeouts holds each row of timeouts.md against the constant, the field of a spec or the flag that it names.
func TestTimeouts(t *testing.T) {
	page := read(t, "timeouts.md")
	rows := regexp.MustCompile("(?m)^\\| (.+) \\| (.+) \\| `(.+)` \\| (.*) ?\\|$").FindAllStringSubmatch(page, -1)
	require.Equal(t, strings.Count(page, "\n| ")-strings.Count(page, "\n| what |"), len(rows), "every row is understood")
	flags := pflag.NewFlagSet("", pflag.ContinueOnError)
	config.AddFlags(flags, new(config.Worker))
	documented := make(map[string]bool)
	for _, row := range rows {
		for _, name := range strings.Split(row[3], "`, `") { // of a setting, and of the constant behind it
			documented[name] = true
			bound, at := row[2], strings.LastIndex(name, ".")
			switch owner := name[:max(at, 0)]; {
			case specs[owner] != nil:
				require.Equal(t, bound, defaultOf(t, specs[owner], name[at+1:]), name)
			case at > 0:
				require.Equal(t, durationOf(t, bound), constantOf(t, owner, name[at+1:]), name)
			case strings.Contains(name, "-"):
				require.NotNil(t, flags.Lookup(name), name)
				require.Equal(t, bound, flags.Lookup(name).DefValue, name)
			default:
				require.Equal(t, bound, defaultOf(t, postgres.Config{}, name), name)
			}
		}
		for _, code := range regexp.MustCompile("`([A-Z][A-Za-z]+)`").FindAllStringSubmatch(row[4], -1) {
			if code[1] != "DeleteBlocked" && code[1] != "CheckSource" { // a phase and a workflow
				require.True(t, isCode(code[1]), "%s of %s", code[1], row[1])
			}
		}
	}
	requireAllDocumented(t, documented)
}

// specs are the parts of specs that timeouts.md names fields of.
var specs = map[string]any{
	"policy": component.Policy{}, "delivery": component.Delivery{}, "delivery.retry": component.Retry{}, "sse": sse.Config{},
}

// TestReliability: every row of reliability.md names tests, and these exist. Each of the losses has a row, but for those of
// sources that there are none of.
func TestReliability(t *testing.T) {
	tests := allTests(t)
	page := read(t, "reliability.md")
	for n := 1; n <= 21; n++ {
		if n != 15 && n != 17 {
			require.Contains(t, page, fmt.Sprintf("\n| L%d ", n))
		}
	}
	for _, row := range regexp.MustCompile(`(?m)^\| .*$`).FindAllString(page, -1) {
		if row == "| what | here | shown by |" {
			continue
		}
		columns := strings.Split(strings.Trim(row, "| "), " | ")
		require.Len(t, columns, 3, row)
		names := regexp.MustCompile("`([a-z0-9]+)\\.(Test[A-Za-z0-9]+)`").FindAllStringSubmatch(columns[2], -1)
		require.NotEmpty(t, names, row)
		for _, name := range names {
			require.Contains(t, tests[name[1]], name[2], name[0])
		}
	}
}

// allTests returns the names of all tests by the names of their folders.
func allTests(t *testing.T) map[string][]string {
	t.Helper()
	tests := make(map[string][]string)
	declared := regexp.MustCompile(`(?m)^func (Test[A-Za-z0-9]+)\(`)
	require.NoError(t, filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		require.NoError(t, err)
		for _, name := range declared.FindAllStringSubmatch(string(text), -1) {
			folder := filepath.Base(filepath.Dir(path))
			tests[folder] = append(tests[folder], name[1])
		}
		return nil
	}))
	return tests
}

func isCode(id string) bool {
	for _, c := range failure.Codes() {
		if c.ID == id {
			return true
		}
	}
	return false
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "deploy/docs", name))
	require.NoError(t, err)
	return string(text)
}

func durationOf(t *testing.T, text string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(text)
	require.NoError(t, err)
	return d
}

// defaultOf returns the default of the field of a spec with that JSON name.
func defaultOf(t *testing.T, spec any, name string) string {
	t.Helper()
	for _, field := range reflect.VisibleFields(reflect.TypeOf(spec)) {
		if strings.Split(field.Tag.Get("json"), ",")[0] == name {
			return field.Tag.Get("default")
		}
	}
	require.Fail(t, "no such field", name)
	return ""
}

// constantOf evaluates a constant of a package's source, such as 5 * time.Minute.
func constantOf(t *testing.T, dir, name string) (value time.Duration) {
	t.Helper()
	found := false
	for _, file := range parse(t, filepath.Join(root, dir)) {
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			for i := 0; ok && i < len(spec.Names) && i < len(spec.Values); i++ {
				if spec.Names[i].Name == name {
					found = true
					ns, exact := constant.Int64Val(evaluate(t, spec.Values[i]))
					require.True(t, exact, name)
					value = time.Duration(ns)
				}
			}
			return true
		})
	}
	require.True(t, found, "%s has no constant %s", dir, name)
	return value
}

func evaluate(t *testing.T, e ast.Expr) constant.Value {
	t.Helper()
	switch e := e.(type) {
	case *ast.BasicLit:
		return constant.MakeFromLiteral(e.Value, e.Kind, 0)
	case *ast.BinaryExpr:
		return constant.BinaryOp(evaluate(t, e.X), e.Op, evaluate(t, e.Y))
	case *ast.SelectorExpr:
		unit := map[string]time.Duration{"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour}[e.Sel.Name]
		require.NotZero(t, unit, e.Sel.Name)
		return constant.MakeInt64(int64(unit))
	}
	require.Fail(t, "cannot evaluate", fmt.Sprintf("%T", e))
	return nil
}

// parse reads the Go files of one folder, without its tests.
func parse(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, entry := range entries {
		if filepath.Ext(entry.Name()) == ".go" && !strings.HasSuffix(entry.Name(), "_test.go") {
			file, err := parser.ParseFile(token.NewFileSet(), filepath.Join(dir, entry.Name()), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, file)
		}
	}
	return files
}
