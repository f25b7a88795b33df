package parser_test

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/cypher/parser"
	"github.com/perdure/perdure/streaming/cypher/token"
)

// TestLimits gives queries that are too deep or too large: one clear error each, at once.
func TestLimits(t *testing.T) {
	deep := func(before, inside, after string, n int) string {
		return "MATCH (n) RETURN " + strings.Repeat(before, n) + inside + strings.Repeat(after, n)
	}
	for name, text := range map[string]string{
		"parentheses":         deep("(", "n", ")", 10_000),
		"open parentheses":    deep("(", "n", "", 100_000),
		"lists":               deep("[", "n", "]", 10_000),
		"maps":                deep("{a: ", "n", "}", 10_000),
		"indexes":             deep("n[", "0", "]", 10_000),
		"calls":               deep("f(", "n", ")", 10_000),
		"comprehensions":      deep("[x IN ", "n", "]", 10_000),
		"NOT":                 deep("NOT ", "n", "", 10_000),
		"minus":               deep("- ", "n", "", 10_000),
		"CASE":                deep("CASE ", "n", " WHEN 1 THEN 1 END", 10_000),
		"subqueries":          deep("EXISTS { MATCH (n) WHERE ", "n.x", " }", 10_000),
		"pattern conditions":  deep("exists((n WHERE ", "n.x", ")-->())", 10_000),
		"paths":               "MATCH " + strings.Repeat("(", 10_000) + "n" + strings.Repeat(")", 10_000) + " RETURN n",
		"labels":              "MATCH (n:" + strings.Repeat("(", 10_000) + "A" + strings.Repeat(")", 10_000) + ") RETURN n",
		"negated labels":      "MATCH (n:" + strings.Repeat("!", 10_000) + "A) RETURN n",
		"items":               "RETURN [" + strings.Repeat("1,", 100_000) + "1]",
		"operators":           "RETURN 1" + strings.Repeat("+1", 100_000),
		"properties":          "MATCH (n) RETURN n" + strings.Repeat(".a", 100_000),
		"labels one by one":   "MATCH (n" + strings.Repeat(":A", 100_000) + ") RETURN n",
		"nodes":               "MATCH ()" + strings.Repeat("--()", 100_000) + " RETURN 1",
		"clauses":             strings.Repeat("MATCH(n)", 100_000) + " RETURN 1",
		"parts":               strings.Repeat("RETURN 1 UNION ", 40_000) + " RETURN 1",
		"text":                "RETURN '" + strings.Repeat("x", parser.MaxText) + "'",
		"text that is broken": "RETURN '" + strings.Repeat("(", parser.MaxText),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := parser.Parse(text)
			require.Equal(t, []token.Kind{token.LimitExceeded}, kindsOf(t, err))
			require.Less(t, len(err.Error()), 2000)
			require.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

// TestWithinLimits gives queries that are large but not too large.
func TestWithinLimits(t *testing.T) {
	for name, text := range map[string]string{
		"parentheses": "RETURN " + strings.Repeat("(", parser.MaxDepth) + "1" + strings.Repeat(")", parser.MaxDepth),
		"items":       "RETURN [" + strings.Repeat("1, ", 9_999) + "1]",
		"operators":   "RETURN 1" + strings.Repeat(" + 1", 20_000),
		"OR":          "MATCH (n) WHERE n.x = 1" + strings.Repeat(" OR n.x = 1", 5_000) + " RETURN n",
		"text":        "RETURN '" + strings.Repeat("x", parser.MaxText-100) + "'",
		"comment":     "RETURN 1 /*" + strings.Repeat("(", parser.MaxText-100) + "*/",
		"space":       "RETURN 1" + strings.Repeat(" ", parser.MaxText-100),
	} {
		t.Run(name, func(t *testing.T) {
			q, err := parser.Parse(text)
			require.NoError(t, err)
			again, err := parser.Parse(ast.Format(q))
			require.NoError(t, err)
			require.Equal(t, ast.Format(q), ast.Format(again))
		})
	}
}

// TestBroken gives large texts that no parser should spend long on, whatever is wrong with them: a time that grew with the
// square of their length would show.
func TestBroken(t *testing.T) {
	const size = 1 << 17
	for name, piece := range map[string]string{
		"open parentheses":     "(",
		"open lists":           "[",
		"lists of variables":   "[x IN ",
		"closed":               ")",
		"mismatched":           "([{",
		"half of them":         "(]",
		"nodes":                "(a",
		"patterns":             "(a)-[",
		"arrows":               "(a)-->",
		"patterns in lists":    "[(a)--(b)",
		"subqueries":           "EXISTS {",
		"clauses":              "MATCH ",
		"matches":              "MATCH ( ",
		"columns":              "RETURN +,",
		"words":                "a ",
		"dots":                 "a.",
		"calls":                "a.b(",
		"quotes":               "'",
		"double quotes":        `"`,
		"backticks":            "`a",
		"escapes":              `'\`,
		"comments":             "/*",
		"slashes":              "/",
		"numbers":              "0x",
		"dashes":               "—",
		"wrong UTF-8":          "\xff",
		"zero":                 "\x00",
		"CASE":                 "CASE ",
		"columns with queries": "RETURN COUNT { RETURN",
	} {
		t.Run(name, func(t *testing.T) {
			for _, prefix := range []string{"", "RETURN ", "MATCH (n) WHERE "} {
				start := time.Now()
				_, err := parser.Parse(prefix + strings.Repeat(piece, size/len(piece)))
				require.NotEmpty(t, kindsOf(t, err))
				require.Less(t, len(err.Error()), 100_000)
				require.Less(t, time.Since(start), 5*time.Second)
			}
		})
	}
}

// TestManyErrors tells a bounded number of problems.
func TestManyErrors(t *testing.T) {
	_, err := parser.Parse("RETURN " + strings.Repeat("+, ", 1000) + "1")
	require.Len(t, kindsOf(t, err), 25)
}

// TestNotUTF8 points at the first byte that is no character.
func TestNotUTF8(t *testing.T) {
	_, err := parser.Parse("RETURN 'ü\uFFFD\xff'")
	require.Equal(t, []token.Kind{token.InvalidUnicodeCharacter}, kindsOf(t, err))
	require.Contains(t, err.Error(), "1:11: ")
}
