package eval

import (
	"fmt"

	"github.com/perdure/perdure/streaming/cypher/token"
	"github.com/perdure/perdure/streaming/graph"
)

// Error is an expression that has no value for a row.
type Error struct {
	Kind    token.Kind
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// failed returns an error of a kind.
func failed(kind token.Kind, format string, args ...any) error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

// wrongType says that what wants something else got v.
func wrongType(wants string, v graph.Value) error {
	return failed(token.InvalidArgumentType, "%s, got %s %s", wants, article(v.Kind()), v.Kind())
}

// budget is how much one expression may make of one row: items of lists that it makes or goes through, and pieces of 16
// bytes of strings. Short texts can ask for more than any machine has, such as range(1, 1000000) for each of a million.
const budget = 16 << 20

const pieceBytes = 16

// spend takes n from the budget of the expression at hand.
func (env *Env) spend(n int) error {
	if env.spent += n; env.spent > budget {
		return failed(token.LimitExceeded, "the expression makes more than %d values of one row", budget)
	}
	return nil
}

// made takes a value from the budget that an expression has made of others.
func (env *Env) made(v graph.Value) error {
	switch v.Kind() {
	case graph.KindString:
		return env.spend(len(v.AsString()) / pieceBytes)
	case graph.KindList:
		return env.spend(len(v.AsList()))
	}
	return nil
}
