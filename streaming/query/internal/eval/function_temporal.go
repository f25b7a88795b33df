package eval

import (
	"github.com/perdure/perdure/streaming/cypher/ast"
	"github.com/perdure/perdure/streaming/graph"
)

var temporalFunctions = map[string]function{}

// temporalProperty returns a part of a date, time or duration; ok is false for a value of another kind.
func temporalProperty(v graph.Value, name string) (part graph.Value, ok bool, err error) {
	return graph.Null, false, nil
}

// asksForTime reports whether a call of a temporal function with arguments depends on the time that it is.
func asksForTime(c *ast.Call) bool { return false }
