package docs_test

import (
	"go/ast"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// notTimeouts are the constants of times that bound no wait, by what they are.
var notTimeouts = map[string][]string{
	"how often something is looked at, told or sent": {
		"activities.askedEvery", "activities.beatEvery", "activities.closedEvery", "activities.firstReports", "activities.hostsEvery", "activities.lookEvery",
		"activities.settleWithin", "activities.sourcesEvery", "activities.tellAgainEvery", "activities.tellEvery", "activities.watchEach", "activities.watchSeldom",
		"activities.watchSoon", "cmd/internal/process.lookEvery", "streaming/pipeline.askAgain", "streaming/pipeline.askAtLeast",
		"streaming/pipeline.askEvery", "streaming/pipeline.awaitBootsEvery", "streaming/pipeline.checkpointShort", "streaming/pipeline.fenceEvery",
		"streaming/pipeline.firstLook", "streaming/pipeline.idleEvery", "streaming/pipeline.pollChunks", "streaming/pipeline.renewEvery",
		"streaming/pipeline.syncEvery", "streaming/pipeline.syncEveryBusy", "streaming/pipeline.trimEvery", "streaming/pipeline.verifyEvery",
		"streaming/source/postgres.aliveInterval", "streaming/source/postgres.askInterval", "streaming/source/postgres.confirmPause",
		"streaming/source/postgres.pingInterval", "streaming/source/postgres.tickInterval", "streaming/stream.readHeartbeat",
		"streaming/stream.spaceLooked", "streaming/stream.spaceTold", "workers.healthEvery", "workers.orphansEvery",
	},
	"pauses before something is tried again": {
		"streaming/pipeline.checkpointRetry", "streaming/source/postgres.dropPause", "streaming/source/postgres.firstRetry",
		"streaming/source/postgres.settlePause", "streaming/source/postgres.visiblePause", "streaming/stream.firstRetry",
		"streaming/stream.lastRetry", "workers.attributesAgain", "workflows.lostPause",
	},
	"how long something is kept, or counts": {
		"activities.provenAfter", "cmd/internal/devserver.retention", "streaming/pipeline.busyWithin",
		"streaming/source/postgres.catalogAge", "streaming/source/postgres.steadyAfter",
		"streaming/source/postgres.clockSlack", "streaming/source/postgres.gatherFor", "streaming/source/postgres.gatherWait", "streaming/stream.markerTTL", "workflows.healthyFor",
	},
	"in rows of the page by another name": {
		"activities.stalledAfter", "workers.stopMargin", "workflows.defaultDrain",
	},
	"no bound: loops last for ever": {"workflows.year"},
}

// requireAllDocumented fails for a constant or variable of the product that is a time, on neither the page nor the list.
func requireAllDocumented(t *testing.T, documented map[string]bool) {
	t.Helper()
	found := make(map[string]bool)
	for _, top := range []string{"activities", "workers", "workflows", "streaming", "cmd"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top), func(path string, entry fs.DirEntry, err error) error {
			if err != nil || !entry.IsDir() {
				return err
			}
			if base := entry.Name(); base == "testdata" || base == "internal" && strings.Contains(path, "query") ||
				strings.HasSuffix(base, "test") || slices.Contains([]string{"e2e", "chaos", "demo", "docs"}, base) {
				return fs.SkipDir // helpers of tests, and what knows time as a value
			}
			dir, err := filepath.Rel(root, path)
			for _, name := range timesOf(t, path) {
				found[filepath.ToSlash(dir)+"."+name] = true
			}
			return err
		}))
	}
	listed := make(map[string]bool)
	for kind, names := range notTimeouts {
		for _, name := range names {
			require.True(t, found[name], "%s is among %q and does not exist", name, kind)
			require.False(t, documented[name], "%s is among %q and on the page", name, kind)
			listed[name] = true
		}
	}
	for name := range found {
		assert.True(t, documented[name] || listed[name], "%s is neither in timeouts.md nor among notTimeouts", name)
	}
}

// timesOf returns the names of the constants and variables of a package that are made of units of time.
func timesOf(t *testing.T, dir string) (names []string) {
	t.Helper()
	for _, file := range parse(t, dir) {
		for _, declared := range file.Decls {
			group, ok := declared.(*ast.GenDecl)
			if !ok || group.Tok != token.CONST && group.Tok != token.VAR {
				continue
			}
			for _, spec := range group.Specs {
				value := spec.(*ast.ValueSpec)
				for i := range min(len(value.Names), len(value.Values)) {
					if isTime(value.Values[i]) {
						names = append(names, value.Names[i].Name)
					}
				}
			}
		}
	}
	return names
}

// isTime reports whether an expression is a unit of time, or one multiplied.
func isTime(e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BinaryExpr:
		return isTime(e.X) || isTime(e.Y)
	case *ast.SelectorExpr:
		pkg, ok := e.X.(*ast.Ident)
		return ok && pkg.Name == "time" && slices.Contains([]string{"Microsecond", "Millisecond", "Second", "Minute", "Hour"}, e.Sel.Name)
	}
	return false
}
