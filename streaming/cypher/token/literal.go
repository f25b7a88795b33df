package token

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// number scans the longest run that could be a number and then says whether it is written like one. Whether it is too
// large only the parser knows, which sees the sign.
func (l *lexer) number() Token {
	start, class, ok := l.at, Integer, true
	switch rest := l.text[l.at:]; {
	case strings.HasPrefix(rest, "0x"), strings.HasPrefix(rest, "0X"):
		l.at += 2
		ok = l.digits("0123456789abcdefABCDEF")
	case strings.HasPrefix(rest, "0o"), strings.HasPrefix(rest, "0O"):
		l.at += 2
		ok = l.digits("01234567")
	default:
		l.digits(decimal)
		if l.at+1 < len(l.text) && l.text[l.at] == '.' && isDigit(l.text[l.at+1]) {
			class = Float
			l.at++
			l.digits(decimal)
		}
		if l.at < len(l.text) && (l.text[l.at] == 'e' || l.text[l.at] == 'E') {
			class = Float
			l.at++
			if l.at < len(l.text) && (l.text[l.at] == '-' || l.text[l.at] == '+') {
				l.at++
			}
			ok = l.digits(decimal)
		}
	}
	ok = l.identifier() == "" && ok // letters and digits that do not belong here
	text := l.text[start:l.at]
	switch {
	case !ok:
		l.errs.Report(InvalidNumberLiteral, Range{start, l.at}, "invalid number %q", Shorten(text))
	case class == Integer && len(text) > 1 && text[0] == '0' && isDigit(text[1]):
		l.errs.Report(InvalidNumberLiteral, Range{start, l.at}, "invalid number %q: octal numbers start with 0o", Shorten(text))
	default:
		return Token{Class: class, Text: text}
	}
	return Token{Class: Integer, Text: "0"} // so that the parser has nothing to add
}

const decimal = "0123456789"

// digits takes all digits and reports whether there are any.
func (l *lexer) digits(allowed string) bool {
	start := l.at
	for l.at < len(l.text) && strings.IndexByte(allowed, l.text[l.at]) >= 0 {
		l.at++
	}
	return l.at > start
}

func (l *lexer) quoted(quote byte) Token {
	special := `\'`
	if quote == '"' {
		special = `\"`
	}
	start := l.at
	l.at++
	var s strings.Builder
	for {
		i := strings.IndexAny(l.text[l.at:], special)
		if i < 0 {
			l.at = start
			return l.invalid(UnexpectedSyntax, len(l.text)-start, 1, "this string has no closing quote")
		}
		plain := l.text[l.at : l.at+i]
		l.at += i
		if l.text[l.at] == quote {
			l.at++
			if s.Len() == 0 { // the text itself will do
				return Token{Class: String, Text: plain}
			}
			s.WriteString(plain)
			return Token{Class: String, Text: s.String()}
		}
		s.WriteString(plain)
		l.escape(&s)
	}
}

func (l *lexer) escape(s *strings.Builder) {
	start := l.at
	r, size := utf8.DecodeRuneInString(l.text[l.at+1:])
	l.at += 1 + size
	switch r {
	case '\\', '\'', '"', '`':
		s.WriteRune(r)
	case 'b':
		s.WriteByte('\b')
	case 'f':
		s.WriteByte('\f')
	case 'n':
		s.WriteByte('\n')
	case 'r':
		s.WriteByte('\r')
	case 't':
		s.WriteByte('\t')
	case 'u':
		l.unicode(s, start, 4)
	case 'U':
		l.unicode(s, start, 8)
	default: // at the end of the text the missing quote is reported
		if size > 0 {
			l.errs.Report(UnexpectedSyntax, Range{start, l.at}, `unknown escape \%c`, r)
		}
	}
}

// unicode reads the digits of \u and \U; two halves of a surrogate pair are one character.
func (l *lexer) unicode(s *strings.Builder, start, digits int) {
	r, ok := l.hexadecimal(digits)
	if ok && utf16.IsSurrogate(r) && strings.HasPrefix(l.text[l.at:], `\u`) {
		l.at += 2
		var low rune
		low, ok = l.hexadecimal(4)
		r = utf16.DecodeRune(r, low)
		ok = ok && r != utf8.RuneError
	}
	if !ok || !utf8.ValidRune(r) {
		l.errs.Report(InvalidUnicodeLiteral, Range{start, l.at}, "%s needs %d hexadecimal digits of a Unicode character",
			l.text[start:start+2], digits)
		return
	}
	s.WriteRune(r)
}

func (l *lexer) hexadecimal(digits int) (rune, bool) {
	if l.at+digits > len(l.text) {
		return 0, false
	}
	code, err := strconv.ParseUint(l.text[l.at:l.at+digits], 16, 31)
	if err != nil {
		return 0, false
	}
	l.at += digits
	return rune(code), true
}
