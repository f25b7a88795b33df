package token

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// symbols are all operators and brackets, longer ones before their prefixes.
var symbols = [...]string{
	"<>", "<=", ">=", "=~", "..", "+=", "||", "!=",
	"(", ")", "[", "]", "{", "}", ",", ".", ":", ";", "|", "+", "-", "*", "/", "%", "^", "=", "<", ">", "&", "!", "$", "?",
}

// Scan divides text into tokens, the last of which is EOF. What it cannot read it notes in errs and skips.
func Scan(text string, errs *Errors) []Token {
	l := lexer{text: text, errs: errs}
	tokens := make([]Token, 0, len(text)/4+1)
	for {
		t := l.next()
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

func (l *lexer) next() Token {
	for {
		l.skipSpace()
		if l.at == len(l.text) {
			return Token{EOF, "", Range{l.at, l.at}}
		}
		start := l.at
		t, ok := l.scan()
		t.Range = Range{start, l.at}
		if ok {
			return t
		}
	}
}

func (l *lexer) scan() (t Token, ok bool) {
	c := l.text[l.at]
	r, size := utf8.DecodeRuneInString(l.text[l.at:])
	switch {
	case c == '\'' || c == '"':
		return l.quoted(c)
	case c == '`':
		return l.quotedIdentifier()
	case isDigit(c) || c == '.' && l.at+1 < len(l.text) && isDigit(l.text[l.at+1]):
		return l.number()
	case startsIdentifier(r):
		return Token{Class: Identifier, Text: l.identifier()}, true
	case c == '$':
		return l.parameter()
	}
	for _, s := range symbols {
		if strings.HasPrefix(l.text[l.at:], s) {
			l.at += len(s)
			return Token{Class: Symbol, Text: s}, true
		}
	}
	l.at += size
	l.errs.Add(Range{l.at - size, l.at}, "unexpected character %q", l.text[l.at-size:l.at])
	return Token{}, false
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
			if i := strings.Index(rest[2:], "*/"); i >= 0 {
				l.at += i + 4
			} else {
				l.errs.Add(Range{l.at, l.at + 2}, "this comment has no end")
				l.at = len(l.text)
			}
		default:
			return
		}
	}
}

func startsIdentifier(r rune) bool { return r == '_' || unicode.IsLetter(r) }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func (l *lexer) identifier() string {
	start := l.at
	for l.at < len(l.text) {
		r, size := utf8.DecodeRuneInString(l.text[l.at:])
		if !startsIdentifier(r) && !unicode.IsDigit(r) && !unicode.Is(unicode.Mn, r) {
			break
		}
		l.at += size
	}
	return l.text[start:l.at]
}

func (l *lexer) parameter() (Token, bool) {
	l.at++
	if l.at < len(l.text) && l.text[l.at] == '`' {
		t, ok := l.quotedIdentifier()
		t.Class = Parameter
		return t, ok
	}
	name := l.identifier() // may start with a digit: $0
	if name == "" {
		l.errs.Add(Range{l.at - 1, l.at}, "a parameter needs a name: $name")
	}
	return Token{Class: Parameter, Text: name}, name != ""
}

func (l *lexer) quotedIdentifier() (Token, bool) {
	start := l.at
	var name strings.Builder
	for l.at++; l.at < len(l.text); l.at++ {
		if l.text[l.at] != '`' {
			name.WriteByte(l.text[l.at])
			continue
		}
		if l.at++; l.at == len(l.text) || l.text[l.at] != '`' {
			if name.Len() == 0 {
				l.errs.Add(Range{start, l.at}, "a name cannot be empty")
			}
			return Token{Class: QuotedIdentifier, Text: name.String()}, true
		}
		name.WriteByte('`')
	}
	l.errs.Add(Range{start, start + 1}, "this name has no closing backtick")
	return Token{Class: QuotedIdentifier}, true
}

// number scans the longest run that could be a number and then says whether it is one.
func (l *lexer) number() (Token, bool) {
	start, class := l.at, Integer
	if strings.HasPrefix(l.text[l.at:], "0x") || strings.HasPrefix(l.text[l.at:], "0X") || strings.HasPrefix(l.text[l.at:], "0o") {
		l.at += 2
		l.identifier()
		return l.checked(start, Integer)
	}
	l.digits()
	if l.at+1 < len(l.text) && l.text[l.at] == '.' && isDigit(l.text[l.at+1]) {
		class = Float
		l.at++
		l.digits()
	}
	if l.at < len(l.text) && (l.text[l.at]|0x20) == 'e' {
		class = Float
		l.at++
		if l.at < len(l.text) && (l.text[l.at] == '-' || l.text[l.at] == '+') {
			l.at++
		}
		l.digits()
	}
	l.identifier() // letters that do not belong here
	return l.checked(start, class)
}

func (l *lexer) digits() {
	for l.at < len(l.text) && isDigit(l.text[l.at]) {
		l.at++
	}
}

func (l *lexer) checked(start int, class Class) (Token, bool) {
	text := l.text[start:l.at]
	var err error
	switch {
	case strings.Contains(text, "_"):
		err = strconv.ErrSyntax
	case class == Float:
		_, err = strconv.ParseFloat(text, 64)
	case len(text) > 1 && text[0] == '0' && isDigit(text[1]):
		l.errs.Add(Range{start, l.at}, "invalid number %q: octal numbers start with 0o", text)
	default:
		_, err = strconv.ParseUint(text, 0, 64)
	}
	switch {
	case err == nil:
	case strings.Contains(err.Error(), strconv.ErrRange.Error()):
		l.errs.Add(Range{start, l.at}, "the number %s is too large", text)
	default:
		l.errs.Add(Range{start, l.at}, "invalid number %q", text)
	}
	return Token{Class: class, Text: text}, true
}

var escapes = map[byte]rune{'\\': '\\', '\'': '\'', '"': '"', '`': '`', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (l *lexer) quoted(quote byte) (Token, bool) {
	start := l.at
	var s strings.Builder
	for l.at++; l.at < len(l.text); {
		switch c := l.text[l.at]; c {
		case quote:
			l.at++
			return Token{Class: String, Text: s.String()}, true
		case '\\':
			l.escape(&s)
		default:
			s.WriteByte(c)
			l.at++
		}
	}
	l.errs.Add(Range{start, start + 1}, "this string has no closing quote")
	return Token{Class: String}, true // so that the parser has nothing to add
}

func (l *lexer) escape(s *strings.Builder) {
	start := l.at
	l.at++
	if l.at == len(l.text) {
		return // the missing quote is reported
	}
	c := l.text[l.at]
	l.at++
	digits := map[byte]int{'u': 4, 'U': 8}[c]
	switch {
	case digits > 0:
		if end := l.at + digits; end <= len(l.text) {
			if code, err := strconv.ParseUint(l.text[l.at:end], 16, 32); err == nil && utf8.ValidRune(rune(code)) {
				s.WriteRune(rune(code))
				l.at = end
				return
			}
		}
		l.errs.Add(Range{start, l.at}, `\%c needs %d hexadecimal digits of a Unicode character`, c, digits)
	case escapes[c] != 0:
		s.WriteRune(escapes[c])
	default:
		l.errs.Add(Range{start, l.at}, `unknown escape \%c`, c)
	}
}
