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
