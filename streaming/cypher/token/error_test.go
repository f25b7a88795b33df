package token_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/token"
)

// TestErrors shows problems in the order of the text, one for each place, with carets below what is meant.
func TestErrors(t *testing.T) {
	errs := &token.Errors{Text: "MATCH (ü)\r\n\tRETURN ü.x\r\n"}
	require.NoError(t, errs.Err())
	errs.Report(token.UnknownFunction, token.Range{From: 20, To: 22}, "second %d", 2)
	errs.Report(token.UndefinedVariable, token.Range{From: 7, To: 9}, "first")
	errs.Report(token.UnexpectedSyntax, token.Range{From: 7, To: 8}, "follows from the first")
	errs.Add(token.Range{From: 26, To: 26}, "at the end")
	require.EqualError(t, errs.Err(), strings.Join([]string{
		"1:8: first", "  MATCH (ü)", "         ^",
		"2:9: second 2", "  \tRETURN ü.x", "  \t       ^",
		"3:1: at the end", "  ", "  ^",
	}, "\n"))
	require.Equal(t, token.InvalidSyntax, errs.List[2].Kind)
	errs.Forget(7)
	errs.Report(token.UnexpectedSyntax, token.Range{From: 7, To: 8}, "better")
	require.ErrorContains(t, errs.Err(), "1:8: better")
}

// TestErrorsLongLine shows only the part of a long line that is around the problem.
func TestErrorsLongLine(t *testing.T) {
	line := strings.Repeat("ü", 1000)
	errs := &token.Errors{Text: line + "here" + line}
	errs.Add(token.Range{From: len(line), To: len(line) + 4}, "problem")
	shown := strings.Split(errs.Error(), "\n")
	require.Equal(t, "1:1001: problem", shown[0])
	require.Less(t, len(shown[1]), 500)
	require.True(t, utf8.ValidString(errs.Error()))
	require.Equal(t, "here", string([]rune(shown[1])[strings.Index(shown[2], "^"):][:4]))
	require.Equal(t, 4, strings.Count(shown[2], "^"))
}

func TestShorten(t *testing.T) {
	require.Equal(t, "short", token.Shorten("short"))
	require.Equal(t, "first…", token.Shorten("first\nsecond"))
	require.Equal(t, "x"+strings.Repeat("é", 19)+"…", token.Shorten("x"+strings.Repeat("é", 50)))
}
