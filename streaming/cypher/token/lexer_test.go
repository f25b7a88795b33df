package token_test

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/perdure/perdure/streaming/cypher/token"
)

func TestScan(t *testing.T) {
	for text, want := range map[string][]token.Token{
		"a.b":  {{Class: token.Identifier, Text: "a"}, {Class: token.Symbol, Text: "."}, {Class: token.Identifier, Text: "b"}},
		"1..3": {{Class: token.Integer, Text: "1"}, {Class: token.Symbol, Text: ".."}, {Class: token.Integer, Text: "3"}},
		"1.5.x .5e-3 7E2": {
			{Class: token.Float, Text: "1.5"}, {Class: token.Symbol, Text: "."}, {Class: token.Identifier, Text: "x"},
			{Class: token.Float, Text: ".5e-3"}, {Class: token.Float, Text: "7E2"},
		},
		"0x1F 0o17 0":            {{Class: token.Integer, Text: "0x1F"}, {Class: token.Integer, Text: "0o17"}, {Class: token.Integer, Text: "0"}},
		`'a"\'\n' "b'\"\\"`:      {{Class: token.String, Text: "a\"'\n"}, {Class: token.String, Text: `b'"\`}},
		`'\u00e9\U0001F600'`:     {{Class: token.String, Text: "é😀"}},
		`'\uD83D\uDE00'`:         {{Class: token.String, Text: "😀"}},
		"`a``b` `` $`c d` $1 $x": {{Class: token.QuotedIdentifier, Text: "a`b"}, {Class: token.QuotedIdentifier}, {Class: token.Parameter, Text: "c d"}, {Class: token.Parameter, Text: "1"}, {Class: token.Parameter, Text: "x"}},
		"ärger /* x */ _1 // y":  {{Class: token.Identifier, Text: "ärger"}, {Class: token.Identifier, Text: "_1"}},
		"<-[]->":                 {{Class: token.Symbol, Text: "<"}, {Class: token.Symbol, Text: "-"}, {Class: token.Symbol, Text: "["}, {Class: token.Symbol, Text: "]"}, {Class: token.Symbol, Text: "-"}, {Class: token.Symbol, Text: ">"}},
		"<=<>=~>=":               {{Class: token.Symbol, Text: "<="}, {Class: token.Symbol, Text: "<>"}, {Class: token.Symbol, Text: "=~"}, {Class: token.Symbol, Text: ">="}},
	} {
		errs := &token.Errors{Text: text}
		tokens := token.Scan(text, errs)
		require.NoError(t, errs.Err(), text)
		require.Equal(t, token.EOF, tokens[len(tokens)-1].Class)
		tokens = tokens[:len(tokens)-1]
		for i := range tokens {
			tokens[i].Range = token.Range{}
		}
		require.Equal(t, want, tokens, text)
	}
}

func TestScanErrors(t *testing.T) {
	for text, want := range map[string]token.Error{
		"0x":           {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 0, To: 2}},
		"0b1":          {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 0, To: 3}},
		"0o8":          {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 0, To: 3}},
		"1e":           {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 0, To: 2}},
		"1_0":          {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 0, To: 3}},
		" 017":         {Kind: token.InvalidNumberLiteral, Range: token.Range{From: 1, To: 4}},
		"a — b":        {Kind: token.InvalidUnicodeCharacter, Range: token.Range{From: 2, To: 5}},
		"a # b":        {Kind: token.UnexpectedSyntax, Range: token.Range{From: 2, To: 3}},
		`'\u12'`:       {Kind: token.InvalidUnicodeLiteral, Range: token.Range{From: 1, To: 3}},
		`'\uD83D'`:     {Kind: token.InvalidUnicodeLiteral, Range: token.Range{From: 1, To: 7}},
		`'\U00110000'`: {Kind: token.InvalidUnicodeLiteral, Range: token.Range{From: 1, To: 11}},
		`'\q'`:         {Kind: token.UnexpectedSyntax, Range: token.Range{From: 1, To: 3}},
		"x 'abc":       {Kind: token.UnexpectedSyntax, Range: token.Range{From: 2, To: 3}},
		`x "abc\`:      {Kind: token.UnexpectedSyntax, Range: token.Range{From: 2, To: 3}},
		"`abc``":       {Kind: token.UnexpectedSyntax, Range: token.Range{From: 0, To: 1}},
		"x /* y":       {Kind: token.UnexpectedSyntax, Range: token.Range{From: 2, To: 4}},
		"$ x":          {Kind: token.UnexpectedSyntax, Range: token.Range{From: 0, To: 1}},
	} {
		errs := &token.Errors{Text: text}
		token.Scan(text, errs)
		require.Len(t, errs.List, 1, text)
		require.NotEmpty(t, errs.List[0].Message)
		errs.List[0].Message = ""
		require.Equal(t, want, errs.List[0], text)
	}
}

// FuzzScan feeds any text to the lexer: the tokens follow each other within the text, and nothing but space and comments
// is between them when there is no error.
func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"MATCH (n:A|B {x: 1})-[r:T*1..3]->(m) WHERE n.a <= .5e1 RETURN 'a\\'b\\u00e9', \"x\", 0x1F, `a``b`, $p, $`q` // end",
		"/* a */ 'open", "0o18 1e 01 1.", "\\ # — `open", "'\\uD83D\\uDE00\\U0001F600\\uD83D'",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			return
		}
		errs := &token.Errors{Text: text}
		tokens := token.Scan(text, errs)
		at := 0
		for i, tok := range tokens {
			require.LessOrEqual(t, at, tok.Range.From)
			require.Equal(t, i == len(tokens)-1, tok.Class == token.EOF)
			if tok.Class != token.EOF {
				require.Less(t, tok.Range.From, tok.Range.To)
			}
			if tok.Class == token.Invalid {
				require.NotEmpty(t, errs.List)
			}
			at = tok.Range.To
		}
		require.Equal(t, len(text), at)
	})
}
