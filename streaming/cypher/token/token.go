// Package token is what the text of a query consists of, where in the text, and what can be wrong with it.
package token

// Class says what a token is.
type Class uint8

// The classes of tokens. Keywords are identifiers: which ones are keywords depends on where they stand.
const (
	EOF Class = iota
	Identifier
	QuotedIdentifier // `name`; Text is the name
	Integer
	Float
	String    // Text is the content
	Parameter // $name; Text is the name
	Symbol    // an operator or a bracket
	Invalid   // what could not be read: reported already, at the same place
)

// Token is a piece of text with its meaning.
type Token struct {
	Class Class
	Text  string
	Range Range
}

// Range is a part of the query's text, in bytes; To is exclusive.
type Range struct{ From, To int }

// Through returns the range from the start of r to the end of s.
func (r Range) Through(s Range) Range { return Range{r.From, s.To} }
