package eval

import (
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

var stringFunctions = map[string]function{
	"toupper":          onString("toUpper", strings.ToUpper),
	"upper":            onString("upper", strings.ToUpper),
	"tolower":          onString("toLower", strings.ToLower),
	"lower":            onString("lower", strings.ToLower),
	"ltrim":            {least: 1, most: 2, call: trim("lTrim", strings.TrimLeft)},
	"rtrim":            {least: 1, most: 2, call: trim("rTrim", strings.TrimRight)},
	"trim":             {least: 1, most: 2, call: trim("trim", strings.Trim)},
	"btrim":            {least: 1, most: 2, call: trim("btrim", strings.Trim)},
	"left":             {least: 2, most: 2, call: left},
	"right":            {least: 2, most: 2, call: right},
	"substring":        {least: 2, most: 3, call: substring},
	"replace":          {least: 3, most: 3, call: replace},
	"split":            {least: 2, most: 2, call: split},
	"char_length":      {least: 1, most: 1, call: charLength},
	"character_length": {least: 1, most: 1, call: charLength},
}

func onString(name string, f func(string) string) function {
	return function{least: 1, most: 1, call: func(_ *Env, args []graph.Value) (graph.Value, error) {
		if args[0].Kind() != graph.KindString {
			return graph.Null, wrongType(name+" wants a string", args[0])
		}
		return graph.String(f(args[0].AsString())), nil
	}}
}

func allStrings(name string, args []graph.Value) error {
	for _, v := range args {
		if v.Kind() != graph.KindString {
			return wrongType(name+" wants strings", v)
		}
	}
	return nil
}

func trim(name string, f func(s, cutset string) string) func(*Env, []graph.Value) (graph.Value, error) {
	return func(_ *Env, args []graph.Value) (graph.Value, error) {
		if err := allStrings(name, args); err != nil {
			return graph.Null, err
		}
		cutset := whitespace
		if len(args) == 2 {
			cutset = args[1].AsString()
		}
		return graph.String(f(args[0].AsString(), cutset)), nil
	}
}

// whitespace is every rune that trim removes.
var whitespace = func() string {
	var b strings.Builder
	for _, table := range unicode.White_Space.R16 {
		for r := rune(table.Lo); r <= rune(table.Hi); r += rune(table.Stride) {
			b.WriteRune(r)
		}
	}
	return b.String()
}()

// charCount reads how many characters a function is to take.
func charCount(name string, v graph.Value) (int, error) {
	switch {
	case v.Kind() != graph.KindInt:
		return 0, wrongType(name+" wants integers", v)
	case v.AsInt() < 0:
		return 0, failed(token.NumberOutOfRange, "%s does not take a negative number, got %s", name, v)
	}
	return int(min(v.AsInt(), 1<<31-1)), nil
}

// offset returns where the nth character of s begins, or its length.
func offset(s string, n int) int {
	for i := range s {
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

func left(_ *Env, args []graph.Value) (graph.Value, error) {
	if err := allStrings("left", args[:1]); err != nil {
		return graph.Null, err
	}
	n, err := charCount("left", args[1])
	if err != nil {
		return graph.Null, err
	}
	s := args[0].AsString()
	return graph.String(s[:offset(s, n)]), nil
}

func right(_ *Env, args []graph.Value) (graph.Value, error) {
	if err := allStrings("right", args[:1]); err != nil {
		return graph.Null, err
	}
	n, err := charCount("right", args[1])
	if err != nil {
		return graph.Null, err
	}
	s := args[0].AsString()
	return graph.String(s[offset(s, max(utf8.RuneCountInString(s)-n, 0)):]), nil
}

func substring(_ *Env, args []graph.Value) (graph.Value, error) {
	if err := allStrings("substring", args[:1]); err != nil {
		return graph.Null, err
	}
	from, err := charCount("substring", args[1])
	if err != nil {
		return graph.Null, err
	}
	s := args[0].AsString()
	s = s[offset(s, from):]
	if len(args) == 3 {
		n, err := charCount("substring", args[2])
		if err != nil {
			return graph.Null, err
		}
		s = s[:offset(s, n)]
	}
	return graph.String(s), nil
}

func replace(_ *Env, args []graph.Value) (graph.Value, error) {
	if err := allStrings("replace", args); err != nil {
		return graph.Null, err
	}
	s, old, now := args[0].AsString(), args[1].AsString(), args[2].AsString()
	if n := strings.Count(s, old); n > 0 && len(s)+n*(len(now)-len(old)) > maxString {
		return graph.Null, failed(token.InvalidArgumentValue, "replace would make a string of more than %d bytes", maxString)
	}
	return graph.String(strings.ReplaceAll(s, old, now)), nil
}

// maxString is how long a string may be that a function makes, in bytes.
const maxString = 16 << 20

func split(_ *Env, args []graph.Value) (graph.Value, error) {
	s := args[0]
	if s.Kind() != graph.KindString {
		return graph.Null, wrongType("split wants strings", s)
	}
	switch by := args[1]; by.Kind() {
	case graph.KindString:
		return stringList(strings.Split(s.AsString(), by.AsString())), nil
	case graph.KindList: // of separators
		return splitAny(s.AsString(), by.AsList())
	}
	return graph.Null, wrongType("split wants a string or a list of strings to split by", args[1])
}

func splitAny(s string, separators []graph.Value) (graph.Value, error) {
	if err := allStrings("split", separators); err != nil {
		return graph.Null, err
	}
	var quoted []string
	for _, v := range separators {
		quoted = append(quoted, regexp.QuoteMeta(v.AsString()))
	}
	if len(quoted) == 0 {
		return stringList([]string{s}), nil
	}
	return stringList(regexp.MustCompile(strings.Join(quoted, "|")).Split(s, -1)), nil
}

func charLength(env *Env, args []graph.Value) (graph.Value, error) {
	if err := allStrings("char_length", args); err != nil {
		return graph.Null, err
	}
	return size(env, args)
}

// maxRegexps is how many compiled patterns an environment keeps.
const maxRegexps = 64

// matches is =~: the pattern must match the whole string.
func (env *Env) matches(s, pattern graph.Value) (Truth, error) {
	if s.Kind() != graph.KindString || pattern.Kind() != graph.KindString {
		if s.IsNull() || pattern.IsNull() {
			return Unknown, nil
		}
		return Unknown, allStrings("=~", []graph.Value{s, pattern})
	}
	re, ok := env.regexps[pattern.AsString()]
	if !ok {
		var err error
		if re, err = regexp.Compile(`^(?s:(?:` + pattern.AsString() + `))$`); err != nil {
			return Unknown, failed(token.InvalidArgumentValue, "the pattern %s is not a regular expression: %v", pattern, err)
		}
		if env.regexps == nil || len(env.regexps) >= maxRegexps {
			env.regexps = make(map[string]*regexp.Regexp)
		}
		env.regexps[strings.Clone(pattern.AsString())] = re
	}
	return truth(re.MatchString(s.AsString())), nil
}
