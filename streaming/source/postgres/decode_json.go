package postgres

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/perdure/perdure/streaming/graph"
)

// decodeJSON makes maps, lists and scalars. Whole numbers that fit are integers, all others exact decimals, written
// with or without an exponent, and strings where the exponent is beyond those; null is null; of a key that occurs
// twice the last value counts, as in jsonb.
func decodeJSON(d *decoder, src []byte) (graph.Value, error) {
	if d.rawText && !utf8.Valid(src) {
		return graph.Null, errNotUTF8
	}
	p := jsonParser{decoder: d, src: src}
	const usual = 64 << 10 // what a long list needed is not kept
	if cap(d.jsonItems) > usual {
		d.jsonItems, d.jsonKeys = nil, nil
	}
	v, err := p.value(0)
	if err != nil {
		return graph.Null, fmt.Errorf("parsing json: %w", err)
	}
	if p.space(); p.at != len(src) {
		return graph.Null, errors.New("parsing json: text after the value")
	}
	return v, nil
}

func decodeJSONB(d *decoder, src []byte) (graph.Value, error) {
	if len(src) == 0 || src[0] != 1 {
		return graph.Null, errors.New("parsing jsonb: unknown version")
	}
	return decodeJSON(d, src[1:])
}

const maxJSONDepth = 10_000 // far beyond what the server's stack takes

var errJSON = errors.New("not valid")

// jsonParser parses what the server has validated, straight into values.
type jsonParser struct {
	*decoder
	src []byte
	at  int
}

func (p *jsonParser) space() {
	for p.at < len(p.src) {
		switch p.src[p.at] {
		case ' ', '\t', '\n', '\r':
			p.at++
		default:
			return
		}
	}
}

// next returns the next byte that is not blank, without taking it; 0 at the end.
func (p *jsonParser) next() byte {
	p.space()
	if p.at == len(p.src) {
		return 0
	}
	return p.src[p.at]
}

func (p *jsonParser) value(depth int) (graph.Value, error) {
	if depth > maxJSONDepth {
		return graph.Null, errors.New("nested too deeply")
	}
	switch c := p.next(); {
	case c == '{':
		return p.object(depth)
	case c == '[':
		return p.list(depth)
	case c == '"':
		s, err := p.string()
		return graph.String(s), err
	case c == 't':
		return graph.Bool(true), p.word("true")
	case c == 'f':
		return graph.Bool(false), p.word("false")
	case c == 'n':
		return graph.Null, p.word("null")
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	return graph.Null, errJSON
}

func (p *jsonParser) word(w string) error {
	if len(p.src)-p.at < len(w) || string(p.src[p.at:p.at+len(w)]) != w {
		return errJSON
	}
	p.at += len(w)
	return nil
}

func (p *jsonParser) number() (graph.Value, error) {
	begin, whole := p.at, true
	for ; p.at < len(p.src); p.at++ {
		switch c := p.src[p.at]; {
		case c >= '0' && c <= '9', c == '-' && p.at == begin:
		case c == '.' || c == 'e' || c == 'E' || c == '+' || c == '-':
			whole = false
		default:
			return p.numberOf(p.src[begin:p.at], whole)
		}
	}
	return p.numberOf(p.src[begin:], whole)
}

func (p *jsonParser) numberOf(text []byte, whole bool) (graph.Value, error) {
	if whole {
		if n, err := strconv.ParseInt(sealed(text), 10, 64); err == nil {
			return graph.Int(n), nil
		}
	}
	number := p.newDecimal()
	if _, _, err := number.SetString(string(text)); err != nil {
		return graph.String(p.text(text)), nil
	}
	return graph.Decimal(number), nil
}

// Items and names of what is being parsed stand on top of those of what it is in, so that they need no memory of their own
// until they are complete.

func (p *jsonParser) list(depth int) (graph.Value, error) {
	p.at++
	if p.next() == ']' {
		p.at++
		return graph.List(nil), nil
	}
	base := len(p.jsonItems)
	defer func() { p.jsonItems = p.jsonItems[:base] }()
	for {
		item, err := p.value(depth + 1)
		if err != nil {
			return graph.Null, err
		}
		p.jsonItems = append(p.jsonItems, item)
		switch p.next() {
		case ',':
			p.at++
		case ']':
			p.at++
			items := p.newValues(len(p.jsonItems) - base)
			copy(items, p.jsonItems[base:])
			return graph.List(items), nil
		default:
			return graph.Null, errJSON
		}
	}
}

func (p *jsonParser) object(depth int) (graph.Value, error) {
	p.at++
	if p.next() == '}' {
		p.at++
		return graph.MapOf(&graph.Map{}), nil
	}
	base, names := len(p.jsonItems), len(p.jsonKeys)
	defer func() { p.jsonItems, p.jsonKeys = p.jsonItems[:base], p.jsonKeys[:names] }()
	for {
		if p.next() != '"' {
			return graph.Null, errJSON
		}
		key, err := p.string()
		if err != nil {
			return graph.Null, err
		}
		if p.next() != ':' {
			return graph.Null, errJSON
		}
		p.at++
		value, err := p.value(depth + 1)
		if err != nil {
			return graph.Null, err
		}
		p.put(base, names, key, value)
		switch p.next() {
		case ',':
			p.at++
		case '}':
			p.at++
			return graph.MapOf(p.newMap(p.jsonKeys[names:], p.jsonItems[base:])), nil
		default:
			return graph.Null, errJSON
		}
	}
}

// put keeps the keys of the object that begins there ascending. Keys often come in order already: then it only appends.
func (p *jsonParser) put(base, names int, key string, value graph.Value) {
	if n := len(p.jsonKeys); n == names || p.jsonKeys[n-1] < key {
		p.jsonKeys, p.jsonItems = append(p.jsonKeys, key), append(p.jsonItems, value)
		return
	}
	i, found := slices.BinarySearch(p.jsonKeys[names:], key)
	if found {
		p.jsonItems[base+i] = value
		return
	}
	p.jsonKeys, p.jsonItems = slices.Insert(p.jsonKeys, names+i, key), slices.Insert(p.jsonItems, base+i, value)
}

func (p *jsonParser) string() (string, error) {
	p.at++
	begin := p.at
	for ; p.at < len(p.src); p.at++ {
		switch p.src[p.at] {
		case '"':
			p.at++
			return p.text(p.src[begin : p.at-1]), nil
		case '\\':
			return p.escaped(begin)
		}
	}
	return "", errJSON
}

var escapes = map[byte]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

// escaped goes on with a string in which a backslash occurs at p.at.
func (p *jsonParser) escaped(begin int) (string, error) {
	b := append([]byte(nil), p.src[begin:p.at]...)
	for p.at < len(p.src) {
		c := p.src[p.at]
		p.at++
		switch {
		case c == '"':
			return p.text(b), nil
		case c != '\\':
			b = append(b, c)
		case p.at == len(p.src):
			return "", errJSON
		case p.src[p.at] == 'u':
			r, err := p.codePoint()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		default:
			plain, ok := escapes[p.src[p.at]]
			if !ok {
				return "", errJSON
			}
			b = append(b, plain)
			p.at++
		}
	}
	return "", errJSON
}

// codePoint reads u and four hexadecimal digits, twice for a surrogate pair. Half a pair becomes U+FFFD.
func (p *jsonParser) codePoint() (rune, error) {
	r, err := p.unit()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if p.at+1 < len(p.src) && p.src[p.at] == '\\' && p.src[p.at+1] == 'u' {
		before := p.at
		p.at++
		low, err := p.unit()
		if err != nil {
			return 0, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, nil
		}
		p.at = before
	}
	return utf8.RuneError, nil
}

func (p *jsonParser) unit() (rune, error) {
	if len(p.src)-p.at < 5 {
		return 0, errJSON
	}
	n, err := strconv.ParseUint(string(p.src[p.at+1:p.at+5]), 16, 16)
	if err != nil {
		return 0, errJSON
	}
	p.at += 5
	return rune(n), nil
}
