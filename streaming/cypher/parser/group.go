package parser

import (
	"github.com/perdure/perdure/streaming/cypher/token"
)

// group is what an opening bracket begins; all tokens that are none have the zero value.
type group struct {
	end   int32 // index of the closing bracket; 0 when there is none
	comma bool  // there is a comma directly within
	bar   bool  // there is a "|" directly within
}

// findGroups returns the group of each token. A closing bracket ends the innermost group of its kind, and those within it
// have no end; without any it ends nothing.
func findGroups(tokens []token.Token) []group {
	groups := make([]group, len(tokens))
	var open []int       // opening brackets that wait for their end
	var waiting [256]int // how many of them are of each kind
	for i := range tokens {
		t := &tokens[i]
		if t.Class != token.Symbol {
			continue
		}
		switch t.Text {
		case "(", "[", "{":
			open = append(open, i)
			waiting[t.Text[0]]++
		case ")", "]", "}":
			opening := openings[t.Text]
			for closed := waiting[opening] == 0; !closed; {
				last := open[len(open)-1]
				open = open[:len(open)-1]
				bracket := tokens[last].Text[0]
				waiting[bracket]--
				if bracket == opening {
					groups[last].end = int32(i)
					closed = true
				}
			}
		case ",":
			if len(open) > 0 {
				groups[open[len(open)-1]].comma = true
			}
		case "|":
			if len(open) > 0 {
				groups[open[len(open)-1]].bar = true
			}
		}
	}
	return groups
}

var openings = map[string]byte{")": '(', "]": '[', "}": '{'}

// skip goes on, after a problem in what began at token start, at the next token for which stop holds. It passes over
// whole groups, so that nothing within brackets, like a subquery, is taken for what comes next.
func (p *parser) skip(start int, stop func(at int) bool) {
	for at := start; ; at++ {
		for p.groups[at].end > 0 {
			at = int(p.groups[at].end) + 1
		}
		if at >= p.at && (p.tokens[at].Class == token.EOF || stop(at)) {
			p.at = at
			return
		}
	}
}

// startsPattern reports whether a node pattern and a relationship pattern begin at a token, in brackets that fit
// together. "(a) - [b] - (c)" is a pattern, too; "(a + 1) - [b] - (c)" is none.
func (p *parser) startsPattern(at int) bool {
	at, ok := p.behindElement(at, "(")
	if !ok {
		return false
	}
	if p.symbolAt(at, "<") {
		at++
	}
	if !p.symbolAt(at, "-") {
		return false
	}
	at++
	if p.symbolAt(at, "[") {
		if at, ok = p.behindElement(at, "["); !ok {
			return false
		}
	}
	if !p.symbolAt(at, "-") {
		return false
	}
	at++
	if p.symbolAt(at, ">") {
		at++
	}
	_, ok = p.behindElement(at, "(")
	return ok
}

// behindElement returns the index behind a group that begins at a token, if it begins like the inside of a node or
// relationship pattern.
func (p *parser) behindElement(at int, bracket string) (behind int, ok bool) {
	if !p.symbolAt(at, bracket) || p.groups[at].end == 0 {
		return 0, false
	}
	end := int(p.groups[at].end)
	at++
	if p.variableAt(at) {
		at++
	}
	t := p.tokens[at]
	switch {
	case at == end, t.Class == token.Parameter, p.wordAt(at, "WHERE"):
		ok = true
	case p.wordAt(at, "IS"):
		ok = !p.wordAt(at+1, "NULL") && !p.wordAt(at+1, "NOT")
	case t.Class == token.Symbol:
		switch t.Text {
		case "{":
			ok = p.symbolAt(at+1, "}") || p.symbolAt(at+2, ":") // otherwise a map projection
		case ":":
			ok = true
		case "*", "..":
			ok = bracket == "["
		}
	}
	return end + 1, ok
}
