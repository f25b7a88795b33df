package token

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// symbols are those of one character.
const symbols = "()[]{},.:;|+-*/%^=<>&!?"

// Scan divides text, which must be valid UTF-8, into tokens, the last of which is EOF. What it cannot read it reports to
// errs; when the parser cannot go on there, the token is Invalid.
func Scan(text string, errs *Errors) []Token {
	l := lexer{text: text, errs: errs}
	tokens := make([]Token, 0, len(text)/4+1)
	for {
		l.skipSpace()
		start := l.at
		t := l.scan()
		t.Range = Range{start, l.at}
		tokens = append(tokens, t)
		if t.Class == EOF {
			return tokens
		}
	}
}

type lexer struct {
	text string
	at   int
	errs *Errors
}

func (l *lexer) scan() Token {
	rest := l.text[l.at:]
	if rest == "" {
		return Token{Class: EOF}
	}
	r, size := utf8.DecodeRuneInString(rest)
	switch c := rest[0]; {
	case c == '\'' || c == '"':
		return l.quoted(c)
	case c == '`':
		return l.quotedIdentifier()
	case isDigit(c) || c == '.' && len(rest) > 1 && isDigit(rest[1]):
		return l.number()
	case startsIdentifier(r):
		return Token{Class: Identifier, Text: l.identifier()}
	case c == '$':
		return l.parameter()
	case strings.HasPrefix(rest, "/*"): // skipSpace has taken all comments that have an end
		return l.invalid(UnexpectedSyntax, len(rest), 2, "this comment has no end")
	case strings.IndexByte(symbols, c) >= 0:
		return l.symbol(rest)
	case c < utf8.RuneSelf:
		return l.invalid(UnexpectedSyntax, 1, 1, "unexpected character %q", r)
	}
	return l.invalid(InvalidUnicodeCharacter, size, size, "unexpected character %q (%U)", r, r)
}

// invalid takes size bytes and reports the first of them.
func (l *lexer) invalid(kind Kind, size, reported int, format string, args ...any) Token {
	start := l.at
	l.at += size
	l.errs.Report(kind, Range{start, start + reported}, format, args...)
	return Token{Class: Invalid, Text: l.text[start:l.at]}
}

// symbol reads an operator or a bracket. Arrows are no symbols, as "a<-1" and "(a)<-[]-(b)" differ only in what surrounds
// them; "!=" and "||" are not openCypher, but the parser knows what is meant.
func (l *lexer) symbol(rest string) Token {
	size := 1
	switch rest[:min(2, len(rest))] {
	case "<>", "<=", ">=", "=~", "..", "||", "!=":
		size = 2
	}
	l.at += size
	return Token{Class: Symbol, Text: rest[:size]}
}

func (l *lexer) skipSpace() {
	for l.at < len(l.text) {
		rest := l.text[l.at:]
		r, size := utf8.DecodeRuneInString(rest)
		switch {
		case unicode.IsSpace(r):
			l.at += size
		case strings.HasPrefix(rest, "//"):
			if i := strings.IndexByte(rest, '\n'); i >= 0 {
				l.at += i + 1
			} else {
				l.at = len(l.text)
			}
		case strings.HasPrefix(rest, "/*"):
			i := strings.Index(rest[2:], "*/")
			if i < 0 {
				return
			}
			l.at += i + 4
		default:
			return
		}
	}
}

func startsIdentifier(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || r == '_' || r >= utf8.RuneSelf && unicode.IsLetter(r)
}

func continuesIdentifier(r rune) bool {
	return startsIdentifier(r) || '0' <= r && r <= '9' || r >= utf8.RuneSelf && unicode.In(r, unicode.Nd, unicode.Mn, unicode.Mc)
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (l *lexer) identifier() string {
	start := l.at
	for l.at < len(l.text) {
		r, size := utf8.DecodeRuneInString(l.text[l.at:])
		if !continuesIdentifier(r) {
			break
		}
		l.at += size
	}
	return l.text[start:l.at]
}

func (l *lexer) parameter() Token {
	if strings.HasPrefix(l.text[l.at+1:], "`") {
		l.at++
		t := l.quotedIdentifier()
		if t.Class == QuotedIdentifier {
			t.Class = Parameter
		}
		return t
	}
	l.at++
	name := l.identifier() // may start with a digit: $0
	if name == "" {
		l.at--
		return l.invalid(UnexpectedSyntax, 1, 1, "a parameter needs a name: $name")
	}
	return Token{Class: Parameter, Text: name}
}

func (l *lexer) quotedIdentifier() Token {
	start := l.at
	for at := start + 1; ; {
		i := strings.IndexByte(l.text[at:], '`')
		if i < 0 {
			return l.invalid(UnexpectedSyntax, len(l.text)-l.at, 1, "this name has no closing backtick")
		}
		at += i + 1
		if strings.HasPrefix(l.text[at:], "`") { // two stand for one
			at++
			continue
		}
		l.at = at
		return Token{Class: QuotedIdentifier, Text: strings.ReplaceAll(l.text[start+1:at-1], "``", "`")}
	}
}
