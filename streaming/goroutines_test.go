package streaming_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// unguarded are the files that may start goroutines as they like, and how many.
var unguarded = map[string]int{
	"streaming/failure/guard.go": 1, // the guard
	"workers/workers.go":         1, // only the SDK runs in it
}

// TestGoroutinesAreGuarded: a panic that leaves a goroutine ends the process, and all components with it, whoever waits for
// the goroutine. So what runs components starts each with failure.Go, or gives a group a function with failure.Guard in it.
func TestGoroutinesAreGuarded(t *testing.T) {
	found := make(map[string]int)
	for _, dir := range []string{"streaming", "activities", "workers", "cmd/internal/node"} {
		require.NoError(t, filepath.WalkDir(filepath.Join("..", dir), func(file string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case d.IsDir() && (d.Name() == "testdata" || d.Name() == "cluster" || strings.HasSuffix(d.Name(), "test")): // nothing of it is in a worker
				return filepath.SkipDir
			case d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go"):
				return nil
			}
			all := token.NewFileSet()
			parsed, err := parser.ParseFile(all, file, nil, 0)
			if err != nil {
				return err
			}
			bare := bareGoroutines(parsed)
			name := strings.TrimPrefix(filepath.ToSlash(file), "../")
			if found[name] = len(bare); found[name] != unguarded[name] {
				for _, at := range bare {
					t.Errorf("%s:%d starts a goroutine whose panic would end the process: use failure.Go", name, all.Position(at).Line)
				}
			}
			return nil
		}))
	}
	for name, n := range unguarded {
		require.Equal(t, n, found[name], name)
	}
}

// TestGoroutinesRefuse shows that the law has teeth.
func TestGoroutinesRefuse(t *testing.T) {
	for statement, bare := range map[string]int{
		`go f()`:                            1,
		`go func() { f() }()`:               1,
		`failure.Go(f)`:                     0,
		`group.Go(f)`:                       1,
		`group.Go(func() { f() })`:          1,
		`s.wg.Go(func() { go f() })`:        2,
		`g.Go(func() { failure.Guard(f) })`: 0,
	} {
		parsed, err := parser.ParseFile(token.NewFileSet(), "x.go", fmt.Sprintf("package x; func x() { %s }", statement), 0)
		require.NoError(t, err)
		require.Len(t, bareGoroutines(parsed), bare, statement)
	}
}

// bareGoroutines returns where goroutines are started that no guard is seen in.
func bareGoroutines(file *ast.File) (all []token.Pos) {
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			all = append(all, n.Pos())
		case *ast.CallExpr:
			if to, ok := n.Fun.(*ast.SelectorExpr); ok && to.Sel.Name == "Go" && !isOf(to, "failure") && !slices.ContainsFunc(n.Args, guards) {
				all = append(all, n.Pos())
			}
		}
		return true
	})
	return all
}

func guards(f ast.Expr) (guards bool) {
	ast.Inspect(f, func(n ast.Node) bool {
		to, ok := n.(*ast.SelectorExpr)
		guards = guards || ok && to.Sel.Name == "Guard" && isOf(to, "failure")
		return !guards
	})
	return guards
}

func isOf(to *ast.SelectorExpr, name string) bool {
	of, ok := to.X.(*ast.Ident)
	return ok && of.Name == name
}
