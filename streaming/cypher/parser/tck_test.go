package parser_test

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// ours are the kinds of compile-time errors that the parser finds, in all their forms; the others need to know what
// variables and functions are.
var ours = []token.Kind{
	token.UnexpectedSyntax, token.InvalidClauseComposition, token.InvalidNumberLiteral, token.IntegerOverflow,
	token.InvalidUnicodeCharacter, token.InvalidUnicodeLiteral, token.InvalidParameterUse,
	token.InvalidRelationshipPattern, token.FloatingPointOverflow,
}

// TestTCK parses every query of the openCypher TCK: what only reads is parsed and printed back, what writes is refused as
// that, and what is wrong in a way that the parser sees is refused with the kind that the TCK names.
func TestTCK(t *testing.T) {
	queries := tckQueries(t)
	var parsed, refused, wrong int
	for _, q := range queries {
		tree, err := parser.Parse(q.text)
		kinds := kindsOf(t, err)
		switch {
		case slices.Contains(kinds, token.Unsupported):
			require.Regexp(t, `(?i)\b(CREATE|MERGE|SET|DELETE|REMOVE|FOREACH|CALL)\b`, q.text, q.where)
			refused++
		case slices.Contains(ours, q.want):
			require.Contains(t, kinds, q.want, "%s:\n%s", q.where, q.text)
			require.Len(t, kinds, 1, "%s:\n%v", q.where, err)
			wrong++
		default:
			require.NoError(t, err, "%s:\n%s", q.where, q.text)
			requireStable(t, tree)
			requireTexts(t, tree)
			parsed++
		}
	}
	t.Logf("%d queries of the TCK: %d parsed, %d refused because they write, %d refused as wrong", len(queries), parsed, refused, wrong)
	require.Greater(t, parsed, 1000)
	require.Greater(t, wrong, 20)
}

func kindsOf(t testing.TB, err error) (kinds []token.Kind) {
	var errs *token.Errors
	if !errors.As(err, &errs) {
		require.NoError(t, err)
		return nil
	}
	for _, e := range errs.List {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// requireTexts compares the text of each column with what is printed when it is parsed again.
func requireTexts(t *testing.T, q *ast.Query) {
	for _, part := range q.Parts {
		for _, c := range part.Clauses {
			if r, ok := c.(*ast.Return); ok {
				for _, item := range r.Items {
					e, err := parser.ParseExpr(item.Text)
					require.NoError(t, err, item.Text)
					require.Equal(t, ast.FormatExpr(item.Expr), ast.FormatExpr(e))
				}
			}
		}
	}
}

type tckQuery struct {
	where string
	text  string
	want  token.Kind // of the error at compile time; empty when there is none
}

// tckQueries returns the queries of all scenarios, those of outlines once for each of their examples.
func tckQueries(t testing.TB) (queries []tckQuery) {
	dir := os.Getenv("TCK")
	if dir == "" {
		dir = "../../../../shared/tck"
	}
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("the openCypher TCK is not there, neither as $TCK nor at ../shared/tck beside the repository: %v", err)
	}
	err := filepath.WalkDir(dir, func(path string, entry os.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".feature") {
			queries = append(queries, featureQueries(t, path)...)
		}
		return err
	})
	require.NoError(t, err)
	return queries
}

var raised = regexp.MustCompile(`should be raised at (?:compile|any) time: (\w+)`)

func featureQueries(t testing.TB, path string) (queries []tckQuery) {
	file, err := os.Open(path)
	require.NoError(t, err)
	defer file.Close()
	var scenario []tckQuery // of the scenario that is being read
	var header []string     // of its examples, nil before
	var where string
	var outline, isQuery, inside bool
	var text strings.Builder
	finish := func() {
		if !outline { // the queries of an outline's examples are there already
			queries = append(queries, scenario...)
		}
	}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := strings.TrimSpace(lines.Text())
		match := raised.FindStringSubmatch(line)
		switch {
		case line == `"""`:
			if inside && isQuery {
				scenario = append(scenario, tckQuery{where: where, text: text.String()})
			}
			inside = !inside
			text.Reset()
		case inside:
			text.WriteString(lines.Text() + "\n")
		case strings.HasPrefix(line, "#"):
		case strings.HasPrefix(line, "Scenario"):
			finish()
			scenario, header, where = nil, nil, filepath.Base(path)+": "+line
			outline = strings.HasPrefix(line, "Scenario Outline")
		case strings.HasPrefix(line, "Examples:"):
			header = []string{}
		case header != nil && strings.HasPrefix(line, "|"):
			cells := strings.Split(strings.ReplaceAll(line, `\|`, "\x00"), "|")
			for i := range cells {
				cells[i] = strings.ReplaceAll(strings.TrimSpace(cells[i]), "\x00", "|")
			}
			if len(header) == 0 {
				header = cells
				continue
			}
			for _, q := range scenario {
				for i, name := range header[1 : len(header)-1] {
					q.text = strings.ReplaceAll(q.text, "<"+name+">", cells[i+1])
				}
				queries = append(queries, q)
			}
		case strings.HasPrefix(line, "When executing"):
			isQuery = true
		case strings.HasPrefix(line, "And having executed"):
			isQuery = false
		case match != nil && len(scenario) > 0:
			scenario[len(scenario)-1].want = token.Kind(match[1])
		}
	}
	finish()
	return queries
}
